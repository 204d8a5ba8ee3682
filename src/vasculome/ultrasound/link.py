"""Linking: which detection of a frame goes on with which track, frame after frame."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.ultrasound.fusion import fused_cost
from vasculome.ultrasound.kalman import predict, update
from vasculome.ultrasound.pair import assign, candidates

_LINKS_AVERAGED = 2
"""Links whose mean velocity tells where a bubble is expected.

One link alone holds the errors of two localizations, and on a curve many are out of date.
Simulated (70 to 250 bubbles in 78 × 118 voxels, curved paths up to 2 voxels a frame, error 0.15
voxels, 10 to 20 % missed, gaps to 2), the links found were 92.7 to 99.5 % when bubbles were
expected to stay, 96.1 to 99.6 with half the velocity of the last link, 96.5 to 99.4 with all of
it, and 97.3 to 99.6 with the mean of two; three and five do no better. A gate that grows with the
gap loses 2 to 6 points.
"""

_OWN_CHANGE = 0.1
"""What amplitude and shape of one bubble change by from frame to frame, about, both in [0, 1].

A track goes without a link where the best costs more than one at the gate of such a change.
Simulated in benchmarks/pairing.py, distance and amplitude weighing alike: 97.9 to 99.7 % precision
and 91.6 to 97.6 % recall of links, against 94.9 to 99.0 and 89.2 to 96.9 without amplitude. With
the worst pair as the limit precision was up to 1.5 points lower, and recall up to 0.9.
"""


@njit(cache=True, nogil=True)
def link(
    carried_label: NDArray[np.int64],
    next_label: int,
    frame: NDArray[np.int64],
    position: NDArray[np.float64],
    amplitude: NDArray[np.float64],
    patch: NDArray[np.float32],
    gate_um: float,
    max_gap: int,
    max_length: int,
    weights: tuple[float, float, float],
    kalman: tuple[float, float, float],
) -> tuple[NDArray[np.int64], int]:  # pragma: no cover - compiled
    """Label the points: carried ones, in order of frame, keep theirs; the others follow them.

    ``kalman`` holds the variances of a localization, of the change of velocity in a frame and of
    the velocity of a new bubble; zeros stand for no filter.
    """
    n, n_carried = len(frame), len(carried_label)
    label = np.full(n, -1, np.int64)
    label[:n_carried] = carried_label
    previous, born, alive, n_alive = _resume(carried_label, frame)
    filtering = kalman[0] > 0
    filtered = position.copy() if filtering else position[:0]
    velocity = np.zeros_like(filtered)
    covariance = np.zeros((len(filtered), 3))
    if filtering:
        _filter(0, n_carried, previous, frame, position, filtered, velocity, covariance, kalman)
    low = n_carried
    while low < n:
        high = np.searchsorted(frame, frame[low], side="right")
        now = frame[low]
        n_alive = _drop_old(alive, n_alive, frame, now - max_gap - 1, born, now - max_length + 1)
        last = alive[:n_alive]
        if filtering:
            expected = _steadily_on(last, frame, filtered, velocity, now)
        else:
            expected = _straight_on(last, previous, frame, position, now)
        partner = _pair_with_expected(
            expected, last, frame, position, amplitude, patch, low, high, gate_um, weights
        )
        n_alive, next_label = _extend(
            label, previous, born, alive, n_alive, partner, low, high, next_label
        )
        if filtering:
            _filter(low, high, previous, frame, position, filtered, velocity, covariance, kalman)
        low = high
    return label, next_label


@njit(cache=True, nogil=True)
def _resume(
    carried_label: NDArray[np.int64], frame: NDArray[np.int64]
) -> tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int
]:  # pragma: no cover - compiled
    """Return what is known of tracks before the first new point is linked.

    For each point the one before it in its track and the frame in which the track was born, and
    the live tracks' last points; these are in order of birth, in an array with room for all
    points; their number comes last.
    """
    n = len(frame)
    previous = np.full(n, -1, np.int64)
    born = frame.copy()
    alive = np.empty(n, np.int64)
    n_alive = 0
    by_label = np.argsort(carried_label, kind="mergesort")
    for k in range(len(by_label)):
        point = by_label[k]
        if k > 0 and carried_label[by_label[k - 1]] == carried_label[point]:
            n_alive -= 1
            previous[point] = alive[n_alive]
            born[point] = born[previous[point]]
        alive[n_alive] = point
        n_alive += 1
    return previous, born, alive, n_alive


@njit(cache=True, nogil=True)
def _drop_old(
    alive: NDArray[np.int64],
    n_alive: int,
    frame: NDArray[np.int64],
    oldest: int,
    born: NDArray[np.int64],
    first_born: int,
) -> int:  # pragma: no cover - compiled
    """Keep, in place, live tracks seen in ``oldest`` or later and born in ``first_born`` or later.

    Returns their number.
    """
    kept = 0
    for k in range(n_alive):
        if frame[alive[k]] >= oldest and born[alive[k]] >= first_born:
            alive[kept] = alive[k]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def _extend(
    label: NDArray[np.int64],
    previous: NDArray[np.int64],
    born: NDArray[np.int64],
    alive: NDArray[np.int64],
    n_alive: int,
    partner: NDArray[np.int64],
    low: int,
    high: int,
    next_label: int,
) -> tuple[int, int]:  # pragma: no cover - compiled
    """Add the points low:high to their tracks, or begin new ones; return both counts."""
    for k in range(n_alive):
        if partner[k] >= 0:
            point = low + partner[k]
            label[point] = label[alive[k]]
            previous[point] = alive[k]
            born[point] = born[alive[k]]
            alive[k] = point
    for point in range(low, high):
        if label[point] < 0:
            label[point] = next_label
            next_label += 1
            alive[n_alive] = point
            n_alive += 1
    return n_alive, next_label


@njit(cache=True, nogil=True)
def _filter(
    low: int,
    high: int,
    previous: NDArray[np.int64],
    frame: NDArray[np.int64],
    position: NDArray[np.float64],
    filtered: NDArray[np.float64],
    velocity: NDArray[np.float64],
    covariance: NDArray[np.float64],
    kalman: tuple[float, float, float],
) -> None:  # pragma: no cover - compiled
    """Fill in the filter's state at the points low:high from those before them in their tracks."""
    error, change, new = kalman
    for point in range(low, high):
        before = previous[point]
        if before < 0:
            covariance[point] = (error, 0.0, new)
            continue
        elapsed = float(frame[point] - frame[before])
        for axis in range(filtered.shape[1]):
            velocity[point, axis] = velocity[before, axis]
            filtered[point, axis] = filtered[before, axis] + elapsed * velocity[before, axis]
        xx, xv, vv = covariance[before]
        ahead = predict((xx, xv, vv), elapsed, change)
        covariance[point] = update(filtered[point], velocity[point], ahead, position[point], error)


@njit(cache=True, nogil=True)
def _steadily_on(
    alive: NDArray[np.int64],
    frame: NDArray[np.int64],
    filtered: NDArray[np.float64],
    velocity: NDArray[np.float64],
    now: int,
) -> NDArray[np.float64]:  # pragma: no cover - compiled
    """Return where the filter expects live tracks."""
    expected = filtered[alive]
    for k in range(len(alive)):
        elapsed = float(now - frame[alive[k]])
        for axis in range(expected.shape[1]):
            expected[k, axis] += elapsed * velocity[alive[k], axis]
    return expected


@njit(cache=True, nogil=True)
def _straight_on(
    alive: NDArray[np.int64],
    previous: NDArray[np.int64],
    frame: NDArray[np.int64],
    position: NDArray[np.float64],
    now: int,
) -> NDArray[np.float64]:  # pragma: no cover - compiled
    """Return where live tracks are expected at the mean velocity of their last links."""
    expected = position[alive]
    for k in range(len(alive)):
        last = before = alive[k]
        for _ in range(_LINKS_AVERAGED):
            if previous[before] >= 0:
                before = previous[before]
        if before != last:
            part = (now - frame[last]) / (frame[last] - frame[before])
            expected[k] += part * (position[last] - position[before])
    return expected


@njit(cache=True, nogil=True)
def _pair_with_expected(
    expected: NDArray[np.float64],
    alive: NDArray[np.int64],
    frame: NDArray[np.int64],
    position: NDArray[np.float64],
    amplitude: NDArray[np.float64],
    patch: NDArray[np.float32],
    low: int,
    high: int,
    gate_um: float,
    weights: tuple[float, float, float],
) -> NDArray[np.int64]:  # pragma: no cover - compiled
    """Return, for every live track, which of the points low:high goes on with it, or -1."""
    gate = np.full(len(alive), gate_um)
    first, column, distance = candidates(expected, position[low:high], gate)
    cost = fused_cost(
        first,
        column,
        distance,
        gate,
        amplitude[alive],
        amplitude[low:high],
        patch[alive],
        patch[low:high],
        weights,
    )
    alone = gate * (weights[0] + _OWN_CHANGE * (weights[1] + weights[2]))
    for k in range(len(alive)):
        farthest = gate_um * (frame[low] - frame[alive[k]])
        for c in range(first[k], first[k + 1]):
            moved = position[low + column[c]] - position[alive[k]]
            if (moved**2).sum() > farthest**2:
                cost[c] = 2 * alone[k]  # dearer than being left alone: never taken
    return assign(first, column, cost, alone, high - low)
