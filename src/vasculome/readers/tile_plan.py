"""Tiles that are only described: to plan a run before there is any data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.geometry import Box
from vasculome.readers.files import fingerprint
from vasculome.readers.stage_positions import cell_positions_um, grid_cells
from vasculome.readers.tile_set import TileSet


@dataclass(frozen=True)
class PlannedVolume:
    """A volume of which only shape and type are known; see `RawVolume` for the attributes."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    files: Sequence[Path] = ()
    missing: tuple[int, ...] = ()

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Raise ValueError: there are no voxels."""
        raise ValueError(f"{box} of a volume that is only planned")

    def fingerprint(self) -> str:
        """Return a digest of shape and type."""
        return fingerprint((), detail=f"planned {self.shape} {self.dtype}")


def plan_tiles(
    *,
    grid: tuple[int, int],
    shape: tuple[int, int, int],
    dtype: npt.DTypeLike = np.uint16,
    spacing_um: Sequence[float],
    overlap_percent: tuple[float, float],
) -> TileSet:
    """Return a regular grid of tiles without data.

    Parameters
    ----------
    grid
        Rows and columns of tiles.
    shape
        Voxels (z, y, x) of each tile.
    dtype
        Pixel type.
    spacing_um
        Voxel spacing (z, y, x).
    overlap_percent
        Overlap of neighbours along y and x, percent of a tile.
    """
    cells = grid_cells(grid, order="raster-rows")
    volume = PlannedVolume(shape, np.dtype(dtype))
    positions_um = cell_positions_um(
        cells, shape=shape, spacing_um=spacing_um, overlap_percent=overlap_percent
    )
    return TileSet(
        tuple(f"{row}_{column}" for row, column in cells),
        (volume,) * len(cells),
        tuple(positions_um),
    )
