"""A capillary mesh that joins arterial to venous trees, and the flow through the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve
from scipy.spatial import Voronoi, cKDTree

from vasculome.simulate.trees import Float, Int, VesselGraph, merge

_KEPT_EDGES = 0.8  # Voronoi meshes branch four ways in 3-D, capillaries mostly three
_PIECES = 5  # straight edges that a curved capillary is made of
_BOW = 0.15  # depth of a capillary's curve over its length
_NO_FLOW = 1e-9  # share of the whole flow that the solver cannot tell from none


def join_by_capillaries(
    arteries: Sequence[VesselGraph],
    veins: Sequence[VesselGraph],
    *,
    domain_um: Sequence[float],
    cell_um: float,
    radius_um: float,
    rng: np.random.Generator,
) -> VesselGraph:
    """Fill a box with a capillary mesh, join trees to it, and let blood flow from root to root.

    The mesh is the edges of the Voronoi cells of random points (Linninger et al., Ann. Biomed. Eng.
    41:2264, 2013), some left out. Each tree's leaf joins the nearest mesh vertex. Flow follows from
    Poiseuille's resistance 8 µL / (π r⁴) with one pressure at arterial and another at venous roots,
    scaled so that the arteries carry together what they did as trees.

    Parameters
    ----------
    arteries, veins
        Trees from `grow_tree`, at least one of each; veins as if blood flowed from their root.
    domain_um
        Size of the box that the mesh fills.
    cell_um
        Mean size of a mesh cell: the cube root (3-D) or square root (2-D) of its volume.
    radius_um
        Mean capillary radius; single ones vary by 15 %.

    Returns
    -------
    VesselGraph
        Edges point downstream; blind ends, where nothing flows, are left out.
    """
    trees = merge([*arteries, *veins])
    network = _joined(trees, domain_um=domain_um, cell_um=cell_um, radius_um=radius_um, rng=rng)
    n_arteries = sum(len(g.positions_um) for g in arteries)
    roots = trees.inlets
    inflow = sum(float(g.flow_um3_s[np.isin(g.edges[:, 0], g.inlets)].sum()) for g in arteries)
    network = _reachable(network, roots[roots < n_arteries])
    return _with_flow(
        network,
        high=roots[roots < n_arteries],
        low=roots[roots >= n_arteries],
        total_um3_s=inflow,
    )


def with_capillaries(
    trees: Sequence[VesselGraph],
    *,
    domain_um: Sequence[float],
    cell_um: float,
    radius_um: float,
    rng: np.random.Generator,
    bow: float = _BOW,
) -> VesselGraph:
    """Return trees joined by a capillary mesh as `join_by_capillaries` does, without the flow.

    That takes most of its time, and pictures do not show it. Blind ends are left out here, too.
    ``bow`` is the depth of a capillary's curve over its length.
    """
    every = merge(trees)
    network = _joined(
        every, domain_um=domain_um, cell_um=cell_um, radius_um=radius_um, bow=bow, rng=rng
    )
    roots = every.inlets
    return _without_blind_ends(_reachable(network, roots), roots)


def _joined(
    trees: VesselGraph,
    *,
    domain_um: Sequence[float],
    cell_um: float,
    radius_um: float,
    rng: np.random.Generator,
    bow: float = _BOW,
) -> VesselGraph:
    """Return trees whose leaves join a mesh; capillaries carry no flow yet."""
    mesh, pairs = _voronoi_mesh(np.asarray(domain_um, dtype=np.float64), cell_um, rng)
    leaves = trees.outlets
    _, nearest = cKDTree(mesh).query(trees.positions_um[leaves])
    n_tree = len(trees.positions_um)
    nodes = np.concatenate([trees.positions_um, mesh])
    pairs = np.concatenate([pairs + n_tree, np.stack([leaves, nearest + n_tree], axis=1)])
    radius = radius_um * rng.lognormal(0.0, 0.15, len(pairs))
    capillaries = _curved(nodes, pairs, radius, bow, rng)
    return VesselGraph(
        positions_um=capillaries.positions_um,
        edges=np.concatenate([trees.edges, capillaries.edges]),
        radius_um=np.concatenate([trees.radius_um, capillaries.radius_um]),
        flow_um3_s=np.concatenate([trees.flow_um3_s, capillaries.flow_um3_s]),
    )


def _voronoi_mesh(domain: Float, cell_um: float, rng: np.random.Generator) -> tuple[Float, Int]:
    """Return vertices and edges of the Voronoi cells of random points, inside the domain."""
    padded = domain + 2 * cell_um
    n_cells = math.ceil(np.prod(padded / cell_um))
    voronoi = Voronoi(rng.random((n_cells, domain.size)) * padded - cell_um)
    rings = [np.array(ring) for ring in voronoi.ridge_vertices if min(ring) >= 0]
    if domain.size == 2:
        pairs = np.stack(rings)
    else:
        pairs = np.concatenate([np.stack([ring, np.roll(ring, 1)], axis=1) for ring in rings])
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    inside = ((voronoi.vertices >= 0) & (voronoi.vertices <= domain)).all(axis=1)
    pairs = pairs[inside[pairs].all(axis=1)]
    pairs = pairs[rng.random(len(pairs)) < _KEPT_EDGES]
    used, renamed = np.unique(pairs, return_inverse=True)
    return voronoi.vertices[used], renamed.reshape(-1, 2).astype(np.int64)


def _curved(
    nodes: Float, pairs: Int, radius: Float, depth: float, rng: np.random.Generator
) -> VesselGraph:
    """Replace straight capillaries by curves of `_PIECES` edges; their nodes follow the others."""
    a, b = nodes[pairs[:, 0]], nodes[pairs[:, 1]]
    length = np.linalg.norm(b - a, axis=1, keepdims=True)
    along = (np.arange(1, _PIECES) / _PIECES)[None, :, None]
    bow = rng.normal(0.0, depth, (len(pairs), 1, nodes.shape[1])) * length[:, None]
    wave = rng.normal(0.0, depth / 2, (len(pairs), 1, nodes.shape[1])) * length[:, None]
    between = a[:, None] + along * (b - a)[:, None]
    between += np.sin(math.pi * along) * bow + np.sin(2 * math.pi * along) * wave
    names = len(nodes) + np.arange(len(pairs) * (_PIECES - 1)).reshape(len(pairs), -1)
    chain = np.concatenate([pairs[:, :1], names, pairs[:, 1:]], axis=1)
    edges = np.stack([chain[:, :-1], chain[:, 1:]], axis=2).reshape(-1, 2)
    return VesselGraph(
        positions_um=np.concatenate([nodes, between.reshape(-1, nodes.shape[1])]),
        edges=edges,
        radius_um=np.repeat(radius, _PIECES),
        flow_um3_s=np.zeros(len(edges)),
    )


def _reachable(graph: VesselGraph, roots: Int) -> VesselGraph:
    """Drop the edges that are not connected with any root; nodes keep their numbers."""
    n = len(graph.positions_um)
    links = coo_array((np.ones(len(graph.edges)), tuple(graph.edges.T)), shape=(n, n))
    _, component = connected_components(links, directed=False)
    return _chosen(graph, np.isin(component[graph.edges[:, 0]], component[roots]))


def _without_blind_ends(graph: VesselGraph, roots: Int) -> VesselGraph:
    """Drop, again and again, the edges that end at a node with no other edge; roots are none."""
    while True:
        degree = np.bincount(graph.edges.ravel(), minlength=len(graph.positions_um))
        degree[roots] = 2
        kept = (degree[graph.edges] > 1).all(axis=1)
        if kept.all():
            return graph
        graph = _chosen(graph, kept)


def _chosen(graph: VesselGraph, kept: NDArray[np.bool_]) -> VesselGraph:
    """Return the graph with some of its edges; nodes keep their numbers."""
    return replace(
        graph,
        edges=graph.edges[kept],
        radius_um=graph.radius_um[kept],
        flow_um3_s=graph.flow_um3_s[kept],
    )


def _with_flow(graph: VesselGraph, *, high: Int, low: Int, total_um3_s: float) -> VesselGraph:
    """Solve Kirchhoff's equations between the roots, and turn all edges downstream."""
    nodes, edges = np.unique(graph.edges, return_inverse=True)
    edges = edges.reshape(-1, 2).astype(np.int64)
    conductance = graph.radius_um**4 / graph.length_um
    conductance /= conductance.max()
    pressure = np.full(len(nodes), np.nan)
    pressure[np.isin(nodes, high)] = 1.0
    pressure[np.isin(nodes, low)] = 0.0
    i, j = edges.T
    laplacian = coo_array(
        (
            np.concatenate([conductance, conductance, -conductance, -conductance]),
            (np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i])),
        ),
        shape=(len(nodes), len(nodes)),
    ).tocsr()
    free = np.flatnonzero(np.isnan(pressure))
    fixed = np.flatnonzero(~np.isnan(pressure))
    source = -laplacian[free][:, fixed] @ pressure[fixed]
    pressure[free] = spsolve(laplacian[free][:, free].tocsc(), source)
    flow = conductance * (pressure[i] - pressure[j])
    entering = flow[np.isin(i, np.flatnonzero(np.isin(nodes, high)))].sum()
    carries = np.abs(flow) > _NO_FLOW * entering
    downstream = np.where(flow[:, None] >= 0, edges, edges[:, ::-1])
    return VesselGraph(
        positions_um=graph.positions_um[nodes],
        edges=downstream[carries],
        radius_um=graph.radius_um[carries],
        flow_um3_s=np.abs(flow)[carries] * (total_um3_s / entering),
    )
