"""Raw ultrasound in, lazily: complex IQ frames from files of many kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.readers.frame_series import FrameSeries, describe, open_series
from vasculome.readers.iq_arrays import StoredArray, is_complex_pair
from vasculome.readers.iq_formats import IQ_SUFFIXES, identify
from vasculome.readers.iq_metadata import Quantity, parse_metadata
from vasculome.readers.iq_zarr import OpenZarr

_AXES_2D, _AXES_3D = "tzx", "tzyx"
_SAVE_PLAIN = "save one array of complex numbers"


@dataclass(frozen=True)
class RawIQ:
    """IQ frames in one file, or in a folder of files with consecutive blocks of frames.

    It holds no open file and is pickled to workers.

    Attributes
    ----------
    series
        Where the frames are: files, variables, order of axes.
    metadata
        Quantities found in the files, by the names of
        `vasculome.readers.iq_metadata.METADATA_NAMES`.
    """

    series: FrameSeries
    metadata: dict[str, Quantity] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files in the order of time."""
        return self.series.files

    @property
    def shape(self) -> tuple[int, ...]:
        """(t, z, x) or (t, z, y, x)."""
        return (self.series.n_frames, *self.series.frame_shape)

    @property
    def resident_bytes(self) -> int:
        """Memory that reads take beyond their result."""
        return self.series.resident_bytes

    def read(self, t0: int, t1: int) -> npt.NDArray[np.complex64]:
        """Return frames ``t0`` to ``t1`` - 1, complex64 (t, z[, y], x).

        Raises
        ------
        UserError
            A file is missing, damaged or has changed, or a value is not finite.
        ValueError
            Frames beyond the acquisition, or none.
        """
        out = np.empty((max(0, t1 - t0), *self.series.frame_shape), np.complex64)
        for place, block, first, pieces in self.series.read(t0, t1):
            _copy_complex(pieces, out[place])
            check_finite(out[place], file=block.file, first=first)
        return out

    def fingerprint(self) -> str:
        """Return the identity of the input: files, variables and order of axes."""
        return self.series.fingerprint()


def open_iq(
    path: Path, *, axes: str, variable: str | None = None, open_zarr: OpenZarr | None = None
) -> RawIQ:
    """Return the IQ frames at ``path`` after checking all headers; values are read later.

    Parameters
    ----------
    path
        MATLAB (.mat, any version from 5 to 7.3), HDF5 (.h5, .hdf5), UFF (.uff, beamformed data),
        NumPy (.npy, .npz) or Zarr (a folder), or a folder of such files numbered without gaps,
        each a block of frames.
    axes
        Order of the axes as MATLAB, NumPy or h5py shows them: the letters t, z, x (and y in
        3-D), e.g. ``"zxt"``. Of UFF it is ``"tzx"``.
    variable
        Name of the complex variable, or of two real ones, ``"I,Q"``; of all buffers in a cell
        array of MATLAB, ``"IQ{:}"``. None takes the only complex array of as many axes.
    open_zarr
        Opens a Zarr array; needed for Zarr only.

    Raises
    ------
    UserError
        Anything in the input that would spoil the result, naming the file.
    """
    if sorted(axes) not in (sorted(_AXES_2D), sorted(_AXES_3D)):
        raise UserError(
            f"axes are {axes!r}",
            where=path,
            fix="give the letters t, z, x (and y in 3-D) in the order of the file, e.g. zxt",
        )
    series = open_series(
        path,
        axes=axes,
        order=_AXES_3D if "y" in axes else _AXES_2D,
        suffixes=IQ_SUFFIXES,
        identify=partial(identify, open_zarr=open_zarr),
        choose=partial(_choose, variable=variable, axes=axes),
        check=_check_arrays,
    )
    places: list[dict[str, Any]] = []
    for block in series.blocks:
        places += series.format.metadata(block.file, block.variables[0])
    return RawIQ(series, parse_metadata(places, where=path))


def _choose(
    arrays: Sequence[StoredArray], path: Path, *, variable: str | None, axes: str
) -> tuple[str, ...]:
    """Return the names of the complex array, or of the arrays of I and Q."""
    if path.suffix.lower() == ".uff" and axes != _AXES_2D:
        raise UserError(
            f"axes are {axes!r}, but beamformed data of UFF are read as {_AXES_2D}",
            where=path,
            fix=f"give {_AXES_2D} as axes in the sample sheet",
        )
    if variable is not None:
        names = tuple(name.strip() for name in variable.split(","))
        if len(names) > 2 or not all(names):
            raise UserError(
                f"variable is {variable!r}", where=path, fix="give one name, or two as I,Q"
            )
        return names
    fitting = [a for a in arrays if len(a.shape) == len(axes)]
    complex_ones = [a for a in fitting if a.kind == "complex"]
    if len(complex_ones) == 1:
        return (complex_ones[0].name,)
    if complex_ones:
        raise UserError(
            f"holds several complex arrays: {describe(complex_ones)}",
            where=path,
            fix="name the one that is meant as variable in the sample sheet",
        )
    if any(a.kind == "real" for a in fitting):
        raise UserError(
            f"holds real numbers ({describe(fitting)}); IQ must be complex",
            where=path,
            fix=f"{_SAVE_PLAIN}, or name two real variables as I,Q",
        )
    raise UserError(
        f"holds no complex array with the {len(axes)} axes {axes}; it has {describe(arrays)}",
        where=path,
        fix="check axes, or name the variable",
    )


def _check_arrays(chosen: Sequence[StoredArray], path: Path) -> None:
    """Raise UserError unless the arrays can be IQ."""
    wanted = "complex" if len(chosen) == 1 else "real"
    for array in chosen:
        if array.kind not in ("complex", "real"):
            raise UserError(
                f"{array.name or 'the array'} is of type {array.kind}", where=path, fix=_SAVE_PLAIN
            )
        if array.kind != wanted:
            need = "IQ must be complex" if wanted == "complex" else "I and Q must be real"
            raise UserError(
                f"{array.name or 'the array'} is {array.kind}; {need}",
                where=path,
                fix=f"{_SAVE_PLAIN}, or name two real variables as I,Q",
            )


def _copy_complex(pieces: Sequence[npt.NDArray[Any]], out: npt.NDArray[np.complex64]) -> None:
    # A double too large for single precision becomes infinite, which is found next.
    with np.errstate(over="ignore"):
        if len(pieces) == 2:
            out.real, out.imag = pieces
        elif is_complex_pair(pieces[0].dtype):
            real, imag = pieces[0].dtype.names or ()
            out.real, out.imag = pieces[0][real], pieces[0][imag]
        else:
            out[...] = pieces[0]


def check_finite(block: npt.NDArray[Any], *, file: Path, first: int) -> None:
    """Raise UserError that names the first frame that is not finite, counted from ``first``."""
    finite = np.isfinite(block)
    if not finite.all():
        frame = int(np.argmin(finite.all(axis=tuple(range(1, block.ndim)))))
        raise UserError(
            f"frame {first + frame} holds values that are not finite",
            where=file,
            fix="remove or repair the frame, counted from 0",
        )
