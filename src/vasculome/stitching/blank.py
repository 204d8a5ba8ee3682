"""Planes that hold no image."""

from __future__ import annotations

import numpy as np

from vasculome.stitching.slabs import Tile

_ROWS = 8


def find_blank_planes(tile: Tile) -> tuple[int, ...]:
    """Return the planes of a tile (z, y, x) in which every pixel has the same value.

    A few rows of each plane are read; all of it only where those are of one value.
    """
    depth, height, width = tile.shape
    first = max(0, (height - _ROWS) // 2)
    rows = slice(first, min(height, first + _ROWS))
    return tuple(
        z
        for z in range(depth)
        if _is_flat(tile, z, rows, width) and _is_flat(tile, z, slice(0, height), width)
    )


def _is_flat(tile: Tile, z: int, rows: slice, width: int) -> bool:
    part = np.asarray(tile[z : z + 1, rows, 0:width])
    return bool(part.min() == part.max())
