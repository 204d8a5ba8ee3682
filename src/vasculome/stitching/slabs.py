"""Sub-slabs of the overlap of two tiles: where they are, how they are read and cleaned."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vasculome.geometry import Box

_MAX_SHAPE = (32, 256, 256)
_MAX_PIECES = 3
_WORKING_BYTES = 20
"""Per voxel of a slab: two filtered copies, their squares and a contiguous window."""


class Tile(Protocol):
    """Anything with a shape and a dtype that slices to an array, an array or a lazy reader."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102

    def __getitem__(self, index: tuple[slice, ...], /) -> Any: ...


class Slab(NamedTuple):
    """A piece of an overlap, with what was read of both tiles around it.

    ``core`` is in the first tile's voxels; ``values`` and ``boxes`` are of each tile, in its own.
    """

    core: Box
    values: tuple[NDArray[Any], NDArray[Any]]
    boxes: tuple[Box, Box]


def overlap_box(
    shape_i: Sequence[int], shape_j: Sequence[int], offset: Sequence[int]
) -> Box | None:
    """Return what two tiles share, in voxels of the first; the second starts at ``offset``."""
    return Box.of_shape(shape_i).intersect(Box.of_shape(shape_j).translate(offset))


def cut_overlap(overlap: Box) -> list[Box]:
    """Return the sub-slabs of an overlap that are looked at.

    Along z and along the longer side in the plane up to three pieces of at most 32 planes and 256
    voxels, spread evenly, so that the cost of a pair does not grow with the tile; along the
    shorter side one, in the middle.
    """
    long_axis = 1 + int(np.argmax(overlap.shape[1:]))
    cuts = []
    for axis, (start, extent) in enumerate(zip(overlap.start, overlap.shape, strict=True)):
        length = min(extent, _MAX_SHAPE[axis])
        most = _MAX_PIECES if axis in {0, long_axis} else 1
        pieces = min(most, math.ceil(extent / length))
        length = min(length, extent // pieces)
        middles = [start + (2 * k + 1) * extent / (2 * pieces) for k in range(pieces)]
        cuts.append([(round(m - length / 2), length) for m in middles])
    return [
        Box(tuple(a for a, _ in piece), tuple(a + n for a, n in piece))
        for piece in itertools.product(*cuts)
    ]


def read_slabs(
    tile_i: Tile, tile_j: Tile, *, offset: Sequence[int], search: Sequence[int]
) -> Iterator[Slab]:
    """Read the sub-slabs of two tiles, one after the other, each grown by ``search`` voxels.

    Yields nothing where the tiles share no voxel.
    """
    overlap = overlap_box(tile_i.shape, tile_j.shape, offset)
    if overlap is None:
        return
    for core in cut_overlap(overlap):
        box_i = core.grow(search, Box.of_shape(tile_i.shape))
        box_j = core.translate([-o for o in offset]).grow(search, Box.of_shape(tile_j.shape))
        values = (
            _filled(np.asarray(tile_i[box_i.slices])),
            _filled(np.asarray(tile_j[box_j.slices])),
        )
        yield Slab(core, values, (box_i, box_j))


def _filled(values: NDArray[Any]) -> NDArray[Any]:
    """Return the planes with those that hold no image drawn from the ones beside them.

    A plane of one value would draw the offset along z away from its neighbours.
    """
    blank = values.min((1, 2)) == values.max((1, 2))
    if not blank.any() or blank.all():
        return values
    filled, seen = values.copy(), np.flatnonzero(~blank)
    for z in np.flatnonzero(blank):
        after = np.searchsorted(seen, z)
        below, above = seen[max(after - 1, 0)], seen[min(after, len(seen) - 1)]
        share = (z - below) / (above - below) if above > below else 0.0
        filled[z] = (1 - share) * values[below] + share * values[above]
    return filled


def pair_bytes(
    shape_i: Sequence[int],
    shape_j: Sequence[int],
    *,
    offset: Sequence[int],
    search: Sequence[int],
    itemsize: int,
) -> int:
    """Return a bound on the memory that the registration of two tiles takes.

    All sub-slabs are held as they were read, and working copies of one.
    """
    overlap = overlap_box(shape_i, shape_j, offset)
    if overlap is None:
        return 0
    read = []
    for core in cut_overlap(overlap):
        box_i = core.grow(search, Box.of_shape(shape_i))
        box_j = core.translate([-o for o in offset]).grow(search, Box.of_shape(shape_j))
        read.append(box_i.size + box_j.size)
    return sum(read) * itemsize + max(read) * _WORKING_BYTES


def bin_down(values: NDArray[Any], factors: Sequence[int]) -> NDArray[np.float32]:
    """Return the means over blocks of ``factors`` voxels; what fills no block is left out."""
    counts = [n // f for n, f in zip(values.shape, factors, strict=True)]
    cut = values[tuple(slice(0, c * f) for c, f in zip(counts, factors, strict=True))]
    (cz, cy, cx), (fz, fy, fx) = counts, factors
    in_rows = cut.reshape(cz * fz, cy, fy, cx * fx).sum(2, dtype=np.float32)
    in_planes = in_rows.reshape(cz * fz, cy, cx, fx).sum(3)
    summed: NDArray[np.float32] = in_planes.reshape(cz, fz, cy, cx).sum(1)
    return summed / np.float32(fz * fy * fx)
