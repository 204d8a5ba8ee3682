"""Pairing of detections between frames: the assignment of least total cost inside a gate.

Only pairs inside the gate are candidates, so the assignment falls into the connected components
of a sparse graph. It is solved by shortest augmenting paths over the candidates, which never leave
a component: the work grows with the crowding, not with the square of the number of bubbles.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray


def pair(
    prev_um: NDArray[np.float64], next_um: NDArray[np.float64], *, gate_um: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair points of two frames by distance, at the least total cost.

    The cost is the distance of a pair, and the gate for each point of the first frame that stays
    alone: the assignment minimizes the sum of min(distance, gate). It is the global optimum.

    Parameters
    ----------
    prev_um, next_um
        Positions in micrometres, shapes (m, d) and (n, d).
    gate_um
        Largest distance of a pair, in micrometres: one for all, or one for each of the m points.

    Returns
    -------
    Indices into ``prev_um`` and ``next_um`` of the pairs, int64, sorted by the first.

    Raises
    ------
    ValueError
        If shapes do not fit, or a gate is not positive.
    """
    before, after, gate = check_points(prev_um, next_um, gate_um)
    first, column, distance = candidates(before, after, gate)
    partner = assign(first, column, distance, gate, len(after))
    i = np.flatnonzero(partner >= 0)
    return i, partner[i]


def check_points(
    prev_um: NDArray[np.floating], next_um: NDArray[np.floating], gate_um: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return both sets of points and a gate for each of the first, as the kernels take them.

    Raises
    ------
    ValueError
        If shapes do not fit, or a gate is not positive.
    """
    before = np.ascontiguousarray(prev_um, dtype=np.float64)
    after = np.ascontiguousarray(next_um, dtype=np.float64)
    if before.ndim != 2 or after.ndim != 2 or before.shape[1] != after.shape[1]:
        raise ValueError(f"points must have shape (n, d), not {before.shape} and {after.shape}")
    gate = np.ascontiguousarray(np.broadcast_to(np.asarray(gate_um, np.float64), len(before)))
    if not (gate > 0).all():
        raise ValueError("the gate must be positive")
    return before, after, gate


@njit(cache=True, nogil=True)
def candidates(
    prev_um: NDArray[np.float64], next_um: NDArray[np.float64], gate_um: NDArray[np.float64]
) -> tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]
]:  # pragma: no cover - compiled
    """List the pairs nearer than the gate, by rows: those of row i are first[i]:first[i + 1].

    Parameters
    ----------
    prev_um, next_um, gate_um
        float64, shapes (m, d), (n, d) and (m,).

    Returns
    -------
    first (int64, m + 1), column (int64) and distance in micrometres (float64).
    """
    m, n, ndim = len(prev_um), len(next_um), prev_um.shape[1]
    # Sorting along one axis leaves only a slab of points to compare with each.
    order = np.argsort(next_um[:, 0], kind="mergesort")
    along = next_um[order, 0]
    first = np.zeros(m + 1, np.int64)
    column = np.empty(max(4 * m, 16), np.int64)
    distance = np.empty(len(column))
    count = 0
    for i in range(m):
        gate = gate_um[i]
        k = np.searchsorted(along, prev_um[i, 0] - gate)
        while k < n and along[k] <= prev_um[i, 0] + gate:
            j = order[k]
            k += 1
            square = 0.0
            for axis in range(ndim):
                square += (next_um[j, axis] - prev_um[i, axis]) ** 2
            if square >= gate * gate:
                continue
            if count == len(column):
                column = np.concatenate((column, np.empty_like(column)))
                distance = np.concatenate((distance, np.empty_like(distance)))
            column[count], distance[count] = j, np.sqrt(square)
            count += 1
        first[i + 1] = count
    return first, column[:count], distance[:count]


@njit(cache=True, nogil=True)
def assign(
    first: NDArray[np.int64],
    column: NDArray[np.int64],
    cost: NDArray[np.float64],
    cost_alone: NDArray[np.float64],
    n_columns: int,
) -> NDArray[np.int64]:  # pragma: no cover - compiled
    """Assign rows to columns at the least total cost, leaving rows alone where that is cheaper.

    Parameters
    ----------
    first, column, cost
        Candidates by rows, as from :func:`candidates`; costs must not be negative.
    cost_alone
        Cost of leaving each row without a partner.
    n_columns
        Number of columns.

    Returns
    -------
    int64, the column of each row, or -1.

    Notes
    -----
    Successive shortest augmenting paths with dual variables: Jonker and Volgenant, Computing 38,
    1987, doi:10.1007/BF02278710, over lists of candidates instead of a matrix. Being left alone is
    a column of the row's own, which no other row can take, so it needs no dual variable.
    """
    m = len(first) - 1
    partner = np.full(m, -1, np.int64)
    row_of = np.full(n_columns, -1, np.int64)
    dual_row = np.zeros(m)
    dual_column = np.zeros(n_columns)
    shortest = np.full(n_columns, np.inf)
    came_from = np.empty(n_columns, np.int64)
    settled = np.zeros(n_columns, np.bool_)
    reached = np.empty(n_columns, np.int64)  # the columns whose path length is not infinite
    for start in range(m):
        length, end, row, n_reached = _shortest_path(
            start,
            first,
            column,
            cost,
            cost_alone,
            row_of,
            dual_row,
            dual_column,
            shortest,
            came_from,
            settled,
            reached,
        )
        dual_row[start] += length
        for k in range(n_reached):
            j = reached[k]
            if settled[j]:
                dual_row[row_of[j]] += length - shortest[j]
                dual_column[j] -= length - shortest[j]
                settled[j] = False
            shortest[j] = np.inf
        if end < 0:  # the row at the end of the path gives its column up and stays alone
            end, partner[row] = partner[row], -1
        while end >= 0:  # every column on the path goes to the row that it was reached from
            row = came_from[end]
            row_of[end] = row
            end, partner[row] = partner[row], end
    return partner


@njit(cache=True, nogil=True)
def _shortest_path(
    start: int,
    first: NDArray[np.int64],
    column: NDArray[np.int64],
    cost: NDArray[np.float64],
    cost_alone: NDArray[np.float64],
    row_of: NDArray[np.int64],
    dual_row: NDArray[np.float64],
    dual_column: NDArray[np.float64],
    shortest: NDArray[np.float64],
    came_from: NDArray[np.int64],
    settled: NDArray[np.bool_],
    reached: NDArray[np.int64],
) -> tuple[float, int, int, int]:  # pragma: no cover - compiled
    """Search from a row for the nearest free column, or the cheapest row to be left alone.

    Returns the length of the path, the column at its end (-1 if a row stays alone), the row at its
    end, and how many columns were reached. ``shortest``, ``came_from``, ``settled`` and
    ``reached`` are filled in.
    """
    n_reached = 0
    length = 0.0
    row = start
    alone_length, alone_row = np.inf, start
    while True:
        here = length + cost_alone[row] - dual_row[row]
        if here < alone_length:
            alone_length, alone_row = here, row
        for k in range(first[row], first[row + 1]):
            j = column[k]
            there = length + cost[k] - dual_row[row] - dual_column[j]
            if not settled[j] and there < shortest[j]:
                if shortest[j] == np.inf:
                    reached[n_reached] = j
                    n_reached += 1
                shortest[j], came_from[j] = there, row
        nearest = -1
        for k in range(n_reached):
            j = reached[k]
            if not settled[j] and (nearest < 0 or shortest[j] < shortest[nearest]):
                nearest = j
        if nearest < 0 or alone_length <= shortest[nearest]:
            return alone_length, -1, alone_row, n_reached
        if row_of[nearest] < 0:
            return shortest[nearest], nearest, row, n_reached
        settled[nearest] = True
        length = shortest[nearest]
        row = row_of[nearest]
