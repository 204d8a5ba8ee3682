"""Coordinates in order, and one number for each of them.

Coordinates are integers (sample, axis 0, axis 1, ...). They are packed into one int64 key each, in
an order that keeps the order of rows, so that points are found by a search in sorted keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Bounds(NamedTuple):
    """The smallest and the largest value of each column of coordinates."""

    low: tuple[int, ...]
    high: tuple[int, ...]

    @classmethod
    def of(cls, coordinates: Tensor) -> Bounds:
        """Return those of ``coordinates`` (n, 1 + D), zeros where n is 0."""
        if len(coordinates) == 0:
            zeros = (0,) * coordinates.shape[1]
            return cls(zeros, zeros)
        # One transfer from the device for both.
        low, high = torch.stack([coordinates.amin(0), coordinates.amax(0)]).tolist()
        return cls(tuple(low), tuple(high))

    def grown(self, before: Sequence[int], after: Sequence[int]) -> Bounds:
        """Return bounds with ``before`` (≤ 0) and ``after`` (≥ 0) added on each column."""
        low = tuple(a + b for a, b in zip(self.low, before, strict=True))
        return Bounds(low, tuple(a + b for a, b in zip(self.high, after, strict=True)))

    def merged(self, other: Bounds) -> Bounds:
        """Return the bounds of both together."""
        low = tuple(map(min, self.low, other.low))
        return Bounds(low, tuple(map(max, self.high, other.high)))


class Packing:
    """One int64 key for each coordinate within bounds; keys sort as rows of coordinates do.

    Raises
    ------
    ValueError
        If the box is so large that 63 bits cannot number its points.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.low = bounds.low
        extent = [h - a + 1 for a, h in zip(bounds.low, bounds.high, strict=True)]
        if math.prod(extent) >= 2**63:
            raise ValueError(
                f"coordinates span {extent} points (samples, then axes): too many to be numbered "
                "in 63 bits"
            )
        self.step = tuple(math.prod(extent[axis + 1 :]) for axis in range(len(extent)))
        self.extent = tuple(extent)
        # Sums of int64 wrap around, so the key of the lowest corner may wrap as well: the
        # difference is right.
        corner = sum(map(math.prod, zip(self.low, self.step, strict=True)))
        self._corner = (corner + 2**63) % 2**64 - 2**63

    def pack(self, coordinates: Tensor) -> Tensor:
        """Return the keys (n,) int64 of ``coordinates`` (n, 1 + D)."""
        keys = coordinates[:, -1].to(torch.int64, copy=True)
        for column in range(len(self.step) - 1):
            keys.add_(coordinates[:, column], alpha=self.step[column])
        return keys.sub_(self._corner)

    def unpack(self, keys: Tensor) -> Tensor:
        """Return the coordinates (n, 1 + D) int32 of ``keys``."""
        columns = [
            keys.div(step, rounding_mode="floor").remainder_(extent).add_(low)
            for low, step, extent in zip(self.low, self.step, self.extent, strict=True)
        ]
        return torch.stack(columns, dim=1).to(torch.int32)


class Points(NamedTuple):
    """Sorted coordinates (n, 1 + D) int32 with their bounds and their stride per axis."""

    coordinates: Tensor
    bounds: Bounds
    stride: tuple[int, ...]


def find_rows(points: Points, coordinates: Tensor) -> Tensor:
    """Return the row in ``points`` of each of ``coordinates`` (m, 1 + D), −1 where none."""
    packing = Packing(points.bounds.merged(Bounds.of(coordinates)))
    keys, wanted = packing.pack(points.coordinates), packing.pack(coordinates)
    rows = torch.searchsorted(keys, wanted)
    return torch.where(padded(keys)[rows] == wanted, rows, -1)


def floored(coordinates: Tensor, stride: Sequence[int]) -> Tensor:
    """Return coordinates with each axis rounded down to a multiple of its stride."""
    columns = [coordinates[:, 0]]
    for axis, size in enumerate(stride, start=1):
        column = coordinates[:, axis]
        if size & (size - 1) == 0:
            columns.append(column & -size)
        else:
            columns.append(column.div(size, rounding_mode="floor") * size)
    return torch.stack(columns, dim=1)


def padded(keys: Tensor) -> Tensor:
    """Return sorted ``keys`` and one beyond all, where a search that finds nothing may end."""
    return torch.cat([keys, keys.new_full((1,), torch.iinfo(torch.int64).max)])
