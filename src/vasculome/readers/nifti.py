"""Volumes in NIfTI-1 files, ``.nii`` and ``.nii.gz``, as segmentation labels often are."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.readers.files import unreadable

NIFTI_SUFFIXES = (".nii", ".nii.gz")

_HEADER_BYTES = 348
_MAGIC = (b"n+1\0", b"ni1\0")
_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4",
}  # fmt: skip
"""Codes of the standard that hold real numbers of common size."""

_MICROMETRES = {1: 1e6, 2: 1e3, 3: 1.0}
"""A metre, millimetre and micrometre, by the code of the unit; 0 tells none."""

_UNSET_UM = (1000.0, 1000.0, 1000.0)
"""What programs write of voxels whose size they do not know; none of a vessel image has it."""

_MOST_OFFSET = 1 << 30
_MOST_PACKED = 1100
"""Bytes that deflate makes of one, at the most."""

Affine = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class NiftiHeader:
    """What a NIfTI-1 header tells of its voxels.

    Attributes
    ----------
    shape
        Voxels (z, y, x).
    dtype
        With its byte order.
    spacing_um
        Voxel size (z, y, x), None where the file tells no unit or no size.
    offset
        Where the voxels begin, in bytes.
    slope, intercept
        Values are stored · slope + intercept; 1 and 0 leave them.
    affine
        From voxels (x, y, z, 1) to the body's coordinates, 3 rows of 4, None where it tells none.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    spacing_um: tuple[float, float, float] | None
    offset: int
    slope: float
    intercept: float
    affine: Affine | None = None


def is_nifti(path: Path) -> bool:
    """Tell whether a file's name is that of a NIfTI volume."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def read_nifti(path: Path) -> tuple[npt.NDArray[Any], NiftiHeader]:
    """Return a whole volume (z, y, x) and its header.

    The axes are those of the file, x first in it; how they lie in the body is not looked at.

    Raises
    ------
    UserError
        The file is missing, cut off or damaged, no NIfTI-1 volume, has several volumes, or a pixel
        type that is not read.
    """
    with _opened(path) as file:
        header = _checked_header(file, path)
        file.read(header.offset - _HEADER_BYTES)
        voxels = _voxels(file, header, path)
        file.read()  # the checksum is looked at where the file ends
        return voxels, header


def read_nifti_header(path: Path) -> NiftiHeader:
    """Return the header of a volume, whose voxels may be; errors as of `read_nifti`."""
    with _opened(path) as file:
        return _checked_header(file, path)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _checked_header(file: BinaryIO, path: Path) -> NiftiHeader:
    header = _header(file.read(_HEADER_BYTES), path)
    needed = header.offset + math.prod(header.shape) * header.dtype.itemsize
    # Before memory is asked for: a damaged header may tell of more than any machine has.
    room = path.stat().st_size * (_MOST_PACKED if isinstance(file, gzip.GzipFile) else 1)
    if needed > room:
        size = " × ".join(map(str, header.shape[::-1]))
        raise _damaged(path, f"it is too short for the {size} voxels that its header tells")
    return header


def _header(raw: bytes, path: Path) -> NiftiHeader:
    if len(raw) < _HEADER_BYTES or raw[344:348] not in _MAGIC:
        what = "is no NIfTI-1 volume"
        raise UserError(what, where=path, fix="export it as NIfTI-1 (.nii or .nii.gz)")
    if raw[344:348] == b"ni1\0":
        what = "is a header whose voxels are in another file"
        raise UserError(what, where=path, fix="export header and voxels as one .nii file")
    order = "<" if struct.unpack("<i", raw[:4])[0] == _HEADER_BYTES else ">"
    dim = struct.unpack(f"{order}8h", raw[40:56])
    code = struct.unpack(f"{order}h", raw[70:72])[0]
    size = struct.unpack(f"{order}8f", raw[76:108])
    offset, slope, intercept = struct.unpack(f"{order}3f", raw[108:120])
    shape = dim[1 : dim[0] + 1]
    if not 1 <= dim[0] <= 7 or min(shape) < 1:
        raise _damaged(path, f"its shape is {dim}")
    if len(shape) < 3 or math.prod(shape[3:]) > 1:
        what = f"has the shape {' × '.join(map(str, shape))} where one volume is wanted"
        raise UserError(what, where=path, fix="export one channel and one time as x, y, z")
    if code not in _DTYPES:
        what = f"has pixels of a type (code {code}) that is not read"
        raise UserError(what, where=path, fix="convert to uint8, uint16 or float32")
    x, y, z = shape[:3]
    unit = _MICROMETRES.get(raw[123] & 7)
    spacing_um = tuple(size[i] * unit for i in (3, 2, 1)) if unit and min(size[1:4]) > 0 else None
    if spacing_um == _UNSET_UM:
        spacing_um = None
    if not 0 <= offset < _MOST_OFFSET:
        raise _damaged(path, f"its voxels are said to begin at {offset:g}")
    # 0 means that values are not scaled; NaN is found where programs left it open.
    scaled = math.isfinite(slope) and slope != 0 and math.isfinite(intercept)
    return NiftiHeader(
        shape=(z, y, x),
        dtype=np.dtype(order + _DTYPES[code]),
        spacing_um=spacing_um,
        offset=max(int(offset), _HEADER_BYTES),
        slope=slope if scaled else 1.0,
        intercept=intercept if scaled else 0.0,
        affine=_affine(raw, order, size),
    )


def _affine(raw: bytes, order: str, size: Sequence[float]) -> Affine | None:
    """Return where voxels lie, by the standard's method 3 or, without that, 2."""
    by_quaternion, by_matrix = struct.unpack(f"{order}2h", raw[252:256])
    if by_matrix > 0:
        rows = struct.unpack(f"{order}12f", raw[280:328])
        found = np.array(rows).reshape(3, 4)
    elif by_quaternion > 0:
        b, c, d, *origin = struct.unpack(f"{order}6f", raw[256:280])
        a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
        turn = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        steps = np.array(size[1:4]) * [1, 1, -1 if size[0] < 0 else 1]
        found = np.column_stack([turn * steps, origin])
    else:
        return None
    return tuple(map(tuple, found.tolist())) if np.isfinite(found).all() else None


def _voxels(file: BinaryIO, header: NiftiHeader, path: Path) -> npt.NDArray[Any]:
    needed = math.prod(header.shape) * header.dtype.itemsize
    raw = file.read(needed)
    if len(raw) < needed:
        raise _damaged(path, f"it ends after {len(raw)} of {needed} bytes of voxels")
    voxels = np.frombuffer(raw, header.dtype).reshape(header.shape)
    native = voxels.astype(header.dtype.newbyteorder("="), copy=False)
    if (header.slope, header.intercept) == (1.0, 0.0):
        return native
    return native.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept)


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"is damaged ({why})", where=path, fix="copy or export it again")
