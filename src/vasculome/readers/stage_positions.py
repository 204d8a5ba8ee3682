"""Where tiles lie: from the order of a grid, or along a stage's axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from vasculome.errors import UserError
from vasculome.readers.tile_set import PositionUm

GridOrder = Literal["raster-rows", "raster-columns", "snake-rows", "snake-columns"]
StageAxes = tuple[str, str]

IMAGE_AXES: StageAxes = ("y", "x")


def grid_cells(grid: tuple[int, int], *, order: GridOrder) -> list[tuple[int, int]]:
    """Return row and column of each tile, in the order of acquisition.

    Parameters
    ----------
    grid
        Rows and columns.
    order
        ``raster-rows``: row by row, each from column 0; ``snake-rows``: every second row
        backwards; ``…-columns``: column by column.
    """
    if order not in get_args(GridOrder):
        raise ValueError(f"order {order!r}")
    rows, columns = grid
    by_rows = order.endswith("rows")
    slow, fast = (rows, columns) if by_rows else (columns, rows)
    cells = []
    for i in range(slow):
        backwards = order.startswith("snake") and i % 2 == 1
        for j in reversed(range(fast)) if backwards else range(fast):
            cells.append((i, j) if by_rows else (j, i))
    return cells


def cell_positions_um(
    cells: Sequence[tuple[int, int]],
    *,
    shape: tuple[int, int, int],
    spacing_um: Sequence[float],
    overlap_percent: tuple[float, float],
) -> list[PositionUm]:
    """Return the nominal position (z, y, x) of tiles at rows and columns of a regular grid.

    Parameters
    ----------
    cells
        Row and column of each tile.
    shape
        Voxels (z, y, x) of a tile.
    spacing_um
        Voxel spacing (z, y, x).
    overlap_percent
        Overlap of neighbours along y and x, percent of a tile's height and width.
    """
    pitch_y_um, pitch_x_um = (
        n * s * (1 - percent / 100)
        for n, s, percent in zip(shape[1:], spacing_um[1:], overlap_percent, strict=True)
    )
    return [(0.0, row * pitch_y_um, column * pitch_x_um) for row, column in cells]


def oriented(positions_um: Sequence[PositionUm], *, stage_axes: StageAxes) -> list[PositionUm]:
    """Return positions along the image's axes from positions along the stage's.

    Parameters
    ----------
    positions_um
        Positions (z, y, x) as the stage counts them.
    stage_axes
        Which axis of the stage runs down the rows of the image, and which along its columns,
        with a minus where they run against each other: ``("y", "-x")``.
    """
    turned: list[PositionUm] = []
    for z_um, y_um, x_um in positions_um:
        along = {"y": y_um, "x": x_um}
        down, right = (
            -along[axis[1:]] if axis.startswith("-") else along[axis] for axis in stage_axes
        )
        turned.append((z_um, down, right))
    return turned


def same_shape(shapes: Sequence[tuple[int, int, int]], *, where: Path) -> tuple[int, int, int]:
    """Return the one shape of all tiles; raises UserError if they differ."""
    odd = next((shape for shape in shapes if shape != shapes[0]), None)
    if odd is not None:
        raise UserError(
            f"tiles of shapes {shapes[0]} and {odd} lie on no regular grid",
            where=where,
            fix="give the positions in tiles.tsv, format tiff_tiles",
        )
    return shapes[0]


def check_tile_count(found: int, grid: tuple[int, int], *, where: Path) -> None:
    """Raise UserError unless there are as many tiles as the grid has places."""
    if found != grid[0] * grid[1]:
        raise UserError(
            f"holds {found} tiles where a grid of {grid[0]}x{grid[1]} has {grid[0] * grid[1]}",
            where=where,
            fix="check grid in the sample sheet, or restore the missing tiles",
        )
