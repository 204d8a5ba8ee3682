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
    marginals are right. Points in one small cube are taken together where there are too many.
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
        Most points of each skeleton that are compared: memory grows as their square. Where one
        has more voxels, those of both within a cube become a point of their mass at their mean,
        the cubes as small as may be; moves much shorter than a cube are told a little too long.
        ``published`` takes the first voxels.

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
        mass = [np.full(len(one), 1 / len(one)) for one in points]
    else:
        if not all(map(len, points)):
            return float(any(map(len, points)))
        points, mass = _merged(points, max_nodes)
    diagonal = math.hypot(*(n - 1 for n in skeleton.shape))
    if not diagonal:
        return 0.0
    cost = np.log1p(cdist(*points)) / math.log1p(diagonal)
    if plan == "full":
        return _transport_cost(cost, *mass)
    allowed = _allowed(cost, columns_farthest=plan == "published")
    return _cost_among_neighbours(cost, allowed, *mass)


def _merged(
    skeletons: list[NDArray[np.int64]], max_nodes: int
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Return points and their masses, one for all voxels of a skeleton in a cube.

    Both skeletons have the same cubes, so that equal ones stay equal: draws of voxels, even of
    the same share of each, lie as far from each other as their voxels from the next.
    """
    side = 0
    while True:
        side += 1
        cubes = [np.unique(one // side, axis=0, return_inverse=True) for one in skeletons]
        if max(len(found) for found, _ in cubes) <= max_nodes:
            break
    points, mass = [], []
    for one, (_, cube) in zip(skeletons, cubes, strict=True):
        voxels = np.bincount(cube.ravel())
        sums = [np.bincount(cube.ravel(), along) for along in one.T]
        points.append(np.stack(sums, axis=1) / voxels[:, np.newaxis])
        mass.append(voxels / len(one))
    return points, mass


def _transport_cost(
    cost: NDArray[np.float64], leaving: NDArray[np.float64], arriving: NDArray[np.float64]
) -> float:
    """Return ⟨P, C⟩ of the entropic plan P between two marginals (Cuturi 2013, algorithm 1).

    Costs are at most 1, so that exp(-C / ε) ≥ 4e-44 and logarithms are not needed.
    """
    kernel = np.exp(-cost / EPSILON)
    v = arriving
    for _ in range(_ROUNDS):
        u = leaving / (kernel @ v)
        reached = u @ kernel
        if np.abs(v * reached - arriving).sum() < _MARGINAL_ERROR:
            break
        v = arriving / reached
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


def _cost_among_neighbours(
    cost: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    leaving: NDArray[np.float64],
    arriving: NDArray[np.float64],
) -> float:
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
        left = np.bincount(row, plan(), len(u))
        u = u + EPSILON * (np.log(leaving + _TINY) - np.log(left + _TINY))
        reached = np.bincount(column, plan(), len(v))
        v = v + EPSILON * (np.log(arriving + _TINY) - np.log(reached + _TINY))
        if np.abs(u - before).sum() < _PUBLISHED_CHANGE:
            break
    return float(plan() @ costs)
