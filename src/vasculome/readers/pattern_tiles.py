"""Tiles whose files follow one pattern of names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vasculome.errors import UserError
from vasculome.readers.files import natural_key
from vasculome.readers.name_pattern import FoundFiles, NamePattern, SeriesFiles, find_series
from vasculome.readers.stage_positions import (
    GridOrder,
    cell_positions_um,
    check_tile_count,
    grid_cells,
    same_shape,
)
from vasculome.readers.tiff_volume import open_planes, open_stack
from vasculome.readers.tile_files import open_series, open_tile, plane_span
from vasculome.readers.tile_set import PositionUm, Tile, Volume


def open_pattern_tiles(
    root: Path,
    *,
    pattern: NamePattern,
    spacing_um: Sequence[float],
    grid: tuple[int, int] | None,
    order: GridOrder | None,
    overlap_percent: tuple[float, float] | None,
    allow_missing_planes: bool,
) -> list[Tile]:
    """Return the tiles under ``root`` whose names fit ``pattern``.

    Parameters
    ----------
    root
        The folder in which the pattern begins.
    pattern
        See `parse_pattern`. With ``{z}``, files hold one plane, or one block of planes, each;
        their numbers rise evenly, over the same range in every tile. Without it, they are
        stacks or folders of planes.
    spacing_um
        Voxel spacing (z, y, x).
    grid, order
        For ``{tile}``: rows and columns, and the order in which tiles are numbered.
    overlap_percent
        For ``{row}{col}`` and ``{tile}``: overlap of neighbours along y and x.
    allow_missing_planes
        Whether missing planes are read as zeros instead of being refused.

    Raises
    ------
    UserError
        Nothing fits, options that are missing or would do nothing, missing planes.
    """
    _check_options(pattern, grid=grid, order=order, overlap_percent=overlap_percent)
    files = find_series(root, pattern)
    refuse_empty_tiles(files, where=root, allow_missing_planes=allow_missing_planes)
    found = files.tiles
    keys = sorted(found, key=lambda key: [natural_key(text) for text in key])
    if pattern.has_z:
        span = plane_span(found, spacing_um=spacing_um[0], where=root)
        volumes = [
            open_series(root, found[key], span=span, allow_missing_planes=allow_missing_planes)
            for key in keys
        ]
    else:
        volumes = [
            _open_whole(root, found[key], allow_missing_planes=allow_missing_planes) for key in keys
        ]
    if overlap_percent is None:
        positions_um = _positions_in_names(keys, pattern)
    else:
        cells = _cells(keys, pattern, grid=grid, order=order, where=root)
        shape = same_shape([next(iter(v.values())).shape for v in volumes], where=root)
        positions_um = cell_positions_um(
            cells, shape=shape, spacing_um=spacing_um, overlap_percent=overlap_percent
        )
    names = ["_".join(key) for key in keys]
    return [
        Tile(name, at_um, of) for name, at_um, of in zip(names, positions_um, volumes, strict=True)
    ]


def refuse_empty_tiles(files: FoundFiles, *, where: Path, allow_missing_planes: bool) -> None:
    """Raise UserError that names the first folder of a tile that holds nothing."""
    if files.empty and not allow_missing_planes:
        more = f", nor do {len(files.empty) - 1} more" if len(files.empty) > 1 else ""
        raise UserError(
            f"holds no plane{more}",
            where=where / files.empty[0],
            fix="restore it, or set allow_missing_planes to leave such tiles out",
        )


def _open_whole(
    root: Path, of: dict[str, SeriesFiles], *, allow_missing_planes: bool
) -> dict[str, Volume]:
    volumes: dict[str, Volume] = {}
    for channel in sorted(of, key=natural_key):
        if len(of[channel].paths) > 1:
            raise UserError(
                f"{of[channel].paths[0]} and {of[channel].paths[1]} are one tile by their names",
                where=root,
                fix="tell planes apart by {z} and channels by {channel} in the pattern",
            )
        path = root / of[channel].paths[0]
        if len(of) == 1 and not channel:
            return open_tile(path, allow_missing_planes=allow_missing_planes)
        volumes[channel] = (
            open_planes(path, pattern=None, allow_missing_planes=allow_missing_planes)
            if path.is_dir()
            else open_stack(path, channel=None)
        )
    return volumes


def _positions_in_names(keys: list[tuple[str, ...]], pattern: NamePattern) -> list[PositionUm]:
    unit_um = 0.1 if pattern.place[0].endswith("tenth_um") else 1.0
    return [(0.0, float(y) * unit_um, float(x) * unit_um) for y, x in keys]


def _cells(
    keys: list[tuple[str, ...]],
    pattern: NamePattern,
    *,
    grid: tuple[int, int] | None,
    order: GridOrder | None,
    where: Path,
) -> list[tuple[int, int]]:
    """Return row and column of each tile from its numbers, which begin anywhere."""
    if grid is None or order is None:
        numbered = [(int(row), int(column)) for row, column in keys]
        first_row, first_column = (min(n[i] for n in numbered) for i in range(2))
        return [(row - first_row, column - first_column) for row, column in numbered]
    check_tile_count(len(keys), grid, where=where)
    numbers = [int(key[0]) for key in keys]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise UserError(
            f"tile numbers run from {numbers[0]} to {numbers[-1]} with gaps or repetitions",
            where=where,
            fix="number the tiles one by one, or use {row} and {col}",
        )
    return grid_cells(grid, order=order)


def _check_options(
    pattern: NamePattern,
    *,
    grid: tuple[int, int] | None,
    order: GridOrder | None,
    overlap_percent: tuple[float, float] | None,
) -> None:
    numbered, in_cells = pattern.place == ("tile",), pattern.place == ("row", "col")
    needed = {
        "grid": (grid is not None, numbered),
        "order": (order is not None, numbered),
        "overlap_percent": (overlap_percent is not None, numbered or in_cells),
    }
    fields = "".join(f"{{{name}}}" for name in pattern.place)
    for name, (given, wanted) in needed.items():
        if given != wanted:
            raise UserError(
                f"needs {name}" if wanted else f"places tiles by {fields}: {name} does nothing",
                where=f"pattern {pattern.text}",
                fix=f"{'fill' if wanted else 'empty'} {name} in the sample sheet",
            )
