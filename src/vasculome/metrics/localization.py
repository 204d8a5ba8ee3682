"""Detections against the truth: who was found, and how far off.

Lengths are in any one unit, wavelengths for comparison with published figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist


@dataclass(frozen=True)
class LocalizationScore:
    """How well detections agree with the truth; ratios are NaN where nothing is there to count.

    ``true_positives`` are pairs nearer than the true-positive distance, and Jaccard, precision and
    recall follow from them. The errors are those of all pairs: ``rmse`` the root mean square of
    their distances, ``rmse_axes`` that along each axis, ``mean_error`` the mean distance and
    ``bias_axes`` the mean of found − true along each axis.
    """

    n_true: int
    n_found: int
    n_pairs: int
    true_positives: int
    jaccard: float
    precision: float
    recall: float
    rmse: float
    rmse_axes: tuple[float, ...]
    mean_error: float
    bias_axes: tuple[float, ...]


def score_localization(
    found_frame: NDArray[np.integer],
    found: NDArray[np.floating],
    true_frame: NDArray[np.integer],
    true: NDArray[np.floating],
    *,
    pair_distance: float,
    true_positive_distance: float | None = None,
    matching: str = "optimal",
) -> LocalizationScore:
    """Score detections against true positions, frame by frame.

    Parameters
    ----------
    found_frame, found
        Frames (n,) and positions (n, d) of the detections, in any order.
    true_frame, true
        The same of the truth. Bubbles that could not be seen (outside the image) must be left out.
    pair_distance
        Pairs must be nearer than this; PALA takes λ/2.
    true_positive_distance
        Pairs nearer than this are true positives; PALA takes λ/4. None: ``pair_distance``.
    matching
        ``"optimal"`` or ``"pala"``; see :func:`match`.

    Raises
    ------
    ValueError
        As :func:`match`, or if the true-positive distance is larger than that of pairs.

    Notes
    -----
    Protocol: Heiles et al., Nature Biomedical Engineering 6, 605-616, 2022,
    doi:10.1038/s41551-021-00824-8.
    """
    limit = pair_distance if true_positive_distance is None else true_positive_distance
    if limit > pair_distance:
        raise ValueError("true positives cannot be further apart than pairs")
    i, j = match(
        found_frame, found, true_frame, true, pair_distance=pair_distance, matching=matching
    )
    error = np.asarray(found, np.float64)[i] - np.asarray(true, np.float64)[j]
    distance = np.linalg.norm(error, axis=1)
    hits = int((distance < limit).sum())
    n_found, n_true, ndim = len(found), len(true), error.shape[1]
    nothing = (float("nan"),) * ndim
    return LocalizationScore(
        n_true=n_true,
        n_found=n_found,
        n_pairs=len(i),
        true_positives=hits,
        jaccard=_ratio(hits, n_true + n_found - hits),
        precision=_ratio(hits, n_found),
        recall=_ratio(hits, n_true),
        rmse=float(np.sqrt(np.mean(distance**2))) if len(i) else nothing[0],
        rmse_axes=tuple(np.sqrt(np.mean(error**2, axis=0)).tolist()) if len(i) else nothing,
        mean_error=float(distance.mean()) if len(i) else nothing[0],
        bias_axes=tuple(error.mean(axis=0).tolist()) if len(i) else nothing,
    )


def match(
    found_frame: NDArray[np.integer],
    found: NDArray[np.floating],
    true_frame: NDArray[np.integer],
    true: NDArray[np.floating],
    *,
    pair_distance: float,
    matching: str = "optimal",
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair detections with true positions of the same frame, each at most once.

    ``"optimal"`` makes as many pairs nearer than ``pair_distance`` as there can be and, of those,
    the ones of least total distance. ``"pala"`` is the greedy rule of the PALA toolbox, to
    compare with its figures: detections and true positions are each sorted by the distance to the
    nearest of the other; each detection in turn takes the nearest true position that comes *after*
    the last one taken. It passes over true positions, and so undercounts.

    Parameters
    ----------
    found_frame, found, true_frame, true, pair_distance, matching
        As for :func:`score_localization`.

    Returns
    -------
    Indices into ``found`` and ``true`` of the pairs, int64, sorted by frame.

    Raises
    ------
    ValueError
        If shapes do not fit or ``matching`` is not known.
    """
    rules = {"optimal": _optimal, "pala": _pala}
    if matching not in rules:
        raise ValueError(f"matching must be one of {sorted(rules)}, not {matching!r}")
    if found.ndim != 2 or true.ndim != 2 or found.shape[1] != true.shape[1]:
        raise ValueError(f"positions must have shape (n, d), not {found.shape} and {true.shape}")
    if len(found_frame) != len(found) or len(true_frame) != len(true):
        raise ValueError("every position needs its frame")
    found_frame, true_frame = np.asarray(found_frame), np.asarray(true_frame)
    i, j = rules[matching](found_frame, found, true_frame, true, pair_distance)
    order = np.lexsort((i, found_frame[i]))
    return i[order], j[order]


_Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def _optimal(
    found_frame: NDArray[np.integer],
    found: NDArray[np.floating],
    true_frame: NDArray[np.integer],
    true: NDArray[np.floating],
    limit: float,
) -> _Pairs:
    """Assign within the connected components of the graph of pairs nearer than the limit."""
    if not len(found) or not len(true):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # Frames lie apart along one more axis, so that one tree finds the candidates of all of them.
    _, place = np.unique(np.concatenate([found_frame, true_frame]), return_inverse=True)
    apart = 2.0 * limit * place[:, None]
    near = KDTree(np.hstack([found, apart[: len(found)]])).sparse_distance_matrix(
        KDTree(np.hstack([true, apart[len(found) :]])), limit, output_type="ndarray"
    )
    near = np.sort(near[near["v"] < limit], order=["i", "j"])
    i, j, distance = near["i"].astype(np.int64), near["j"].astype(np.int64), near["v"]
    total = len(found) + len(true)
    graph = coo_array((np.ones(len(i), np.int8), (i, j + len(found))), shape=(total, total))
    component = connected_components(graph, directed=False)[1][i]
    alone = np.bincount(component, minlength=total)[component] == 1
    pairs = [np.stack([i[alone], j[alone]])]
    rest = np.flatnonzero(~alone)
    rest = rest[np.argsort(component[rest], kind="stable")]
    for rows in np.split(rest, np.flatnonzero(np.diff(component[rest])) + 1):
        if len(rows):
            pairs.append(_assign(i[rows], j[rows], distance[rows], limit))
    both = np.concatenate(pairs, axis=1)
    return both[0], both[1]


def _assign(
    i: NDArray[np.int64], j: NDArray[np.int64], distance: NDArray[np.float64], limit: float
) -> NDArray[np.int64]:
    """Return the best pairs of one component, (2, pairs): most, then nearest."""
    founds, row = np.unique(i, return_inverse=True)
    trues, column = np.unique(j, return_inverse=True)
    # No sum of distances inside the limit reaches the cost of one pair beyond it.
    cost = np.full((len(founds), len(trues)), limit * (min(len(founds), len(trues)) + 1))
    cost[row, column] = distance
    a, b = linear_sum_assignment(cost)
    inside = cost[a, b] < limit
    return np.stack([founds[a[inside]], trues[b[inside]]])


def _pala(
    found_frame: NDArray[np.integer],
    found: NDArray[np.floating],
    true_frame: NDArray[np.integer],
    true: NDArray[np.floating],
    limit: float,
) -> _Pairs:
    pairs = [np.empty((2, 0), np.int64)]
    for i, j in _by_frame(found_frame, true_frame):
        a, b = _pala_in_frame(cdist(found[i], true[j]), limit)
        pairs.append(np.stack([i[a], j[b]]))
    both = np.concatenate(pairs, axis=1)
    return both[0], both[1]


def _by_frame(
    a: NDArray[np.integer], b: NDArray[np.integer]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the rows of both tables for every frame that both have."""
    order_a, order_b = np.argsort(a, kind="stable"), np.argsort(b, kind="stable")
    common = np.intersect1d(a, b)
    bounds = [
        np.searchsorted(frames[order], common, side=side)
        for frames, order in ((a, order_a), (b, order_b))
        for side in ("left", "right")
    ]
    for low_a, high_a, low_b, high_b in zip(*bounds, strict=True):
        yield order_a[low_a:high_a], order_b[low_b:high_b]


def _pala_in_frame(
    distance: NDArray[np.float64], limit: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    # The true positions are sorted by their nearest detection, and the other way round.
    founds = np.argsort(distance.min(axis=1), kind="stable")
    trues = np.argsort(distance.min(axis=0), kind="stable")
    pairs, next_true = [], 0
    for i in founds:
        left = trues[next_true:]
        if not len(left):
            break
        nearest = int(np.argmin(distance[i, left]))
        if distance[i, left[nearest]] < limit:
            pairs.append((i, left[nearest]))
        next_true += nearest + 1
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
