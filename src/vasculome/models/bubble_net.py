"""A sparse network that keeps every bubble: where it is, and how sure that is, frame by frame.

Ours. The network of the paper projects its movie over time, and what remains cannot be tracked;
this one says at each site of the input what DECODE says at each pixel (Speiser et al., Nature
Methods 18, 2021): the probability that a bubble is there, its place within the pixel, and the
standard deviation of that place.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor, nn

from vasculome import sparse
from vasculome.sparse import SparseTensor, layers

Movie = NDArray[np.complexfloating]

_CHANNELS_IN = 6
_FIRST_LOGIT = -4.0
_MIN_SIGMA_PX = 0.02
_REACH_PX = 1.5
"""Farthest from its site that a bubble can be put, along each axis."""

_SHARED_PX = 2
"""Sites farther apart along an axis do not tell of the same bubble."""

FAINT = 0.03
"""Probability below which a site adds nothing to a detection."""


@dataclass(frozen=True)
class BubbleNetDesign:
    """What a network is: all of it is in its model card.

    Attributes
    ----------
    n_dims
        Spatial axes, 2 or 3.
    channels
        Of each level; every level halves the pixels and frames of the one before.
    threshold
        Of |c|²: sites above are given to the network.
    """

    n_dims: Literal[2, 3]
    channels: tuple[int, ...] = (16, 32, 48)
    threshold: float = 0.2


@dataclass(frozen=True)
class Sites:
    """What the network says at n sites of a movie.

    Attributes
    ----------
    coordinates
        Sample, z, [y,] x, frame: int (n, 2 + D).
    logit
        Of the probability of a bubble, (n,).
    position_px
        Where that bubble is, (n, D).
    sigma_px
        Standard deviation of the place along each axis, (n, D).
    """

    coordinates: Tensor
    logit: Tensor
    position_px: Tensor
    sigma_px: Tensor


class BubbleNet(nn.Module):
    """A U-Net over space and time at the sites of a correlation movie.

    Its receptive field is bounded: :meth:`reach` sites along each axis matter to one.
    """

    def __init__(self, design: BubbleNetDesign) -> None:
        super().__init__()
        self.design = design
        dimension = design.n_dims + 1
        channels = design.channels
        self.into = _unit(_CHANNELS_IN, channels[0], dimension)
        self.encode = nn.ModuleList(_Residual(c, dimension) for c in channels)
        self.widen = nn.ModuleList(
            _unit(a, b, dimension, kernel=1) for a, b in itertools.pairwise(channels)
        )
        self.pool = layers.MaxPooling(kernel_size=2, stride=2, dimension=dimension)
        self.expand = nn.ModuleList(
            layers.ConvolutionTranspose(b, a, kernel_size=2, stride=2, dimension=dimension)
            for a, b in itertools.pairwise(channels)
        )
        self.merge = nn.ModuleList(_unit(2 * a, a, dimension) for a in channels[:-1])
        self.decode = nn.ModuleList(_Residual(c, dimension) for c in channels[:-1])
        self.out = layers.Linear(channels[0], 1 + 2 * design.n_dims)
        with torch.no_grad():
            # Few sites have a bubble: a network that begins by expecting many unlearns that first.
            self.out.linear.bias[0] = _FIRST_LOGIT

    def forward(self, x: SparseTensor) -> Sites:
        """Return what is said at each site of ``x``: :func:`sites_of` a movie."""
        kept = []
        x = self.into(x)
        for level, encode in enumerate(self.encode):
            if level:
                x = self.widen[level - 1](self.pool(x))
            x = encode(x)
            kept.append(x)
        for level in reversed(range(len(self.expand))):
            skip = kept[level]
            x = self.merge[level](sparse.layers.cat(self.expand[level](x, skip), skip))
            x = self.decode[level](x)
        said = self.out(x)
        n_dims = self.design.n_dims
        site_px = said.coordinates[:, 1 : 1 + n_dims].to(said.features.dtype)
        offset = _REACH_PX * torch.tanh(said.features[:, 1 : 1 + n_dims])
        sigma = _MIN_SIGMA_PX + nn.functional.softplus(said.features[:, 1 + n_dims :] - 1)
        return Sites(said.coordinates, said.features[:, 0], site_px + offset, sigma)

    def reach(self) -> int:
        """Return how many sites away, along any axis, an input can still change an output.

        At each level 3 convolutions of 3 in the encoder, and 3 in the decoder; a pooled block adds
        what lies in it.
        """
        last = len(self.design.channels) - 1
        total = 0
        for level in range(last + 1):
            convolutions = 2 if level == last else 5
            total += (convolutions + (level == 0)) * 2**level + (2**level if level < last else 0)
        return total


def said_both_ways(network: BubbleNet, x: SparseTensor) -> Sites:
    """Return the mean of what a network says of sites and of their mirror image across the beam.

    Echoes of one shape a network puts a little to one side, the same in all of a movie (measured:
    up to 0.09 pixels). In the mirror image it is the other side.

    Parameters
    ----------
    network
        In ``eval`` mode.
    x
        As of :meth:`BubbleNet.forward`; coordinates are 0 or more.
    """
    if not len(x):
        return network(x)

    def tensor(coordinates: Tensor) -> SparseTensor:
        # One of its own for each pass: what it keeps for its layers goes with it.
        return SparseTensor.from_points(coordinates, x.features, batch_size=x.batch_size)

    across = slice(2, 1 + network.design.n_dims)
    # The coarsest sites are blocks of as many: mirrored, they must be blocks again.
    block = 2 ** (len(network.design.channels) - 1)
    last = (x.coordinates[:, across].amax(dim=0) // block + 1) * block - 1
    place = x.coordinates.clone()
    place[:, across] = last - place[:, across]
    said = network(tensor(x.coordinates))
    image = tensor(place)
    row = image.manager.find(image.key, place)
    mirrored = network(image)
    other = mirrored.position_px[row]
    other[:, 1:] = last - other[:, 1:]
    # Which site tells of a bubble between two may differ: each has a say by its probability.
    one, two = torch.sigmoid(said.logit), torch.sigmoid(mirrored.logit[row])
    part = (two / (one + two).clamp(min=1e-30))[:, None]
    return Sites(
        said.coordinates,
        torch.logit((one + two) / 2, eps=1e-6),
        torch.lerp(said.position_px, other, part),
        torch.lerp(said.sigma_px, mirrored.sigma_px[row], part),
    )


def sites_of(
    movies: Sequence[Movie],
    correlations: Sequence[Movie],
    masks: Sequence[NDArray[np.bool_]],
) -> SparseTensor:
    """Return the sites of movies as a sparse tensor: correlation and signal at each.

    Correlation tells an echo from noise, however bright, but where echoes overlap, or one outshines
    the next, the signal itself tells more. Its magnitude is given as log(1 + |f|/s), s the median
    over the sites of the movie; of both real part, imaginary part and magnitude.

    Parameters
    ----------
    movies
        IQ without tissue (t, z, [y,] x), one a sample.
    correlations
        With the echo of a bubble, of the same shapes.
    masks
        Which sites are taken, of the same shapes.
    """
    coordinates, features = [], []
    for sample, (movie, correlation, mask) in enumerate(
        zip(movies, correlations, masks, strict=True)
    ):
        where = np.argwhere(mask)
        label = np.full((len(where), 1), sample)
        coordinates.append(np.concatenate([label, where[:, 1:], where[:, :1]], axis=1))
        signal = movie[mask]
        features.append(site_features(correlation[mask], signal, scale=magnitude_scale(signal)))
    return SparseTensor.from_points(
        torch.from_numpy(np.concatenate(coordinates)),
        torch.from_numpy(np.concatenate(features)),
        batch_size=len(movies),
    )


def magnitude_scale(signal: Movie) -> float:
    """Return what magnitudes of the signal are compared with: their median over all sites."""
    return float(np.median(np.abs(signal))) if len(signal) else 0.0


def site_features(correlation: Movie, signal: Movie, *, scale: float) -> NDArray[np.float32]:
    """Return what the network is given at n sites, (n, 6): see :func:`sites_of`.

    Parameters
    ----------
    correlation, signal
        At the sites, (n,).
    scale
        Of the whole movie: :func:`magnitude_scale` of all its sites.
    """
    parts = [_parts(correlation), _parts(_compressed(signal, scale))]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _parts(values: NDArray[np.complexfloating]) -> NDArray[np.floating]:
    return np.stack([values.real, values.imag, np.abs(values)], axis=1)


def _compressed(values: NDArray[np.complexfloating], scale: float) -> NDArray[np.complexfloating]:
    """Return values of the same phases whose magnitudes are log(1 + |f|/scale)."""
    if scale == 0:
        return np.zeros_like(values)
    magnitude = np.abs(values)
    return values * (np.log1p(magnitude / scale) / np.maximum(magnitude, 1e-6 * scale))


def detections(sites: Sites, *, min_probability: float) -> dict[str, NDArray[np.floating]]:
    """Return one bubble where neighbouring sites say the same one.

    A bubble between pixels shares its probability among them. In each frame the most probable site
    takes what its neighbours within two pixels say, if they put their bubble less than a pixel away
    from its; what they sum to is the probability, at most 1, and their mean, by probability, the
    place. Then the next.

    Parameters
    ----------
    sites
        Of one movie or several.
    min_probability
        Sums below are no bubble.

    Returns
    -------
    dict
        ``sample``, ``frame`` (int64), ``probability``, ``position_px`` and ``sigma_px`` (n, D),
        in the order of sample, frame and place.
    """
    coordinates = sites.coordinates.cpu().numpy().astype(np.int64)
    probability = torch.sigmoid(sites.logit).detach().cpu().numpy().astype(np.float64)
    position = sites.position_px.detach().cpu().numpy().astype(np.float64)
    sigma = sites.sigma_px.detach().cpu().numpy().astype(np.float64)
    likely = probability > FAINT
    coordinates, probability = coordinates[likely], probability[likely]
    position, sigma = position[likely], sigma[likely]
    # By sample and frame, then the most probable first; the sort is stable, so ties keep order.
    order = np.lexsort((-probability, coordinates[:, -1], coordinates[:, 0]))
    coordinates, probability = coordinates[order], probability[order]
    position, sigma = position[order], sigma[order]
    frames = np.column_stack([coordinates[:, 0], coordinates[:, -1]])
    begins = np.flatnonzero(np.r_[True, np.any(frames[1:] != frames[:-1], axis=1)])
    ends = np.r_[begins[1:], len(frames)] if len(frames) else begins
    total, place, spread = _merged(
        begins if len(frames) else np.empty(0, np.int64), ends,
        np.ascontiguousarray(coordinates[:, 1:-1]), probability, position, sigma,
    )  # fmt: skip
    found = total >= min_probability
    place, spread, total, frames = place[found], spread[found], total[found], frames[found]
    order = np.lexsort((*place.T[::-1], frames[:, 1], frames[:, 0]))
    return {
        "sample": frames[order, 0],
        "frame": frames[order, 1],
        "probability": np.minimum(total[order], 1),
        "position_px": place[order],
        "sigma_px": spread[order],
    }


@njit(cache=True, nogil=True)
def _merged(
    begins: Any, ends: Any, site: Any, probability: Any, position: Any, sigma: Any
) -> tuple[Any, Any, Any]:
    """Return sums of probability at the sites that lead, 0 at others, with place and spread."""
    total = np.zeros(len(probability))
    place, spread = position.copy(), sigma.copy()
    taken = np.zeros(len(probability), np.bool_)
    n_dims = site.shape[1]
    for group in range(len(begins)):
        for i in range(begins[group], ends[group]):
            if taken[i]:
                continue
            taken[i] = True
            weight = probability[i]
            place[i] = position[i] * weight
            spread[i] = sigma[i] * weight
            for j in range(i + 1, ends[group]):
                if taken[j]:
                    continue
                near = True
                for d in range(n_dims):
                    apart = abs(position[j, d] - position[i, d])
                    if abs(site[j, d] - site[i, d]) > _SHARED_PX or apart >= 1:
                        near = False
                        break
                if near:
                    taken[j] = True
                    weight += probability[j]
                    place[i] += position[j] * probability[j]
                    spread[i] += sigma[j] * probability[j]
            total[i] = weight
            place[i] /= weight
            spread[i] /= weight
    return total, place, spread


def _unit(inner: int, outer: int, dimension: int, *, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        layers.Convolution(inner, outer, kernel_size=kernel, dimension=dimension),
        layers.BatchNorm(outer),
        layers.Pointwise(nn.ELU()),
    )


class _Residual(nn.Module):
    """Two units, added to what they were given."""

    def __init__(self, channels: int, dimension: int) -> None:
        super().__init__()
        self.first = _unit(channels, channels, dimension)
        self.second = nn.Sequential(
            layers.Convolution(channels, channels, kernel_size=3, dimension=dimension),
            layers.BatchNorm(channels),
        )
        self.elu = layers.Pointwise(nn.ELU())

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self.elu(self.second(self.first(x)) + x)
