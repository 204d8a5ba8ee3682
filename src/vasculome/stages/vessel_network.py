"""What a trained network makes of a correlation movie; importing this imports torch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vasculome.errors import UserError
from vasculome.models.stulm import UPSCALING, Stulm
from vasculome.models.stulm_movies import vessel_probability
from vasculome.stages.network_load import load_network
from vasculome.stages.vessel_weights import (
    CHUNK_FRAMES,
    MOST_FINE_SITES,
    MOST_SITES,
    VesselFinder,
)

_DENSE_PX = 4
"""What pixels of dense movies are multiples of: the network halves them twice."""


class _CrowdedError(Exception):
    """A movie has more sites than there is memory for."""


def movie_vessels(
    correlation: NDArray[np.complex64], finder: VesselFinder
) -> NDArray[np.float32] | None:
    """Return the probability of vessels on fine pixels; None where there is nothing to see.

    A sparse network takes movies of any length; for a dense one empty frames and pixels are added.
    Of a movie with more sites than there is memory for it is shown the halves, and the higher
    probability is taken.

    Parameters
    ----------
    correlation
        (t, z, [y,] x), 0 where the network is not to look.
    finder
        The network.

    Returns
    -------
    float32 array (8 z, [8 y,] 8 x).

    Raises
    ------
    UserError
        Even 128 frames have more sites than there is memory for.
    """
    if not correlation.any():
        return None
    if finder.is_dense:
        return _dense(correlation, finder)
    try:
        return _sparse(correlation, finder)
    except _CrowdedError as error:
        # What the network has made so far hangs on the error, and must be gone before it goes on.
        fault = str(error)
    chunks = -(-len(correlation) // CHUNK_FRAMES)
    if chunks == 1:
        raise UserError(
            f"the network would look at too much: {fault} in {len(correlation)} frames",
            where="config: ultrasound.superresolve",
            fix="raise threshold or ultrasound.clutter.keep_from, or give a network with pruning",
        )
    middle = CHUNK_FRAMES * (chunks // 2)
    halves = [movie_vessels(half, finder) for half in np.split(correlation, [middle])]
    return functools.reduce(np.maximum, [half for half in halves if half is not None])


def _dense(correlation: NDArray[np.complex64], finder: VesselFinder) -> NDArray[np.float32]:
    steps = (CHUNK_FRAMES, *[_DENSE_PX] * (correlation.ndim - 1))
    ends = [(0, -n % step) for n, step in zip(correlation.shape, steps, strict=True)]
    filled = np.pad(correlation, ends)
    fine = tuple(slice(UPSCALING * n) for n in correlation.shape[1:])
    return vessel_probability(_network(finder), filled, filled != 0)[fine]


def _sparse(correlation: NDArray[np.complex64], finder: VesselFinder) -> NDArray[np.float32]:
    mask = correlation != 0
    _check_sites(int(np.count_nonzero(mask)), MOST_SITES, "pixels")
    return vessel_probability(_network(finder), correlation, mask)


@functools.lru_cache(maxsize=1)
def _network(finder: VesselFinder) -> Stulm:
    # What MinkowskiEngine has trained says the same on our engine, which everyone has.
    network = load_network(
        finder.weights,
        sha256=finder.sha256,
        device=finder.device,
        instead={} if finder.is_dense else {"engine": "vasculome"},
    )
    assert isinstance(network, Stulm)
    if not finder.is_dense:
        for finer in network.finer:
            finer.register_forward_pre_hook(_check_finer)
    return network


def _check_finer(finer: nn.Module, given: tuple[Any, ...]) -> None:
    """Raise _CrowdedError where the level that is to be made would have too many sites."""
    (x,) = given
    sites = len(x.features) * 2 ** (x.coordinates.shape[1] - 2)
    _check_sites(sites, MOST_FINE_SITES, "fine pixels")


def _check_sites(sites: int, most: int, name: str) -> None:
    if sites > most:
        raise _CrowdedError(f"{sites:,} {name}, {most:,} at the most,")
