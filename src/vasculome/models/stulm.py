"""Deep-stULM, dense and sparse: from the correlation movie to the vessels it went through.

Rauby et al., "Pruning sparse tensor neural networks enables deep learning for 3D ultrasound
localization microscopy", and Milecki et al., IEEE TMI 40(5), 2021, for the dense network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vasculome import sparse
from vasculome.models import dense_layers
from vasculome.sparse import SparseTensor

UPSCALING = 8
"""Fine pixels along an edge of a pixel of the input."""

CHUNK_FRAMES = 128
"""Frames that one frame of the finer levels stands for."""

TIME_STRIDE = 1024
"""Frames that one frame of the output stands for: movies are at most that long."""

LEVELS = (8, 4, 2, 1)
"""Fine pixels along an edge of a pixel, at each level that the target is learnt on."""


@dataclass(frozen=True)
class StulmDesign:
    """What a network is: all of it is in its model card.

    Attributes
    ----------
    n_dims
        Spatial axes, 2 or 3.
    engine
        ``dense`` (torch), ``vasculome`` or ``minkowski`` (sparse).
    intermediate_loss
        Whether classifiers at the coarser levels learn too.
    pruning
        Whether what these find empty is left out of the finer levels; sparse only.
    keep_above
        Probability above which a pixel is kept: 0.5 in the paper.
    """

    n_dims: Literal[2, 3]
    engine: Literal["dense", "vasculome", "minkowski"] = "vasculome"
    intermediate_loss: bool = False
    pruning: bool = False
    keep_above: float = 0.5

    def __post_init__(self) -> None:
        if self.pruning and (self.engine == "dense" or not self.intermediate_loss):
            raise ValueError("pruning is for sparse networks with intermediate loss")

    @property
    def layers(self) -> ModuleType:
        """The module of layers."""
        return dense_layers if self.engine == "dense" else sparse.backend(self.engine)


@dataclass
class Levels:
    """What a network says: logits at each level, coarse to fine; without classifiers the finest.

    Each is a tensor of the engine with 1 channel, at spatial stride ``LEVELS``.
    """

    logits: list[Any] = field(default_factory=list)

    @property
    def finest(self) -> Any:
        """Logits on the fine grid."""
        return self.logits[-1]


class Stulm(nn.Module):
    """The network: a U-Net at the input's resolution, then three doublings, projected over time.

    Axes are space, then time; the input has 2 channels, real and imaginary part of the correlation,
    at stride (8, …, 8, 1) where it is sparse. Strides after each block, in fine pixels and frames:
    in (8, 1), down64 (16, 4), down128 (32, 16), up128 (16, 16), up64 (8, 16), tr1 (8, 128),
    hr1 to hr3 (4, 2, 1; 128), tr2 (1, 1024). A dense movie has a multiple of 128 frames, at most
    1024, and a multiple of 4 pixels along each axis.
    """

    def __init__(self, design: StulmDesign) -> None:
        super().__init__()
        self.design = design
        make = _Maker(design.layers, design.n_dims)
        self.into = nn.Sequential(make.convolution(2, 16, kernel=5), design.layers.BatchNorm(16))
        self.down64 = _Shorten(make, 16, 32, pool=(2, 4), count=3)
        self.down128 = _Shorten(make, 32, 64, pool=(2, 4), count=3)
        self.up128 = _Up(make, 64, reduced=32, skip=32, pool_time=4)
        self.up64 = _Up(make, 64, reduced=16, skip=16, pool_time=16)
        self.tr1 = _Shorten(make, 32, 16, pool=(1, 8), count=2)
        self.finer = nn.ModuleList(_Finer(make, 16) for _ in range(3))
        self.tr2 = _Shorten(make, 16, 16, pool=(1, 8), count=2)
        self.out = nn.Sequential(
            make.unit(16, 8), make.units(8, 2), make.convolution(8, 1, kernel=1, bias=True)
        )
        self.classifiers = nn.ModuleList(
            make.convolution(16, 1, kernel=3, bias=True)
            for _ in range(3 if design.intermediate_loss else 0)
        )
        self.elu = make.elu()
        self.prune = None if design.engine == "dense" else design.layers.Pruning()

    def forward(self, x: Any, *, stop_level: int = len(LEVELS) - 1) -> Levels:
        """Return logits of levels up to ``stop_level``.

        Parameters
        ----------
        x
            Correlation: a dense (samples, 2, *space, frames), or the engine's sparse tensor.
        stop_level
            Last level computed, for cascaded training: 0 is the input's resolution.

        Raises
        ------
        ValueError
            If the network has no classifier at a ``stop_level`` below the last.
        """
        if stop_level < len(LEVELS) - 1 and not self.classifiers:
            raise ValueError("levels before the last need the intermediate loss")
        layers = self.design.layers
        first = self.elu(self.into(x) + layers.cat(*[x] * 8))
        middle = self.down64(first)
        deep = self.down128(middle)
        wide = self.up64(self.up128(deep, middle), first)
        found = Levels()
        features = self.tr1(wide)
        for level, finer in enumerate(self.finer):
            if self.classifiers:
                logits = self.classifiers[level](features)
                found.logits.append(logits)
                if level == stop_level:
                    return found
                if self.design.pruning:
                    features = self._pruned(features, logits)
            features = finer(features)
        found.logits.append(self.out(self.tr2(features)))
        return found

    def _pruned(self, features: SparseTensor, logits: SparseTensor) -> SparseTensor:
        """Keep what is probably a vessel, and in each sample at least its most probable pixel."""
        values = logits.features.detach()[:, 0]
        keep = torch.sigmoid(values) > self.design.keep_above
        return self.prune(features, keep | _best_of_samples(values, logits))


def _best_of_samples(values: Tensor, x: SparseTensor) -> Tensor:
    best = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    samples = x.coordinates[:, 0].long()
    for sample in torch.unique(samples):
        rows = torch.nonzero(samples == sample)[:, 0]
        best[rows[values[rows].argmax()]] = True
    return best


class _Maker:
    """Makes layers of one engine and number of axes."""

    def __init__(self, layers: ModuleType, n_dims: int) -> None:
        self.layers = layers
        self.n_dims = n_dims

    def convolution(self, inner: int, outer: int, *, kernel: int, bias: bool = False) -> nn.Module:
        return self.layers.Convolution(
            inner, outer, kernel_size=kernel, bias=bias, dimension=self.n_dims + 1
        )

    def doubling(self, inner: int, outer: int) -> nn.Module:
        size = (2,) * self.n_dims + (1,)
        return self.layers.ConvolutionTranspose(
            inner, outer, kernel_size=size, stride=size, dimension=self.n_dims + 1
        )

    def pooling(self, space: int, time: int) -> nn.Module:
        size = (space,) * self.n_dims + (time,)
        return self.layers.MaxPooling(kernel_size=size, stride=size, dimension=self.n_dims + 1)

    def elu(self) -> nn.Module:
        return self.layers.Pointwise(nn.ELU())

    def unit(self, inner: int, outer: int, *, kernel: int = 3) -> nn.Sequential:
        """Return convolution, normalization and activation: the paper's LU, of a kernel of 3."""
        return nn.Sequential(
            self.convolution(inner, outer, kernel=kernel), self.layers.BatchNorm(outer), self.elu()
        )

    def units(self, channels: int, count: int) -> nn.Sequential:
        return nn.Sequential(*(self.unit(channels, channels) for _ in range(count)))


class _Residual(nn.Module):
    """ELU(LU × count (x) + x)."""

    def __init__(self, make: _Maker, channels: int, *, count: int) -> None:
        super().__init__()
        self.units = make.units(channels, count)
        self.elu = make.elu()

    def forward(self, x: Any) -> Any:
        return self.elu(self.units(x) + x)


class _Shorten(nn.Module):
    """Fewer channels and frames, or pixels: a pointwise unit, max-pooling and a residual block."""

    def __init__(
        self, make: _Maker, inner: int, outer: int, *, pool: tuple[int, int], count: int
    ) -> None:
        super().__init__()
        self.reduce = make.unit(inner, outer, kernel=1)
        self.pool = make.pooling(*pool)
        self.residual = _Residual(make, outer, count=count)

    def forward(self, x: Any) -> Any:
        return self.residual(self.pool(self.reduce(x)))


class _Up(nn.Module):
    """Twice the pixels, joined to what the encoder had there, its frames pooled."""

    def __init__(
        self, make: _Maker, channels: int, *, reduced: int, skip: int, pool_time: int
    ) -> None:
        super().__init__()
        self.cat = make.layers.cat
        self.pool = make.pooling(1, pool_time)
        self.expand = make.doubling(channels, channels)
        self.reduce = make.unit(channels, reduced)
        self.residual = _Residual(make, reduced + skip, count=3)

    def forward(self, x: Any, skip: Any) -> Any:
        skip = self.pool(skip)
        return self.residual(self.cat(self.reduce(self.expand(x, skip)), skip))


class _Finer(nn.Module):
    """Twice the pixels, wherever there was one."""

    def __init__(self, make: _Maker, channels: int) -> None:
        super().__init__()
        self.expand = make.doubling(channels, channels)
        self.normalize = make.layers.BatchNorm(channels)
        self.elu = make.elu()
        self.residual = _Residual(make, channels, count=3)

    def forward(self, x: Any) -> Any:
        return self.residual(self.elu(self.normalize(self.expand(x))))
