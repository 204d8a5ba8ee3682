"""Global placement: positions of all tiles from the offsets of pairs, robust to false ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vasculome.stitching.network import Floats, Network
from vasculome.stitching.register import Edge

_MISPLACED = 5.0
_MISPLACED_PX = 5.0


class DisconnectedTilesError(ValueError):
    """Some tiles hang together with no accepted edge.

    Attributes
    ----------
    parts
        The tiles of each part but the largest.
    """

    def __init__(self, parts: list[list[int]]) -> None:
        self.parts = parts
        count = sum(len(part) for part in parts)
        super().__init__(f"{count} tiles in {len(parts)} parts have no edge to the rest: {parts}")


@dataclass(frozen=True)
class Placement:
    """Where the tiles lie, in voxels along (z, y, x).

    Attributes
    ----------
    starts
        First voxel of each tile, float64 (tiles, 3).
    parts
        Part of each tile, int64 (tiles): 0 is the largest that edges hold together; the position
        of every other relative to it is the stage's.
    used
        Which edges were used, bool (edges).
    outliers
        Edges that were accepted but contradict the others.
    residuals
        Offset by position less offset by edge, float64 (edges, 3); NaN for edges that were not
        accepted.
    stage_outliers
        Tiles that the stage misreported: far from where their neighbours would have them.
    """

    starts: Floats
    parts: NDArray[np.int64]
    used: NDArray[np.bool_]
    outliers: tuple[int, ...]
    residuals: Floats
    stage_outliers: tuple[int, ...]


def place(
    edges: Sequence[Edge],
    nominal_starts: NDArray[np.floating],
    *,
    stage_sigma: Sequence[float] | float = 20.0,
    outlier_px: float = 1.0,
    left_out: NDArray[np.bool_] | None = None,
    allow_stage_positions: bool = False,
) -> Placement:
    """Return the positions that fit all edges best.

    Weighted least squares over the accepted edges, held by a weak prior at the stage's positions
    and reweighted to let false edges go (`Network.robust_weights`). Those that end with no weight
    and miss by more than ``outlier_px`` are outliers; the rest is fitted once more without them.

    Parameters
    ----------
    edges
        Of all pairs, accepted or not.
    nominal_starts
        First voxel of each tile by the stage, shape (tiles, 3).
    stage_sigma
        Standard deviation of the stage's error in voxels, one value or one an axis.
    outlier_px
        Misfit, in voxels, up to which an edge is never an outlier.
    left_out
        Tiles that will not be used, bool (tiles): nothing needs to join them to the rest, and
        they make no part larger. None by default.
    allow_stage_positions
        Whether tiles that no edge joins to the rest may be placed by the stage, relative to their
        neighbours where they have any.

    Raises
    ------
    DisconnectedTilesError
        If there are such tiles and that is not allowed.
    """
    nominal = np.asarray(nominal_starts, float)
    ends = np.array([(e.i, e.j) for e in edges], int).reshape(-1, 2)
    offsets = np.array([e.offset for e in edges]).reshape(-1, 3)
    accepted = np.array([e.accepted for e in edges], bool)
    sigma = np.array([e.sigma for e in edges]).reshape(-1, 3)
    prior = np.array(np.broadcast_to(1 / np.square(np.asarray(stage_sigma, float)), 3))
    precision = np.where(accepted[:, None], 1 / np.square(sigma), 0.0)

    network = Network(ends, offsets, nominal, prior)
    weights = network.robust_weights(precision)
    starts = network.solve(weights[:, None] * precision)
    far = np.abs(network.residuals(starts)).max(1, initial=0) > outlier_px
    used = accepted & ~(far & (weights == 0))
    used = _rejoined(used, accepted, ends, offsets, starts, outlier_px)

    counted = np.ones(len(nominal), bool) if left_out is None else ~left_out
    parts = connected_parts(ends[used], counted)
    strays = [
        np.flatnonzero((parts == k) & counted).tolist()
        for k in range(1, int(parts[counted].max(initial=0)) + 1)
    ]
    if strays and not allow_stage_positions:
        raise DisconnectedTilesError(strays)
    between = parts[ends[:, 0]] != parts[ends[:, 1]]
    targets = np.where(between[:, None], nominal[ends[:, 1]] - nominal[ends[:, 0]], offsets)
    final = np.where(used[:, None], precision, between[:, None] * prior)
    starts = Network(ends, targets, nominal, prior).solve(final)
    residuals = network.residuals(starts)
    residuals[~accepted] = np.nan
    return Placement(
        starts,
        parts,
        used,
        tuple(np.flatnonzero(accepted & ~used).tolist()),
        residuals,
        _stage_outliers(starts - nominal, ends[used]),
    )


def _rejoined(
    used: NDArray[np.bool_],
    accepted: NDArray[np.bool_],
    ends: NDArray[np.int_],
    offsets: Floats,
    starts: Floats,
    outlier_px: float,
) -> NDArray[np.bool_]:
    """Return ``used`` with the edges that join parts back which lost all of theirs.

    Where false edges are as many as good ones all are far from the mean. Most good ones agree
    with one another: each part goes with the largest set of edges that ask for the same shift,
    the nearest to where it stands if there are several.
    """
    used, starts = used.copy(), starts.copy()
    while True:
        parts = connected_parts(ends[used], np.ones(len(starts), bool))
        joins = np.flatnonzero(accepted & ((parts[ends] == 0).sum(1) == 1))
        if not len(joins):
            return used
        first_is_placed = parts[ends[joins, 0]] == 0
        strays = np.where(first_is_placed, parts[ends[joins, 1]], parts[ends[joins, 0]])
        shifts = starts[ends[joins, 0]] + offsets[joins] - starts[ends[joins, 1]]
        shifts[~first_is_placed] *= -1
        for part in np.unique(strays):
            edges, asked = joins[strays == part], shifts[strays == part]
            agree = np.abs(asked[:, None] - asked).max(2) <= outlier_px
            best = np.lexsort((np.square(asked).sum(1), -agree.sum(1)))[0]
            used[edges[agree[best]]] = True
            starts[parts == part] += np.median(asked[agree[best]], axis=0)


def connected_parts(ends: NDArray[np.int_], counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the connected part of each tile, the largest first, then in order of tiles.

    Parameters
    ----------
    ends
        Tiles i and j of each edge, shape (edges, 2).
    counted
        Which tiles make a part large, bool (tiles).
    """
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(counted),) * 2)
    _, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)
    sizes = np.bincount(labels, weights=counted)
    rank = np.empty(len(sizes), np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[labels]


def _stage_outliers(moves: Floats, ends: NDArray[np.int_]) -> tuple[int, ...]:
    """Return the tiles whose way from the stage's position is unlike that of their neighbours."""
    neighbours: list[set[int]] = [set() for _ in moves]
    for i, j in ends.tolist():
        neighbours[i].add(j)
        neighbours[j].add(i)

    def apart(tile: int) -> float:
        near = sorted(neighbours[tile])
        return float(np.abs(moves[tile] - np.median(moves[near], axis=0)).max()) if near else 0.0

    distance = np.array([apart(tile) for tile in range(len(moves))])
    limit = max(_MISPLACED * float(np.median(distance)), _MISPLACED_PX) if len(moves) else 0.0
    found = []
    while len(moves) and distance.max() > limit:
        # The worst first; without it its neighbours are judged anew.
        worst = int(np.argmax(distance))
        found.append(worst)
        distance[worst] = 0.0
        for other in neighbours[worst]:
            neighbours[other].discard(worst)
            if other not in found:
                distance[other] = apart(other)
    return tuple(sorted(found))
