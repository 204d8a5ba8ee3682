"""Tiles that carry no positions: files or folders in the order of acquisition."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from vasculome.errors import UserError
from vasculome.readers.files import entry_names, natural_key
from vasculome.readers.stage_positions import (
    GridOrder,
    cell_positions_um,
    check_tile_count,
    grid_cells,
    same_shape,
)
from vasculome.readers.tiff_volume import TIFF_SUFFIXES
from vasculome.readers.tile_files import open_tile
from vasculome.readers.tile_set import Tile


def open_grid_tiles(
    root: Path,
    *,
    pattern: str | None,
    spacing_um: Sequence[float],
    grid: tuple[int, int],
    order: GridOrder,
    overlap_percent: tuple[float, float],
    allow_missing_planes: bool,
) -> list[Tile]:
    """Return the tiles of a regular grid: stacks, or folders of planes, in natural order.

    Parameters
    ----------
    root
        Folder that holds as many stacks or folders as the grid has places.
    pattern
        Shell pattern that their names must match, or None for all.
    spacing_um
        Voxel spacing (z, y, x).
    grid, order
        Rows and columns, and the order in which they were acquired.
    overlap_percent
        Overlap of neighbours along y and x, percent of a tile.
    allow_missing_planes
        Whether planes that are missing between others are read as zeros.

    Raises
    ------
    UserError
        Stacks beside folders, another number of tiles, or tiles of several shapes.
    """
    names = [
        name
        for name in sorted(entry_names(root), key=natural_key)
        if pattern is None or fnmatch(name, pattern)
    ]
    folders = [name for name in names if (root / name).is_dir()]
    stacks = [n for n in names if n.lower().endswith(TIFF_SUFFIXES) and n not in set(folders)]
    if folders and stacks:
        raise UserError(
            f"holds stacks such as {stacks[0]} beside folders such as {folders[0]}",
            where=root,
            fix="give a pattern that picks the tiles",
        )
    chosen = folders or stacks
    check_tile_count(len(chosen), grid, where=root)
    volumes = [open_tile(root / name, allow_missing_planes=allow_missing_planes) for name in chosen]
    shape = same_shape([next(iter(of.values())).shape for of in volumes], where=root)
    positions_um = cell_positions_um(
        grid_cells(grid, order=order),
        shape=shape,
        spacing_um=spacing_um,
        overlap_percent=overlap_percent,
    )
    return [
        Tile(name, at_um, of) for name, at_um, of in zip(chosen, positions_um, volumes, strict=True)
    ]
