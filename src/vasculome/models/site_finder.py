"""A small dense network that finds the pixels with bubbles: the sites a sparse one is given.

The learned dense-to-sparse conversion of Rauby et al.: convolutions over space and time, with time
halved and interpolated back at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vasculome.models.dense_layers import BatchNorm, Convolution, MaxPooling, Pointwise


@dataclass(frozen=True)
class SiteFinderDesign:
    """What a network is: all of it is in its model card.

    Attributes
    ----------
    n_dims
        Spatial axes, 2 or 3.
    channels
        Of every layer.
    depth
        Convolutions at half the frames.
    """

    n_dims: Literal[2, 3]
    channels: int = 8
    depth: int = 3


class SiteFinder(nn.Module):
    """Says of each pixel of a correlation movie how likely a bubble is in it."""

    def __init__(self, design: SiteFinderDesign) -> None:
        super().__init__()
        self.design = design
        block = (1,) * design.n_dims + (2,)
        self.layers = nn.Sequential(
            self._unit(2),
            MaxPooling(kernel_size=block, stride=block, dimension=design.n_dims + 1),
            *(self._unit(design.channels) for _ in range(design.depth)),
            Convolution(design.channels, 1, kernel_size=1, bias=True, dimension=design.n_dims + 1),
        )

    def _unit(self, inner: int) -> nn.Sequential:
        channels = self.design.channels
        return nn.Sequential(
            Convolution(inner, channels, kernel_size=3, dimension=self.design.n_dims + 1),
            BatchNorm(channels),
            Pointwise(nn.ELU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (samples, *space, frames).

        Parameters
        ----------
        x
            Real and imaginary part of the correlation, (samples, 2, *space, frames); frames are
            even in number.
        """
        half = self.layers(x)[:, 0]
        # A frame of the half lies between two of the whole: straight lines between them, and the
        # same before the first and after the last.
        before = torch.cat([half[..., :1], half[..., :-1]], dim=-1)
        after = torch.cat([half[..., 1:], half[..., -1:]], dim=-1)
        return torch.stack([0.75 * half + 0.25 * before, 0.75 * half + 0.25 * after], -1).flatten(
            -2
        )
