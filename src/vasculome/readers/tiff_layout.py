"""Where the pixels of one TIFF file lie: read once from its headers, kept per process."""

from __future__ import annotations

import logging
import math
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from vasculome.errors import UserError
from vasculome.readers.files import file_state

SUPPORTED_DTYPES = ("uint8", "uint16", "float32")

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

Decoder = Callable[..., tuple[Any, ...]]
_DECODERS: dict[int, Decoder] = {}


@dataclass(frozen=True, eq=False)
class TiffLayout:
    """Segments (strips or tiles) that hold the planes of one channel of a TIFF file.

    Attributes
    ----------
    shape
        Planes, rows and columns (z, y, x).
    dtype
        Pixel type in native byte order.
    swapped
        Whether the file has the other byte order (matters for ``raw`` only).
    raw
        Whether each plane is one uncompressed run of rows; it then has a single segment.
    segment_shape
        Rows and columns of a segment.
    offsets, counts
        First byte and number of bytes of each segment, int64 (z, segments).
    decode
        Decoder of segments that are not raw, as made by tifffile for these headers.
    tables
        JPEG tables of each plane, where there are any.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    swapped: bool
    raw: bool
    segment_shape: tuple[int, int]
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    decode: Decoder
    tables: tuple[bytes | None, ...]


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


def plane_layout(path: Path) -> TiffLayout:
    """Return the layout of a TIFF that holds exactly one plane.

    Raises
    ------
    UserError
        Not a TIFF, empty, truncated, several pages, colour, or an unsupported pixel type.
    """
    return _plane_layout(path, *file_state(path))


def stack_layout(path: Path, *, channel: int | None) -> TiffLayout:
    """Return the layout of one channel of a multi-page, BigTIFF, OME-TIFF or ImageJ stack.

    Raises
    ------
    UserError
        As for `plane_layout`, and: pages of different shapes, several channels while none is
        chosen, no such channel, several time points, or planes that lie in other files.
    """
    return _stack_layout(path, channel, *file_state(path))


def count_channels(path: Path) -> int:
    """Return the number of channels of a stack, from its headers."""
    with _headers(path, file_state(path)[0]) as tif:
        series = _only_series(tif, path)
        return int(dict(zip(series.axes, series.shape, strict=True)).get("C", 1))


# Planes come by the thousand but are small here; a stack may hold megabytes of offsets.
@lru_cache(maxsize=2048)
def _plane_layout(path: Path, size: int, mtime_ns: int) -> TiffLayout:
    with _headers(path, size) as tif:
        # Series of an OME-TIFF plane would open every other plane of the acquisition.
        described = tif.is_imagej or tif.is_shaped
        n_pages = _count_planes(_only_series(tif, path)) if described else len(tif.pages)
        if n_pages != 1:
            raise UserError(
                f"holds {n_pages} pages where one plane was expected",
                where=path,
                fix="keep one page a file, or use format tiff_stack",
            )
        return _layout(path, size, tif, [tif.pages.first], None)


@lru_cache(maxsize=64)
def _stack_layout(path: Path, channel: int | None, size: int, mtime_ns: int) -> TiffLayout:
    with _headers(path, size) as tif:
        series = _only_series(tif, path)
        _check_declared_pages(path, tif, series)
        planes = _planes_of_channel(path, series, channel)
        if series.dataoffset is None:
            return _layout(path, size, tif, [series.pages[i] for i in planes], None)
        first = series.keyframe
        starts = series.dataoffset + np.asarray(planes, np.int64) * first.nbytes
        return _layout(path, size, tif, [first], starts)


@contextmanager
def _headers(path: Path, size: int) -> Iterator[tifffile.TiffFile]:
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


def _only_series(tif: tifffile.TiffFile, path: Path) -> Any:
    series = tif.series
    if len(series) != 1:
        shapes = " and ".join(str(s.shape) for s in series[:2])
        raise UserError(
            f"holds {len(series)} images of different kinds, such as {shapes}",
            where=path,
            fix="export the one that is meant, with planes of one shape and type",
        )
    return series[0]


def _count_planes(series: Any) -> int:
    sizes = zip(series.axes, series.shape, strict=True)
    return math.prod(n for axis, n in sizes if axis not in "YXS")


def _check_declared_pages(path: Path, tif: tifffile.TiffFile, series: Any) -> None:
    found = _count_planes(series)
    declared = (tif.imagej_metadata or {}).get("images", found) if tif.is_imagej else found
    if declared != found:
        raise UserError(
            f"declares {declared} pages but holds {found}", where=path, fix="export it again"
        )


def _planes_of_channel(path: Path, series: Any, channel: int | None) -> list[int]:
    """Return the page numbers, by rising z, of the chosen channel."""
    sizes = list(zip(series.axes, series.shape, strict=True))
    if "S" in series.axes:
        raise _colour(path, dict(sizes)["S"])
    if not series.axes.endswith("YX"):
        raise UserError(
            f"has axes {series.axes}, not planes of rows and columns",
            where=path,
            fix="export it as a z-stack",
        )
    outer = sizes[:-2]
    pages = np.arange(math.prod(n for _, n in outer)).reshape([n for _, n in outer])
    names = [axis for axis, _ in outer]
    if "C" in names:
        axis = names.index("C")
        pages = np.take(pages, _chosen(path, channel, pages.shape[axis]), axis=axis)
        names.pop(axis)
    elif channel not in (None, 0):
        _chosen(path, channel, 1)
    long = [axis for axis, n in zip(names, pages.shape, strict=True) if n > 1]
    if len(long) > 1 or (long and long[0] not in "ZIQ"):
        raise UserError(
            f"has axes {series.axes} of lengths {series.shape}; one z axis is needed",
            where=path,
            fix="save one time point as a z-stack (in Fiji: Image > Properties, slices)",
        )
    return [int(i) for i in pages.ravel()]


def _chosen(path: Path, channel: int | None, channels: int) -> int:
    if channel is None and channels > 1:
        raise UserError(
            f"has {channels} channels",
            where=path,
            fix=f"choose one, 0 to {channels - 1}, in the sample sheet",
        )
    chosen = channel or 0
    if not 0 <= chosen < channels:
        raise UserError(
            f"has no channel {chosen}",
            where=path,
            fix=f"choose one of its {channels}, counted from 0",
        )
    return chosen


def _colour(path: Path, samples: int) -> UserError:
    return UserError(
        f"is a colour image with {samples} values a pixel",
        where=path,
        fix="export one channel as grey values",
    )


def _layout(
    path: Path,
    size: int,
    tif: tifffile.TiffFile,
    pages: list[Any],
    starts: npt.NDArray[np.int64] | None,
) -> TiffLayout:
    """Return the checked layout of ``pages``, or of equal raw planes that begin at ``starts``."""
    if any(page is None or page.parent is not tif for page in pages):
        raise UserError(
            "lacks planes that its description declares, or keeps them in other files",
            where=path,
            fix="give all planes in one file, or use format tiff_planes on their folder",
        )
    key = pages[0].keyframe
    _check_pixels(path, key)
    rows, columns = int(key.imagelength), int(key.imagewidth)
    if starts is None:
        offsets, counts = _segments(path, pages)
        raw = bool(
            key.is_contiguous
            and np.all(offsets[:, :-1] + counts[:, :-1] == offsets[:, 1:])
            and np.all(counts.sum(axis=1) >= key.nbytes)
        )
    else:
        offsets, raw = starts[:, None], True
        counts = np.full_like(offsets, key.nbytes)
    raw = raw and key.predictor == 1 and key.fillorder == 1
    if raw:
        offsets = offsets[:, :1]
        counts = np.full_like(offsets, key.nbytes)
    end = int((offsets + counts).max())
    if end > size:
        raise UserError(
            f"is truncated: it has {size} bytes of at least {end}",
            where=path,
            fix="copy or export it again",
        )
    tiled = (int(key.tilelength), int(key.tilewidth))
    striped = (min(int(key.rowsperstrip), rows), columns)
    return TiffLayout(
        shape=(len(offsets), rows, columns),
        dtype=np.dtype(key.dtype).newbyteorder("="),
        swapped=not np.dtype(tif.byteorder + np.dtype(key.dtype).char).isnative,
        raw=raw,
        segment_shape=tiled if key.is_tiled else striped,
        offsets=offsets,
        counts=counts,
        # One decoder serves all planes of a kind; it keeps its first file's headers alive.
        decode=_DECODERS.setdefault(key.hash, key.decode),
        tables=tuple(page.jpegtables for page in pages),
    )


def _segments(path: Path, pages: list[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    offsets = np.array([page.dataoffsets for page in pages], np.int64)
    counts = np.array([page.databytecounts for page in pages], np.int64)
    empty = np.flatnonzero(((offsets <= 0) | (counts <= 0)).any(axis=1))
    if offsets.size == 0 or offsets.shape != counts.shape or empty.size:
        page = int(empty[0]) if empty.size else 0
        raise UserError(
            f"page {page} lacks pixels: writing it was interrupted",
            where=path,
            fix="copy or export it again",
        )
    return offsets, counts


def _check_pixels(path: Path, page: Any) -> None:
    if page.samplesperpixel != 1:
        raise _colour(path, page.samplesperpixel)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        raise UserError(
            "has indexed colours, not intensities", where=path, fix="export it as grey values"
        )
    if page.dtype is None or np.dtype(page.dtype).name not in SUPPORTED_DTYPES:
        found = "unknown" if page.dtype is None else np.dtype(page.dtype).name
        raise UserError(
            f"has pixels of type {found}",
            where=path,
            fix=f"convert it to one of {', '.join(SUPPORTED_DTYPES)}",
        )
    if page.imagelength < 1 or page.imagewidth < 1:
        raise UserError("has no pixels", where=path, fix="copy or export it again")
    if page.imagedepth != 1:
        raise UserError(
            "stores volumes in a page (ImageDepth)", where=path, fix="export one plane a page"
        )
