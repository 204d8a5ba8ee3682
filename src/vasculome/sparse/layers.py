"""Layers of sparse networks, with the parameters of MinkowskiEngine's so that weights can move."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vasculome.sparse.tensor import SparseTensor, check_same_coordinates
from vasculome.sparse.windows import (
    AvgPooling,
    Convolution,
    ConvolutionTranspose,
    MaxPooling,
    SumPooling,
)

__all__ = [
    "AvgPooling",
    "BatchNorm",
    "Convolution",
    "ConvolutionTranspose",
    "InstanceNorm",
    "Linear",
    "MaxPooling",
    "Pointwise",
    "Pruning",
    "SparseTensor",
    "SumPooling",
    "cat",
    "union",
]


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
