"""Where the pixels of one TIFF file lie: read once from its headers, kept per process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from vasculome.errors import UserError
from vasculome.readers.files import file_state
from vasculome.readers.tiff_headers import only_series, open_headers, planes_in, planes_of

SUPPORTED_DTYPES = ("uint8", "uint16", "float32")

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


def plane_layout(path: Path) -> TiffLayout:
    """Return the layout of a TIFF that holds exactly one plane.

    Raises
    ------
    UserError
        Not a TIFF, empty, truncated, several pages, colour, or an unsupported pixel type.
    """
    return _plane_layout(path, *file_state(path))


def stack_layout(
    path: Path, *, channel: int | None, pages: Sequence[int] | None = None
) -> TiffLayout:
    """Return the layout of one channel of a multi-page, BigTIFF, OME-TIFF or ImageJ stack.

    Parameters
    ----------
    path
        The file.
    channel
        Channel to take, by the file's own description; None where it has one.
    pages
        Pages that hold the planes, from 0 and by rising z, where a description elsewhere says
        so; the file's own is not asked then.

    Raises
    ------
    UserError
        As for `plane_layout`, and: pages of different shapes, several channels while none is
        chosen, no such channel, several time points, or planes that lie in other files.
    """
    return _stack_layout(path, channel, pages, *file_state(path))


def first_page_layout(path: Path) -> TiffLayout:
    """Return the layout of the first page of a stack, without looking at the others.

    A stack of thousands of pages is opened so in a millisecond; reads check what they touch.

    Raises
    ------
    UserError
        As `stack_layout`.
    """
    size, _ = file_state(path)
    with open_headers(path, size) as tif:
        return _layout(path, size, tif, [tif.pages.first], None)


# Planes come by the thousand but are small here; a stack may hold megabytes of offsets.
@lru_cache(maxsize=2048)
def _plane_layout(path: Path, size: int, mtime_ns: int) -> TiffLayout:
    with open_headers(path, size) as tif:
        n_pages = planes_in(tif, path)
        if n_pages != 1:
            raise UserError(
                f"holds {n_pages} pages where one plane was expected",
                where=path,
                fix="keep one page a file, or use format tiff_stack",
            )
        return _layout(path, size, tif, [tif.pages.first], None)


@lru_cache(maxsize=64)
def _stack_layout(
    path: Path, channel: int | None, pages: Sequence[int] | None, size: int, mtime_ns: int
) -> TiffLayout:
    with open_headers(path, size) as tif:
        if pages is not None:
            return _layout(path, size, tif, _chosen_pages(path, tif, pages), None)
        series = only_series(tif, path)
        _check_declared_pages(path, tif, series)
        planes = _planes_of_channel(path, series, channel)
        if series.dataoffset is None:
            return _layout(path, size, tif, [series.pages[i] for i in planes], None)
        first = series.keyframe
        starts = series.dataoffset + np.asarray(planes, np.int64) * first.nbytes
        return _layout(path, size, tif, [first], starts)


def _chosen_pages(path: Path, tif: tifffile.TiffFile, pages: Sequence[int]) -> list[Any]:
    if max(pages) >= len(tif.pages):
        raise UserError(
            f"is truncated: it has {len(tif.pages)} pages where its description names "
            f"{max(pages) + 1}",
            where=path,
            fix="copy or export it again",
        )
    # All but the first are read for their offsets only: ten times faster for a thousand pages.
    tif.pages.set_keyframe(pages[0])
    tif.pages.useframes = True
    return [tif.pages[i] for i in pages]


def _check_declared_pages(path: Path, tif: tifffile.TiffFile, series: Any) -> None:
    found = planes_of(series)
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
