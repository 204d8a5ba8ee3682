"""Finer pictures of vessel graphs: single vessels, short edges, rounded bends, blended values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vasculome.simulate.trees import Float, Int, VesselGraph


def vessels_of(graph: VesselGraph) -> Int:
    """Return which vessel each edge belongs to, int64 (edges,) from 0: they end where others join.

    An edge and the next are one vessel where the node between them has no third.
    """
    n_edges = len(graph.edges)
    nodes = graph.edges.ravel()
    edges = np.repeat(np.arange(n_edges), 2)
    passing = np.bincount(nodes, minlength=len(graph.positions_um))[nodes] == 2
    order = np.argsort(nodes[passing], kind="stable")
    pairs = edges[passing][order].reshape(-1, 2)
    links = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(n_edges, n_edges))
    return connected_components(links, directed=False)[1].astype(np.int64)


def in_short_edges(graph: VesselGraph, *, longest_um: float) -> VesselGraph:
    """Return the same vessels in edges of ``longest_um`` at the most, along which light changes."""
    parts = np.maximum(1, np.ceil(graph.length_um / longest_um)).astype(np.int64)
    first = np.cumsum(parts) - parts
    edge = np.repeat(np.arange(len(parts)), parts)
    step = np.arange(len(edge)) - first[edge]
    n_nodes = len(graph.positions_um)
    # The new node at the end of each part but an edge's last, which ends at the old one.
    names = n_nodes + np.cumsum(step < parts[edge] - 1) - 1
    tail = np.where(step == 0, graph.edges[edge, 0], np.roll(names, 1))
    head = np.where(step == parts[edge] - 1, graph.edges[edge, 1], names)
    inner = step < parts[edge] - 1
    a, b = graph.positions_um[graph.edges[edge[inner]]].swapaxes(0, 1)
    along = ((step + 1) / parts[edge])[inner][:, None]
    return replace(
        graph,
        positions_um=np.concatenate([graph.positions_um, a + along * (b - a)]),
        edges=np.stack([tail, head], axis=1),
        radius_um=graph.radius_um[edge],
        flow_um3_s=graph.flow_um3_s[edge],
    )


def with_rounded_bends(graph: VesselGraph, *, passes: int) -> VesselGraph:
    """Return vessels whose bends are rounded over about √passes edges; branchings and ends stay.

    Each pass moves every node between two edges half of the way to the middle of its neighbours.
    """
    nodes, others = graph.edges.ravel(), graph.edges[:, ::-1].ravel()
    n_nodes = len(graph.positions_um)
    passing = (np.bincount(nodes, minlength=n_nodes) == 2)[:, None]
    place = graph.positions_um
    for _ in range(passes):
        sums = [np.bincount(nodes, weights=column[others], minlength=n_nodes) for column in place.T]
        place = np.where(passing, 0.5 * place + 0.25 * np.stack(sums, axis=1), place)
    return replace(graph, positions_um=place)


def blended(graph: VesselGraph, values: NDArray[np.floating], *, passes: int) -> Float:
    """Return values of edges, (edges,), blended with the neighbours' over about √passes edges.

    Each pass gives every node the mean of its edges, and every edge the mean of its nodes.
    """
    nodes = graph.edges.ravel()
    n_nodes = len(graph.positions_um)
    degree = np.maximum(np.bincount(nodes, minlength=n_nodes), 1)
    result = np.asarray(values, np.float64)
    for _ in range(passes):
        at_node = np.bincount(nodes, weights=np.repeat(result, 2), minlength=n_nodes) / degree
        result = at_node[graph.edges].mean(axis=1)
    return result
