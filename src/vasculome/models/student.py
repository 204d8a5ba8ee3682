"""The student of VpbSD: a light 3-D U-Net of four levels that says which voxels are vessel.

Two convolutions a level with group normalization and leaky ReLU, residual connections, skip
connections (VpbSD, section 4.1.2). The paper gives 0.12 M parameters and 0.11 GFLOPs for a patch
of 64³; widths, stem and the residual projections are ours, chosen to meet both.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vasculome.models.gamma import corrected

_SLOPE = 0.01
"""Of the leaky ReLU, below zero."""


@dataclass(frozen=True)
class StudentDesign:
    """What a network is: all of it is in its model card.

    Attributes
    ----------
    widths
        Channels of each level, from the finest; each level halves the voxels of the one before.
    stem_stride
        Stride of the first convolution: with 2 the finest level has half the voxels along each
        axis, and the answer is interpolated.
    skip
        How what was seen on the way down joins what comes up: added or concatenated.
    norm
        ``group`` (one group, as small as the widths are): statistics of the patch at hand, as in
        the paper. ``batch``: statistics learnt in training, so that what the network says of a
        voxel depends on nothing but its surroundings, whatever the tiles.
    gamma
        Power that intensities are raised to before all else, as of :mod:`vasculome.models.gamma`.
    """

    widths: tuple[int, ...] = (5, 6, 20, 44)
    stem_stride: Literal[1, 2] = 2
    skip: Literal["add", "concatenate"] = "add"
    norm: Literal["group", "batch"] = "group"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(f"widths must be two or more, each 1 or more, not {self.widths}")
        if self.stem_stride not in {1, 2}:
            raise ValueError(f"stem_stride must be 1 or 2, not {self.stem_stride}")
        if self.skip not in {"add", "concatenate"}:
            raise ValueError(f"skip must be add or concatenate, not {self.skip!r}")
        if self.norm not in {"group", "batch"}:
            raise ValueError(f"norm must be group or batch, not {self.norm!r}")
        if not self.gamma > 0:
            raise ValueError(f"gamma must be above 0, not {self.gamma}")

    @property
    def stride(self) -> int:
        """Voxels that patches are multiples of along each axis."""
        return self.stem_stride * int(2 ** (len(self.widths) - 1))

    @property
    def reach_voxels(self) -> int:
        """Farthest voxel, along an axis, that bears on what is said of another.

        With ``norm`` group the statistics of the whole patch bear on it as well.
        """
        reach, step = 0, int(self.stem_stride)
        for level in range(len(self.widths)):
            # The stem's convolution steps over voxels, but its window is made of them.
            reach += 1 + step if level == 0 else 2 * step
            if level < len(self.widths) - 1:
                reach += step  # Pooling takes in the next voxel.
                step *= 2
        for _ in range(len(self.widths) - 1):
            reach += step  # Interpolation asks the neighbour.
            step //= 2
            reach += 2 * step
        return reach + (step if self.stem_stride == 2 else 0)


@dataclass(frozen=True)
class StudentAnswer:
    """What the student says of a batch of patches.

    Attributes
    ----------
    logits
        Of vessel against background, (N, 1, z, y, x).
    deepest
        Features of the coarsest level, before their last activation so that they may have either
        sign, (N, widths[-1], z/stride, y/stride, x/stride).
    """

    logits: Tensor
    deepest: Tensor


class Student(nn.Module):
    """See :class:`StudentDesign`."""

    def __init__(self, design: StudentDesign) -> None:
        super().__init__()
        self.design = design
        widths = design.widths
        inner = (1, *widths[:-1])
        strides = (design.stem_stride, *(1 for _ in widths[1:]))
        self.down = nn.ModuleList(
            _Block(a, b, stride=s, norm=design.norm)
            for a, b, s in zip(inner, widths, strides, strict=True)
        )
        self.pool = nn.MaxPool3d(2)
        # Fewer channels before there are more voxels: the other way round costs eight times more.
        coarse_first = widths[::-1]
        self.narrow = nn.ModuleList(
            nn.Conv3d(a, b, 1, bias=False) for a, b in itertools.pairwise(coarse_first)
        )
        self.upsample = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
        joined = 2 if design.skip == "concatenate" else 1
        self.up = nn.ModuleList(_Block(joined * c, c, norm=design.norm) for c in coarse_first[1:])
        self.head = nn.Conv3d(widths[0], 1, 1)

    @property
    def last(self) -> nn.Module:
        """The layer that says logits: what follows only interpolates them."""
        return self.head

    def forward(self, x: Tensor) -> StudentAnswer:
        """Return what the network says of patches.

        Parameters
        ----------
        x
            Images from 0 to 1, (N, 1, z, y, x); z, y and x are multiples of ``design.stride``.

        Raises
        ------
        ValueError
            They are not.
        """
        if x.ndim != 5 or x.shape[1] != 1 or any(n % self.design.stride for n in x.shape[2:]):
            raise ValueError(
                f"patches must be (N, 1, z, y, x) with multiples of {self.design.stride}, "
                f"not {tuple(x.shape)}"
            )
        x = corrected(x, self.design.gamma)
        seen: list[Tensor] = []
        for level, block in enumerate(self.down):
            deepest = block(self.pool(x) if level else x)
            x = nn.functional.leaky_relu(deepest, _SLOPE)
            seen.append(x)
        seen.pop()
        for narrow, block in zip(self.narrow, self.up, strict=True):
            x = self.upsample(narrow(x))
            skip = seen.pop()
            x = x + skip if self.design.skip == "add" else torch.cat([x, skip], dim=1)
            x = nn.functional.leaky_relu(block(x), _SLOPE)
        logits = self.head(x)
        if self.design.stem_stride == 2:
            logits = self.upsample(logits)
        return StudentAnswer(logits, deepest)


class _Block(nn.Module):
    """Two convolutions, and what goes past them; without the last activation."""

    def __init__(
        self, inner: int, outer: int, *, stride: int = 1, norm: Literal["group", "batch"]
    ) -> None:
        super().__init__()
        self.first = nn.Conv3d(inner, outer, 3, stride=stride, padding=1, bias=False)
        self.first_norm = _norm(norm, outer)
        self.second = nn.Conv3d(outer, outer, 3, padding=1, bias=False)
        self.second_norm = _norm(norm, outer)
        self.past: nn.Module = nn.Identity()
        if inner != outer or stride != 1:
            self.past = nn.Conv3d(inner, outer, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inside = nn.functional.leaky_relu(self.first_norm(self.first(x)), _SLOPE)
        answer: Tensor = self.second_norm(self.second(inside)) + self.past(x)
        return answer


def _norm(kind: Literal["group", "batch"], channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    return nn.GroupNorm(1, channels)
