"""One volume in TIFF files, read lazily, a box at a time."""

from __future__ import annotations

from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.files import check_numbering, file_state, fingerprint, list_files, unreadable
from vasculome.readers.tiff_layout import TiffLayout, plane_layout, stack_layout
from vasculome.readers.tiff_pixels import check_finite, read_page

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")


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
    read_unit
        Smallest piece (z, y, x) that the files decode by itself: reads of whole multiples waste
        no work.
    stack
        Whether the one file is a stack.
    channel
        Channel of a stack with several, counted from 0.
    """

    files: tuple[Path, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read_unit: tuple[int, int, int]
    stack: bool = False
    channel: int | None = None

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the voxels of ``box``, an array of its shape and of the volume's dtype.

        Raises
        ------
        UserError
            A file is missing, damaged, or not like the first; a float value is not finite.
        ValueError
            The box is empty or reaches beyond the volume.
        """
        if box.ndim != 3 or box.intersect(Box.of_shape(self.shape)) != box:
            raise ValueError(f"{box} is empty or beyond a volume of shape {self.shape}")
        out = np.empty(box.shape, self.dtype)
        planes, *window = box.slices
        if self.stack:
            self._read_pages(self.files[0], range(planes.start, planes.stop), window, out, 0)
        else:
            for i, file in enumerate(self.files[planes]):
                self._read_pages(file, range(1), window, out[i : i + 1], planes.start + i)
        return out

    def fingerprint(self) -> str:
        """Return the identity of the input: a digest of file names, sizes, times and channel."""
        return fingerprint(self.files, detail=f"channel {self.channel}")

    def check_headers(self) -> None:
        """Prove from every file's header that it is whole and like the first.

        Raises
        ------
        UserError
            Naming the first file that is not.
        """
        for file in self.files:
            self._layout(file)

    def _layout(self, file: Path) -> TiffLayout:
        layout = stack_layout(file, channel=self.channel) if self.stack else plane_layout(file)
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


def open_planes(folder: Path, *, pattern: str | None) -> RawVolume:
    """Return the volume in a folder of single-plane TIFFs, numbered without gaps.

    Numbers and sizes of all planes are checked at once, and the header of the first; the
    headers of others as well where the size cannot be right.

    Raises
    ------
    UserError
        Naming the plane that is missing, empty, damaged or unlike the first.
    """
    found = list_files(folder, suffixes=TIFF_SUFFIXES, pattern=pattern)
    files = check_numbering(found, what="plane")
    sizes = [file_state(file)[0] for file in files]
    if 0 in sizes:
        plane_layout(files[sizes.index(0)])
    first = plane_layout(files[0])
    volume = RawVolume(
        files, (len(files), *first.shape[1:]), first.dtype, _read_unit(first), stack=False
    )
    if first.raw:
        end = int(first.offsets[0, 0] + first.counts[0, 0])
        for file, size in zip(files, sizes, strict=True):
            if size < end:
                volume._layout(file)
    return volume


def open_stack(path: Path, *, channel: int | None) -> RawVolume:
    """Return the volume in a multi-page TIFF, BigTIFF, OME-TIFF or ImageJ stack.

    Raises
    ------
    UserError
        As `vasculome.readers.tiff_layout.stack_layout`.
    """
    layout = stack_layout(path, channel=channel)
    return RawVolume(
        (path,), layout.shape, layout.dtype, _read_unit(layout), stack=True, channel=channel
    )


def _read_unit(layout: TiffLayout) -> tuple[int, int, int]:
    return (1, 1, layout.shape[2]) if layout.raw else (1, *layout.segment_shape)


def _describe(layout: TiffLayout) -> str:
    return f"{layout.shape[1]}×{layout.shape[2]} {layout.dtype}"


def _opened(file: Path) -> FileIO:
    try:
        return FileIO(file)
    except OSError as error:
        raise unreadable(file, error) from error
