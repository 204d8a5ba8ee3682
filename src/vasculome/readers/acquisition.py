"""Raw microscopy in, whatever its layout: the same tiles in every channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from vasculome.errors import UserError
from vasculome.readers.grid_tiles import open_grid_tiles
from vasculome.readers.name_pattern import parse_pattern
from vasculome.readers.ome_tiles import open_ome_tiles
from vasculome.readers.pattern_tiles import open_pattern_tiles
from vasculome.readers.stage_positions import IMAGE_AXES, GridOrder, StageAxes, oriented
from vasculome.readers.terastitcher import open_terastitcher_folders
from vasculome.readers.terastitcher_xml import open_terastitcher_xml
from vasculome.readers.tiff_tiles import open_table_tiles
from vasculome.readers.tile_files import open_tile
from vasculome.readers.tile_set import Acquisition, Tile, assemble

Layout = Literal[
    "tiff_planes",
    "tiff_stack",
    "tiff_tiles",
    "tiff_grid",
    "tiff_pattern",
    "ome_tiles",
    "terastitcher",
]


def open_acquisition(
    path: Path,
    *,
    format: Layout,
    spacing_um: Sequence[float],
    pattern: str | None = None,
    grid: tuple[int, int] | None = None,
    order: GridOrder | None = None,
    overlap_percent: tuple[float, float] | None = None,
    stage_axes: StageAxes | None = None,
    allow_missing_planes: bool = False,
) -> Acquisition:
    """Return all channels of the raw data at ``path``; no pixel is read.

    A single volume is an acquisition of one tile at the origin.

    Parameters
    ----------
    path
        File or folder; see ``format``.
    format
        ``tiff_planes``, ``tiff_stack``: one volume, see `open_planes` and `open_stack`.
        ``tiff_tiles``: tiles with a table of positions, see `open_table_tiles`. ``tiff_grid``:
        tiles without positions, see `open_grid_tiles`. ``tiff_pattern``: any regular naming, see
        `open_pattern_tiles`. ``ome_tiles``: see `open_ome_tiles`. ``terastitcher``: a folder, see
        `open_terastitcher_folders`, or an XML project, see `open_terastitcher_xml`.
    spacing_um
        Voxel spacing (z, y, x).
    pattern
        ``tiff_pattern``: names with fields. ``tiff_planes``, ``tiff_tiles``, ``tiff_grid``: shell
        pattern that picks planes or tiles.
    grid, order, overlap_percent
        Rows and columns, order of acquisition, and overlap along y and x, where the files carry
        no positions.
    stage_axes
        Which stage axis runs down the rows of the image, and which along its columns, see
        `oriented`; None: ``("y", "x")``.
    allow_missing_planes
        Whether missing planes are read as zeros, and listed, instead of being refused.

    Raises
    ------
    UserError
        Anything in the input that would spoil the result, naming the file.
    """
    _refuse_idle_options(
        format,
        {
            "pattern": pattern is not None,
            "grid": grid is not None,
            "order": order is not None,
            "overlap_percent": overlap_percent is not None,
        },
    )
    missing = {"allow_missing_planes": allow_missing_planes}
    if format == "tiff_grid":
        if grid is None or order is None or overlap_percent is None:
            raise UserError(
                "needs grid, order and overlap_percent",
                where=f"format {format}",
                fix="fill these columns in the sample sheet",
            )
        tiles = open_grid_tiles(
            path,
            pattern=pattern,
            spacing_um=spacing_um,
            grid=grid,
            order=order,
            overlap_percent=overlap_percent,
            **missing,
        )
    elif format == "tiff_pattern":
        if pattern is None:
            raise UserError(
                "needs a pattern",
                where=f"format {format}",
                fix="fill the column pattern, e.g. tile_{row}_{col}/plane_{z}.tif",
            )
        tiles = open_pattern_tiles(
            path,
            pattern=parse_pattern(pattern),
            spacing_um=spacing_um,
            grid=grid,
            order=order,
            overlap_percent=overlap_percent,
            **missing,
        )
    elif format == "ome_tiles":
        tiles = open_ome_tiles(path, spacing_um=spacing_um, **missing)
    elif format == "terastitcher" and path.suffix.lower() == ".xml":
        tiles = open_terastitcher_xml(path, spacing_um=spacing_um, **missing)
    elif format == "terastitcher":
        tiles = open_terastitcher_folders(path, spacing_um=spacing_um, **missing)
    elif format == "tiff_tiles":
        tiles = open_table_tiles(path, pattern=pattern, **missing)
    else:
        tiles = [_one_volume(path, format=format, pattern=pattern, **missing)]
    placed = oriented([tile.position_um for tile in tiles], stage_axes=stage_axes or IMAGE_AXES)
    return assemble(
        [replace(tile, position_um=at) for tile, at in zip(tiles, placed, strict=True)],
        where=path,
    )


def _one_volume(
    path: Path, *, format: Layout, pattern: str | None, allow_missing_planes: bool
) -> Tile:
    if path.exists() and path.is_dir() != (format == "tiff_planes"):
        state = "is a folder, not a TIFF file" if path.is_dir() else "is a file, not a folder"
        raise UserError(state, where=path, fix="check path and format in the sample sheet")
    volumes = open_tile(path, pattern=pattern, allow_missing_planes=allow_missing_planes)
    return Tile(path.name, (0.0, 0.0, 0.0), volumes)


def _refuse_idle_options(format: Layout, given: dict[str, bool]) -> None:
    """Raise UserError for an option that ``format`` does not know."""
    known = {
        "tiff_grid": {"pattern", "grid", "order", "overlap_percent"},
        "tiff_pattern": {"pattern", "grid", "order", "overlap_percent"},
        "tiff_planes": {"pattern"},
        "tiff_tiles": {"pattern"},
    }
    for name, there in given.items():
        if there and name not in known.get(format, set()):
            raise UserError(
                f"does nothing with {name}",
                where=f"format {format}",
                fix=f"empty the column {name} in the sample sheet",
            )
