"""Sparse tensors: features at integer coordinates of 2 to 4 axes, in batches."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from vasculome.sparse.coordinates import CoordinateManager
from vasculome.sparse.keys import Bounds, Packing

DIMENSIONS = (1, 2, 3, 4)


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """Features at the points of one set of coordinates.

    Rows are sorted by sample, then by axis 0, axis 1 and so on, whatever the order they were
    given in. Tensors made from each other share a ``manager``; those with the same ``key`` too
    have the same coordinates, and only these can be added or concatenated.

    Attributes
    ----------
    features
        (n, channels), floating point.
    manager
        The sets of coordinates and the kernel maps of this batch.
    key
        Number of this tensor's set of coordinates in ``manager``.
    """

    features: Tensor
    manager: CoordinateManager
    key: int

    @classmethod
    def from_points(
        cls,
        coordinates: Tensor,
        features: Tensor,
        *,
        stride: int | Sequence[int] = 1,
        batch_size: int | None = None,
        manager: CoordinateManager | None = None,
    ) -> SparseTensor:
        """Make a tensor of points in any order.

        Parameters
        ----------
        coordinates
            (n, 1 + D) integers: sample, then axis 0 to axis D − 1, each a multiple of its stride.
        features
            (n, channels), floating point.
        stride
            Distance between neighbours along each axis, in units of the coordinates.
        batch_size
            Number of samples, the last of which may be empty; by default the largest sample + 1.
        manager
            That of a tensor to add this one to; by default a new one.

        Raises
        ------
        ValueError
            If shapes, types or devices do not fit, a coordinate occurs twice, lies off the grid of
            the stride, or has a sample outside the batch.
        """
        dimension = _check_points(coordinates, features)
        stride = per_axis(stride, dimension, "stride")
        bounds = Bounds.of(coordinates)
        if manager is None:
            batch_size = bounds.high[0] + 1 if batch_size is None else batch_size
            manager = CoordinateManager(dimension=dimension, batch_size=batch_size)
        elif manager.dimension != dimension or batch_size not in {None, manager.batch_size}:
            raise ValueError(
                f"the manager holds {manager.batch_size} samples of {manager.dimension} axes"
            )
        if bounds.low[0] < 0 or (len(features) and bounds.high[0] >= manager.batch_size):
            raise ValueError(
                f"samples run from {bounds.low[0]} to {bounds.high[0]} in a batch of "
                f"{manager.batch_size}"
            )
        if min(bounds.low) < -(2**31) or max(bounds.high) >= 2**31:
            raise ValueError("coordinates do not fit into 32 bits")
        keys = Packing(bounds).pack(coordinates)
        if not bool((keys[1:] > keys[:-1]).all()):
            keys, order = torch.sort(keys)
            if bool((keys[1:] == keys[:-1]).any()):
                raise ValueError("a coordinate occurs more than once: merge its features first")
            coordinates, features = coordinates[order], features.index_select(0, order)
        coordinates = coordinates.to(torch.int32).contiguous()
        _check_grid(coordinates, stride)
        return cls(features, manager, manager.insert(coordinates, stride=stride))

    @classmethod
    def from_dense(
        cls, dense: Tensor, *, mask: Tensor | None = None, stride: int | Sequence[int] = 1
    ) -> SparseTensor:
        """Make a tensor of the points of ``dense`` (samples, channels, *axes) within ``mask``.

        ``mask`` (samples, *axes) is boolean; by default the points where a channel is not 0.

        Raises
        ------
        ValueError
            If ``dense`` does not have 2 to 4 axes (1 is allowed), or ``mask`` not its shape.
        """
        dimension = dense.ndim - 2
        if dimension not in DIMENSIONS:
            raise ValueError(f"dense is (samples, channels, 1 to 4 axes), not {dense.ndim}-D")
        by_point = dense.movedim(1, -1)
        mask = (by_point.detach() != 0).any(-1) if mask is None else mask
        if mask.dtype != torch.bool or mask.shape != by_point.shape[:-1]:
            raise ValueError(
                f"mask is {mask.dtype} {tuple(mask.shape)}, not bool {tuple(by_point.shape[:-1])}"
            )
        stride = per_axis(stride, dimension, "stride")
        coordinates = torch.nonzero(mask)
        coordinates = coordinates * torch.tensor((1, *stride), device=dense.device)
        manager = CoordinateManager(dimension=dimension, batch_size=len(dense))
        key = manager.insert(coordinates.to(torch.int32), stride=stride)
        return cls(by_point[mask], manager, key)

    def to_dense(self, shape: Sequence[int] | None = None, *, fill: float = 0.0) -> Tensor:
        """Return (samples, channels, *axes) with ``fill`` where there is no point.

        Parameters
        ----------
        shape
            Length of the axes, in strides from coordinate 0; by default up to the last point.
        fill
            Value elsewhere.

        Raises
        ------
        ValueError
            If a point lies outside.
        """
        points = self.manager.points(self.key)
        last = [h // s for h, s in zip(points.bounds.high[1:], points.stride, strict=True)]
        shape = [h + 1 for h in last] if shape is None else list(shape)
        if len(shape) != self.dimension or (
            len(self) and (min(points.bounds.low[1:]) < 0 or any(map(operator.ge, last, shape)))
        ):
            raise ValueError(
                f"points from {points.bounds.low[1:]} to {points.bounds.high[1:]} of stride "
                f"{points.stride} do not fit into {tuple(shape)}"
            )
        flat = self.coordinates[:, 0].to(torch.int64)
        for axis, (length, step) in enumerate(zip(shape, points.stride, strict=True), start=1):
            place = self.coordinates[:, axis].div(step, rounding_mode="floor")
            flat = flat * length + place
        size = self.manager.batch_size
        for length in shape:
            size *= length
        dense = self.features.new_full((size, self.channels), fill)
        dense = dense.index_copy(0, flat, self.features)
        return dense.view(self.manager.batch_size, *shape, self.channels).movedim(-1, 1)

    def with_features(self, features: Tensor) -> SparseTensor:
        """Return a tensor of other features (n, any channels) at the same coordinates.

        Raises
        ------
        ValueError
            If there is not one row a point.
        """
        if features.ndim != 2 or len(features) != len(self):
            raise ValueError(f"{tuple(features.shape)} features for {len(self)} points")
        return replace(self, features=features)

    def rows_of(self, coordinates: Tensor) -> Tensor:
        """Return the row of each of ``coordinates`` (m, 1 + D), int64, −1 where there is none."""
        return self.manager.find(self.key, coordinates)

    def samples(self) -> list[Tensor]:
        """Return the features of each sample, ``batch_size`` views."""
        ends = self.manager.sample_ends(self.key)
        return [self.features[a:b] for a, b in pairwise([0, *ends])]

    @property
    def coordinates(self) -> Tensor:
        """(n, 1 + D) int32: sample, then axes."""
        return self.manager.points(self.key).coordinates

    @property
    def stride(self) -> tuple[int, ...]:
        """Distance between neighbours along each axis."""
        return self.manager.points(self.key).stride

    @property
    def dimension(self) -> int:
        """Number of axes, without the sample."""
        return self.manager.dimension

    @property
    def batch_size(self) -> int:
        """Number of samples, empty ones included."""
        return self.manager.batch_size

    @property
    def channels(self) -> int:
        """Number of features of a point."""
        return self.features.shape[1]

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        return (
            f"SparseTensor({len(self)} points, {self.channels} channels, {self.dimension} axes, "
            f"stride {self.stride}, batch of {self.batch_size})"
        )

    def __add__(self, other: SparseTensor | float) -> SparseTensor:
        return self._combined(other, torch.add)

    def __sub__(self, other: SparseTensor | float) -> SparseTensor:
        return self._combined(other, torch.sub)

    def __mul__(self, other: SparseTensor | float) -> SparseTensor:
        return self._combined(other, torch.mul)

    def _combined(
        self, other: SparseTensor | float, function: Callable[..., Tensor]
    ) -> SparseTensor:
        if isinstance(other, SparseTensor):
            check_same_coordinates([self, other])
            return replace(self, features=function(self.features, other.features))
        return replace(self, features=function(self.features, other))


def per_axis(value: int | Sequence[int], dimension: int, name: str) -> tuple[int, ...]:
    """Return ``value`` for each axis, repeated where it is one number.

    Raises
    ------
    ValueError
        If it has another number of axes, or is not positive.
    """
    values = (value,) * dimension if isinstance(value, int) else tuple(value)
    if len(values) != dimension or not all(isinstance(v, int) and v > 0 for v in values):
        raise ValueError(f"{name} is {value}: one positive integer, or one for each of {dimension}")
    return values


def check_same_coordinates(tensors: Sequence[SparseTensor]) -> None:
    """Raise ValueError unless all have the same set of coordinates."""
    first = tensors[0]
    for other in tensors[1:]:
        if other.manager is not first.manager or other.key != first.key:
            raise ValueError(
                f"{first} and {other} have different coordinates: use union, or give the layer "
                "that made one of them the coordinates of the other"
            )


def _check_points(coordinates: Tensor, features: Tensor) -> int:
    if coordinates.ndim != 2 or coordinates.shape[1] - 1 not in DIMENSIONS:
        raise ValueError(f"coordinates are (n, 1 + 1 to 4 axes), not {tuple(coordinates.shape)}")
    if coordinates.dtype not in {torch.int16, torch.int32, torch.int64}:
        raise ValueError(f"coordinates are integers, not {coordinates.dtype}")
    if features.ndim != 2 or len(features) != len(coordinates):
        raise ValueError(f"{tuple(features.shape)} features for {len(coordinates)} points")
    if not features.is_floating_point():
        raise ValueError(f"features are floating point, not {features.dtype}")
    if features.device != coordinates.device:
        raise ValueError(f"features on {features.device}, coordinates on {coordinates.device}")
    return coordinates.shape[1] - 1


def _check_grid(coordinates: Tensor, stride: tuple[int, ...]) -> None:
    for axis, step in enumerate(stride, start=1):
        if step > 1 and bool((coordinates[:, axis] % step).any()):
            raise ValueError(f"coordinates along axis {axis - 1} are not multiples of {step}")
