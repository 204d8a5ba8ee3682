"""Skeleton matching distance: what it costs to move one vascular skeleton onto another.

Skeleton voxels are points of equal mass. Moving a point by d voxels costs log(d + 1) / log(D + 1),
D being the diagonal of the volume, and the distance is the cost of the plan that entropic optimal
transport finds (Cuturi 2013; Lin et al. 2024, "Vascular skeleton deformation evaluation based on
the metric of Sinkhorn distance"). Papers on VpbSD print it as GWD and as SMD.

Published values come of a program that differs from that in ways that matter: it lets a point
move to near points only, of which one direction is chosen as the farthest by a slip; where a
skeleton has more than 3,000 voxels it takes the first ones, which lie in a corner of the volume;
and it stops long before the plan has its marginals. `Plan` names what is computed instead.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Plan = Literal["full", "nearest", "published"]
"""Which plans are allowed, and how long one is looked for.

full
    Every point may move to every other: there always is a plan, and it is iterated until its
    marginals are right. Points are drawn without bias where there are too many.
nearest
    As published, the slip mended: moves only where one of both points is among the 24 nearest
    of the other. Such moves may not be able to carry all mass (vessels missed here and found
    twice there): what is left over is not counted.
published
    As the program does it, so that numbers can be set beside those of papers.
"""

EPSILON = 0.01
_NEIGHBOURS = 24
_PUBLISHED_ROUNDS = 100
_PUBLISHED_CHANGE = 0.1
# What the program adds within logarithms.
_TINY = 1e-8
_ROUNDS = 20_000
_MARGINAL_ERROR = 1e-4


def skeleton_distance(
    skeleton: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    *,
    plan: Plan = "full",
    max_nodes: int = 3000,
    seed: int = 0,
) -> float:
    """Return the skeleton matching distance, from 0 (the same) to 1 (a diagonal apart).

    Parameters
    ----------
    skeleton, reference
        2-D or 3-D bool, of one shape; they must be skeletons already.
    plan
        See `Plan`. It is worth something only beside values of the same plan, and of volumes
        of one shape, since the cost is relative to the diagonal.
    max_nodes
        Most voxels of each skeleton that are compared: memory grows as their square.
    seed
        Of the draw of voxels where there are more (not of ``published``).

    Returns
    -------
    float
        0 where both are empty. Where one is: 1, the cost of a whole diagonal; ``published``
        takes the voxel at the origin for an empty skeleton. Entropy alone makes ``full`` of
        equal skeletons a little more than 0 (at most a percent).

    Raises
    ------
    ValueError
        Shapes differ.
    """
    if skeleton.shape != reference.shape:
        raise ValueError(f"shapes differ: {skeleton.shape} and {reference.shape}")
    points = [np.argwhere(one) for one in (skeleton, reference)]
    if plan == "published":
        points = [one[:max_nodes] if len(one) else np.zeros((1, one.shape[1])) for one in points]
    else:
        if not all(map(len, points)):
            return float(any(map(len, points)))
        rng = np.random.default_rng(seed)
        points = [
            one if len(one) <= max_nodes else rng.choice(one, max_nodes, replace=False, axis=0)
            for one in points
        ]
    diagonal = math.hypot(*(n - 1 for n in skeleton.shape))
    if not diagonal:
        return 0.0
    cost = np.log1p(cdist(*points)) / math.log1p(diagonal)
    if plan == "full":
        return _transport_cost(cost)
    return _cost_among_neighbours(cost, _allowed(cost, columns_farthest=plan == "published"))


def _transport_cost(cost: NDArray[np.float64]) -> float:
    """Return ⟨P, C⟩ of the entropic plan P between uniform marginals (Cuturi 2013, algorithm 1).

    Costs are at most 1, so that exp(-C / ε) ≥ 4e-44 and logarithms are not needed.
    """
    kernel = np.exp(-cost / EPSILON)
    rows, columns = cost.shape
    v = np.full(columns, 1 / columns)
    for _ in range(_ROUNDS):
        u = 1 / rows / (kernel @ v)
        reached = u @ kernel
        if np.abs(v * reached - 1 / columns).sum() < _MARGINAL_ERROR:
            break
        v = 1 / columns / reached
    kernel *= cost
    return float(u @ kernel @ v)


def _allowed(cost: NDArray[np.float64], *, columns_farthest: bool) -> NDArray[np.bool_]:
    """Return which moves are allowed: to the nearest of each row, and of each column."""
    allowed = np.zeros(cost.shape, bool)
    rows, columns = (min(_NEIGHBOURS, n) for n in cost.shape)
    nearest = np.argpartition(cost, columns - 1, axis=1)[:, :columns]
    np.put_along_axis(allowed, nearest, True, axis=1)
    chosen = np.argpartition(-cost if columns_farthest else cost, rows - 1, axis=0)[:rows]
    np.put_along_axis(allowed, chosen, True, axis=0)
    return allowed


def _cost_among_neighbours(cost: NDArray[np.float64], allowed: NDArray[np.bool_]) -> float:
    """Return the cost of the plan that the published iteration ends with.

    It alternates both potentials, with 1e-8 within logarithms, until the first of them changes
    by less than 0.1 in sum, or 100 times.
    """
    row, column = np.nonzero(allowed)
    costs = cost[row, column]
    u, v = np.zeros(cost.shape[0]), np.zeros(cost.shape[1])

    def plan() -> NDArray[np.float64]:
        return np.exp((u[row] + v[column] - costs) / EPSILON)

    for _ in range(_PUBLISHED_ROUNDS):
        before = u
        leaving = np.bincount(row, plan(), len(u))
        u = u + EPSILON * (math.log(1 / len(u) + _TINY) - np.log(leaving + _TINY))
        arriving = np.bincount(column, plan(), len(v))
        v = v + EPSILON * (math.log(1 / len(v) + _TINY) - np.log(arriving + _TINY))
        if np.abs(u - before).sum() < _PUBLISHED_CHANGE:
            break
    return float(plan() @ costs)
