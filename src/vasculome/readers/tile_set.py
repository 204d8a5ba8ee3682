"""Tiles of one acquisition, where the stage was for each, and its channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.files import fingerprint

PositionUm = tuple[float, float, float]
"""Position (z, y, x) of a tile's voxel 0, in micrometres."""


class Volume(Protocol):
    """What all volumes can do, whatever files they lie in; see `RawVolume`."""

    @property
    def files(self) -> Sequence[Path]:
        """All files, none of which is open."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (z, y, x)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type: uint8, uint16 or float32, native byte order."""

    @property
    def missing(self) -> tuple[int, ...]:
        """Planes that no file holds, rising; they are read as zeros."""

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the voxels of ``box``."""

    def fingerprint(self) -> str:
        """Return the identity of the input, without reading pixels."""


@dataclass(frozen=True)
class TileSet:
    """Overlapping volumes of one channel, and where the stage was for each.

    Attributes
    ----------
    names
        Names of the tiles.
    volumes
        Their voxels; one dtype, shapes may differ.
    positions_um
        Nominal position (z, y, x) of each tile's voxel 0, in micrometres.
    """

    names: tuple[str, ...]
    volumes: tuple[Volume, ...]
    positions_um: tuple[PositionUm, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of all tiles."""
        return self.volumes[0].dtype

    @property
    def file_count(self) -> int:
        """Number of files of all tiles."""
        return sum(len(volume.files) for volume in self.volumes)

    @property
    def missing(self) -> dict[str, tuple[int, ...]]:
        """Planes that no file holds, of each tile that lacks some; they are read as zeros."""
        pairs = zip(self.names, self.volumes, strict=True)
        return {name: volume.missing for name, volume in pairs if volume.missing}

    def fingerprint(self) -> str:
        """Return the identity of the input: a digest of the tiles' files and positions."""
        parts = tuple(volume.fingerprint() for volume in self.volumes)
        return fingerprint((), detail=repr((self.names, self.positions_um, parts)))


@dataclass(frozen=True)
class Acquisition:
    """All channels of one acquisition: the same tiles, at the same positions, in each.

    Attributes
    ----------
    channels
        Names of the channels; a channel's number is its place here.
    tile_sets
        The tiles of each channel.
    """

    channels: tuple[str, ...]
    tile_sets: tuple[TileSet, ...]

    def tiles(self, channel: int | None, *, where: Path) -> TileSet:
        """Return the tiles of one channel, counted from 0; None takes the only one.

        Raises
        ------
        UserError
            No such channel, or none is chosen of several.
        """
        count = len(self.channels)
        if channel is None and count > 1:
            raise UserError(
                f"has {count} channels: {', '.join(self.channels)}",
                where=where,
                fix=f"choose one, 0 to {count - 1}, in the sample sheet",
            )
        if not 0 <= (channel or 0) < count:
            raise UserError(
                f"has no channel {channel}",
                where=where,
                fix=f"choose one of its {count}, counted from 0",
            )
        return self.tile_sets[channel or 0]


@dataclass(frozen=True)
class Tile:
    """One tile while a layout is read: its volumes, by the name of the channel."""

    name: str
    position_um: PositionUm
    volumes: Mapping[str, Volume]


def assemble(tiles: Sequence[Tile], *, where: Path) -> Acquisition:
    """Return the acquisition that ``tiles`` make, after proving that their channels agree.

    Channels stand in the order of the first tile.

    Raises
    ------
    UserError
        A tile lacks a channel, channels of a tile differ in shape, or pixel types differ.
    """
    channels = tuple(tiles[0].volumes)
    dtype = tiles[0].volumes[channels[0]].dtype
    for tile in tiles:
        if set(tile.volumes) != set(channels):
            odd = sorted(set(channels).symmetric_difference(tile.volumes))
            raise UserError(
                f"channel {odd[0]} is not there for every tile, such as "
                f"{tile.name if odd[0] in channels else tiles[0].name}",
                where=where,
                fix="restore it, or pick the channels by the pattern in the sample sheet",
            )
        first = tile.volumes[channels[0]]
        for volume in tile.volumes.values():
            if volume.shape != first.shape:
                raise UserError(
                    f"has shape {volume.shape} where another channel of tile {tile.name} has "
                    f"{first.shape}",
                    where=volume.files[0],
                    fix="export all channels of a tile with one shape",
                )
            if volume.dtype != dtype:
                raise UserError(
                    f"is {volume.dtype} where tile {tiles[0].name} is {dtype}",
                    where=volume.files[0],
                    fix="export all tiles with one pixel type",
                )
    names = tuple(tile.name for tile in tiles)
    positions_um = tuple(tile.position_um for tile in tiles)
    return Acquisition(
        channels,
        tuple(
            TileSet(names, tuple(tile.volumes[channel] for tile in tiles), positions_um)
            for channel in channels
        ),
    )
