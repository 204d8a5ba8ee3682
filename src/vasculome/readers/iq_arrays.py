"""Arrays in the files that hold IQ: what a format must tell of them, and how it fails."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError

Index = tuple[slice, ...]

_CELL = re.compile(r"(.+)\{(\d+)\}")

_BAD_FILE = (
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy, scipy, h5py and Zarr raise on damaged files."""


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, known by its header.

    Attributes
    ----------
    name
        Name of the variable; empty where the file is the array, ``name{1}`` for the first cell of
        a cell array of MATLAB.
    shape
        As the user sees it: a MATLAB 7.3 file stores the axes reversed, this is MATLAB's order.
    kind
        ``"complex"``, ``"real"``, or what else it is (``"struct"``, ``"char"``...).
    n_bytes
        Memory that loading the whole array takes.
    dtype
        Type of the numbers as NumPy calls it, e.g. ``"int16"``; empty where it is none of them.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    n_bytes: int
    dtype: str = ""


class IQFormat(Protocol):
    """One kind of file; implementations are picklable and hold nothing open.

    Attributes
    ----------
    loads_whole
        Whether any read loads the whole array (the last ones stay in memory).
    drops_ones
        Whether trailing axes of length 1 are lost on saving, as MATLAB does.
    """

    loads_whole: ClassVar[bool]

    @property
    def drops_ones(self) -> bool:
        """Whether trailing axes of length 1 are lost on saving."""

    def arrays(self, path: Path) -> tuple[StoredArray, ...]:
        """Return what the file holds, from its headers."""

    def load(self, path: Path, name: str, index: Index) -> npt.NDArray[Any]:
        """Return a piece of an array; slices beyond its last axis are left out."""

    def metadata(self, path: Path, name: str) -> list[dict[str, Any]]:
        """Return the values under documented names, place by place."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what libraries raise on damaged files into a UserError that names the file."""
    try:
        yield
    except _BAD_FILE as error:
        raise UserError(
            f"is damaged, truncated or holds objects ({error})",
            where=path,
            fix="copy it again, or save it as plain numbers",
        ) from error


def split_cell(name: str) -> tuple[str, int | None]:
    """Return variable and number of the cell that ``name{1}`` means; None for a plain variable."""
    match = _CELL.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def is_complex_pair(dtype: np.dtype[Any]) -> bool:
    """Tell whether elements are MATLAB's (real, imag) or HDF5's (r, i) pairs."""
    return dtype.names in (("real", "imag"), ("r", "i"))


def stored_array(name: str, array: Any) -> StoredArray:
    """Describe a lazy array by its shape and dtype."""
    dtype = np.dtype(array.dtype)
    if dtype.kind == "c" or is_complex_pair(dtype):
        kind = "complex"
    elif dtype.kind in "iuf":
        kind = "real"
    else:
        kind = str(dtype)
    shape = tuple(int(n) for n in array.shape)
    # The order of bytes is of no interest.
    type_name = str(dtype.newbyteorder("="))
    return StoredArray(name, shape, kind, int(np.prod(shape)) * dtype.itemsize, type_name)
