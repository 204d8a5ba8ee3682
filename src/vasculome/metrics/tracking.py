"""Tracks against the truth: links recovered, and velocities.

Both measures take the true bubble of every point of the tracks, as matched by
:func:`vasculome.metrics.localization.match`, with -1 for points that are no bubble.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LinkScore:
    """Links made, of these the right ones, and the true ones; ratios NaN where there are none."""

    n_true: int
    n_found: int
    n_right: int
    precision: float
    recall: float


def score_links(
    track: NDArray[np.integer],
    frame: NDArray[np.integer],
    bubble: NDArray[np.integer],
    *,
    true_bubble: NDArray[np.integer],
    true_frame: NDArray[np.integer],
) -> LinkScore:
    """Compare the links of tracks with those of true bubbles.

    A link joins two points that follow each other in a track. It is right if both are the same
    bubble. The true links are those between the true positions of each bubble that follow each
    other in neighbouring frames; a right link over a gap stands for as many as it spans.

    Parameters
    ----------
    track, frame, bubble
        Track, frame and matched true bubble (-1: none) of each point, shape (n,), sorted by track
        and frame.
    true_bubble, true_frame
        Bubble and frame of each true position, in any order.

    Raises
    ------
    ValueError
        If the columns of a table differ in length.
    """
    if not len(track) == len(frame) == len(bubble) or len(true_bubble) != len(true_frame):
        raise ValueError("the columns of a table must have one length")
    linked = track[1:] == track[:-1]
    right = linked & (bubble[1:] == bubble[:-1]) & (bubble[1:] >= 0)
    spans = np.diff(frame)
    order = np.lexsort((true_frame, true_bubble))
    ids, times = true_bubble[order], true_frame[order]
    n_true = int(((ids[1:] == ids[:-1]) & (np.diff(times) == 1)).sum())
    n_found, n_right = int(spans[linked].sum()), int(spans[right].sum())
    return LinkScore(
        n_true=n_true,
        n_found=n_found,
        n_right=n_right,
        precision=n_right / n_found if n_found else float("nan"),
        recall=n_right / n_true if n_true else float("nan"),
    )


def relative_speed_error(
    velocity_mm_s: NDArray[np.floating], true_velocity_mm_s: NDArray[np.floating]
) -> float:
    """Return the median of | |v| − |v_true| | / |v_true| over matched points.

    Parameters
    ----------
    velocity_mm_s, true_velocity_mm_s
        Velocities of the matched points in mm/s, shape (n, d). Points at rest in truth, and those
        without a velocity (NaN), are left out.

    Returns
    -------
    The median, or NaN where no point is left.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if velocity_mm_s.shape != true_velocity_mm_s.shape:
        raise ValueError(f"shapes {velocity_mm_s.shape} and {true_velocity_mm_s.shape} differ")
    speed = np.linalg.norm(velocity_mm_s, axis=1)
    true_speed = np.linalg.norm(true_velocity_mm_s, axis=1)
    use = (true_speed > 0) & np.isfinite(speed)
    if not use.any():
        return float("nan")
    return float(np.median(np.abs(speed[use] - true_speed[use]) / true_speed[use]))
