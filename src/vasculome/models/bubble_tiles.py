"""The network that keeps every bubble on long or large movies: piece by piece, the same result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vasculome.models.bubble_net import (
    FAINT,
    BubbleNet,
    Sites,
    magnitude_scale,
    said_both_ways,
    site_features,
)
from vasculome.sparse import SparseTensor

_LEAST_GAIN = 0.95
"""A piece that would have more than this part of its sites even if it were halved stays whole."""


class TooManySitesError(ValueError):
    """So many sites lie so densely that no piece is small enough."""


@dataclass(frozen=True)
class SiteList:
    """Sites of one movie that a network is given, and what is there.

    Attributes
    ----------
    coordinates
        z, [y,] x, frame: integers ≥ 0, (n, D + 1).
    correlation, signal
        With the echo of a bubble, and of the IQ itself: complex64 (n,).
    """

    coordinates: NDArray[np.integer]
    correlation: NDArray[np.complex64]
    signal: NDArray[np.complex64]


def likely_sites(network: BubbleNet, sites: SiteList, *, most_sites: int) -> Sites:
    """Return what a network says, both ways, at the sites where a bubble is not unlikely.

    The movie is cut along space and time until no piece, with all sites around it that matter to
    it, has more than ``most_sites``: about 1 kB each bounds the memory.

    Parameters
    ----------
    network
        On any device.
    sites
        Of the whole movie: the scale of its signal is taken from all of them.
    most_sites
        That go through the network at once.

    Returns
    -------
    Sites on the processor, in no particular order; what `detections` makes of them is what it makes
    of all.

    Raises
    ------
    TooManySitesError
        If pieces cannot be made so small: about 27 sites to each side of any one matter to it.
    """
    scale = magnitude_scale(sites.signal)
    found = [
        _said(network, sites, rows, low, high, scale)
        for rows, low, high in _pieces(sites.coordinates, network.reach(), most_sites)
    ]
    if not found:
        return _none(network.design.n_dims)
    return Sites(
        torch.cat([part.coordinates for part in found]),
        torch.cat([part.logit for part in found]),
        torch.cat([part.position_px for part in found]),
        torch.cat([part.sigma_px for part in found]),
    )


Corner = NDArray[np.int64]


def _pieces(
    coordinates: NDArray[np.integer], reach: int, most_sites: int
) -> Iterator[tuple[NDArray[np.int64], Corner, Corner]]:
    """Yield boxes [low, high) that hold each site once, with the rows of all sites they depend on.

    Coordinates stay what they are, so that the network's coarse grids lie alike in all pieces.
    """
    if not len(coordinates):
        return
    begin, end = coordinates.min(axis=0).astype(np.int64), coordinates.max(axis=0) + np.int64(1)
    waiting = [(begin, end)]
    while waiting:
        low, high = waiting.pop()
        outer = np.maximum(low - reach, begin), np.minimum(high + reach, end)
        rows = np.flatnonzero(_within(coordinates, *outer))
        if len(rows) <= most_sites:
            if len(rows):
                yield rows, low, high
            continue
        middle = (low + high) // 2
        # Of both halves along each axis, how much of the piece with its surroundings is left.
        left = np.minimum(middle + reach, end) - np.maximum(low - reach, begin)
        right = np.minimum(high + reach, end) - np.maximum(middle - reach, begin)
        part = np.maximum(left, right) / (outer[1] - outer[0])
        axis = int(np.argmin(part))
        if part[axis] > _LEAST_GAIN:
            raise TooManySitesError(
                f"{len(rows)} sites matter to {(high - low).tolist()} of the movie: more than "
                f"{most_sites}"
            )
        cut = np.arange(len(low)) == axis
        waiting += [(np.where(cut, middle, low), high), (low, np.where(cut, middle, high))]


def _within(coordinates: NDArray[np.integer], low: Corner, high: Corner) -> NDArray[np.bool_]:
    inside = np.ones(len(coordinates), np.bool_)
    for axis, (a, b) in enumerate(zip(low, high, strict=True)):
        inside &= (coordinates[:, axis] >= a) & (coordinates[:, axis] < b)
    return inside


def _said(
    network: BubbleNet,
    sites: SiteList,
    rows: NDArray[np.int64],
    low: Corner,
    high: Corner,
    scale: float,
) -> Sites:
    """Return the likely sites of the box [low, high), with all sites at ``rows`` given."""
    device = next(network.parameters()).device
    place = np.zeros((len(rows), 1 + len(low)), np.int64)
    place[:, 1:] = sites.coordinates[rows]
    features = site_features(sites.correlation[rows], sites.signal[rows], scale=scale)
    with torch.no_grad():
        said = said_both_ways(
            network,
            SparseTensor.from_points(
                torch.from_numpy(place).to(device),
                torch.from_numpy(features).to(device),
                batch_size=1,
            ),
        )
        axes = said.coordinates[:, 1:]
        ends = [torch.as_tensor(corner, device=device) for corner in (low, high)]
        own = ((axes >= ends[0]) & (axes < ends[1])).all(dim=1)
        own &= torch.sigmoid(said.logit) > FAINT
    return Sites(*(_kept(part, own) for part in vars(said).values()))


def _kept(values: Tensor, rows: Tensor) -> Tensor:
    return values[rows].cpu()


def _none(n_dims: int) -> Sites:
    return Sites(
        torch.zeros((0, n_dims + 2), dtype=torch.int32),
        torch.zeros(0),
        torch.zeros((0, n_dims)),
        torch.zeros((0, n_dims)),
    )
