"""Raw ultrasound in, lazily: complex IQ frames from files of many kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.readers.files import fingerprint, list_files
from vasculome.readers.iq_arrays import IQFormat, StoredArray, is_complex_pair
from vasculome.readers.iq_formats import IQ_SUFFIXES, identify
from vasculome.readers.iq_metadata import Quantity, parse_metadata
from vasculome.readers.iq_zarr import OpenZarr, is_zarr
from vasculome.readers.numbering import check_numbering

_AXES_2D, _AXES_3D = "tzx", "tzyx"
_SAVE_PLAIN = "save one array of complex numbers"


@dataclass(frozen=True)
class RawIQ:
    """IQ frames in one file, or in a folder of files with consecutive blocks of frames.

    It holds no open file and is pickled to workers.

    Attributes
    ----------
    files
        Files in the order of time.
    frames
        Frames of each file.
    shape
        (t, z, x) or (t, z, y, x).
    axes
        Order of the axes in the files, e.g. ``"zxt"``.
    variables
        The complex variable, or the two real ones that hold I and Q.
    format
        How the files are read.
    metadata
        Quantities found in the files, by the names of
        `vasculome.readers.iq_metadata.METADATA_NAMES`.
    resident_bytes
        Memory that reads take beyond their result: formats that cannot be read in pieces load
        whole arrays and keep the last ones.
    """

    files: tuple[Path, ...]
    frames: tuple[int, ...]
    shape: tuple[int, ...]
    axes: str
    variables: tuple[str, ...]
    format: IQFormat
    metadata: dict[str, Quantity] = field(default_factory=dict)
    resident_bytes: int = 0

    def read(self, t0: int, t1: int) -> npt.NDArray[np.complex64]:
        """Return frames ``t0`` to ``t1`` - 1, complex64 (t, z[, y], x).

        Raises
        ------
        UserError
            A file is missing, damaged or has changed, or a value is not finite.
        ValueError
            Frames beyond the acquisition, or none.
        """
        if not 0 <= t0 < t1 <= self.shape[0]:
            raise ValueError(f"frames {t0} to {t1} of {self.shape[0]}")
        out = np.empty((t1 - t0, *self.shape[1:]), np.complex64)
        begin = 0
        for file, n in zip(self.files, self.frames, strict=True):
            a, b = max(t0, begin), min(t1, begin + n)
            if a < b:
                target = out[a - t0 : b - t0]
                self._read_block(file, a - begin, b - begin, target)
                _check_finite(target, file=file, first=a - begin)
            begin += n
        return out

    def fingerprint(self) -> str:
        """Return the identity of the input: files, variables and order of axes."""
        return fingerprint(self.files, detail=repr((self.axes, self.variables)))

    def _read_block(self, file: Path, a: int, b: int, out: npt.NDArray[np.complex64]) -> None:
        lengths = dict(zip(_result_axes(self.axes), self.shape, strict=True))
        index = tuple(slice(a, b) if c == "t" else slice(0, lengths[c]) for c in self.axes)
        expected = tuple(i.stop - i.start for i in index)
        pieces = []
        for name in self.variables:
            piece = self.format.load(file, name, index)
            if piece.size != out.size:
                raise UserError(
                    f"{name or 'the array'} has changed its shape",
                    where=file,
                    fix="start again on the changed file",
                )
            order = [self.axes.index(c) for c in _result_axes(self.axes)]
            pieces.append(piece.reshape(expected).transpose(order))
        _copy_complex(pieces, out)


def open_iq(
    path: Path, *, axes: str, variable: str | None = None, open_zarr: OpenZarr | None = None
) -> RawIQ:
    """Return the IQ frames at ``path`` after checking all headers; values are read later.

    Parameters
    ----------
    path
        MATLAB (.mat, any version from 5 to 7.3), HDF5 (.h5, .hdf5), NumPy (.npy, .npz) or Zarr
        (a folder), or a folder of such files numbered without gaps, each a block of frames.
    axes
        Order of the axes as MATLAB, NumPy or h5py shows them: the letters t, z, x (and y in
        3-D), e.g. ``"zxt"``.
    variable
        Name of the complex variable, or of two real ones, ``"I,Q"``. None takes the only
        complex array of as many axes.
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
    files = _block_files(path)
    format = identify(files[0], open_zarr=open_zarr)
    names = _choose(format.arrays(files[0]), variable, axes=axes, format=format, path=files[0])
    frames: list[int] = []
    space: tuple[int, ...] | None = None
    places: list[dict[str, Any]] = []
    resident_bytes = 0
    for file in files:
        if type(identify(file, open_zarr=open_zarr)) is not type(format):
            raise UserError(
                f"is of another format than {files[0].name}",
                where=file,
                fix="keep files of one format in the folder",
            )
        arrays = format.arrays(file)
        chosen = [_find(arrays, name, path=file) for name in names]
        lengths = _check_arrays(chosen, axes=axes, format=format, path=file)
        here = tuple(lengths[c] for c in _result_axes(axes)[1:])
        if space not in (None, here):
            raise UserError(
                f"has frames of {here} pixels where {files[0].name} has {space}",
                where=file,
                fix="keep blocks of one acquisition in the folder",
            )
        space = here
        frames.append(lengths["t"])
        places += format.metadata(file, names[0])
        if format.loads_whole:
            # Two arrays stay in memory while the next is loaded.
            resident_bytes = max(resident_bytes, *(3 * array.n_bytes for array in chosen))
    metadata = parse_metadata(places, where=path)
    shape = (sum(frames), *(space or ()))
    return RawIQ(files, tuple(frames), shape, axes, names, format, metadata, resident_bytes)


def _result_axes(axes: str) -> str:
    return _AXES_3D if "y" in axes else _AXES_2D


def _block_files(path: Path) -> tuple[Path, ...]:
    if not path.is_dir() or is_zarr(path):
        return (path,)
    return check_numbering(list_files(path, suffixes=IQ_SUFFIXES, pattern=None), what="block")


def _choose(
    arrays: Sequence[StoredArray],
    variable: str | None,
    *,
    axes: str,
    format: IQFormat,
    path: Path,
) -> tuple[str, ...]:
    """Return the names of the complex array, or of the arrays of I and Q."""
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
            f"holds several complex arrays: {_names(complex_ones)}",
            where=path,
            fix="name the one that is meant as variable in the sample sheet",
        )
    if any(a.kind == "real" for a in fitting):
        raise UserError(
            f"holds real numbers ({_names(fitting)}); IQ must be complex",
            where=path,
            fix=f"{_SAVE_PLAIN}, or name two real variables as I,Q",
        )
    raise UserError(
        f"holds no complex array with the {len(axes)} axes {axes}; it has {_names(arrays)}",
        where=path,
        fix="check axes, or name the variable",
    )


def _find(arrays: Sequence[StoredArray], name: str, *, path: Path) -> StoredArray:
    for array in arrays:
        if array.name == name:
            return array
    raise UserError(
        f"has no variable {name!r}; it has {_names(arrays)}",
        where=path,
        fix="correct variable in the sample sheet",
    )


def _check_arrays(
    chosen: Sequence[StoredArray], *, axes: str, format: IQFormat, path: Path
) -> dict[str, int]:
    """Return the length of each axis, after checking that the arrays can be IQ."""
    wanted = "complex" if len(chosen) == 1 else "real"
    for array in chosen:
        label = array.name or "the array"
        if 0 in array.shape:
            raise UserError(f"{label} is empty, {array.shape}", where=path, fix="save it again")
        if array.kind not in ("complex", "real"):
            raise UserError(f"{label} is of type {array.kind}", where=path, fix=_SAVE_PLAIN)
        if array.kind != wanted:
            need = "IQ must be complex" if wanted == "complex" else "I and Q must be real"
            raise UserError(
                f"{label} is {array.kind}; {need}",
                where=path,
                fix=f"{_SAVE_PLAIN}, or name two real variables as I,Q",
            )
        if array.shape != chosen[0].shape:
            raise UserError(
                f"{_names(chosen)} differ in shape", where=path, fix="save I and Q of one shape"
            )
    shape = chosen[0].shape
    if format.drops_ones:
        shape += (1,) * (len(axes) - len(shape))
    if len(shape) != len(axes):
        raise UserError(
            f"{_names(chosen)} has {len(shape)} axes, not the {len(axes)} of {axes}",
            where=path,
            fix="correct axes in the sample sheet",
        )
    return dict(zip(axes, shape, strict=True))


def _names(arrays: Sequence[StoredArray]) -> str:
    shown = [
        f"{a.name or 'an array'} ({'×'.join(str(n) for n in a.shape)} {a.kind})" for a in arrays[:8]
    ]
    more = [f"and {len(arrays) - 8} more"] if len(arrays) > 8 else []
    return ", ".join(shown + more) or "nothing"


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


def _check_finite(block: npt.NDArray[np.complex64], *, file: Path, first: int) -> None:
    finite = np.isfinite(block)
    if not finite.all():
        frame = int(np.argmin(finite.all(axis=tuple(range(1, block.ndim)))))
        raise UserError(
            f"frame {first + frame} holds values that are not finite",
            where=file,
            fix="remove or repair the frame, counted from 0",
        )
