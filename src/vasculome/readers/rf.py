"""Raw ultrasound in, lazily: channel data before beamforming, with probe and sequence."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.readers.files import fingerprint, list_files
from vasculome.readers.frame_series import FrameSeries, describe, open_series
from vasculome.readers.iq import check_finite
from vasculome.readers.iq_arrays import StoredArray
from vasculome.readers.iq_formats import IQ_SUFFIXES, identify
from vasculome.readers.iq_zarr import OpenZarr
from vasculome.readers.sequence import Sequence
from vasculome.readers.sequence_file import read_sequence
from vasculome.readers.uff import CHANNEL_AXES, UffChannels
from vasculome.readers.uff_sequence import find_channel_data, read_uff_sequence

_ORDER = "taes"
_UFF = (".uff",)


@dataclass(frozen=True)
class RawRF:
    """Channel data of an acquisition; it holds no open file and is pickled to workers.

    Attributes
    ----------
    series
        Where the frames are: files, variables, order of axes.
    sequence
        Probe and transmits.
    samples
        Samples of each transmit.
    sequence_file
        The sequence file; None where the data carry their sequence.
    """

    series: FrameSeries
    sequence: Sequence
    samples: int
    sequence_file: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """Files in the order of time."""
        return self.series.files

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, transmits, elements, samples)."""
        sequence = self.sequence
        return self.series.n_frames, sequence.n_transmits, sequence.n_elements, self.samples

    @property
    def resident_bytes(self) -> int:
        """Memory that reads take beyond their result."""
        return self.series.resident_bytes

    @property
    def metadata(self) -> dict[str, tuple[float, ...]]:
        """What the sequence tells, by the names of `iq_metadata.METADATA_NAMES`."""
        return {
            "center_frequency_hz": (self.sequence.center_frequency_hz,),
            "speed_of_sound_m_s": (self.sequence.speed_of_sound_m_s,),
        }

    def read(self, t0: int, t1: int) -> npt.NDArray[Any]:
        """Return frames ``t0`` to ``t1`` - 1, (t, transmits, elements, samples).

        RF is real and of the type that is in the files; baseband data are complex64 and their
        phase is counted from time 0 of each wave.

        Raises
        ------
        UserError
            A file is missing, damaged or has changed, or a value is not finite.
        ValueError
            Frames beyond the acquisition, or none.
        """
        dtype = np.dtype(np.complex64 if self.sequence.is_baseband else self.series.dtype)
        out = np.empty((max(0, t1 - t0), *self.shape[1:]), dtype)
        for place, block, first, (piece,) in self.series.read(t0, t1):
            # MATLAB stores numbers of one class in narrower types where their values allow.
            np.copyto(out[place], self._split_transmits(piece), casting="same_kind")
            if out.dtype.kind not in "iu":
                check_finite(out[place], file=block.file, first=first)
        return out

    def fingerprint(self) -> str:
        """Return the identity of the input: files, sequence, variables and order of axes."""
        detail = "" if self.sequence_file is None else fingerprint([self.sequence_file])
        # Elements may come from a table beside the sequence file.
        detail += repr(self.sequence.elements_um.tolist())
        return self.series.fingerprint(detail=detail)

    def _split_transmits(self, frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return frames (t, transmits, elements, samples), whether or not the files split them."""
        if "a" in self.series.axes:
            return frames
        n_frames, n_elements, _ = frames.shape
        used = frames[..., : self.sequence.n_transmits * self.samples]
        split = used.reshape(n_frames, n_elements, self.sequence.n_transmits, self.samples)
        return split.transpose(0, 2, 1, 3)


def open_rf(
    path: Path,
    *,
    sequence_file: Path | None = None,
    variable: str | None = None,
    open_zarr: OpenZarr | None = None,
) -> RawRF:
    """Return the channel data at ``path`` after checking all headers; values are read later.

    Parameters
    ----------
    path
        MATLAB (.mat, any version from 5 to 7.3), HDF5 (.h5, .hdf5), UFF (.uff), NumPy (.npy, .npz)
        or Zarr (a folder), or a folder of such files numbered without gaps, each a block of
        frames.
    sequence_file
        Probe, sequence and axes, see `vasculome.readers.sequence_file`; None for UFF, which
        carries them.
    variable
        Name of the variable; of all buffers in a cell array of MATLAB, ``"RcvData{:}"``. None
        takes the only array of as many axes.
    open_zarr
        Opens a Zarr array; needed for Zarr only.

    Raises
    ------
    UserError
        Anything in the input that would spoil the result, naming the file and the key.
    """
    uff = _uff_files(path)
    if uff:
        return _open_uff(path, uff, sequence_file=sequence_file, variable=variable)
    if sequence_file is None:
        raise UserError(
            "does not tell probe and sequence of the RF",
            where=path,
            fix="write a sequence file and name it in the column sequence of the sample sheet",
        )
    given = read_sequence(sequence_file)
    series = open_series(
        path,
        axes=given.axes,
        order=_ORDER if "a" in given.axes else "tes",
        suffixes=IQ_SUFFIXES,
        identify=partial(identify, open_zarr=open_zarr),
        choose=partial(_choose, variable=variable, axes=given.axes),
        check=_check_real,
    )
    rows = series.frame_shape[-1]
    samples = given.samples_per_transmit or rows
    _check_shape(series, given.sequence, samples=samples, path=path, where=sequence_file)
    return RawRF(series, given.sequence, samples, sequence_file)


def _open_uff(
    path: Path, files: tuple[Path, ...], *, sequence_file: Path | None, variable: str | None
) -> RawRF:
    if sequence_file is not None:
        raise UserError(
            "is UFF, which carries its own sequence",
            where=path,
            fix="empty the column sequence of the sample sheet",
        )
    name = find_channel_data(files[0], variable)
    sequence = read_uff_sequence(files[0], name)
    series = open_series(
        path,
        axes=CHANNEL_AXES,
        order=_ORDER,
        suffixes=_UFF,
        identify=lambda file: UffChannels(),
        choose=lambda arrays, file: (name,),
        check=lambda arrays, file: None,
    )
    for file in files[1:]:
        _check_same(sequence, read_uff_sequence(file, name), path=file, first=files[0])
    samples = series.frame_shape[-1]
    _check_shape(series, sequence, samples=samples, path=path, where=files[0])
    return RawRF(series, sequence, samples, None)


def _uff_files(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        return (path,) if path.suffix.lower() in _UFF else ()
    if any(p.suffix.lower() in _UFF for p in path.iterdir()):
        return list_files(path, suffixes=_UFF, pattern=None)
    return ()


def _choose(
    arrays: Many[StoredArray], path: Path, *, variable: str | None, axes: str
) -> tuple[str, ...]:
    if variable is not None:
        return (variable.strip(),)
    fitting = [a for a in arrays if len(a.shape) == len(axes) and a.kind == "real"]
    if len(fitting) == 1:
        return (fitting[0].name,)
    what = (
        f"holds several real arrays: {describe(fitting)}"
        if fitting
        else f"holds no real array with the {len(axes)} axes {axes}; it has {describe(arrays)}"
    )
    raise UserError(
        what,
        where=path,
        fix="name the one that is meant as variable in the sample sheet, e.g. RF or RcvData{:}",
    )


def _check_real(chosen: Many[StoredArray], path: Path) -> None:
    for array in chosen:
        if array.kind != "real":
            raise UserError(
                f"{array.name or 'the array'} is {array.kind}; RF must be real",
                where=path,
                fix="save the RF, or beamformed IQ and give format iq",
            )


def _check_shape(
    series: FrameSeries, sequence: Sequence, *, samples: int, path: Path, where: Path
) -> None:
    lengths = dict(zip(series.order[1:], series.frame_shape, strict=True))
    wanted = {"e": sequence.n_elements}
    if "a" in lengths:
        wanted["a"] = sequence.n_transmits
    names = {"e": "elements", "a": "transmits"}
    for axis, n in wanted.items():
        if lengths[axis] != n:
            raise UserError(
                f"has {lengths[axis]} {names[axis]} along axis {axis}, the sequence has {n}",
                where=path,
                fix=f"correct axes or {names[axis]} in {where.name}",
            )
    if "a" not in lengths and lengths["s"] < samples * sequence.n_transmits:
        raise UserError(
            f"has {lengths['s']} samples along axis s, {sequence.n_transmits} transmits of "
            f"{samples} need {samples * sequence.n_transmits}",
            where=path,
            fix=f"correct samples_per_transmit or the transmits in {where.name}",
        )


def _check_same(one: Sequence, two: Sequence, *, path: Path, first: Path) -> None:
    for name in one.__dataclass_fields__:
        if not np.array_equal(getattr(one, name), getattr(two, name)):
            raise UserError(
                f"has another {name} than {first.name}",
                where=path,
                fix="keep blocks of one acquisition in the folder",
            )
