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


def movie_vessels(
    correlation: NDArray[np.complex64], finder: VesselFinder
) -> NDArray[np.float32] | None:
    """Return the probability of vessels on fine pixels; None where there is nothing to see.

    A sparse network takes movies of any length; for a dense one empty frames and pixels are added.

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
        The movie has more sites than there is memory for.
    """
    if not correlation.any():
        return None
    fine = tuple(slice(UPSCALING * n) for n in correlation.shape[1:])
    if finder.engine == "dense":
        steps = (CHUNK_FRAMES, *[_DENSE_PX] * (correlation.ndim - 1))
        ends = [(0, -n % step) for n, step in zip(correlation.shape, steps, strict=True)]
        correlation = np.pad(correlation, ends)
    mask = correlation != 0
    if finder.engine != "dense" and np.count_nonzero(mask) > MOST_SITES:
        raise _crowded(f"{np.count_nonzero(mask):,} pixels of a movie, {MOST_SITES:,} at the most")
    return vessel_probability(_network(finder), correlation, mask)[fine]


@functools.lru_cache(maxsize=1)
def _network(finder: VesselFinder) -> Stulm:
    network = load_network(finder.weights, sha256=finder.sha256, device=finder.device)
    assert isinstance(network, Stulm)
    if finder.engine != "dense":
        for finer in network.finer:
            finer.register_forward_pre_hook(_check_finer)
    return network


def _check_finer(finer: nn.Module, given: tuple[Any, ...]) -> None:
    """Raise UserError where the level that is to be made would have too many sites."""
    (x,) = given
    sites = len(x.features) * 2 ** (x.coordinates.shape[1] - 2)
    if sites > MOST_FINE_SITES:
        raise _crowded(f"{sites:,} fine pixels, {MOST_FINE_SITES:,} at the most")


def _crowded(fault: str) -> UserError:
    return UserError(
        f"the network would look at too much: {fault}",
        where="config: ultrasound.superresolve",
        fix="raise threshold or ultrasound.clutter.keep_from, or give a network with pruning",
    )
