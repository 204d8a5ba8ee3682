"""Boxes of voxels, and the tile grid that shares a box out: cores, halos, owners.

All boxes are half-open and count voxels; positions in micrometres are at voxel centres, and
the origin is the centre of voxel 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Spacing = tuple[float, ...]
"""Distance between neighbouring voxel centres along each axis, in micrometres."""


@dataclass(frozen=True, order=True)
class Box:
    """A half-open box of voxels, ``start[i] <= p[i] < stop[i]``, in any number of dimensions."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.start) != len(self.stop):
            raise ValueError(f"start {self.start} and stop {self.stop} differ in length")
        if any(a > b for a, b in zip(self.start, self.stop, strict=True)):
            raise ValueError(f"box stops before it starts: {self.start} to {self.stop}")

    @classmethod
    def of_shape(cls, shape: Sequence[int]) -> Box:
        """Return the box from the origin to ``shape``."""
        return cls((0,) * len(shape), tuple(int(n) for n in shape))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.start)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Voxels in the box."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of this box in an array whose voxel 0 is the origin."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def contains(self, point: Sequence[int]) -> bool:
        """Tell whether voxel ``point`` lies in the box."""
        return all(a <= p < b for a, p, b in zip(self.start, point, self.stop, strict=True))

    def translate(self, offset: Sequence[int]) -> Box:
        """Return the box moved by ``offset`` voxels."""
        return Box(
            tuple(a + o for a, o in zip(self.start, offset, strict=True)),
            tuple(b + o for b, o in zip(self.stop, offset, strict=True)),
        )

    def relative_to(self, other: Box) -> Box:
        """Return this box in the coordinates of an array that holds ``other``."""
        return self.translate(tuple(-a for a in other.start))

    def intersect(self, other: Box) -> Box | None:
        """Return the voxels in both boxes, or None where there are none."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        if any(a >= b for a, b in zip(start, stop, strict=True)):
            return None
        return Box(start, stop)

    def grow(self, halo: Sequence[int], within: Box) -> Box:
        """Return the box grown by ``halo`` voxels on every side, but not beyond ``within``."""
        return Box(
            tuple(
                max(a - h, low) for a, h, low in zip(self.start, halo, within.start, strict=True)
            ),
            tuple(min(b + h, top) for b, h, top in zip(self.stop, halo, within.stop, strict=True)),
        )


@dataclass(frozen=True)
class Tile:
    """One piece of work: the core it owns and writes, and the outer box it must read."""

    index: tuple[int, ...]
    core: Box
    outer: Box

    @property
    def id(self) -> str:
        """Name of the tile, unique in its grid and stable between runs, e.g. ``"0.3.12"``."""
        return ".".join(str(i) for i in self.index)

    @property
    def core_in_outer(self) -> tuple[slice, ...]:
        """Index of the core in an array that holds the outer box."""
        return self.core.relative_to(self.outer).slices


@dataclass(frozen=True)
class TileGrid:
    """The partition of ``domain`` into cores of ``core_shape``, read with ``halo`` voxels more.

    Cores start at the domain's start; those at its end are cut short. Every voxel of the domain
    belongs to exactly one core. Outer boxes are cut at the domain: what a filter sees beyond it
    is the filter's own boundary rule, the same as on the whole volume.
    """

    domain: Box
    core_shape: tuple[int, ...]
    halo: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.core_shape) == len(self.halo) == self.domain.ndim:
            raise ValueError(
                f"core {self.core_shape} and halo {self.halo} must have {self.domain.ndim} axes"
            )
        if any(n < 1 for n in self.core_shape) or any(h < 0 for h in self.halo):
            raise ValueError(f"core {self.core_shape} must be positive, halo {self.halo} not < 0")

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles along each axis."""
        return tuple(
            math.ceil(n / c) for n, c in zip(self.domain.shape, self.core_shape, strict=True)
        )

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __iter__(self) -> Iterator[Tile]:
        for index in itertools.product(*(range(n) for n in self.counts)):
            yield self.tile(index)

    def tile(self, index: Sequence[int]) -> Tile:
        """Return the tile at ``index`` of the grid; raises IndexError beyond it."""
        if not Box.of_shape(self.counts).contains(index):
            raise IndexError(f"no tile {tuple(index)} in a grid of {self.counts}")
        start = tuple(
            a + i * c for a, i, c in zip(self.domain.start, index, self.core_shape, strict=True)
        )
        stop = tuple(
            min(a + c, b) for a, c, b in zip(start, self.core_shape, self.domain.stop, strict=True)
        )
        core = Box(start, stop)
        return Tile(tuple(index), core, core.grow(self.halo, self.domain))

    def number(self, tile: Tile) -> int:
        """Return the place of ``tile`` in the order of iteration, from 0."""
        place = 0
        for i, n in zip(tile.index, self.counts, strict=True):
            place = place * n + i
        return place

    def owner(self, point: Sequence[int]) -> Tile:
        """Return the one tile whose core holds voxel ``point``."""
        return self.tile(
            tuple(
                (p - a) // c
                for p, a, c in zip(point, self.domain.start, self.core_shape, strict=True)
            )
        )

    def touching(self, box: Box) -> Iterator[tuple[int, ...]]:
        """Yield the indices of the tiles whose cores share a voxel with ``box``, in order."""
        inside = box.intersect(self.domain)
        if inside is None:
            return
        sides = zip(inside.start, inside.stop, self.domain.start, self.core_shape, strict=True)
        yield from itertools.product(
            *(range((a - low) // c, (b - 1 - low) // c + 1) for a, b, low, c in sides)
        )

    def neighbours(self, index: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Yield the indices of the tiles that touch this one, faces, edges and corners."""
        inside = Box.of_shape(self.counts)
        for step in itertools.product((-1, 0, 1), repeat=self.domain.ndim):
            other = tuple(i + s for i, s in zip(index, step, strict=True))
            if any(step) and inside.contains(other):
                yield other
