"""What a trained network finds in a block of frames; importing this imports torch."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.config import LocalizeConfig
from vasculome.errors import UserError
from vasculome.models.bubble_net import BubbleNet, detections
from vasculome.models.bubble_tiles import SiteList, TooManySitesError, likely_sites
from vasculome.stages.network_load import load_network
from vasculome.stages.network_weights import MOST_PART, MOST_SITES, Finder
from vasculome.ultrasound.columns import Table, axis_names
from vasculome.ultrasound.psf import DepthPsf
from vasculome.ultrasound.sparsify import above
from vasculome.ultrasound.upsample import fine_correlation


def network_bubbles(
    filtered: NDArray[np.complex64],
    magnitude: NDArray[np.float32],
    psf: DepthPsf,
    how: LocalizeConfig,
    finder: Finder,
    *,
    first_frame: int = 0,
) -> tuple[Table, int]:
    """Return the bubbles that the network finds in a block of frames, positions in pixels.

    Parameters
    ----------
    filtered, magnitude
        Frames without tissue, (t, z, [y,] x), complex and their magnitude.
    psf
        Echo of a bubble on their pixels.
    how
        Settings: the surest ``max_per_frame`` are kept.
    finder
        The network.
    first_frame
        Number of the first frame.

    Returns
    -------
    Table
        As of a localizer, without ``maxima`` and ``shift_px``: ``score`` is the probability, and
        ``sigma_z``, [``sigma_y``,] ``sigma_x`` (float32, pixels) are standard deviations of the
        position that the network itself tells.
    int
        How many sites the network was given.

    Raises
    ------
    UserError
        If the frames have far more sites than movies of bubbles do.
    """
    sites = _sites(filtered, psf, finder)
    try:
        said = likely_sites(_network(finder), sites, most_sites=MOST_SITES)
    except TooManySitesError as error:
        raise _crowded(str(error)) from None
    found = detections(said, min_probability=finder.min_probability)
    position = found["position_px"] / finder.factors
    size = np.array(magnitude.shape[1:])
    kept = ((position >= -0.5) & (position < size - 0.5)).all(axis=1)
    kept[kept] = _surest(found["frame"][kept], found["probability"][kept], how.max_per_frame)
    position, frame = position[kept], found["frame"][kept]
    sigma = (found["sigma_px"][kept] / finder.factors).astype(np.float32)
    voxel = np.clip(np.rint(position).astype(np.int64), 0, size - 1)
    axes = axis_names(magnitude.ndim - 1)
    return {
        "frame": frame + first_frame,
        **{name: position[:, axis] for axis, name in enumerate(axes)},
        "amplitude": magnitude[(frame, *voxel.T)],
        "score": found["probability"][kept].astype(np.float32),
        **{f"sigma_{name}": sigma[:, axis] for axis, name in enumerate(axes)},
    }, len(sites.coordinates)


def _sites(filtered: NDArray[np.complex64], psf: DepthPsf, finder: Finder) -> SiteList:
    """Return all sites of a block, a few frames being correlated at a time."""
    pixels = math.prod(filtered.shape[1:]) * math.prod(finder.factors)
    most = MOST_PART * pixels * len(filtered)
    parts: list[tuple[NDArray[Any], ...]] = []
    total = 0
    for begin, fine, correlation in fine_correlation(filtered, psf, finder.factors):
        mask = above(correlation, threshold=finder.threshold)
        where = np.argwhere(mask).astype(np.int32)
        where[:, 0] += begin
        parts.append((np.roll(where, -1, axis=1), correlation[mask], fine[mask]))
        total += len(where)
        if total > most:
            raise _crowded(f"more than {MOST_PART:.0%} of the pixels look like an echo")
    return SiteList(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _crowded(fault: str) -> UserError:
    return UserError(
        f"too much looks like bubbles to the network: {fault}",
        where="config: ultrasound.localize.stulm",
        fix="raise ultrasound.clutter.keep_from or ultrasound.psf.half_width_px, or choose another "
        "localizer",
    )


def _surest(
    frame: NDArray[np.int64], probability: NDArray[np.float64], most: int
) -> NDArray[np.bool_]:
    """Return which are among the most probable of their frame; frames rise."""
    order = np.lexsort((-probability, frame))
    # Frames rise, so each frame's rows stay where they are: only their order within changes.
    rank = np.empty(len(frame), np.int64)
    rank[order] = np.arange(len(frame)) - np.searchsorted(frame, frame[order])
    return rank < most


@functools.lru_cache(maxsize=1)
def _network(finder: Finder) -> BubbleNet:
    network = load_network(finder.weights, sha256=finder.sha256, device=finder.device)
    assert isinstance(network, BubbleNet)
    return network
