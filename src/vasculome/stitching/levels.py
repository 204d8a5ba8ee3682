"""Brightness of tiles over their field, and of one place in two tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vasculome.geometry import Box
from vasculome.stitching.network import Floats
from vasculome.stitching.slabs import Tile, bin_down, overlap_box

_FIELD_GRID = 32
_BLOCK = 8
_BRIGHT = 0.2
"""Of the median light of all overlaps: where a tile shows that, the other must show some."""
_DARK = 0.1
"""Of the light that the other tile shows, above the least level of all: less is none."""
_DARKER = 0.8
"""Of the other tile's level as it is: the least level of all may be that of lit tiles."""


class FieldSample(NamedTuple):
    """Levels of one tile over its field.

    Attributes
    ----------
    places
        Middle of each block, float64 (blocks, 2) as (y, x) in voxels.
    levels
        Grey levels, float64 (blocks).
    """

    places: Floats
    levels: Floats


class OverlapSample(NamedTuple):
    """Levels of the same blocks of the sample in two tiles.

    Attributes
    ----------
    i, j
        The tiles.
    field_i, field_j
        Middle of each block in each tile's field, float64 (blocks, 2) as (y, x) in voxels.
    levels_i, levels_j
        Mean grey levels, float64 (blocks).
    """

    i: int
    j: int
    field_i: Floats
    field_j: Floats
    levels_i: Floats
    levels_j: Floats


def sample_field(tile: Tile, *, planes: int = 16) -> FieldSample:
    """Return the levels of a tile: block means of planes spread over it, and their median."""
    height, width = tile.shape[1:]
    factors = (1, max(1, height // _FIELD_GRID), max(1, width // _FIELD_GRID))
    means = [
        bin_down(np.asarray(tile[z : z + 1, 0:height, 0:width]), factors)[0]
        for z in spread(0, tile.shape[0], planes)
    ]
    # Planes that hold no image would count as dark ones.
    levels = np.median([m for m in means if np.ptp(m)] or means, axis=0).astype(float)
    return FieldSample(_middles(levels.shape, factors[1:]), levels.ravel())


def sample_overlap(
    i: int,
    j: int,
    tile_i: Tile,
    tile_j: Tile,
    offset: Sequence[float],
    *,
    planes: int = 8,
    max_blocks: int = 4096,
) -> OverlapSample | None:
    """Return the levels of two tiles in what they share, over blocks of 8 by 8 voxels.

    ``offset`` runs from the start of tile i to that of tile j, as registered. None where they
    share less than a block, or no plane that holds an image in both. Of more than ``max_blocks``
    every second, third, ... is kept.
    """
    steps = [round(o) for o in offset]
    shared = overlap_box(tile_i.shape, tile_j.shape, steps)
    stacks = _block_means(tile_i, tile_j, steps, planes)
    # A plane of one value holds no image.
    imaged = (np.ptp(stacks, axis=(2, 3)) > 0).all(0)
    if stacks[0, 0].size == 1:
        imaged = np.isfinite(stacks).all((0, 2, 3))
    if shared is None or not imaged.any():
        return None
    stacks = stacks[:, imaged].astype(float)
    middles = _middles(stacks.shape[2:], (_BLOCK, _BLOCK))
    kept = slice(None, None, -(-stacks[0].size // max_blocks))
    field_i = np.tile(middles + shared.start[1:], (stacks.shape[1], 1))[kept]
    return OverlapSample(
        i, j, field_i, field_i - steps[1:], stacks[0].ravel()[kept], stacks[1].ravel()[kept]
    )


def overlap_levels(
    tile_i: Tile, tile_j: Tile, offset: Sequence[float], *, planes: int = 8
) -> tuple[float, float]:
    """Return the median grey level of two tiles in what they share; NaN where it is too thin.

    Planes that hold no image count only where a tile has no others there.
    """
    stacks = _block_means(tile_i, tile_j, [round(o) for o in offset], planes)
    levels = []
    for stack in stacks:
        imaged = np.ptp(stack, axis=(1, 2)) > 0
        levels.append(float(np.median(stack[imaged] if imaged.any() else stack)))
    return levels[0], levels[1]


def _block_means(
    tile_i: Tile, tile_j: Tile, steps: Sequence[int], planes: int
) -> NDArray[np.float32]:
    """Return the means over blocks of what two tiles share, shape (2, planes, y, x).

    Some planes spread over the overlap are read; there is one plane of NaN where it is too thin.
    """
    shared = overlap_box(tile_i.shape, tile_j.shape, steps)
    if shared is None or min(shared.shape[1:]) < _BLOCK:
        return np.full((2, 1, 1, 1), np.nan, np.float32)
    stacks: tuple[list[Any], list[Any]] = ([], [])
    for z in spread(shared.start[0], shared.stop[0], planes):
        plane = Box((z, *shared.start[1:]), (z + 1, *shared.stop[1:]))
        other = plane.translate([-s for s in steps])
        for tile, box, stack in ((tile_i, plane, stacks[0]), (tile_j, other, stacks[1])):
            stack.append(bin_down(np.asarray(tile[box.slices]), (1, _BLOCK, _BLOCK))[0])
    return np.array(stacks)


def dark_tiles(
    pairs: NDArray[np.integer],
    levels: NDArray[np.floating],
    accepted: NDArray[np.bool_],
    *,
    count: int,
) -> NDArray[np.bool_]:
    """Return which tiles hold no image: no offset, and dark where tiles beside them show light.

    A tile of nothing but background is not dark: its neighbours show the same background. Nor is
    one that shows light anywhere: there is always one that is not dark.

    Parameters
    ----------
    pairs
        Tiles of each pair, shape (pairs, 2).
    levels
        Median grey level of both in their overlap, shape (pairs, 2); NaN where it is not known.
    accepted
        Whether a pair has an offset.
    count
        Number of tiles.
    """
    known = np.isfinite(levels).all(1)
    if not known.any():
        return np.zeros(count, bool)
    light = levels[known] - levels[known].min()
    least = _BRIGHT * np.median(light)
    seen, lost = np.zeros(count, int), np.zeros(count, int)
    shown = np.zeros(count, bool)
    for side in (0, 1):
        tile, own, other = pairs[known, side], light[:, side], light[:, 1 - side]
        bright = other > least
        darker = levels[known, side] < _DARKER * levels[known, 1 - side]
        np.add.at(seen, tile[bright], 1)
        np.add.at(lost, tile[bright & darker & (own < _DARK * other)], 1)
        shown[tile[(own > least) & (own >= other)]] = True
    held = np.isin(np.arange(count), pairs[accepted])
    return ~held & ~shown & (lost > 0) & (2 * lost > seen)


def _middles(counts: Sequence[int], size: Sequence[int]) -> Floats:
    """Return the middle of each block of a grid, in voxels, shape (blocks, 2)."""
    return np.indices(counts).reshape(2, -1).T * size + (np.asarray(size) - 1) / 2


def spread(start: int, stop: int, count: int) -> list[int]:
    """Return up to ``count`` whole numbers spread evenly over a range."""
    count = min(count, stop - start)
    return [start + int((2 * k + 1) * (stop - start) / (2 * count)) for k in range(count)]
