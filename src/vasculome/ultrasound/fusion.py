"""Pairing by more than distance: how bright a bubble is, and what its image looks like.

Where bubbles are crowded and fast, the nearest one is often another. Brightness and shape stay with
a bubble from frame to frame and tell it apart.

Source: Chen et al., Improved Microbubble Tracking for Super-Resolution Ultrasound Localization
Microscopy using a Bi-Directional Long Short-term Memory Neural Network, Eq. 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from vasculome.ultrasound.detect import as_volumes, widths
from vasculome.ultrasound.pair import assign, candidates, check_points

_ALONE = 3.0
"""Cost of staying alone in units of the worst pair.

On the simulation of the paper, with 0.5 to 20 % of the bubbles unpaired, precision and recall both
rise up to two or three and no further: at 40 MB/mm², high velocity, 5 % unpaired and distance alone
from 39 and 36 % at one to 46 and 47 % at three.
"""


@dataclass(frozen=True)
class FusionWeights:
    """What the three parts of the cost of a pair weigh; each part is scaled to [0, 1].

    The defaults are for costs scaled by the gate. On the simulation of the paper (mean of the six
    cells of its Table I, benchmarks/pairing.py) they pair 65 % of the bubbles rightly, the paper's
    1, 0.2, 0.2 scaled likewise 62 %, the distance alone 61 %. Doubling the amplitude's gains 2
    points more there, where brightness never changes by more than 20 %; real bubbles also brighten
    and fade as they cross the imaged slice.
    """

    distance: float = 1.0
    amplitude: float = 1.0
    correlation: float = 1.0

    def __post_init__(self) -> None:
        if not (self.distance > 0 and self.amplitude >= 0 and self.correlation >= 0):
            raise ValueError("distance must have a weight, and no weight may be negative")

    @property
    def shares(self) -> tuple[float, float, float]:
        """The weights, as the kernels take them."""
        return float(self.distance), float(self.amplitude), float(self.correlation)


DISTANCE_ONLY = FusionWeights(1.0, 0.0, 0.0)
PUBLISHED = FusionWeights(1.0, 0.2, 0.2)
"""The paper's weights, for costs scaled by their largest value (:func:`pair_as_published`)."""


@dataclass(frozen=True)
class Bubbles:
    """The bubbles of one frame.

    Attributes
    ----------
    position_um
        Float64 (n, d).
    amplitude
        (n,), not negative.
    patch
        Float32 (n, p): images of norm 1, as from :func:`unit_patches`.
    """

    position_um: NDArray[np.float64]
    amplitude: NDArray[np.floating]
    patch: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not len(self.position_um) == len(self.amplitude) == len(self.patch):
            raise ValueError("every bubble needs a position, an amplitude and a patch")


def centred_patches(
    magnitude_t: NDArray[np.floating],
    frame: NDArray[np.integer],
    position_px: NDArray[np.floating],
    *,
    half_width: int,
) -> NDArray[np.float32]:
    """Cut the images of bubbles out of frames, centred on them between pixels.

    Parameters
    ----------
    magnitude_t
        Magnitude of the frames, shape (t, z, x) or (t, z, y, x).
    frame, position_px
        Index of the frame (n,) and position in pixels (n, d) of each bubble.
    half_width
        Pixels a patch reaches from its centre along each axis. The paper asks for a patch that
        holds one bubble, padded with zeros over the edge of the frame.

    Returns
    -------
    float32 (n, p), p = (2 half_width + 1)^d, interpolated linearly; the value at the bubble's own
    position is the middle one, ``patches[:, p // 2]``.

    Raises
    ------
    ValueError
        If shapes do not fit or a frame is not there.
    """
    frames = as_volumes(magnitude_t)
    reach = widths(half_width, magnitude_t.ndim - 1)
    place = np.asarray(position_px, np.float64)
    if place.ndim != 2 or place.shape[1] != magnitude_t.ndim - 1 or len(place) != len(frame):
        raise ValueError(f"positions must have shape (n, {magnitude_t.ndim - 1}), one a frame")
    which = np.asarray(frame, np.int64)
    if len(which) and not 0 <= which.min() <= which.max() < len(frames):
        raise ValueError(f"bubbles lie in frames {which.min()} to {which.max()} of {len(frames)}")
    if magnitude_t.ndim == 3:
        place = np.insert(place, 1, 0.0, axis=1)
    return _cut(frames, which, place, *reach)


def unit_patches(patches: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale patches (n, p) to norm 1, so that their dot product is the normalized correlation.

    The mean stays in, so that the correlation of magnitudes lies in [0, 1]. An empty patch stays
    empty and correlates with none.
    """
    norm = np.linalg.norm(patches, axis=1, keepdims=True)
    return np.divide(patches, norm, out=np.zeros(patches.shape, np.float32), where=norm > 0)


def published_features(before: Bubbles, after: Bubbles) -> NDArray[np.float32]:
    """Return distance, difference of amplitude and 1 − correlation of all pairs.

    Returns
    -------
    float32 (m, n, 3), each channel divided by its largest value: the summands of Eq. 3, and the
    input of the paper's network.
    """
    channels = [
        cdist(before.position_um, after.position_um),
        np.abs(np.subtract.outer(before.amplitude, after.amplitude)),
        np.clip(1 - before.patch @ after.patch.T, 0, None),
    ]
    scaled = [c / max(float(c.max(initial=0)), np.finfo(np.float32).tiny) for c in channels]
    return np.stack(scaled, axis=-1).astype(np.float32)


def pair_as_published(
    before: Bubbles, after: Bubbles, *, weights: FusionWeights = PUBLISHED
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair as the paper does: Eq. 3 over all pairs, no gate, dense assignment.

    Every bubble of the frame that has fewer finds a partner, however far, and the weight of the
    distance falls as the field grows. For comparison: :func:`pair_fused` does better.

    Returns
    -------
    Rows of ``before`` and ``after``, int64, sorted by the first.
    """
    cost = published_features(before, after) @ np.array(weights.shares)
    i, j = linear_sum_assignment(cost)
    return i.astype(np.int64), j.astype(np.int64)


def pair_fused(
    before: Bubbles,
    after: Bubbles,
    *,
    gate_um: ArrayLike,
    weights: FusionWeights | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair bubbles inside a gate at the least total cost of distance, amplitude and shape.

    The cost is that of Eq. 3, but each part has a scale of its own that other bubbles do not
    change: the distance that of the gate, the difference of amplitudes that of the larger one, and
    1 − correlation is in [0, 1] as it is. Staying alone is dear, so that nearly as many pairs are
    made as the gate allows: a far pair is likelier right than one that leaves two bubbles alone.

    Parameters
    ----------
    before, after
        Bubbles of the two frames.
    gate_um
        Largest distance of a pair, in micrometres: one for all, or one for each of ``before``.
    weights
        None: the defaults of :class:`FusionWeights`.

    Returns
    -------
    Rows of ``before`` and ``after``, int64, sorted by the first.

    Raises
    ------
    ValueError
        If shapes do not fit, or a gate is not positive.
    """
    chosen = FusionWeights() if weights is None else weights
    prev_um, next_um, gate = check_points(before.position_um, after.position_um, gate_um)
    first, column, distance = candidates(prev_um, next_um, gate)
    cost = fused_cost(
        first,
        column,
        distance,
        gate,
        np.asarray(before.amplitude, np.float64),
        np.asarray(after.amplitude, np.float64),
        np.ascontiguousarray(before.patch, np.float32),
        np.ascontiguousarray(after.patch, np.float32),
        chosen.shares,
    )
    alone = _ALONE * sum(chosen.shares) * gate
    partner = assign(first, column, cost, alone, len(next_um))
    i = np.flatnonzero(partner >= 0)
    return i, partner[i]


@njit(cache=True, nogil=True)
def fused_cost(
    first: NDArray[np.int64],
    column: NDArray[np.int64],
    distance: NDArray[np.float64],
    gate: NDArray[np.float64],
    amplitude_before: NDArray[np.float64],
    amplitude_after: NDArray[np.float64],
    patch_before: NDArray[np.float32],
    patch_after: NDArray[np.float32],
    weights: tuple[float, float, float],
) -> NDArray[np.float64]:  # pragma: no cover - compiled
    """Return the cost of each candidate, in micrometres: Eq. 3 times the gate of its row."""
    weight_distance, weight_amplitude, weight_correlation = weights
    cost = weight_distance * distance
    for i in range(len(first) - 1):
        for c in range(first[i], first[i + 1]):
            j = column[c]
            if weight_amplitude > 0:
                larger = max(amplitude_before[i], amplitude_after[j])
                if larger > 0:
                    part = abs(amplitude_before[i] - amplitude_after[j]) / larger
                    cost[c] += gate[i] * weight_amplitude * part
            if weight_correlation > 0:
                alike = 0.0
                for k in range(patch_before.shape[1]):
                    alike += patch_before[i, k] * patch_after[j, k]
                cost[c] += gate[i] * weight_correlation * min(max(1 - alike, 0.0), 1.0)
    return cost


@njit(cache=True, nogil=True)
def _cut(
    frames: NDArray[np.float32],
    frame: NDArray[np.int64],
    place: NDArray[np.float64],
    reach_z: int,
    reach_y: int,
    reach_x: int,
) -> NDArray[np.float32]:  # pragma: no cover - compiled
    _, nz, ny, nx = frames.shape
    size = (2 * reach_z + 1) * (2 * reach_y + 1) * (2 * reach_x + 1)
    patches = np.empty((len(frame), size), np.float32)
    for i in range(len(frame)):
        z0, y0, x0 = np.floor(place[i, 0]), np.floor(place[i, 1]), np.floor(place[i, 2])
        fz, fy, fx = place[i, 0] - z0, place[i, 1] - y0, place[i, 2] - x0
        k = 0
        for dz in range(-reach_z, reach_z + 1):
            for dy in range(-reach_y, reach_y + 1):
                for dx in range(-reach_x, reach_x + 1):
                    value = 0.0
                    for corner in range(8):
                        z = int(z0) + dz + (corner >> 2)
                        y = int(y0) + dy + ((corner >> 1) & 1)
                        x = int(x0) + dx + (corner & 1)
                        if 0 <= z < nz and 0 <= y < ny and 0 <= x < nx:
                            weight = fz if corner >> 2 else 1 - fz
                            weight *= fy if (corner >> 1) & 1 else 1 - fy
                            weight *= fx if corner & 1 else 1 - fx
                            value += weight * frames[frame[i], z, y, x]
                    patches[i, k] = value
                    k += 1
    return patches
