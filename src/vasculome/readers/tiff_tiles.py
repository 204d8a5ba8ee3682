"""Raw microscopy in: folders of planes, stacks, and tiles at nominal positions."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vasculome.errors import UserError
from vasculome.readers.tiff_headers import count_channels
from vasculome.readers.tiff_volume import RawVolume, open_planes, open_stack
from vasculome.readers.tile_files import ONLY_CHANNEL, open_tile
from vasculome.readers.tile_set import PositionUm, Tile, TileSet, Volume, assemble

VolumeFormat = Literal["tiff_planes", "tiff_stack", "tiff_tiles"]
HeaderCheck = Literal["names", "headers"]

TILE_TABLE = "tiles.tsv"
TILE_COLUMNS = ("file", "z_um", "y_um", "x_um")


@dataclass(frozen=True)
class Probe:
    """What the headers say: enough to validate a sample before anything runs.

    Attributes
    ----------
    shape
        Voxels (z, y, x); of the first tile where there are several.
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
    """Return the volume or the tiles at ``path``, after checking what is cheap to check.

    Parameters
    ----------
    path
        ``tiff_planes``: folder of single-plane TIFFs, numbered without gaps. ``tiff_stack``:
        multi-page TIFF, BigTIFF, OME-TIFF or ImageJ stack. ``tiff_tiles``: folder with a table
        ``tiles.tsv`` (columns file, z_um, y_um, x_um: nominal position of each tile's voxel 0,
        micrometres) and the tiles it names, each a stack or a folder of planes.
    format
        Which of these it is.
    pattern
        Shell pattern that picks the planes of a folder, e.g. ``"*_ch01.tif"``.
    channel
        Channel of stacks that have several, counted from 0.
    check
        ``"names"``: numbers and sizes of all planes, and the header of the first. ``"headers"``:
        the header of every plane as well. A read always checks the planes it touches.

    Raises
    ------
    UserError
        Anything in the input that would spoil the result, naming the file.
    """
    result: RawVolume | TileSet
    if format == "tiff_tiles":
        result = _open_tiles(path, pattern=pattern, channel=channel)
        volumes: tuple[Volume, ...] = result.volumes
    else:
        result = _open_one(path, format=format, pattern=pattern, channel=channel)
        volumes = (result,)
    if check == "headers":
        for volume in volumes:
            volume.check_headers()
    return result


def probe(path: Path, *, format: VolumeFormat, pattern: str | None = None) -> Probe:
    """Return shape, type and channels from headers alone; parameters as `open_volume`.

    Raises
    ------
    UserError
        As `open_volume`; but several channels are reported, not refused.
    """
    if format != "tiff_tiles":
        channels = _count_channels(path) if format == "tiff_stack" else 1
        volume = _open_one(path, format=format, pattern=pattern, channel=_first_of(channels))
        return Probe(volume.shape, volume.dtype, channels, tiles=1)
    rows = _read_tile_table(path)
    channels = max(_count_channels(path / name) for name, _ in rows)
    tiles = _open_tiles(path, pattern=pattern, channel=_first_of(channels))
    return Probe(tiles.volumes[0].shape, tiles.dtype, channels, tiles=len(rows))


def _open_one(
    path: Path, *, format: VolumeFormat, pattern: str | None, channel: int | None
) -> RawVolume:
    if format == "tiff_stack":
        if pattern is not None:
            raise UserError(
                f"is one file, of which the pattern {pattern!r} picks nothing",
                where=path,
                fix="leave the pattern empty, or use format tiff_planes",
            )
        return open_stack(path, channel=channel)
    if channel is not None:
        raise UserError(
            f"holds single planes, which have no channel {channel}",
            where=path,
            fix="pick the planes of one channel by a pattern such as *_ch01.tif",
        )
    return open_planes(path, pattern=pattern)


def open_table_tiles(
    folder: Path, *, pattern: str | None, allow_missing_planes: bool
) -> list[Tile]:
    """Return the tiles that ``tiles.tsv`` in ``folder`` lists, with all their channels.

    Parameters
    ----------
    folder
        See `open_volume`.
    pattern
        Shell pattern that picks the planes of tiles that are folders.
    allow_missing_planes
        Whether planes that are missing between others are read as zeros.

    Raises
    ------
    UserError
        As `open_volume`.
    """
    return [
        Tile(
            name,
            at_um,
            open_tile(folder / name, pattern=pattern, allow_missing_planes=allow_missing_planes),
        )
        for name, at_um in _read_tile_table(folder)
    ]


def _open_tiles(folder: Path, *, pattern: str | None, channel: int | None) -> TileSet:
    tiles = [
        Tile(
            name,
            at_um,
            {
                ONLY_CHANNEL: _open_one(
                    folder / name, format="tiff_planes", pattern=pattern, channel=channel
                )
                if (folder / name).is_dir()
                else open_stack(folder / name, channel=channel)
            },
        )
        for name, at_um in _read_tile_table(folder)
    ]
    return assemble(tiles, where=folder).tile_sets[0]


def _count_channels(path: Path) -> int:
    return 1 if path.is_dir() else count_channels(path)


def _first_of(channels: int) -> int | None:
    return 0 if channels > 1 else None


def _read_tile_table(folder: Path) -> list[tuple[str, PositionUm]]:
    """Return name and position of each tile, in the order of the table."""
    path = folder / TILE_TABLE
    if not path.is_file():
        raise UserError(
            "does not exist",
            where=path,
            fix=f"write a tab-separated table with columns {', '.join(TILE_COLUMNS)}",
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("is not a text file", where=path, fix="save it as UTF-8 text") from error
    lines = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    missing = [c for c in TILE_COLUMNS if not lines or c not in lines[0]]
    if missing:
        raise UserError(
            f"lacks {', '.join(missing)}" if lines else "has no rows",
            where=path,
            fix=f"give tab-separated columns {', '.join(TILE_COLUMNS)} and one row a tile",
        )
    rows = [_tile_row(path, number, line) for number, line in enumerate(lines, start=2)]
    seen: set[Path] = set()
    for name, _ in rows:
        tile = (folder / name).resolve()
        if not tile.exists():
            raise UserError(
                f"names tile {name}, which does not exist", where=path, fix="check the file name"
            )
        if tile in seen:
            raise UserError(f"names tile {name} twice", where=path, fix="keep one row a tile")
        seen.add(tile)
    return rows


def _tile_row(path: Path, number: int, line: dict[str, str | None]) -> tuple[str, PositionUm]:
    name = (line["file"] or "").strip()
    if not name:
        raise UserError(f"line {number} names no file", where=path, fix="fill or delete the line")
    z_um, y_um, x_um = (_position(path, number, c, line[c]) for c in TILE_COLUMNS[1:])
    return name, (z_um, y_um, x_um)


def _position(path: Path, number: int, column: str, text: str | None) -> float:
    try:
        value_um = float(text or "")
    except ValueError:
        value_um = math.nan
    if not math.isfinite(value_um):
        raise UserError(
            f"line {number}, column {column}: {text!r} is not a number",
            where=path,
            fix="give the position in micrometres",
        )
    return value_um
