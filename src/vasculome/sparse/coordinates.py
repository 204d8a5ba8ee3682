"""Sets of coordinates, what is derived from them, and the kernel maps between them, built once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vasculome.sparse.kernel_map import KernelMap, build_kernel_map, kernel_begin
from vasculome.sparse.keys import Bounds, Packing, Points, find_rows, floored

Axes = tuple[int, ...]


class CoordinateManager:
    """All sets of coordinates of one batch, shared by the tensors of a network's forward pass.

    Every set is sorted (sample, then axis after axis) and without duplicates, and is known by its
    number. Kernel maps and coarser sets are made once and kept as long as the manager lives, that
    is as long as any tensor that refers to it.
    """

    def __init__(self, *, dimension: int, batch_size: int) -> None:
        self.dimension = dimension
        self.batch_size = batch_size
        self._sets: list[Points] = []
        self._strided: dict[tuple[int, Axes], int] = {}
        self._expanded: dict[tuple[int, Axes, Axes, Axes], int] = {}
        self._maps: dict[tuple[int, int, Axes, Axes, bool], KernelMap] = {}
        self._sample_ends: dict[int, list[int]] = {}

    def points(self, key: int) -> Points:
        """Return the set with this number."""
        return self._sets[key]

    def insert(self, coordinates: Tensor, *, stride: Axes) -> int:
        """Keep sorted, unique ``coordinates`` (n, 1 + D) int32 and return the set's number."""
        self._sets.append(Points(coordinates, Bounds.of(coordinates), stride))
        return len(self._sets) - 1

    def strided(self, key: int, factor: Sequence[int]) -> int:
        """Return the set of coordinates rounded down to ``factor`` times their stride."""
        if all(f == 1 for f in factor):
            return key
        points = self._sets[key]
        stride = tuple(s * f for s, f in zip(points.stride, factor, strict=True))
        if (key, stride) not in self._strided:
            coarse = floored(points.coordinates, stride)
            self._strided[key, stride] = self._insert_unique(coarse, stride)
        return self._strided[key, stride]

    def expanded(
        self,
        key: int,
        *,
        factor: Axes,
        kernel_size: Axes,
        dilation: Axes,
    ) -> int:
        """Return the set that a transposed convolution reaches, at the stride over ``factor``.

        Raises
        ------
        ValueError
            If the stride is not a multiple of ``factor``.
        """
        name = (key, factor, kernel_size, dilation)
        if name in self._expanded:
            return self._expanded[name]
        points = self._sets[key]
        if any(s % f for s, f in zip(points.stride, factor, strict=True)):
            raise ValueError(f"coordinates of stride {points.stride} cannot be refined by {factor}")
        stride = tuple(s // f for s, f in zip(points.stride, factor, strict=True))
        step = tuple(s * d for s, d in zip(stride, dilation, strict=True))
        begin = kernel_begin(kernel_size, centred=True)
        first = (0, *(b * s for b, s in zip(begin, step, strict=True)))
        last = (0, *((b + k - 1) * s for b, k, s in zip(begin, kernel_size, step, strict=True)))
        packing = Packing(points.bounds.grown(first, last))
        reached = packing.pack(points.coordinates)
        # A kernel is a box. Grown along one axis after the other, the set never holds a point as
        # often as offsets reach it.
        for low, size, s, unit in zip(begin, kernel_size, step, packing.step[1:], strict=True):
            if size > 1:
                shifts = torch.arange(low, low + size, device=reached.device) * (s * unit)
                reached = torch.unique(reached[:, None] + shifts)
        self._expanded[name] = self.insert(packing.unpack(reached), stride=stride)
        return self._expanded[name]

    def pruned(self, key: int, rows: Tensor) -> int:
        """Return the set of the given ``rows``, which are in rising order."""
        points = self._sets[key]
        return self.insert(points.coordinates.index_select(0, rows), stride=points.stride)

    def union(self, keys: Sequence[int]) -> int:
        """Return the set of all coordinates in any of the sets, which have one stride."""
        together = torch.cat([self._sets[key].coordinates for key in keys])
        return self._insert_unique(together, self._sets[keys[0]].stride)

    def kernel_map(
        self,
        source: int,
        target: int,
        *,
        kernel_size: Axes,
        dilation: Axes,
        centred: bool = True,
    ) -> KernelMap:
        """Return the map of :func:`~vasculome.sparse.kernel_map.build_kernel_map` between sets."""
        name = (source, target, kernel_size, dilation, centred)
        if name not in self._maps:
            self._maps[name] = build_kernel_map(
                self._sets[source],
                self._sets[target],
                kernel_size=kernel_size,
                dilation=dilation,
                centred=centred,
            )
        return self._maps[name]

    def find(self, key: int, coordinates: Tensor) -> Tensor:
        """Return the row of each of ``coordinates`` (m, 1 + D), −1 where there is none."""
        return find_rows(self._sets[key], coordinates)

    def sample_ends(self, key: int) -> list[int]:
        """Return where the rows of each sample end, ``batch_size`` of them."""
        if key not in self._sample_ends:
            samples = self._sets[key].coordinates[:, 0]
            counts = torch.bincount(samples, minlength=self.batch_size)
            self._sample_ends[key] = counts.cumsum(0).tolist()
        return self._sample_ends[key]

    def _insert_unique(self, coordinates: Tensor, stride: Axes) -> int:
        packing = Packing(Bounds.of(coordinates))
        keys = torch.unique_consecutive(torch.sort(packing.pack(coordinates)).values)
        return self.insert(packing.unpack(keys), stride=stride)
