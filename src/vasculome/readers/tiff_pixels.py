"""Pixels of one plane out of an open TIFF file: only the rows, strips or tiles that are needed."""

from __future__ import annotations

import math
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.readers.tiff_layout import TiffLayout

Window = tuple[slice, slice]
"""Rows and columns of a plane, with start and stop."""


def read_page(
    handle: FileIO, layout: TiffLayout, page: int, window: Window, out: npt.NDArray[Any]
) -> None:
    """Fill ``out`` with the rows and columns ``window`` of plane ``page``.

    Raises
    ------
    OSError, RuntimeError, ValueError
        The file cannot be read, ends early, or its segments cannot be decoded.
    """
    if layout.raw:
        _read_rows(handle, layout, page, window, out)
    else:
        _read_segments(handle, layout, page, window, out)


def check_finite(plane: npt.NDArray[Any], *, path: Path, z: int, window: Window) -> None:
    """Raise UserError with the position of the first value of ``plane`` that is not finite."""
    finite = np.isfinite(plane)
    if finite.all():
        return
    row, column = np.unravel_index(int(np.argmin(finite)), plane.shape)
    raise UserError(
        f"plane {z} holds {plane[row, column]} at row {row + window[0].start}, "
        f"column {column + window[1].start}",
        where=path,
        fix="replace what is not a number before import",
    )


def _read_rows(
    handle: FileIO, layout: TiffLayout, page: int, window: Window, out: npt.NDArray[Any]
) -> None:
    # Reading beats a memory map here: as fast, and a file cut short or a lost network share
    # raises an error instead of killing the process by SIGBUS.
    rows, columns = window
    width = layout.shape[2]
    whole_rows = columns.stop - columns.start == width and out.flags.c_contiguous
    band = out if whole_rows else np.empty((rows.stop - rows.start, width), layout.dtype)
    start = int(layout.offsets[page, 0]) + rows.start * width * layout.dtype.itemsize
    _fill(handle, start, band.reshape(-1).view(np.uint8).data)
    if not whole_rows:
        out[...] = band[:, columns]
    if layout.swapped:
        out.byteswap(inplace=True)


def _read_segments(
    handle: FileIO, layout: TiffLayout, page: int, window: Window, out: npt.NDArray[Any]
) -> None:
    rows, columns = window
    height, width = layout.segment_shape
    across = math.ceil(layout.shape[2] / width)
    tables = {} if layout.tables[page] is None else {"jpegtables": layout.tables[page]}
    for i in range(rows.start // height, math.ceil(rows.stop / height)):
        for j in range(columns.start // width, math.ceil(columns.stop / width)):
            segment = i * across + j
            encoded = bytearray(int(layout.counts[page, segment]))
            _fill(handle, int(layout.offsets[page, segment]), memoryview(encoded))
            decoded = layout.decode(bytes(encoded), segment, **tables)[0][0, ..., 0]
            inner, outer = _overlap(rows, i * height), _overlap(columns, j * width)
            block = decoded[inner.start :, outer.start :]
            target = out[
                i * height + inner.start - rows.start :, j * width + outer.start - columns.start :
            ]
            high, wide = (min(a, b) for a, b in zip(block.shape, target.shape, strict=True))
            target[:high, :wide] = block[:high, :wide]


def _overlap(wanted: slice, start: int) -> slice:
    """Return the part of a segment from ``start`` that is not before ``wanted``."""
    return slice(max(0, wanted.start - start), None)


def _fill(handle: FileIO, start: int, buffer: memoryview) -> None:
    handle.seek(start)
    done = 0
    while done < len(buffer):
        # One call returns at most 2 GiB.
        got = handle.readinto(buffer[done:])
        if not got:
            raise OSError(f"the file ends at byte {start + done}, {len(buffer) - done} too early")
        done += got
