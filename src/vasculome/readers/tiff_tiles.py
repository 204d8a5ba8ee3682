"""Raw microscopy in, lazily: folders of planes, stacks, and tiles at nominal positions."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.files import check_numbering, file_state, fingerprint, list_files
from vasculome.readers.tiff_layout import (
    TiffLayout,
    count_channels,
    plane_layout,
    stack_layout,
)

VolumeFormat = Literal["tiff_planes", "tiff_stack", "tiff_tiles"]
HeaderCheck = Literal["names", "headers"]

TILE_TABLE = "tiles.tsv"
TILE_COLUMNS = ("file", "z_um", "y_um", "x_um")

_TIFF = (".tif", ".tiff", ".btf", ".tf8")


@dataclass(frozen=True)
class RawVolume:
    """A volume in TIFF files, of which only what is asked for is read.

    It holds no open file and no pixels: it is pickled to workers, and each read opens one file
    at a time.

    Attributes
    ----------
    files
        One file a plane in the order of z, or one stack.
    shape
        Voxels (z, y, x).
    dtype
        uint8, uint16 or float32, native byte order.
    channel
        Channel of a stack with several, else None.
    read_unit
        Smallest piece (z, y, x) that the files decode by itself; boxes that are multiples of it
        waste no work.
    """

    files: tuple[Path, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    channel: int | None
    read_unit: tuple[int, int, int]

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the voxels of ``box`` as an array of its shape and the volume's dtype.

        Raises
        ------
        UserError
            A file is missing, damaged, or not like the first; a value is not finite.
        ValueError
            The box reaches beyond the volume.
        """
        whole = Box.of_shape(self.shape)
        if box.ndim != 3 or box.intersect(whole) != box:
            raise ValueError(f"{box} is empty or not within a volume of shape {self.shape}")
        out = np.empty(box.shape, self.dtype)
        planes_per_file = self.shape[0] // len(self.files)
        z = box.start[0]
        while z < box.stop[0]:
            number, page = divmod(z, planes_per_file)
            pages = range(page, min(planes_per_file, page + box.stop[0] - z))
            self._read_pages(self.files[number], pages, box, out[z - box.start[0] :], z)
            z += len(pages)
        return out

    def fingerprint(self) -> str:
        """Return a digest of the files' names, sizes and times, and of the channel."""
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
        stack = len(self.files) == 1
        layout = stack_layout(file, channel=self.channel) if stack else plane_layout(file)
        if (layout.shape[1:], layout.dtype) != (self.shape[1:], self.dtype):
            raise UserError(
                f"is {_describe(layout.shape[1:], layout.dtype)} where the first plane is "
                f"{_describe(self.shape[1:], self.dtype)}",
                where=file,
                fix="export all planes with one shape and pixel type, or move this file away",
            )
        return layout

    def _read_pages(
        self, file: Path, pages: range, box: Box, out: npt.NDArray[Any], z: int
    ) -> None:
        layout = self._layout(file)
        read_page = _read_raw if layout.raw else _read_segments
        try:
            with FileIO(file) as handle:
                for i, page in enumerate(pages):
                    read_page(handle, layout, page, box, out[i])
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"plane {z} cannot be decoded ({error})", where=file, fix="copy or export it again"
            ) from error
        if layout.dtype.kind == "f":
            for i, plane in enumerate(out[: len(pages)]):
                _check_finite(file, plane, box, z + i)


@dataclass(frozen=True)
class TileSet:
    """Overlapping volumes of one acquisition and where the stage was for each.

    Attributes
    ----------
    names
        Names of the tiles, as in the table.
    volumes
        Their voxels; one dtype, shapes may differ.
    positions_um
        Nominal position (z, y, x) of each tile's voxel 0, in micrometres.
    """

    names: tuple[str, ...]
    volumes: tuple[RawVolume, ...]
    positions_um: tuple[tuple[float, float, float], ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of all tiles."""
        return self.volumes[0].dtype

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of all tiles."""
        return tuple(file for volume in self.volumes for file in volume.files)

    def fingerprint(self) -> str:
        """Return a digest of the tiles' files and positions."""
        parts = (v.fingerprint() for v in self.volumes)
        return fingerprint((), detail=repr((self.names, self.positions_um, tuple(parts))))


@dataclass(frozen=True)
class Probe:
    """What the headers say: enough to validate a sample before anything runs.

    Attributes
    ----------
    shape
        Voxels (z, y, x), of the first tile where there are several.
    dtype
        Pixel type.
    channels
        Channels, of which one is to be chosen.
    tiles
        Number of tiles; 1 for a single volume.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    channels: int
    tiles: int


def open_volume(
    path: Path,
    *,
    format: VolumeFormat,
    pattern: str | None = None,
    channel: int | None = None,
    check: HeaderCheck = "names",
) -> RawVolume | TileSet:
    """Return the volume or tiles at ``path``, after checking what is cheap to check.

    Parameters
    ----------
    path
        ``tiff_planes``: folder of single-plane TIFFs, numbered without gaps. ``tiff_stack``:
        multi-page TIFF, BigTIFF, OME-TIFF or ImageJ stack. ``tiff_tiles``: folder with
        ``tiles.tsv`` (columns file, z_um, y_um, x_um: the nominal position of each tile's
        voxel 0, micrometres) and the tiles it names, each a stack or a folder of planes.
    format
        Which of these it is.
    pattern
        Shell pattern that picks the planes of a folder.
    channel
        Channel of stacks that have several, counted from 0.
    check
        ``"names"``: numbers and sizes of all planes, header of the first. ``"headers"``: header
        of every plane as well. A read always checks the planes it touches.

    Raises
    ------
    UserError
        Anything in the input that would spoil the result, naming the file.
    """
    if not path.exists():
        raise UserError("does not exist", where=path, fix="check the path in the sample sheet")
    if format == "tiff_tiles":
        return _open_tiles(path, pattern=pattern, channel=channel, check=check)
    volume = (
        _open_planes(path, pattern=pattern, channel=channel)
        if format == "tiff_planes"
        else _open_stack(path, channel=channel)
    )
    if check == "headers":
        volume.check_headers()
    return volume


def probe(path: Path, *, format: VolumeFormat, pattern: str | None = None) -> Probe:
    """Return shape, type and channels from headers alone; parameters as `open_volume`.

    Raises
    ------
    UserError
        As `open_volume`, but for the choice of a channel.
    """
    if format == "tiff_stack" and path.is_file():
        channels = count_channels(path)
        volume = _open_stack(path, channel=0)
        return Probe(volume.shape, volume.dtype, channels, tiles=1)
    if format == "tiff_tiles":
        rows = _read_tile_table(path / TILE_TABLE)
        stacks = [path / name for name, _ in rows if (path / name).is_file()]
        channels = count_channels(stacks[0]) if stacks else 1
        tiles = _open_tiles(
            path, pattern=pattern, channel=0 if channels > 1 else None, check="names"
        )
        return Probe(tiles.volumes[0].shape, tiles.dtype, channels, tiles=len(tiles.volumes))
    volume = _open_planes(path, pattern=pattern, channel=None)
    return Probe(volume.shape, volume.dtype, channels=1, tiles=1)
