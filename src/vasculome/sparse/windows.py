"""Layers with a kernel: convolution and pooling.

A kernel is (volume, in channels, out channels), axis 0 running fastest over the volume, or
(in channels, out channels) where it covers one point; a bias is (1, out channels).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vasculome.sparse import ops
from vasculome.sparse.kernel_map import KernelMap
from vasculome.sparse.tensor import SparseTensor, per_axis

Size = int | Sequence[int]


class _Windowed(nn.Module):
    """What has a kernel size, a stride and a dilation per axis."""

    def __init__(self, kernel_size: Size, stride: Size, dilation: Size, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.kernel_size = per_axis(kernel_size, dimension, "kernel_size")
        self.stride = per_axis(stride, dimension, "stride")
        self.dilation = per_axis(dilation, dimension, "dilation")
        self.volume = math.prod(self.kernel_size)

    def _check(self, x: SparseTensor, coordinates: SparseTensor | None) -> None:
        if x.dimension != self.dimension:
            raise ValueError(f"a layer of {self.dimension} axes was given {x}")
        if coordinates is not None and coordinates.manager is not x.manager:
            raise ValueError(f"{coordinates} does not share the coordinate manager of {x}")

    def _target(self, x: SparseTensor, coordinates: SparseTensor | None) -> int:
        """Return the set of coordinates of the output, coarser by the stride."""
        self._check(x, coordinates)
        if coordinates is None:
            return x.manager.strided(x.key, self.stride)
        wanted = tuple(a * b for a, b in zip(x.stride, self.stride, strict=True))
        return _of_stride(coordinates, wanted)

    def _map(self, x: SparseTensor, target: int, *, centred: bool = True) -> KernelMap:
        return x.manager.kernel_map(
            x.key,
            target,
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            centred=centred,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, dilation={self.dilation}"


class _Kernel(_Windowed):
    """What has weights, one matrix an offset."""

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
        super().__init__(kernel_size, stride, dilation, dimension)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.pointwise = self.volume == 1 and math.prod(self.stride) == 1
        shape = (in_channels, out_channels)
        self.kernel = nn.Parameter(torch.empty(shape if self.pointwise else (self.volume, *shape)))
        self.bias = nn.Parameter(torch.empty(1, out_channels)) if bias else None
        self.reset_parameters()

    def _check(self, x: SparseTensor, coordinates: SparseTensor | None) -> None:
        super()._check(x, coordinates)
        if x.channels != self.in_channels:
            raise ValueError(f"a layer of {self.in_channels} channels was given {x}")

    def _fan(self) -> int:
        return self.in_channels

    def reset_parameters(self) -> None:
        """Draw weights and bias uniformly within 1 / √(channels · volume)."""
        bound = 1 / math.sqrt(self._fan() * self.volume)
        nn.init.uniform_(self.kernel, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def _result(self, features: Tensor, x: SparseTensor, key: int) -> SparseTensor:
        if self.bias is not None:
            features = features + self.bias
        return SparseTensor(features, x.manager, key)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, {super().extra_repr()}"


class Convolution(_Kernel):
    """Convolution: y(u) = Σₖ x(u + k) · W(k) over the points there are.

    Outputs lie at the inputs' coordinates rounded down to the new stride, or at ``coordinates``.
    """

    def forward(self, x: SparseTensor, coordinates: SparseTensor | None = None) -> SparseTensor:
        """Return the convolution of ``x``.

        Raises
        ------
        ValueError
            If ``x`` has another number of axes or channels, or ``coordinates`` are of another
            manager or not of the output's stride.
        """
        target = self._target(x, coordinates)
        if self.pointwise and target == x.key:
            return self._result(x.features @ self.kernel, x, x.key)
        kernel = self.kernel[None] if self.pointwise else self.kernel
        return self._result(ops.convolve(x.features, kernel, self._map(x, target)), x, target)


class ConvolutionTranspose(_Kernel):
    """Transposed convolution: y(u + k) += x(u) · W(k), k in steps of the finer stride.

    Outputs lie at ``coordinates``, or where none are given at all points that are reached.
    """

    def _fan(self) -> int:
        return self.out_channels

    def forward(self, x: SparseTensor, coordinates: SparseTensor | None = None) -> SparseTensor:
        """Return the transposed convolution of ``x``.

        Raises
        ------
        ValueError
            As :meth:`Convolution.forward`, and if the stride of ``x`` is not a multiple of the
            layer's.
        """
        self._check(x, coordinates)
        if coordinates is None and self.pointwise:
            target = x.key
        elif coordinates is None:
            target = x.manager.expanded(
                x.key, factor=self.stride, kernel_size=self.kernel_size, dilation=self.dilation
            )
        else:
            scale = zip(coordinates.stride, self.stride, strict=True)
            if tuple(a * b for a, b in scale) != x.stride:
                raise ValueError(f"{coordinates} is not finer than {x} by {self.stride}")
            target = coordinates.key
        if self.pointwise and target == x.key:
            return self._result(x.features @ self.kernel, x, x.key)
        kernel_map = x.manager.kernel_map(
            target, x.key, kernel_size=self.kernel_size, dilation=self.dilation
        )
        kernel = self.kernel[None] if self.pointwise else self.kernel
        return self._result(ops.convolve(x.features, kernel, kernel_map.exchanged()), x, target)


class _Pooling(_Windowed):
    """Pooling over the points there are.

    Where kernel and stride are equal, windows are the blocks of the coarser grid; otherwise they
    lie as those of a convolution.
    """

    pool: Callable[[Tensor, KernelMap], Tensor]

    def __init__(
        self, *, kernel_size: Size, stride: Size = 1, dilation: Size = 1, dimension: int
    ) -> None:
        super().__init__(kernel_size, stride, dilation, dimension)

    def forward(self, x: SparseTensor, coordinates: SparseTensor | None = None) -> SparseTensor:
        """Return the pooled tensor, at ``coordinates`` where they are given."""
        target = self._target(x, coordinates)
        kernel_map = self._map(x, target, centred=self.kernel_size != self.stride)
        return SparseTensor(type(self).pool(x.features, kernel_map), x.manager, target)


class MaxPooling(_Pooling):
    """The largest value in each window, channel by channel."""

    pool = staticmethod(ops.pool_max)


class AvgPooling(_Pooling):
    """The mean over the points in each window."""

    pool = staticmethod(ops.pool_mean)


class SumPooling(_Pooling):
    """The sum over the points in each window."""

    pool = staticmethod(ops.pool_sum)


def _of_stride(coordinates: SparseTensor, stride: tuple[int, ...]) -> int:
    if coordinates.stride != stride:
        raise ValueError(f"{coordinates} does not have the output's stride {stride}")
    return coordinates.key
