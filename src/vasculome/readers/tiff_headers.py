"""TIFF files opened for their headers, and what these say at once."""

from __future__ import annotations

import logging
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tifffile

from vasculome.errors import UserError
from vasculome.readers.files import file_state

_BAD_TIFF = (
    tifffile.TiffFileError,
    struct.error,
    ArithmeticError,
    AssertionError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What tifffile raises on damaged headers, as found by feeding it damaged files."""


class _Complaints(logging.Handler):
    """What tifffile found wrong in a file and passed over, in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._here = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        self._here.first = self._here.__dict__.get("first") or record.getMessage()

    def take(self) -> str | None:
        """Return the first complaint since the last call."""
        first: str | None = self._here.__dict__.pop("first", None)
        return first


# tifffile logs that a file ends in the middle, or that its description is lost, and carries on
# with what is left: half a stack would pass for a whole one.
_COMPLAINTS = _Complaints()
logging.getLogger("tifffile").addHandler(_COMPLAINTS)
logging.getLogger("tifffile").propagate = False


def count_pages(path: Path) -> int:
    """Return the number of planes in a TIFF file, of all channels, from its headers."""
    with open_headers(path, file_state(path)[0]) as tif:
        return planes_in(tif, path)


def first_description(path: Path) -> str:
    """Return the description of a TIFF file's first page, such as its OME-XML; may be empty."""
    with open_headers(path, file_state(path)[0]) as tif:
        return str(tif.pages.first.description)


def count_channels(path: Path) -> int:
    """Return the number of channels of a stack, from its headers."""
    with open_headers(path, file_state(path)[0]) as tif:
        series = only_series(tif, path)
        return int(dict(zip(series.axes, series.shape, strict=True)).get("C", 1))


@contextmanager
def open_headers(path: Path, size: int) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file, and turn whatever is wrong with its headers into a UserError."""
    if path.is_dir():
        raise UserError("is a folder, not a TIFF file", where=path, fix="check path and format")
    if size == 0:
        raise UserError("is empty (0 bytes)", where=path, fix="copy the file again")
    _COMPLAINTS.take()
    try:
        with tifffile.TiffFile(path) as tif:
            yield tif
    except _BAD_TIFF as error:
        if "not a TIFF" in str(error):
            what = "is not a TIFF file"
        else:
            what = f"has damaged or truncated headers ({error or type(error).__name__})"
        raise UserError(what, where=path, fix="copy or export it again") from error
    complaint = _COMPLAINTS.take()
    if complaint:
        raise UserError(
            f"is damaged or truncated ({complaint})", where=path, fix="copy or export it again"
        )


def only_series(tif: tifffile.TiffFile, path: Path) -> Any:
    """Return the one image of a file; raises UserError if it holds images of several kinds."""
    series = tif.series
    if len(series) != 1:
        shapes = " and ".join(str(s.shape) for s in series[:2])
        raise UserError(
            f"holds {len(series)} images of different kinds, such as {shapes}",
            where=path,
            fix="export the one that is meant, with planes of one shape and type",
        )
    return series[0]


def planes_in(tif: tifffile.TiffFile, path: Path) -> int:
    """Return the number of planes of a file."""
    # Series of an OME-TIFF plane would open every other plane of the acquisition.
    described = tif.is_imagej or tif.is_shaped
    return planes_of(only_series(tif, path)) if described else len(tif.pages)


def planes_of(series: Any) -> int:
    """Return the number of planes of tifffile's ``series``: lengths of all axes but y, x, s."""
    sizes = zip(series.axes, series.shape, strict=True)
    return math.prod(n for axis, n in sizes if axis not in "YXS")
