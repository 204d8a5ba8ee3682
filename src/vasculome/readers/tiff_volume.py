"""One volume in TIFF files, read lazily, a box at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.files import FileList, file_state, fingerprint, list_names, unreadable
from vasculome.readers.numbering import count_steps, number_names, refuse_gaps
from vasculome.readers.tiff_layout import (
    TiffLayout,
    first_page_layout,
    plane_layout,
    stack_layout,
)
from vasculome.readers.tiff_pixels import check_finite, read_page

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8")


@dataclass(frozen=True)
class RawVolume:
    """A volume in TIFF files, of which only what is asked for is read.

    It holds no open file and no pixels: it is pickled to workers, and a read opens one file at
    a time.

    Attributes
    ----------
    files
        One file a plane in the order of z, or one stack.
    shape
        Voxels (z, y, x).
    dtype
        uint8, uint16 or float32, native byte order.
    stack
        Whether the one file is a stack.
    channel
        Channel of a stack with several, counted from 0.
    pages
        Pages of a stack that hold the planes, where its own description is not to be asked.
    missing
        Planes that no file holds, rising; they are read as zeros.
    """

    files: Sequence[Path]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    stack: bool = False
    channel: int | None = None
    pages: range | tuple[int, ...] | None = None
    missing: tuple[int, ...] = ()

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the voxels of ``box``, an array of its shape and of the volume's dtype.

        Raises
        ------
        UserError
            A file is missing, damaged, or not like the first; a float value is not finite.
        ValueError
            The box is empty or reaches beyond the volume.
        """
        check_inside(box, self.shape)
        out = np.empty(box.shape, self.dtype)
        planes, *window = box.slices
        if self.stack:
            self._read_pages(self.files[0], range(planes.start, planes.stop), window, out, 0)
            return out
        for z, plane in zip(range(planes.start, planes.stop), out, strict=True):
            before = bisect_left(self.missing, z)
            if z in self.missing[before : before + 1]:
                plane[...] = 0
            else:
                file = self.files[z - before]
                self._read_pages(file, range(1), window, plane[None], z)
        return out

    def fingerprint(self) -> str:
        """Return the identity of the input: a digest of file names, sizes, times and channel."""
        detail = f"channel {self.channel}"
        if self.pages is not None or self.missing:
            detail += f" pages {self.pages} missing {self.missing}"
        return fingerprint(self.files, detail=detail)

    def _layout(self, file: Path) -> TiffLayout:
        layout = (
            stack_layout(file, channel=self.channel, pages=self.pages)
            if self.stack
            else plane_layout(file)
        )
        if (layout.shape[1:], layout.dtype) != (self.shape[1:], self.dtype):
            raise UserError(
                f"is {_describe(layout)} where the first plane is "
                f"{self.shape[1]}×{self.shape[2]} {self.dtype}",
                where=file,
                fix="export all planes with one shape and pixel type",
            )
        if self.stack and layout.shape != self.shape:
            raise UserError(
                f"has {layout.shape[0]} planes where {self.shape[0]} were found before",
                where=file,
                fix="start again on the changed file",
            )
        return layout

    def _read_pages(
        self, file: Path, pages: range, window: list[slice], out: npt.NDArray[Any], first: int
    ) -> None:
        layout = self._layout(file)
        rows, columns = window
        with _opened(file) as handle:
            for page, plane in zip(pages, out, strict=True):
                try:
                    read_page(handle, layout, page, (rows, columns), plane)
                # What decoders raise on damaged data; imagecodecs' errors are RuntimeErrors.
                except (OSError, RuntimeError, ValueError) as error:
                    raise UserError(
                        f"plane {first + page} is damaged ({error})",
                        where=file,
                        fix="copy or export it again",
                    ) from error
                if self.dtype.kind == "f":
                    check_finite(plane, path=file, z=first + page, window=(rows, columns))


def check_inside(box: Box, shape: tuple[int, int, int]) -> None:
    """Raise ValueError if ``box`` is empty or reaches beyond a volume of ``shape``."""
    if box.ndim != 3 or box.intersect(Box.of_shape(shape)) != box:
        raise ValueError(f"{box} is empty or beyond a volume of shape {shape}")


def open_planes(
    folder: Path, *, pattern: str | None, allow_missing_planes: bool = False
) -> RawVolume:
    """Return the volume in a folder of single-plane TIFFs, numbered without gaps.

    Parameters
    ----------
    folder
        The folder.
    pattern
        Shell pattern that picks the planes, or None for all TIFFs.
    allow_missing_planes
        Whether planes that are missing between others are read as zeros and listed in
        ``missing`` instead of being refused.

    Raises
    ------
    UserError
        Naming the plane that is missing, empty, damaged or unlike the first.
    """
    names = list_names(folder, suffixes=TIFF_SUFFIXES, pattern=pattern)
    if len(names) == 1:
        return open_plane_files(FileList.of(folder, names))
    series = number_names(names, folder=folder, what="plane")
    if not allow_missing_planes:
        refuse_gaps(series, folder=folder, what="plane")
    step = min(b - a for a, b in zip(series.numbers, series.numbers[1:], strict=False))
    places = count_steps(
        series.numbers, start=series.numbers[0], step=step, folder=folder, what="plane"
    )
    return open_plane_files(
        FileList.of(folder, series.names), missing=absent(places, places[-1] + 1)
    )


def open_plane_files(files: FileList, *, missing: tuple[int, ...] = ()) -> RawVolume:
    """Return the volume in ``files`` of one plane each, in the order of z.

    The sizes of all files are checked at once, and the header of the first; the headers of
    others as well where the size cannot be right.

    Raises
    ------
    UserError
        Naming the plane that is empty, damaged or unlike the first.
    """
    sizes = files.states()[:, 0]
    if (sizes == 0).any():
        plane_layout(files[int(np.argmin(sizes))])
    first = plane_layout(files[0])
    shape = (len(files) + len(missing), *first.shape[1:])
    volume = RawVolume(files, shape, first.dtype, missing=missing)
    if first.raw:
        end = int(first.offsets[0, 0] + first.counts[0, 0])
        for i in np.flatnonzero(sizes < end):
            volume._layout(files[int(i)])
    return volume


def open_stack(path: Path, *, channel: int | None) -> RawVolume:
    """Return the volume in a multi-page TIFF, BigTIFF, OME-TIFF or ImageJ stack.

    Raises
    ------
    UserError
        As `vasculome.readers.tiff_layout.stack_layout`.
    """
    layout = stack_layout(path, channel=channel)
    return RawVolume((path,), layout.shape, layout.dtype, stack=True, channel=channel)


def open_pages(path: Path, *, pages: range | tuple[int, ...]) -> RawVolume:
    """Return the volume in those ``pages`` of a TIFF, of which only the first page is looked at.

    Raises
    ------
    UserError
        The first page is not readable, or the file is too short for as many pages like it.
    """
    first = first_page_layout(path)
    shape = (len(pages), *first.shape[1:])
    volume = RawVolume((path,), shape, first.dtype, stack=True, pages=pages)
    if first.raw and file_state(path)[0] < len(pages) * int(first.counts[0, 0]):
        volume._layout(path)
    return volume


def absent(places: Sequence[int], count: int) -> tuple[int, ...]:
    """Return which of the planes 0 to ``count`` - 1 are not among ``places``."""
    if len(places) == count:
        return ()
    return tuple(sorted(set(range(count)).difference(places)))


def _describe(layout: TiffLayout) -> str:
    return f"{layout.shape[1]}×{layout.shape[2]} {layout.dtype}"


def _opened(file: Path) -> FileIO:
    try:
        return FileIO(file)
    except OSError as error:
        raise unreadable(file, error) from error
