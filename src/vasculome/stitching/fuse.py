"""Blending of overlapping tiles into one volume, one box at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.geometry import Box
from vasculome.stitching.illumination import Shading
from vasculome.stitching.resample import add_plane, copy_planes, store_mean
from vasculome.stitching.slabs import Tile

_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
_SNAP = 1e-4
"""Fractions of a voxel below this are no shift: a whole offset that was computed stays whole."""


def covered(start: Sequence[float], shape: Sequence[int]) -> Box:
    """Return the voxels of the volume that a tile at ``start`` has values for.

    At a start between voxels that is one fewer an axis, since nothing is extrapolated.
    """
    whole, fraction = _split(start)
    return Box(
        tuple(whole),
        tuple(w + n - (t > 0) for w, n, t in zip(whole, shape, fraction, strict=True)),
    )


def tile_weights(
    shape: Sequence[int], fraction: Sequence[float] | None = None
) -> tuple[NDArray[np.float32], ...]:
    """Return the weight of a tile's voxels along each axis; their product is a voxel's weight.

    A raised cosine (Hann window) of the distance to the tile's edges: 1 in the tile's middle,
    falling smoothly towards its edges, and greater than 0 up to the last voxel. It is sampled
    ``fraction`` of a voxel after voxel centres, by default at them.
    """
    shifts = [0.0] * len(shape) if fraction is None else fraction
    return tuple(
        np.sin(np.pi * (np.arange(n - (t > 0)) + t + 0.5) / n).astype(np.float32) ** 2
        for n, t in zip(shape, shifts, strict=True)
    )


def fuse(
    tiles: Sequence[Tile],
    starts: Sequence[Sequence[float]],
    box: Box,
    *,
    dtype: np.dtype[Any] | None = None,
    shading: Shading | None = None,
    gains: Sequence[float] | None = None,
    missing_planes: Sequence[Collection[int]] | None = None,
) -> NDArray[Any]:
    """Return the voxels of ``box``, blended from the tiles that cover them.

    Each voxel is the mean of its tiles, weighted by `tile_weights`. It depends on those tiles
    only, so that a volume may be fused box by box, to the same bytes. Where one uncorrected tile
    at a whole offset covers, its voxels are returned unchanged; where none does, 0.

    Parameters
    ----------
    tiles
        Arrays (z, y, x) of uint8, uint16 or float32, or anything that slices to one: only what
        lies in the box is read, once. Tiles are summed in this order.
    starts
        Position of each tile's first voxel in the volume, whole or not; values between voxels
        are interpolated linearly.
    box
        The part of the volume that is wanted.
    dtype
        Type of the result; needed only where there may be no tile. By default the tiles' own.
    shading, gains
        What to take out of every tile, and the brightness of each; see
        `vasculome.stitching.illumination`. Nothing and 1 by default.
    missing_planes
        For each tile the planes that hold no image; they are left to the other tiles.

    Returns
    -------
    ndarray
        Of the box's shape and the tiles' dtype; integers rounded to the nearest and clipped.

    Raises
    ------
    TypeError
        If the tiles differ in dtype, or it is none of those above.
    """
    kinds = {np.dtype(tile.dtype) for tile in tiles} | ({np.dtype(dtype)} if dtype else set())
    if len(kinds) != 1 or not kinds <= set(_DTYPES):
        raise TypeError(f"tiles must share one dtype of uint8, uint16 and float32, not {kinds}")
    parts = []
    for k, (tile, start) in enumerate(zip(tiles, starts, strict=True)):
        gaps = missing_planes[k] if missing_planes else ()
        part = _read_part(tile, start, box, gaps, shading, gains[k] if gains is not None else 1.0)
        if part is not None:
            parts.append(part)
    if len(parts) == 1 and parts[0].is_whole(box):
        return parts[0].values
    fused = np.zeros(box.shape, kinds.pop())
    for cell, covering in _cells(parts, box):
        target = fused[cell.relative_to(box).slices]
        if len(covering) == 1:
            _copy_one(covering[0], cell, target)
        else:
            _blend(covering, cell, target)
    return fused


@dataclass(frozen=True)
class _Part:
    """What lies of one tile in the box that is fused.

    ``values`` begin ``shift`` of a voxel before ``where``. ``active`` tells which planes of
    ``where`` have values, and ``light`` how much brighter each pixel of ``values`` must be.
    """

    values: NDArray[Any]
    where: Box
    shift: tuple[np.float32, ...]
    weights: tuple[NDArray[np.float32], ...]
    active: NDArray[np.bool_]
    light: NDArray[np.float32]
    dark: np.float32
    unchanged: bool

    def is_whole(self, box: Box) -> bool:
        """Tell whether the values are those of ``box`` as they are."""
        return self.unchanged and self.where == box and bool(self.active.all())


def _read_part(
    tile: Tile,
    start: Sequence[float],
    box: Box,
    gaps: Collection[int],
    shading: Shading | None,
    gain: float,
) -> _Part | None:
    whole, fraction = _split(start)
    where = covered(start, tile.shape).intersect(box)
    if where is None:
        return None
    low = where.relative_to(Box(tuple(whole), tuple(whole)))
    source = Box(low.start, tuple(b + (t > 0) for b, t in zip(low.stop, fraction, strict=True)))
    weights = tile_weights(tile.shape, fraction)
    planes = np.arange(low.start[0], low.stop[0])
    lost = np.array(sorted(gaps), int)
    active = ~np.isin(planes, lost)
    if fraction[0]:
        active &= ~np.isin(planes + 1, lost)
    light = np.full(source.shape[1:], 1 / gain, np.float32)
    if shading is not None:
        light /= shading.flat[source.slices[1:]]
    return _Part(
        _own(tile[source.slices]),
        where,
        tuple(np.float32(t) for t in fraction),
        tuple(w[s] for w, s in zip(weights, low.slices, strict=True)),
        active,
        light,
        np.float32(0.0 if shading is None else shading.dark),
        unchanged=not any(fraction) and shading is None and gain == 1,
    )


def _own(values: NDArray[Any]) -> NDArray[Any]:
    """Return contiguous values that are nobody else's: what was read is, a view of a tile not."""
    return np.ascontiguousarray(values) if values.base is None else values.copy(order="C")


def _split(start: Sequence[float]) -> tuple[list[int], list[float]]:
    """Return the first whole voxel at or after ``start``, and how far after, along each axis."""
    near = [round(p) for p in start]
    whole = [n if abs(p - n) < _SNAP else math.ceil(p) for p, n in zip(start, near, strict=True)]
    fraction = [w - float(p) for w, p in zip(whole, start, strict=True)]
    return whole, [t if t >= _SNAP else 0.0 for t in fraction]


def _cells(parts: Sequence[_Part], box: Box) -> list[tuple[Box, list[_Part]]]:
    """Return boxes in each of which the same tiles cover every voxel, with those tiles."""
    cells = []
    for z0, z1 in _runs(parts, box):
        here = [p for p in parts if _active(p, z0)]
        sides = []
        for axis in (1, 2):
            cuts = {box.start[axis], box.stop[axis]}
            cuts.update(edge for p in here for edge in (p.where.start[axis], p.where.stop[axis]))
            sides.append(list(itertools.pairwise(sorted(cuts))))
        for (y0, y1), (x0, x1) in itertools.product(*sides):
            cell = Box((z0, y0, x0), (z1, y1, x1))
            covering = [p for p in here if p.where.contains(cell.start)]
            if covering:
                cells.append((cell, covering))
    return cells


def _runs(parts: Sequence[_Part], box: Box) -> list[tuple[int, int]]:
    """Return the ranges of planes over which the same tiles have values."""
    cuts = {box.start[0], box.stop[0]}
    for part in parts:
        first = part.where.start[0]
        changes = np.flatnonzero(np.diff(part.active)) + 1
        cuts.update((first, part.where.stop[0]), (first + changes).tolist())
    return list(itertools.pairwise(sorted(cuts)))


def _active(part: _Part, z: int) -> bool:
    k = z - part.where.start[0]
    return 0 <= k < len(part.active) and bool(part.active[k])


def _copy_one(part: _Part, cell: Box, target: NDArray[Any]) -> None:
    at = cell.relative_to(part.where)
    if part.unchanged:
        target[...] = part.values[at.slices]
    else:
        copy_planes(
            part.values, at.start, part.shift, part.light, part.dark, _top(target.dtype), target
        )


def _blend(parts: Sequence[_Part], cell: Box, target: NDArray[Any]) -> None:
    plane, summed, total = (np.empty(cell.shape[1:], np.float32) for _ in range(3))
    places = [cell.relative_to(part.where) for part in parts]
    top = _top(target.dtype)
    for k, out in enumerate(target):
        summed[:] = 0
        total[:] = 0
        for part, place in zip(parts, places, strict=True):
            along_z, along_y, along_x = (
                w[s] for w, s in zip(part.weights, place.slices, strict=True)
            )
            z, y, x = place.start
            add_plane(
                part.values,
                (z + k, y, x),
                part.shift,
                part.light,
                part.dark,
                along_z[k] * along_y,
                along_x,
                plane,
                summed,
                total,
            )
        store_mean(summed, total, plane, top, out)


def _top(dtype: np.dtype[Any]) -> np.float32:
    """Return the largest value of an integer dtype, 0 for floats, which are not rounded."""
    return np.float32(np.iinfo(dtype).max if dtype.kind == "u" else 0)
