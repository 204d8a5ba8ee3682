"""Conventional ULM: the brightest maxima, a Gaussian fit, assignment from frame to frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vasculome.training.movies import UlmMovie, fine_paths
from vasculome.ultrasound.columns import Table, axis_names
from vasculome.ultrasound.detect import find_peaks
from vasculome.ultrasound.localize import LOCALIZERS, positions_um
from vasculome.ultrasound.track import LinkRule, advance, finish, start

HALF_WIDTH_PX = {2: 2, 3: 1}
MIN_LENGTH = 10


def conventional_detections(movie: UlmMovie, *, n_bubbles: int) -> Table:
    """Return as many bubbles a frame as it is told there are, positions in pixels.

    Zeros around the field let it find those at its rim too.
    """
    n_dims = movie.iq.ndim - 1
    reach = HALF_WIDTH_PX[n_dims]
    magnitude = np.pad(np.abs(movie.iq), [(0, 0), *[(reach, reach)] * n_dims])
    peaks = find_peaks(magnitude, threshold=0.0, half_width=reach, max_per_frame=n_bubbles)
    found = LOCALIZERS["gaussian_fit"](magnitude, peaks, half_width=reach)
    for axis in axis_names(n_dims):
        found[axis] = found[axis] - reach
    return found


def tracks_of(movie: UlmMovie, detections: Table, *, max_speed_mm_s: float) -> Table:
    """Return the tracks of detections in pixels."""
    n_dims = movie.iq.ndim - 1
    table = positions_um(detections, spacing_um=movie.spacing_um, origin_um=[0.0] * n_dims)
    rule = LinkRule(
        frame_rate_hz=movie.frame_rate_hz,
        max_speed_mm_s=max_speed_mm_s,
        max_gap_frames=1,
        min_length=MIN_LENGTH,
    )
    frames = len(movie.iq)
    state, ended = advance(start(n_dims), table, stop_frame=frames, rule=rule)
    rest = finish(state, rule=rule)
    return {name: np.concatenate([ended[name], rest[name]]) for name in ended}


def angiogram(movie: UlmMovie, tracks: Table, *, factor: int) -> NDArray[np.bool_]:
    """Return the fine pixels that tracks go through."""
    n_dims = movie.iq.ndim - 1
    position = np.stack([tracks[f"{a}_um"] for a in axis_names(n_dims)], axis=1)
    return fine_paths(
        tracks["track"],
        tracks["frame"],
        position / np.array(movie.spacing_um),
        shape_px=movie.iq.shape[1:],
        n_frames=len(movie.iq),
        factor=factor,
        chunk_frames=len(movie.iq),
    )[0]
