"""The layers of ``sparse.layers`` on dense tensors: one network, dense or sparse, same weights.

Tensors are (samples, channels, *axes), the last axis time. What a sparse layer takes for its
coordinates is given and passed over here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Size = int | Sequence[int]

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_EXPAND = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def _per_axis(value: Size, dimension: int) -> tuple[int, ...]:
    return (value,) * dimension if isinstance(value, int) else tuple(value)


class Convolution(nn.Module):
    """Convolution of stride 1, with zeros beyond the border; the kernel as in ``sparse.layers``.

    Along the fourth axis torch has none: there it is a sum over the offsets in time.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Size,
        bias: bool = False,
        dimension: int,
    ) -> None:
        super().__init__()
        self.kernel_size = _per_axis(kernel_size, dimension)
        if not all(k % 2 for k in self.kernel_size):
            raise ValueError(f"a kernel of {self.kernel_size} has no centre")
        volume = math.prod(self.kernel_size)
        shape = (in_channels, out_channels)
        self.kernel = nn.Parameter(torch.empty(shape if volume == 1 else (volume, *shape)))
        self.bias = nn.Parameter(torch.empty(1, out_channels)) if bias else None
        bound = 1 / math.sqrt(in_channels * volume)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, coordinates: Tensor | None = None) -> Tensor:
        """Return the convolution of ``x``, of its shape but for the channels."""
        weight = _weight(self.kernel, self.kernel_size)
        padding = [k // 2 for k in self.kernel_size]
        bias = None if self.bias is None else self.bias[0]
        if len(self.kernel_size) in _CONVOLVE:
            return _CONVOLVE[len(self.kernel_size)](x, weight, bias, padding=padding)
        reach = padding[-1]
        frames = functional.pad(x, (reach, reach))

        def part(offset: int) -> Tensor:
            return _by_frame(
                frames[..., offset : offset + x.shape[-1]],
                lambda f: functional.conv3d(f, weight[..., offset], padding=padding[:-1]),
            )

        result = part(0)
        for offset in range(1, self.kernel_size[-1]):
            result = result + part(offset)
        return result if bias is None else result + bias.view(-1, 1, 1, 1, 1)


class ConvolutionTranspose(nn.Module):
    """Transposed convolution whose kernel is its stride: each voxel becomes a block."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Size,
        stride: Size,
        dimension: int,
    ) -> None:
        super().__init__()
        self.kernel_size = _per_axis(kernel_size, dimension)
        if self.kernel_size != _per_axis(stride, dimension):
            raise ValueError("the dense transposed convolution has a kernel as long as its stride")
        self.kernel = nn.Parameter(
            torch.empty(math.prod(self.kernel_size), in_channels, out_channels)
        )
        bound = 1 / math.sqrt(out_channels * len(self.kernel))
        nn.init.uniform_(self.kernel, -bound, bound)

    def forward(self, x: Tensor, coordinates: Tensor | None = None) -> Tensor:
        """Return the finer tensor."""
        size = self.kernel_size
        weight = _weight(self.kernel, size).transpose(0, 1)
        if len(size) in _EXPAND:
            return _EXPAND[len(size)](x, weight, stride=size)
        if size[-1] != 1:
            raise ValueError("in four axes the dense transposed convolution keeps the frames")
        return _by_frame(
            x, lambda f: functional.conv_transpose3d(f, weight[..., 0], stride=size[:-1])
        )


class MaxPooling(nn.Module):
    """The largest value of each block; an axis shorter than a block is one."""

    def __init__(self, *, kernel_size: Size, stride: Size, dimension: int) -> None:
        super().__init__()
        self.kernel_size = _per_axis(kernel_size, dimension)
        if self.kernel_size != _per_axis(stride, dimension):
            raise ValueError("the dense pooling takes blocks: its kernel is its stride")

    def forward(self, x: Tensor, coordinates: Tensor | None = None) -> Tensor:
        """Return the pooled tensor.

        Raises
        ------
        ValueError
            If an axis longer than a block is not a multiple of it.
        """
        shape = list(x.shape[:2])
        for length, size in zip(x.shape[2:], self.kernel_size, strict=True):
            block = min(size, length)
            if length % block:
                raise ValueError(f"{tuple(x.shape[2:])} is no multiple of {self.kernel_size}")
            shape += [length // block, block]
        return x.reshape(shape).amax(dim=list(range(3, len(shape), 2)))


class BatchNorm(nn.Module):
    """Batch normalization over samples and axes."""

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels, eps=eps, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalized."""
        result: Tensor = self.bn(x.flatten(2))
        return result.view(x.shape)


class Pointwise(nn.Module):
    """Any function or module of each value."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of ``x``."""
        return self.function(x)


def cat(*tensors: Tensor) -> Tensor:
    """Return the channels of all beside each other."""
    return torch.cat(tensors, dim=1)


def _weight(kernel: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return a kernel of ``sparse.layers`` as torch's (out channels, in channels, *axes)."""
    # Axis 0 runs fastest over the volume.
    weight = kernel.view(*reversed(size), *kernel.shape[-2:])
    axes = range(len(size))
    return weight.permute(len(size) + 1, len(size), *reversed(axes))


def _by_frame(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a function of each frame, (samples, channels, *axes) as (z, y, x, t)."""
    samples, frames = len(x), x.shape[-1]
    result = function(x.movedim(-1, 1).flatten(0, 1))
    return result.view(samples, frames, *result.shape[1:]).movedim(1, -1)
