"""What the networks are trained to make small."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vasculome.models.bubble_net import Sites
from vasculome.sparse import SparseTensor

_UNLIKELY = 1e-4
"""Density of bubbles, a pixel, that no site speaks for: a bubble that none expects costs a lot, but
not without limit."""


@dataclass(frozen=True)
class Bubbles:
    """True bubbles of a batch: sample and frame (n,) int64, position_px (n, D)."""

    sample: Tensor
    frame: Tensor
    position_px: Tensor

    def __len__(self) -> int:
        return len(self.sample)


def soft_dice_loss(
    probability: Tensor, target: Tensor, *, target_sum: Tensor | float, eps: float = 1e-3
) -> Tensor:
    """Return 1 − (2 Σ pt + ε)/(Σ p + Σ t + ε).

    Parameters
    ----------
    probability, target
        At the pixels that the network speaks of, of one shape, from 0 to 1.
    target_sum
        Sum of the target over all pixels, those of which the network does not speak included.
    """
    overlap = (probability * target).sum()
    return 1 - (2 * overlap + eps) / (probability.sum() + target_sum + eps)


def bubble_loss(
    sites: Sites, points: SparseTensor, truth: Bubbles, *, n_frames: int, reach_px: int = 2
) -> Tensor:
    """Return what DECODE minimizes, a frame: −log p(number of bubbles) − Σ log p(position).

    The number of bubbles in a frame is normal around Σ p with variance Σ p (1 − p); positions are
    drawn from the mixture of the sites' normal distributions, weighted by p/Σ p (Speiser et al.,
    Nature Methods 18, 2021, Methods: count loss and localization loss). Bubbles with no site
    within a pixel are left out: the network cannot know of them.

    Parameters
    ----------
    sites, points
        What the network says, and the sparse tensor it was given, whose rows are the same.
    truth
        Bubbles of the same samples; frames from 0.
    n_frames
        Frames of every sample.
    reach_px
        Sites farther away along an axis are taken to say nothing about a bubble.
    """
    rows = _sites_around(points, truth, reach_px)
    n_dims = truth.position_px.shape[1]
    offsets = _offsets(n_dims, reach_px, device=rows.device)
    seen = ((rows >= 0) & (offsets.abs().amax(1) <= 1)).any(1)
    rows, position = rows[seen], truth.position_px[seen]
    moment = (truth.sample * n_frames + truth.frame)[seen]

    probability = torch.sigmoid(sites.logit)
    coordinates = sites.coordinates.long()
    when = coordinates[:, 0] * n_frames + coordinates[:, -1]
    zeros = probability.new_zeros(points.batch_size * n_frames)
    expected = zeros.index_add(0, when, probability)
    variance = zeros.index_add(0, when, probability * (1 - probability))
    count = torch.bincount(moment, minlength=len(zeros)).to(expected.dtype)
    spoken = torch.bincount(when, minlength=len(zeros)) > 0
    of_count = _normal_nll(count - expected, variance + 0.05)[spoken].sum()

    near = rows.clamp(min=0)
    log_p = torch.nn.functional.logsigmoid(sites.logit)
    away = (position[:, None] - sites.position_px[near]) / sites.sigma_px[near]
    density = -(away.square() / 2 + sites.sigma_px[near].log()).sum(2)
    density = density - n_dims / 2 * math.log(2 * math.pi) + log_p[near]
    density = density.masked_fill(rows < 0, -torch.inf)
    floor = density.new_full((len(density), 1), math.log(_UNLIKELY))
    mixture = torch.logsumexp(torch.cat([density, floor], dim=1), dim=1)
    of_place = (expected[moment] + 1e-3).log().sum() - mixture.sum()
    return (of_count + of_place) / max(int(spoken.sum()), 1)


def _normal_nll(difference: Tensor, variance: Tensor) -> Tensor:
    return difference.square() / (2 * variance) + (2 * math.pi * variance).log() / 2


def _offsets(n_dims: int, reach: int, *, device: torch.device) -> Tensor:
    return torch.tensor(
        list(itertools.product(range(-reach, reach + 1), repeat=n_dims)), device=device
    )


def _sites_around(points: SparseTensor, truth: Bubbles, reach: int) -> Tensor:
    """Return rows (bubbles, offsets) of the sites around each bubble, −1 where there is none."""
    pixel = truth.position_px.round().long()
    offsets = _offsets(pixel.shape[1], reach, device=pixel.device)
    around = pixel[:, None] + offsets
    shape = around.shape[:2]
    coordinates = torch.cat(
        [
            truth.sample[:, None, None].expand(*shape, 1),
            around,
            truth.frame[:, None, None].expand(*shape, 1),
        ],
        dim=2,
    )
    return points.rows_of(coordinates.flatten(0, 1)).view(shape)
