"""Layers of sparse networks, with the parameters of MinkowskiEngine's so that weights can move.

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
from vasculome.sparse.tensor import SparseTensor, check_same_coordinates, per_axis

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


class Pruning(nn.Module):
    """Keep some points."""

    def forward(self, x: SparseTensor, keep: Tensor) -> SparseTensor:
        """Return ``x`` at the points where ``keep`` (n,) bool is true.

        Raises
        ------
        ValueError
            If ``keep`` is not boolean with one entry a point.
        """
        if keep.dtype != torch.bool or keep.shape != (len(x),):
            raise ValueError(f"keep is {keep.dtype} {tuple(keep.shape)}, not bool ({len(x)},)")
        rows = torch.nonzero(keep)[:, 0]
        return SparseTensor(
            x.features.index_select(0, rows), x.manager, x.manager.pruned(x.key, rows)
        )


class BatchNorm(nn.Module):
    """Batch normalization over all points of the batch.

    With fewer than 2 points there is no variance: the running statistics serve then.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels, eps=eps, momentum=momentum)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return ``x`` normalized."""
        if len(x) < 2 and self.bn.training:
            return x.with_features(
                nn.functional.batch_norm(
                    x.features,
                    self.bn.running_mean,
                    self.bn.running_var,
                    self.bn.weight,
                    self.bn.bias,
                    training=False,
                    eps=self.bn.eps,
                )
            )
        return x.with_features(self.bn(x.features))


class InstanceNorm(nn.Module):
    """Normalization of each sample over its points."""

    def __init__(self, channels: int, *, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(1, channels))
        self.bias = nn.Parameter(torch.zeros(1, channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return ``x`` normalized."""
        # No rows come first: a batch may be without samples.
        parts = [x.features[:0], *(self._normalized(sample) for sample in x.samples())]
        return x.with_features(torch.cat(parts) * self.weight + self.bias)

    def _normalized(self, features: Tensor) -> Tensor:
        if len(features) == 0:
            return features
        centred = features - features.mean(0)
        return centred * torch.rsqrt(centred.square().mean(0) + self.eps)


class Linear(nn.Module):
    """A linear map of the channels of each point."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return ``x`` mapped."""
        return x.with_features(self.linear(x.features))


class Pointwise(nn.Module):
    """Any function or module of features, such as ``nn.ELU()`` or ``torch.sigmoid``."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return ``x`` with the function of its features."""
        return x.with_features(self.function(x.features))


def cat(*tensors: SparseTensor) -> SparseTensor:
    """Return the channels of all, which have the same coordinates, beside each other.

    Raises
    ------
    ValueError
        If there is none, or their coordinates differ.
    """
    if not tensors:
        raise ValueError("nothing to concatenate")
    check_same_coordinates(tensors)
    return tensors[0].with_features(torch.cat([t.features for t in tensors], dim=1))


def union(*tensors: SparseTensor) -> SparseTensor:
    """Return the sum of tensors at all points of any of them.

    Raises
    ------
    ValueError
        If there is none, or manager, stride or number of channels differ.
    """
    if not tensors:
        raise ValueError("nothing to unite")
    first = tensors[0]
    for other in tensors[1:]:
        if other.manager is not first.manager or other.stride != first.stride:
            raise ValueError(f"{first} and {other} do not share manager and stride")
        if other.channels != first.channels:
            raise ValueError(f"{first} and {other} have different channels")
    manager = first.manager
    if all(t.key == first.key for t in tensors):
        key = first.key
    else:
        key = manager.union([t.key for t in tensors])
    result = first.features.new_zeros(len(manager.points(key).coordinates), first.channels)
    for tensor in tensors:
        rows = manager.find(key, tensor.coordinates)
        result = result.index_add(0, rows, tensor.features)
    return SparseTensor(result, manager, key)


def _of_stride(coordinates: SparseTensor, stride: tuple[int, ...]) -> int:
    if coordinates.stride != stride:
        raise ValueError(f"{coordinates} does not have the output's stride {stride}")
    return coordinates.key
