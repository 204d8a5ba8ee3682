"""The layers of :mod:`vasculome.sparse` computed by MinkowskiEngine, for comparison.

A network that takes its layers from :func:`vasculome.sparse.backend` runs on either engine with
the same weights. Importing this module needs MinkowskiEngine (``make minkowski``). It runs on a
CPU or on CUDA as it was built; its rows keep the order they were given in.
"""

from __future__ import annotations

import collections
import collections.abc
import math
import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vasculome.sparse.layers import Pointwise  # noqa: F401
from vasculome.sparse.tensor import per_axis

# MinkowskiEngine 0.5.4 asks for a name that Python 3.10 moved.
collections.Sequence = collections.abc.Sequence  # type: ignore[attr-defined]
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="The MinkowskiEngine was compiled with CPU_ONLY")
    import MinkowskiEngine as engine  # noqa: N813

Size = int | Sequence[int]


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """A MinkowskiEngine tensor with the names of :class:`vasculome.sparse.tensor.SparseTensor`."""

    wrapped: engine.SparseTensor
    batch_size: int

    @classmethod
    def from_points(
        cls,
        coordinates: Tensor,
        features: Tensor,
        *,
        stride: Size = 1,
        batch_size: int | None = None,
        manager: engine.CoordinateManager | None = None,
    ) -> SparseTensor:
        """Make a tensor of points, see the method of the same name of our own engine."""
        if len(features) != len(coordinates):
            raise ValueError(f"{tuple(features.shape)} features for {len(coordinates)} points")
        wrapped = engine.SparseTensor(
            features,
            coordinates.to(torch.int32).contiguous(),
            tensor_stride=list(per_axis(stride, coordinates.shape[1] - 1, "stride")),
            coordinate_manager=manager,
        )
        if len(wrapped.F) != len(features):
            raise ValueError("a coordinate occurs more than once: merge its features first")
        largest = int(coordinates[:, 0].max()) + 1 if len(coordinates) else 0
        return cls(wrapped, largest if batch_size is None else batch_size)

    @classmethod
    def from_dense(
        cls, dense: Tensor, *, mask: Tensor | None = None, stride: Size = 1
    ) -> SparseTensor:
        """Make a tensor of what is not 0, or of ``mask``, as our own engine does."""
        mask = (dense.detach() != 0).any(1) if mask is None else mask
        steps = torch.tensor((1, *per_axis(stride, dense.ndim - 2, "stride")))
        coordinates = torch.nonzero(mask) * steps.to(mask.device)
        features = dense.movedim(1, -1)[mask]
        return cls.from_points(coordinates, features, stride=stride, batch_size=len(dense))

    def to_dense(self, shape: Sequence[int] | None = None) -> Tensor:
        """Return (samples, channels, *axes), 0 where there is no point."""
        if shape is None:
            last = self.coordinates[:, 1:].amax(0).tolist()
            shape = [h // s + 1 for h, s in zip(last, self.stride, strict=True)]
        size = torch.Size([self.batch_size, self.channels, *shape])
        origin = torch.zeros(self.dimension, dtype=torch.int32)
        return self.wrapped.dense(size, min_coordinate=origin)[0]

    def with_features(self, features: Tensor) -> SparseTensor:
        """Return a tensor of other features at the same coordinates."""
        return self._at(features, self.wrapped.coordinate_map_key)

    def _at(self, features: Tensor, key: engine.CoordinateMapKey) -> SparseTensor:
        wrapped = engine.SparseTensor(
            features, coordinate_map_key=key, coordinate_manager=self.manager
        )
        return SparseTensor(wrapped, self.batch_size)

    @property
    def features(self) -> Tensor:
        """(n, channels)."""
        return self.wrapped.F

    @property
    def coordinates(self) -> Tensor:
        """(n, 1 + D) int32: sample, then axes."""
        return self.wrapped.C

    @property
    def stride(self) -> tuple[int, ...]:
        """Distance between neighbours along each axis."""
        return tuple(self.wrapped.tensor_stride)

    @property
    def manager(self) -> engine.CoordinateManager:
        """The sets of coordinates of this batch."""
        return self.wrapped.coordinate_manager

    @property
    def dimension(self) -> int:
        """Number of axes, without the sample."""
        return int(self.wrapped.D)

    @property
    def channels(self) -> int:
        """Number of features of a point."""
        return int(self.features.shape[1])

    def __len__(self) -> int:
        return len(self.features)

    def __add__(self, other: SparseTensor | float) -> SparseTensor:
        return self._combined(other, operator.add)

    def __sub__(self, other: SparseTensor | float) -> SparseTensor:
        return self._combined(other, operator.sub)

    def __mul__(self, other: SparseTensor | float) -> SparseTensor:
        return self._combined(other, operator.mul)

    def _combined(
        self, other: SparseTensor | float, function: Callable[..., Tensor]
    ) -> SparseTensor:
        if not isinstance(other, SparseTensor):
            return self.with_features(function(self.features, other))
        if other.wrapped.coordinate_map_key != self.wrapped.coordinate_map_key:
            raise ValueError("tensors have different coordinates: use union")
        return self.with_features(function(self.features, other.features))


class _Wrapped(nn.Module):
    """A layer of MinkowskiEngine; its parameters have the names of ours."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        # Not a submodule: the state dict must not name it.
        self.__dict__["layer"] = layer
        for name, parameter in layer.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, child in layer.named_children():
            if any(True for _ in child.parameters()):
                self.add_module(name, child)

    def forward(self, x: SparseTensor, coordinates: SparseTensor | None = None) -> SparseTensor:
        """Return what the layer makes of ``x``, at ``coordinates`` where they are given."""
        if coordinates is None:
            return SparseTensor(self.layer(x.wrapped), x.batch_size)
        key = coordinates.wrapped.coordinate_map_key
        return SparseTensor(self.layer(x.wrapped, key), x.batch_size)


class _Kernel(_Wrapped):
    kind: type[nn.Module]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Size,
        stride: Size = 1,
        dilation: Size = 1,
        bias: bool = False,
        dimension: int,
    ) -> None:
        super().__init__(
            type(self).kind(
                in_channels,
                out_channels,
                kernel_size=per_axis(kernel_size, dimension, "kernel_size"),
                stride=per_axis(stride, dimension, "stride"),
                dilation=per_axis(dilation, dimension, "dilation"),
                bias=bias,
                dimension=dimension,
            )
        )


class Convolution(_Kernel):
    """See :class:`vasculome.sparse.layers.Convolution`."""

    kind = engine.MinkowskiConvolution


class ConvolutionTranspose(_Kernel):
    """See :class:`vasculome.sparse.layers.ConvolutionTranspose`."""

    kind = engine.MinkowskiGenerativeConvolutionTranspose

    def forward(self, x: SparseTensor, coordinates: SparseTensor | None = None) -> SparseTensor:
        """Return the transposed convolution, see the layer of our own engine."""
        # MinkowskiEngine generates coordinates even where it is given some, if told to generate.
        self.layer.kernel_generator.expand_coordinates = coordinates is None
        return super().forward(x, coordinates)


class _Pooling(_Wrapped):
    kind: type[nn.Module]

    def __init__(
        self, *, kernel_size: Size, stride: Size = 1, dilation: Size = 1, dimension: int
    ) -> None:
        super().__init__(
            type(self).kind(
                kernel_size=per_axis(kernel_size, dimension, "kernel_size"),
                stride=per_axis(stride, dimension, "stride"),
                dilation=per_axis(dilation, dimension, "dilation"),
                dimension=dimension,
            )
        )


class MaxPooling(_Pooling):
    """See :class:`vasculome.sparse.layers.MaxPooling`."""

    kind = engine.MinkowskiMaxPooling


class AvgPooling(_Pooling):
    """See :class:`vasculome.sparse.layers.AvgPooling`."""

    kind = engine.MinkowskiAvgPooling


class SumPooling(_Pooling):
    """See :class:`vasculome.sparse.layers.SumPooling`."""

    kind = engine.MinkowskiSumPooling


class Pruning(nn.Module):
    """See :class:`vasculome.sparse.layers.Pruning`."""

    def forward(self, x: SparseTensor, keep: Tensor) -> SparseTensor:
        """Return ``x`` at the points where ``keep`` (n,) bool is true."""
        return SparseTensor(engine.MinkowskiPruning()(x.wrapped, keep), x.batch_size)


class BatchNorm(_Wrapped):
    """See :class:`vasculome.sparse.layers.BatchNorm`."""

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(engine.MinkowskiBatchNorm(channels, eps=eps, momentum=momentum))


class InstanceNorm(_Wrapped):
    """See :class:`vasculome.sparse.layers.InstanceNorm`; ``eps`` is always 1e-8."""

    def __init__(self, channels: int, *, eps: float = 1e-8) -> None:
        if not math.isclose(eps, 1e-8):
            raise ValueError(f"MinkowskiEngine's instance norm has eps 1e-8, not {eps}")
        super().__init__(engine.MinkowskiInstanceNorm(channels))


class Linear(_Wrapped):
    """See :class:`vasculome.sparse.layers.Linear`."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(engine.MinkowskiLinear(in_channels, out_channels, bias=bias))


def cat(*tensors: SparseTensor) -> SparseTensor:
    """Return the channels of all, which have the same coordinates, beside each other."""
    if len(tensors) == 1:
        return tensors[0]
    return SparseTensor(engine.cat(*(t.wrapped for t in tensors)), tensors[0].batch_size)


def union(*tensors: SparseTensor) -> SparseTensor:
    """Return the sum of tensors at all points of any of them."""
    if len(tensors) == 1:
        return tensors[0]
    united = engine.MinkowskiUnion()(*(t.wrapped for t in tensors))
    return SparseTensor(united, tensors[0].batch_size)
