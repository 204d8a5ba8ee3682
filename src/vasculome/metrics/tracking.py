"""Tracks against the truth: links recovered, whole tracks, and velocities.

The first two take the true bubble of every point of the tracks, as matched by
:func:`vasculome.metrics.localization.match`, with -1 for points that are no bubble.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


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


@dataclass(frozen=True)
class TrackScore:
    """How well tracks agree with the paths of true bubbles; ratios NaN where there are none.

    Attributes
    ----------
    n_true, n_found
        True bubbles, and tracks.
    right, followed
        Tracks that are all but one bubble's, and bubbles that one track all but covers.
    precision, recall
        ``right / n_found`` and ``followed / n_true``.
    point_precision, point_recall
        Points that lie on the bubble their track is paired with, over all points of tracks and
        over all true positions (identity precision and recall).
    switches
        Times that a bubble, when found again, is in another track than before.
    fragments
        Those of them between which the bubble was there for a frame or more, but in no track.
    """

    n_true: int
    n_found: int
    right: int
    followed: int
    precision: float
    recall: float
    point_precision: float
    point_recall: float
    switches: int
    fragments: int


def score_tracks(
    track: NDArray[np.integer],
    frame: NDArray[np.integer],
    bubble: NDArray[np.integer],
    *,
    true_bubble: NDArray[np.integer],
    true_frame: NDArray[np.integer],
    least_part: float = 0.8,
) -> TrackScore:
    """Compare whole tracks with the paths of true bubbles.

    Tracks and bubbles are paired one to one so that the pairs have as many points in common as can
    be. A track is right if at least ``least_part`` of its points are on the bubble it is paired
    with; a bubble is followed if its track has at least that part of its positions. A link over a
    gap holds the bubble in the frames between, though no point is there to count.

    Parameters
    ----------
    track, frame, bubble
        Track, frame and matched true bubble (-1: none) of each point, shape (n,), in any order.
    true_bubble, true_frame
        Bubble and frame of each true position, in any order.
    least_part
        Part of the points that makes a track right and a bubble followed; 0.8 is that of "mostly
        tracked".

    Raises
    ------
    ValueError
        If the columns of a table differ in length, a point is matched to a bubble that is not
        there, or the part is not in (0, 1].

    Notes
    -----
    Sources: one-to-one pairing, Ristani et al., ECCV 2016 workshops, arXiv:1609.01775; switches
    and fragments, Li, Huang and Nevatia, CVPR 2009, doi:10.1109/CVPR.2009.5206735.
    """
    if not len(track) == len(frame) == len(bubble) or len(true_bubble) != len(true_frame):
        raise ValueError("the columns of a table must have one length")
    if not 0 < least_part <= 1:
        raise ValueError(f"the least part must be in (0, 1], not {least_part}")
    tracks, row, track_length = np.unique(track, return_inverse=True, return_counts=True)
    bubbles, true_length = np.unique(true_bubble, return_counts=True)
    matched = bubble >= 0
    if not np.isin(bubble[matched], bubbles).all():
        raise ValueError("a point is matched to a bubble that is not in the truth")
    column = np.searchsorted(bubbles, bubble[matched])
    common = coo_array(
        (np.ones(len(column), np.int64), (row[matched], column)), shape=(len(tracks), len(bubbles))
    )
    i, j, shared = _most_in_common(common)
    right = int((shared >= least_part * track_length[i]).sum())
    followed = int((shared >= least_part * true_length[j]).sum())
    switches, fragments = _interruptions(
        track[matched], frame[matched], bubble[matched], true_bubble, true_frame
    )
    return TrackScore(
        n_true=len(bubbles),
        n_found=len(tracks),
        right=right,
        followed=followed,
        precision=_ratio(right, len(tracks)),
        recall=_ratio(followed, len(bubbles)),
        point_precision=_ratio(int(shared.sum()), len(track)),
        point_recall=_ratio(int(shared.sum()), len(true_bubble)),
        switches=switches,
        fragments=fragments,
    )


def _most_in_common(
    common: coo_array,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pair rows and columns one to one for the largest sum; return rows, columns and values.

    The sum falls into those of the connected components, which are small.
    """
    table = common.tocsr()
    m, n = table.shape
    links = coo_array((common.data, (common.row, m + common.col)), shape=(m + n, m + n))
    _, part = connected_components(links, directed=False)
    rows, columns = np.argsort(part[:m], kind="stable"), np.argsort(part[m:], kind="stable")
    parts_of_rows, parts_of_columns = part[:m][rows], part[m:][columns]
    pairs = [np.empty((3, 0), np.int64)]
    for label in np.intersect1d(parts_of_rows, parts_of_columns):
        i = rows[slice(*np.searchsorted(parts_of_rows, [label, label + 1]))]
        j = columns[slice(*np.searchsorted(parts_of_columns, [label, label + 1]))]
        shared = table[i][:, j].toarray()
        a, b = linear_sum_assignment(shared, maximize=True)
        pairs.append(np.stack([i[a], j[b], shared[a, b]])[:, shared[a, b] > 0])
    paired = np.concatenate(pairs, axis=1)
    return paired[0], paired[1], paired[2]


def _interruptions(
    track: NDArray[np.integer],
    frame: NDArray[np.integer],
    bubble: NDArray[np.integer],
    true_bubble: NDArray[np.integer],
    true_frame: NDArray[np.integer],
) -> tuple[int, int]:
    """Count switches and fragments over the matched points of tracks."""
    order = np.lexsort((track, frame, bubble))
    track, frame, bubble = track[order], frame[order], bubble[order]
    again = bubble[1:] == bubble[:-1]
    other = again & (track[1:] != track[:-1])
    # Every true position has a place in the order of bubble and frame: one left out was missed.
    frames = int(true_frame.max(initial=0)) + 1
    known = np.sort(true_bubble.astype(np.int64) * frames + true_frame)
    place = np.searchsorted(known, bubble.astype(np.int64) * frames + frame)
    missed = np.diff(place) > 1
    return int(other.sum()), int((other & missed).sum())


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


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
