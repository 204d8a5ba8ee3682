"""Raw microscopy in: tiles with a table of their nominal positions."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from vasculome.errors import UserError
from vasculome.readers.tile_files import open_tile
from vasculome.readers.tile_set import PositionUm, Tile

TILE_TABLE = "tiles.tsv"
TILE_COLUMNS = ("file", "z_um", "y_um", "x_um")


def open_table_tiles(
    folder: Path, *, pattern: str | None, allow_missing_planes: bool
) -> list[Tile]:
    """Return the tiles that ``tiles.tsv`` in ``folder`` lists, with all their channels.

    Parameters
    ----------
    folder
        Folder with the table ``tiles.tsv`` (columns file, z_um, y_um, x_um: nominal position of
        each tile's voxel 0, in micrometres) and the tiles it names, each a stack or a folder of
        planes.
    pattern
        Shell pattern that picks the planes of tiles that are folders.
    allow_missing_planes
        Whether planes that are missing between others are read as zeros.

    Raises
    ------
    UserError
        Anything in table and files that would spoil the result, naming the file.
    """
    return [
        Tile(
            name,
            at_um,
            open_tile(folder / name, pattern=pattern, allow_missing_planes=allow_missing_planes),
        )
        for name, at_um in _read_tile_table(folder)
    ]


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
