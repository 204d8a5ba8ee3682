"""Blending of overlapping tiles into one volume, one box at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasculome.geometry import Box

_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))


def overlapping(
    positions: Sequence[Sequence[int]], shapes: Sequence[Sequence[int]], box: Box
) -> list[int]:
    """Return which tiles (at ``positions``, in voxels, of ``shapes``) touch ``box``, in order."""
    return [
        i
        for i, (position, shape) in enumerate(zip(positions, shapes, strict=True))
        if Box.of_shape(shape).translate(position).intersect(box)
    ]


def tile_weights(shape: Sequence[int]) -> tuple[NDArray[np.float32], ...]:
    """Return the weight of a tile's voxels along each axis; their product is a voxel's weight.

    A raised cosine (Hann window) sampled at voxel centres: 1 in the tile's middle, falling
    smoothly towards its edges, and greater than 0 up to the last voxel.
    """
    return tuple(
        np.sin(np.pi * (np.arange(length) + 0.5) / length).astype(np.float32) ** 2
        for length in shape
    )


def fuse(
    tiles: Sequence[tuple[NDArray[np.generic], Sequence[int]]],
    box: Box,
    *,
    dtype: np.dtype[np.generic] | None = None,
) -> NDArray[np.generic]:
    """Return the voxels of ``box``, blended from the tiles that cover them.

    Each voxel is the mean of its tiles, weighted by `tile_weights`. It depends on those tiles
    only, so that a volume may be fused box by box. Where one tile covers, its voxels are
    returned unchanged; where none does, 0.

    Parameters
    ----------
    tiles
        For each tile its array, uint8, uint16 or float32 (anything that slices to an array
        will do: only what lies in the box is read), and the position of its first voxel in the
        volume. Tiles are summed in this order.
    box
        The part of the volume that is wanted.
    dtype
        Type of the result; needed only where there may be no tile. By default the tiles' own.

    Returns
    -------
    ndarray
        Of the box's shape and the tiles' dtype; integers rounded to the nearest.

    Raises
    ------
    TypeError
        If the tiles differ in dtype, or it is none of those above.
    """
    kinds = {np.dtype(array.dtype) for array, _ in tiles} | ({np.dtype(dtype)} if dtype else set())
    if len(kinds) != 1 or not kinds <= set(_DTYPES):
        raise TypeError(f"tiles must share one dtype of uint8, uint16 and float32, not {kinds}")
    parts = [part for array, position in tiles if (part := _Part.of(array, position, box))]
    blended = np.zeros(box.shape, np.float32)
    total = np.zeros(box.shape, np.float32)
    for part in parts:
        for plane, values, weights in part.planes():
            blended[plane] += weights * values
            total[plane] += weights
    np.divide(blended, total, out=blended, where=total > 0)
    if kinds == {np.dtype(np.float32)}:
        fused: NDArray[np.generic] = blended
    else:
        fused = np.rint(blended, out=blended).astype(kinds.pop())
    for part in parts:
        for plane, values, weights in part.planes():
            # Dividing by the weight would not give quite the same float back.
            np.copyto(fused[plane], values, where=total[plane] == weights)
    return fused


@dataclass(frozen=True)
class _Part:
    """What lies of one tile in the box that is fused."""

    values: NDArray[np.generic]
    weights: tuple[NDArray[np.float32], ...]
    where: Box

    @classmethod
    def of(cls, array: NDArray[np.generic], position: Sequence[int], box: Box) -> _Part | None:
        common = Box.of_shape(array.shape).translate(position).intersect(box)
        if common is None:
            return None
        inside = common.translate([-p for p in position]).slices
        weights = [w[s] for w, s in zip(tile_weights(array.shape), inside, strict=True)]
        return cls(np.asarray(array[inside]), tuple(weights), common.relative_to(box))

    def planes(
        self,
    ) -> Iterator[tuple[tuple[int | slice, ...], NDArray[np.generic], NDArray[np.float32]]]:
        """Yield, plane by plane, where it is in the box, its voxels, and their weights."""
        first, *others = self.weights
        in_plane = functools.reduce(np.multiply.outer, others, np.float32(1))
        for i, values in enumerate(self.values):
            where = (self.where.start[0] + i, *self.where.slices[1:])
            yield where, values, first[i] * in_plane
