"""Tracks: detections linked from frame to frame, block by block, with nothing lost in between.

What is carried from one block to the next is the points of the tracks that may still grow, as
plain arrays. A track is given out, and numbered, in the order of its last frame and then of its
birth, so that numbers, order and bytes are the same however the frames are cut into blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.ultrasound.columns import Table, axis_names, positions
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

State = dict[str, NDArray[Any]]
"""What a tracker remembers between blocks; only arrays, as ``numpy.savez`` takes them."""


@dataclass(frozen=True)
class LinkRule:
    """When two detections belong to one bubble.

    Parameters
    ----------
    frame_rate_hz
        Frames a second.
    max_speed_mm_s
        Gate: the fastest a bubble may have moved since it was last seen. Over one frame it is also
        the largest distance from where the bubble was expected.
    max_gap_frames
        Frames in a row in which a bubble may go unseen; 0 allows none.
    min_length
        Fewest detections of a track that is given out.
    """

    frame_rate_hz: float
    max_speed_mm_s: float
    max_gap_frames: int = 0
    min_length: int = 15

    def __post_init__(self) -> None:
        if not (self.frame_rate_hz > 0 and self.max_speed_mm_s > 0):
            raise ValueError("frame rate and largest speed must be positive")
        if self.max_gap_frames < 0 or self.min_length < 1:
            raise ValueError("the gap must not be negative, and tracks hold at least one point")

    @property
    def gate_um(self) -> float:
        """Largest distance between neighbouring frames, in micrometres."""
        return 1000 * self.max_speed_mm_s / self.frame_rate_hz


def start(ndim: int, *, first_frame: int = 0) -> State:
    """Return the state of a tracker that has seen nothing, for 2 or 3 spatial axes."""
    return {
        "next_frame": np.array(first_frame, np.int64),
        "next_label": np.array(0, np.int64),
        "next_track": np.array(0, np.int64),
        "label": np.empty(0, np.int64),
        "frame": np.empty(0, np.int64),
        **{f"{axis}_um": np.empty(0) for axis in axis_names(ndim)},
        "amplitude": np.empty(0, np.float32),
        "score": np.empty(0, np.float32),
    }


def advance(
    state: State, detections: Table, *, stop_frame: int, rule: LinkRule
) -> tuple[State, Table]:
    """Link the detections of the next frames; return the new state and the tracks that ended.

    Each frame is paired with the tracks alive by the least total distance (as in
    :func:`~vasculome.ultrasound.pair.pair`) from where they are expected: on from the last
    position at the velocity of the last two links. The gate is what the largest speed covers in
    one frame, also after a gap; besides, no link may be faster than the largest speed.

    Parameters
    ----------
    state
        As from :func:`start` or the last call. It is not changed.
    detections
        Table with ``frame`` (sorted, from the state's next frame to below ``stop_frame``),
        ``z_um``, [``y_um``,] ``x_um``, ``amplitude`` and ``score``; other columns are left behind.
    stop_frame
        The frame after the last of these; later calls go on from it. Frames may be empty.
    rule
        Gate, gap and least length.

    Returns
    -------
    The state to carry on from, and a table with ``track`` (int64, consecutive numbers from the
    first call on), ``frame``, positions, ``amplitude`` and ``score``, sorted by track and frame.

    Raises
    ------
    ValueError
        If frames are out of order or out of range, or columns do not fit the state.
    """
    frame = np.asarray(detections["frame"], np.int64)
    low = int(state["next_frame"])
    if stop_frame < low or (len(frame) and (frame[0] < low or frame[-1] >= stop_frame)):
        raise ValueError(f"frames must lie in {low} to {stop_frame}")
    if (np.diff(frame) < 0).any():
        raise ValueError("detections must be sorted by frame")
    columns = [name for name in state if not name.startswith("next_") and name != "label"]
    points = {
        name: np.concatenate([state[name], np.asarray(detections[name], state[name].dtype)])
        for name in columns
    }
    label, next_label = _link(
        np.asarray(state["label"], np.int64),
        int(state["next_label"]),
        np.asarray(points["frame"], np.int64),
        positions(points),
        rule.gate_um,
        rule.max_gap_frames,
    )
    return _give_out(state, points, label, next_label, stop_frame=stop_frame, rule=rule)


def finish(state: State, *, rule: LinkRule) -> Table:
    """Return the tracks that were still alive, numbered on from those given out before."""
    no_more = {name: column[:0] for name, column in state.items() if column.ndim}
    never_linked = int(state["next_frame"]) + rule.max_gap_frames + 2
    return advance(state, no_more, stop_frame=never_linked, rule=rule)[1]


def _give_out(
    state: State,
    points: Table,
    label: NDArray[np.int64],
    next_label: int,
    *,
    stop_frame: int,
    rule: LinkRule,
) -> tuple[State, Table]:
    """Split labelled points into the tracks that ended before ``stop_frame`` and the others."""
    frame = np.asarray(points["frame"], np.int64)
    known, track_of, length = np.unique(label, return_inverse=True, return_counts=True)
    last = np.full(len(known), np.iinfo(np.int64).min)
    np.maximum.at(last, track_of, frame)
    ended = last + rule.max_gap_frames + 1 < stop_frame
    out = np.flatnonzero(ended & (length >= rule.min_length))
    out = out[np.lexsort((known[out], last[out]))]
    number = np.full(len(known), -1, np.int64)
    number[out] = int(state["next_track"]) + np.arange(len(out))

    given = np.flatnonzero(number[track_of] >= 0)
    given = given[np.lexsort((frame[given], number[track_of][given]))]
    tracks: Table = {
        "track": number[track_of][given],
        **{name: column[given] for name, column in points.items()},
    }
    alive = ~ended[track_of]
    carried: State = {
        "next_frame": np.array(stop_frame, np.int64),
        "next_label": np.array(next_label, np.int64),
        "next_track": state["next_track"] + len(out),
        "label": label[alive],
        **{name: column[alive] for name, column in points.items()},
    }
    return carried, tracks


@njit(cache=True, nogil=True)
def _link(
    carried_label: NDArray[np.int64],
    next_label: int,
    frame: NDArray[np.int64],
    position: NDArray[np.float64],
    gate_um: float,
    max_gap: int,
) -> tuple[NDArray[np.int64], int]:  # pragma: no cover - compiled
    """Label the points: carried ones, in order of frame, keep theirs; the others follow them."""
    n, n_carried = len(frame), len(carried_label)
    label = np.empty(n, np.int64)
    label[:n_carried] = carried_label
    previous = np.full(n, -1, np.int64)  # the point before it in its track
    alive = np.empty(n, np.int64)  # the last point of every live track, in order of birth
    n_alive = 0
    by_label = np.argsort(carried_label, kind="mergesort")
    for k in range(n_carried):
        point = by_label[k]
        if n_alive and label[alive[n_alive - 1]] == label[point]:
            n_alive -= 1
            previous[point] = alive[n_alive]
        alive[n_alive] = point
        n_alive += 1
    low = n_carried
    while low < n:
        high = low
        while high < n and frame[high] == frame[low]:
            high += 1
        kept = 0
        for k in range(n_alive):
            if frame[low] - frame[alive[k]] <= max_gap + 1:
                alive[kept] = alive[k]
                kept += 1
        n_alive = kept
        partner = _pair_with_expected(
            alive[:n_alive], previous, frame, position, low, high, gate_um
        )
        label[low:high] = -1
        for k in range(n_alive):
            if partner[k] >= 0:
                point = low + partner[k]
                label[point] = label[alive[k]]
                previous[point] = alive[k]
                alive[k] = point
        for point in range(low, high):
            if label[point] < 0:
                label[point] = next_label
                next_label += 1
                alive[n_alive] = point
                n_alive += 1
        low = high
    return label, next_label


@njit(cache=True, nogil=True)
def _pair_with_expected(
    alive: NDArray[np.int64],
    previous: NDArray[np.int64],
    frame: NDArray[np.int64],
    position: NDArray[np.float64],
    low: int,
    high: int,
    gate_um: float,
) -> NDArray[np.int64]:  # pragma: no cover - compiled
    """Return, for every live track, which of the points low:high goes on with it, or -1."""
    expected = position[alive]
    gate = np.full(len(alive), gate_um)
    for k in range(len(alive)):
        last = before = alive[k]
        for _ in range(_LINKS_AVERAGED):
            if previous[before] >= 0:
                before = previous[before]
        if before != last:
            part = (frame[low] - frame[last]) / (frame[last] - frame[before])
            expected[k] += part * (position[last] - position[before])
    first, column, distance = candidates(expected, position[low:high], gate)
    for k in range(len(alive)):
        farthest = gate_um * (frame[low] - frame[alive[k]])
        for c in range(first[k], first[k + 1]):
            moved = position[low + column[c]] - position[alive[k]]
            if (moved**2).sum() > farthest**2:
                distance[c] = 2 * gate_um  # dearer than being left alone: never taken
    return assign(first, column, distance, gate, high - low)
