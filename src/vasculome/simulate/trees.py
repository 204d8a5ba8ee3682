"""Vessel graphs, and vascular trees grown to fill a box under Murray's law."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Float = NDArray[np.float64]
Int = NDArray[np.int64]

MURRAY_EXPONENT = 3.0
_NEAREST_EDGES = 12
_DART_CANDIDATES = 12
_WARP_MODES = 32
_ROUNDING = 2.0


@dataclass(frozen=True)
class VesselGraph:
    """Centre lines of vessels in short straight edges, each of one radius and one flow.

    Attributes
    ----------
    positions_um
        Float64 (nodes, ndim), in axis order (z, [y,] x).
    edges
        Int64 (edges, 2): upstream node, downstream node.
    radius_um
        Float64 (edges,).
    flow_um3_s
        Float64 (edges,), not negative; what enters a node leaves it, except at the network's
        inlets and outlets.
    """

    positions_um: Float
    edges: Int
    radius_um: Float
    flow_um3_s: Float

    @property
    def ndim(self) -> int:
        """Dimensions of space."""
        return int(self.positions_um.shape[1])

    @property
    def length_um(self) -> Float:
        """Length of each edge."""
        ends = self.positions_um[self.edges]
        return np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)

    @property
    def volume_um3(self) -> Float:
        """Volume of each edge as a cylinder."""
        return math.pi * self.radius_um**2 * self.length_um

    @property
    def mean_speed_mm_s(self) -> Float:
        """Mean speed in each edge, flow / area; by Poiseuille, half the speed at its axis."""
        return 1e-3 * self.flow_um3_s / (math.pi * self.radius_um**2)

    @property
    def inlets(self) -> Int:
        """Nodes that edges only leave."""
        return np.setdiff1d(self.edges[:, 0], self.edges[:, 1])

    @property
    def outlets(self) -> Int:
        """Nodes that edges only enter."""
        return np.setdiff1d(self.edges[:, 1], self.edges[:, 0])


def grow_tree(
    domain_um: Sequence[float],
    *,
    n_terminals: int,
    root_radius_um: float,
    rng: np.random.Generator,
    inlet_um: Sequence[float] | None = None,
    root_speed_mm_s: float = 20.0,
    tortuosity: float = 0.5,
    segment_um: float = 8.0,
) -> VesselGraph:
    """Grow a binary tree that fills a box, by constrained constructive optimization.

    Terminals are added from coarse to fine; each joins the edge, at the branching point, that adds
    the least vessel volume (Schreiner & Buxbaum, IEEE Trans. Biomed. Eng. 40:482, 1993, without
    their crossing test). All terminals carry the same flow, so Murray's law r0³ = r1³ + r2³ gives
    every radius: a terminal's is ``root_radius_um / n_terminals ** (1/3)``. Centre lines are then
    rounded, and bent by one smooth random displacement of space, which keeps branches attached.

    Parameters
    ----------
    domain_um
        Size of the box along each axis; its origin is 0.
    n_terminals
        Leaves of the tree.
    root_radius_um
        Radius at the inlet.
    inlet_um
        Where the root enters; the middle of the first face of axis 0 by default.
    root_speed_mm_s
        Mean speed at the inlet.
    tortuosity
        Root-mean-square gradient of the bending displacement; 0 leaves it out.
    segment_um
        Longest edge before bending.

    Returns
    -------
    VesselGraph
        Edges lead from the inlet, node 0, to the leaves.

    Raises
    ------
    ValueError
        If ``n_terminals`` is less than 1.
    """
    if n_terminals < 1:
        raise ValueError(f"a tree needs at least one terminal, not {n_terminals}")
    domain = np.asarray(domain_um, dtype=np.float64)
    if inlet_um is None:
        inlet = domain / 2
        inlet[0] = 0.0
    else:
        inlet = np.asarray(inlet_um, dtype=np.float64)
    candidates = rng.random((n_terminals, _DART_CANDIDATES, domain.size)) * domain
    nodes, parent, leaves = _construct(_spread_out(candidates), inlet)
    positions, edges, branch = _round_strands(nodes, parent, leaves, segment_um=segment_um)
    share = leaves[branch] / n_terminals
    root_flow = 1e3 * root_speed_mm_s * math.pi * root_radius_um**2
    graph = VesselGraph(
        positions_um=positions,
        edges=edges,
        radius_um=root_radius_um * share ** (1 / MURRAY_EXPONENT),
        flow_um3_s=root_flow * share,
    )
    return bend(graph, tortuosity=tortuosity, longest_um=float(domain.max()) / 2, rng=rng)


def bend(
    graph: VesselGraph, *, tortuosity: float, longest_um: float, rng: np.random.Generator
) -> VesselGraph:
    """Move all nodes by one smooth random displacement of space.

    The displacement is a sum of plane waves of wavelengths from ``longest_um / 8`` to
    ``longest_um``, each contributing the same gradient; ``tortuosity`` is the root mean square of
    their sum.
    """
    wavelength = longest_um * 8 ** -rng.random(_WARP_MODES)
    heading = rng.normal(size=(_WARP_MODES, graph.ndim))
    heading *= (2 * math.pi / wavelength / np.linalg.norm(heading, axis=1))[:, None]
    push = rng.normal(size=(_WARP_MODES, graph.ndim)) / math.sqrt(graph.ndim)
    push *= (tortuosity * wavelength / (2 * math.pi) * math.sqrt(2 / _WARP_MODES))[:, None]
    phase = rng.random(_WARP_MODES) * 2 * math.pi
    moved = graph.positions_um + np.sin(graph.positions_um @ heading.T + phase) @ push
    return replace(graph, positions_um=moved)


def merge(graphs: Sequence[VesselGraph]) -> VesselGraph:
    """Put graphs side by side in one, without joining them."""
    first_node = np.cumsum([0, *(len(g.positions_um) for g in graphs[:-1])])
    return VesselGraph(
        positions_um=np.concatenate([g.positions_um for g in graphs]),
        edges=np.concatenate([g.edges + n for g, n in zip(graphs, first_node, strict=True)]),
        radius_um=np.concatenate([g.radius_um for g in graphs]),
        flow_um3_s=np.concatenate([g.flow_um3_s for g in graphs]),
    )


@njit(cache=True)
def _apart(a: Float, b: Float) -> float:
    """Return the distance of two points."""
    square = 0.0
    for d in range(len(a)):
        square += (a[d] - b[d]) ** 2
    return np.sqrt(square)


@njit(cache=True)
def _spread_out(candidates: Float) -> Float:
    """Choose from each row the candidate farthest from those already chosen."""
    chosen = np.empty((candidates.shape[0], candidates.shape[2]))
    for i in range(candidates.shape[0]):
        best = -1.0
        for j in range(candidates.shape[1]):
            nearest = np.inf
            for k in range(i):
                nearest = min(nearest, _apart(candidates[i, j], chosen[k]))
            if nearest > best:
                best = nearest
                chosen[i] = candidates[i, j]
    return chosen


@njit(cache=True)
def _distance_to_edge(point: Float, a: Float, b: Float) -> float:
    """Return the distance of a point to a straight edge."""
    dot = square = 0.0
    for d in range(len(a)):
        dot += (point[d] - a[d]) * (b[d] - a[d])
        square += (b[d] - a[d]) ** 2
    along = min(max(dot / (square + 1e-12), 0.0), 1.0)
    square = 0.0
    for d in range(len(a)):
        square += (point[d] - a[d] - along * (b[d] - a[d])) ** 2
    return np.sqrt(square)


@njit(cache=True)
def _branching_point(a: Float, b: Float, c: Float, weight_a: float, weight_b: float) -> Float:
    """Return the point of least weighted distance to three (Weiszfeld), kept off the corners."""
    point = (a + b + c) / 3
    middle = point.copy()
    for _ in range(30):
        wa = weight_a / (_apart(point, a) + 1e-9)
        wb = weight_b / (_apart(point, b) + 1e-9)
        wc = 1.0 / (_apart(point, c) + 1e-9)
        for d in range(len(point)):
            point[d] = (wa * a[d] + wb * b[d] + wc * c[d]) / (wa + wb + wc)
    return 0.9 * point + 0.1 * middle


@njit(cache=True)
def _construct(terminals: Float, inlet: Float) -> tuple[Float, Int, Int]:
    """Return nodes, parents and leaves downstream of the tree; node 0 is the inlet."""
    n, ndim = terminals.shape
    nodes = np.zeros((2 * n, ndim))
    parent = np.full(2 * n, -1, dtype=np.int64)
    leaves = np.ones(2 * n, dtype=np.int64)
    nodes[0] = inlet
    nodes[1] = terminals[0]
    parent[1] = 0
    used = 2
    distance = np.empty(2 * n)
    for t in range(1, n):
        new = terminals[t]
        for i in range(1, used):
            distance[i] = _distance_to_edge(new, nodes[parent[i]], nodes[i])
        best_cost, best_edge, best_point = np.inf, 0, inlet
        for i in (np.argsort(distance[1:used]) + 1)[:_NEAREST_EDGES]:
            # Volume goes with radius² and length, radius³ with the leaves that a vessel feeds.
            a, b = nodes[parent[i]], nodes[i]
            before, after = leaves[i] ** (2 / 3), (leaves[i] + 1.0) ** (2 / 3)
            point = _branching_point(a, b, new, after, before)
            cost = after * _apart(point, a) + before * (_apart(point, b) - _apart(a, b))
            cost += _apart(point, new)
            up = parent[i]
            while parent[up] >= 0 and cost < best_cost:
                wider = (leaves[up] + 1.0) ** (2 / 3) - leaves[up] ** (2 / 3)
                cost += wider * _apart(nodes[up], nodes[parent[up]])
                up = parent[up]
            if cost < best_cost:
                best_cost, best_edge, best_point = cost, i, point
        nodes[used], nodes[used + 1] = best_point, new
        parent[used], parent[used + 1] = parent[best_edge], used
        leaves[used] = leaves[best_edge] + 1
        parent[best_edge] = used
        up = parent[used]
        while up >= 0:
            leaves[up] += 1
            up = parent[up]
        used += 2
    return nodes, parent, leaves


def _round_strands(
    nodes: Float, parent: Int, leaves: Int, *, segment_um: float
) -> tuple[Float, Int, Int]:
    """Cut branches into short edges, rounded along the path of most flow through each branching.

    Returns positions, edges, and the node of the branch that each edge belongs to.
    """
    children: list[list[int]] = [[] for _ in nodes]
    for i in range(1, len(nodes)):
        children[parent[i]].append(i)
    index, place = {0: 0}, {0: nodes[0]}
    positions, edges, branch = [nodes[:1]], [], []
    n_placed = 1
    strands = [(0, child) for child in children[0]]
    while strands:
        start, node = strands.pop()
        path = [node]
        while children[node]:
            ahead = sorted(children[node], key=lambda i: -leaves[i])
            strands += [(node, side) for side in ahead[1:]]
            node = ahead[0]
            path.append(node)
        corners = nodes[[start, *path]]
        steps = np.diff(corners, axis=0)
        counts = np.maximum(1, np.ceil(np.linalg.norm(steps, axis=1) / segment_um)).astype(int)
        pieces = [
            a + np.arange(n)[:, None] / n * step
            for a, n, step in zip(corners[:-1], counts, steps, strict=True)
        ]
        line = _smooth_between(np.concatenate([*pieces, corners[-1:]]), start=place[start])
        names = np.arange(n_placed - 1, n_placed + len(line) - 1)
        names[0] = index[start]
        for corner, at in zip(path, np.cumsum(counts), strict=True):
            index[corner], place[corner] = int(names[at]), line[at]
        positions.append(line[1:])
        n_placed += len(line) - 1
        edges.append(np.stack([names[:-1], names[1:]], axis=1))
        branch.append(np.repeat(path, counts))
    return np.concatenate(positions), np.concatenate(edges), np.concatenate(branch)


def _smooth_between(line: Float, *, start: Float) -> Float:
    """Round a polyline's corners over a few points; it begins at ``start`` and ends as it did."""
    smooth = gaussian_filter1d(line, sigma=_ROUNDING, axis=0, mode="nearest")
    along = np.linspace(0.0, 1.0, len(line))[:, None]
    return smooth + (1 - along) * (start - smooth[0]) + along * (line[-1] - smooth[-1])
