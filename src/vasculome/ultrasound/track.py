"""Tracks: detections linked from frame to frame, block by block, with nothing lost in between.

What is carried from one block to the next is the points of the tracks that may still grow, as
plain arrays. A track is given out, and numbered, in the order of its last frame and then of its
birth, so that numbers, order and bytes are the same however the frames are cut into blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.ultrasound.columns import Table, axis_names, positions
from vasculome.ultrasound.fusion import DISTANCE_ONLY, FusionWeights
from vasculome.ultrasound.kalman import ConstantVelocity
from vasculome.ultrasound.link import link

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
    max_length
        Most frames that a track spans, from its first to its last. What is seen for longer, above
        all echoes that rest, goes on as a new track: this bounds what is carried from block to
        block, and the end of a track does not depend on the blocks.
    weights
        What distance, amplitude and correlation of patches weigh in the cost of a link. The
        correlation needs a column ``patch``.
    motion
        Kalman filter that tells where a bubble is expected; None takes the mean velocity of the
        last links.
    """

    frame_rate_hz: float
    max_speed_mm_s: float
    max_gap_frames: int = 0
    min_length: int = 15
    max_length: int = 2000
    weights: FusionWeights = DISTANCE_ONLY
    motion: ConstantVelocity | None = None

    def __post_init__(self) -> None:
        if not (self.frame_rate_hz > 0 and self.max_speed_mm_s > 0):
            raise ValueError("frame rate and largest speed must be positive")
        if self.max_gap_frames < 0 or self.min_length < 1:
            raise ValueError("the gap must not be negative, and tracks hold at least one point")
        if self.max_length < self.min_length:
            raise ValueError("tracks must be allowed to become as long as they must be")

    @property
    def gate_um(self) -> float:
        """Largest distance between neighbouring frames, in micrometres."""
        return 1000 * self.max_speed_mm_s / self.frame_rate_hz

    @property
    def shares(self) -> tuple[float, float, float]:
        """The weights, as the kernels take them."""
        return self.weights.shares

    @property
    def variances(self) -> tuple[float, float, float]:
        """Variances of position, change of velocity and first velocity in µm and frames, or 0.

        Of a new bubble only the largest speed is known: a third of it is one standard deviation.
        """
        if self.motion is None:
            return 0.0, 0.0, 0.0
        change_um = 1000 * self.motion.speed_change_mm_s / self.frame_rate_hz
        error_um = float(self.motion.position_error_um)
        return error_um**2, change_um**2, (self.gate_um / 3) ** 2


def start(ndim: int, *, first_frame: int = 0, patch_size: int = 0) -> State:
    """Return the state of a tracker that has seen nothing, for 2 or 3 spatial axes.

    ``patch_size`` is the number of values of a patch, where links are to weigh their correlation.
    """
    images = {"patch": np.empty((0, patch_size), np.float32)} if patch_size else {}
    return {
        "next_frame": np.array(first_frame, np.int64),
        "next_label": np.array(0, np.int64),
        "next_track": np.array(0, np.int64),
        "label": np.empty(0, np.int64),
        "frame": np.empty(0, np.int64),
        **{f"{axis}_um": np.empty(0) for axis in axis_names(ndim)},
        "amplitude": np.empty(0, np.float32),
        "score": np.empty(0, np.float32),
        **images,
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
        Gate, gap, least and largest length.

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
    label, next_label = link(
        np.asarray(state["label"], np.int64),
        int(state["next_label"]),
        np.asarray(points["frame"], np.int64),
        positions(points),
        np.asarray(points["amplitude"], np.float64),
        _patches(points, rule),
        rule.gate_um,
        rule.max_gap_frames,
        rule.max_length,
        rule.shares,
        rule.variances,
    )
    return _give_out(state, points, label, next_label, stop_frame=stop_frame, rule=rule)


def finish(state: State, *, rule: LinkRule) -> Table:
    """Return the tracks that were still alive, numbered on from those given out before."""
    return end_all(state, rule=rule)[1]


def end_all(state: State, *, rule: LinkRule) -> tuple[State, Table]:
    """End all tracks, as before a pause; return the state to go on from, and the tracks."""
    no_more = {name: column[:0] for name, column in state.items() if column.ndim}
    never_linked = int(state["next_frame"]) + rule.max_gap_frames + 2
    empty, ended = advance(state, no_more, stop_frame=never_linked, rule=rule)
    return {**empty, "next_frame": state["next_frame"]}, ended


def _patches(points: Table, rule: LinkRule) -> NDArray[np.float32]:
    """Return the patches of all points, empty where links do not weigh them."""
    if rule.weights.correlation == 0:
        return np.empty((len(points["frame"]), 0), np.float32)
    if "patch" not in points:
        raise ValueError("to weigh the correlation of patches, start with their patch_size")
    return np.ascontiguousarray(points["patch"], np.float32)


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
        **{name: column[given] for name, column in points.items() if name != "patch"},
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
