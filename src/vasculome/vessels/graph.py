"""The graph of a skeleton: branch points and ends as nodes, the vessels between them as edges.

Nodes are branch points (all voxels with three neighbours or more that touch each other are one),
ends, lone voxels, and one voxel of each ring that has none of these. Edges are the runs of voxels
between them. What a node or an edge is, is decided by the voxels around it, and names are places
in the volume, so that a volume gives the same graph in tiles as in one: what lies within a tile
is finished there, the rest (`Seam`) by `vasculome.vessels.graph_join`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasculome.geometry import Box
from vasculome.vessels.graph_measure import (
    Edges,
    Nodes,
    Space,
    Ways,
    join_nodes,
    measure_edges,
    ring_nodes,
)
from vasculome.vessels.graph_voxels import (
    HALO_VOXELS,
    KNOT,
    OUTSIDE,
    RUN,
    Runs,
    Voxels,
    clusters_of,
    links_of,
    runs_of,
    sort_voxels,
)

__all__ = ["HALO_VOXELS", "Edges", "Nodes", "Seam", "graph_of_tile", "whole_graph"]


@dataclass(frozen=True)
class Seam:
    """What a tile cannot finish alone: nodes and runs of voxels that go on beyond its border.

    Attributes
    ----------
    nodes
        Nodes that wait or are waited for. A branch point that goes on beyond the border is here
        as the part of it that lies in the tile.
    position_sum
        (n, ndim) int64, the sum of the positions of each node's voxels.
    ways
        Runs of voxels; their ends are rows of ``nodes``, -1 where a run goes on.
    way_link
        (w, 2, 2) int64: where a run goes on, from which voxel to which, the lower first.
    node_row, node_link
        Links by which voxels beyond the border hang on a node: (m,) rows of ``nodes``, (m, 2)
        voxels, the lower first.
    joins
        (m,) bool, whether the voxel beyond belongs to the same branch point.
    """

    nodes: Nodes
    position_sum: NDArray[np.int64]
    ways: Ways
    way_link: NDArray[np.int64]
    node_row: NDArray[np.int64]
    node_link: NDArray[np.int64]
    joins: NDArray[np.bool_]


def graph_of_tile(
    skeleton: NDArray[np.bool_],
    radius_um: NDArray[np.floating],
    *,
    core: Box,
    outer: Box,
    shape: Sequence[int],
    spacing_um: Sequence[float],
) -> tuple[Nodes, Edges, Seam]:
    """Return the nodes and edges that lie in a tile as a whole, and what goes on beyond it.

    Parameters
    ----------
    skeleton
        ([z,] y, x) bool, the skeleton in ``outer``.
    radius_um
        (n,) radius at each skeleton voxel of ``core``, in their order.
    core
        The tile. Every voxel of the volume must belong to the core of exactly one tile.
    outer
        The core with `HALO_VOXELS` more on every side, but not beyond the volume.
    shape
        Shape of the volume.
    spacing_um
        Voxel size along each axis.

    Raises
    ------
    ValueError
        ``radius_um`` has not one value a voxel.
    """
    space = Space(tuple(shape), tuple(spacing_um))
    voxels, position = _voxels(skeleton, core, outer, space)
    if len(radius_um) != len(voxels.places):
        raise ValueError(f"{len(radius_um)} radii for {len(voxels.places)} skeleton voxels")
    name = space.name(position(voxels.places))
    radius = np.asarray(radius_um, np.float32)
    runs = runs_of(voxels)
    degree, hung, place = links_of(voxels)
    nodes, sums, row = _nodes(voxels, position(voxels.places), degree, radius, space)
    links = _Links(
        way=np.sort(space.name(position(np.stack([runs.inner, runs.outer], axis=-1))), axis=-1),
        row=row[hung],
        node=np.sort(np.stack([name[hung], space.name(position(place))], axis=-1), axis=-1),
        joins=(voxels.kind[voxels.places[hung]] == KNOT) & (voxels.kind[place] == KNOT + OUTSIDE),
    )
    anchor = space.name(position(runs.outer))
    ends = _ends(voxels, runs, row)
    ways = Ways(ends, anchor, runs.start, name[runs.voxel], radius[runs.voxel])
    nodes, sums, ways = _with_rings(nodes, sums, ways, voxels.kind[runs.outer[:, 0]] == RUN, space)
    return _part(nodes, sums, ways, links, space)


def whole_graph(
    skeleton: NDArray[np.bool_], radius_um: NDArray[np.floating], *, spacing_um: Sequence[float]
) -> tuple[Nodes, Edges]:
    """Return the graph of a skeleton that is one piece; parameters as of `graph_of_tile`."""
    box = Box.of_shape(skeleton.shape)
    nodes, edges, _ = graph_of_tile(
        skeleton, radius_um, core=box, outer=box, shape=skeleton.shape, spacing_um=spacing_um
    )
    return nodes, edges


@dataclass(frozen=True)
class _Links:
    """Links across the border of a tile, see `Seam`; ``way`` of all ends, needed or not."""

    way: NDArray[np.int64]
    row: NDArray[np.int64]
    node: NDArray[np.int64]
    joins: NDArray[np.bool_]


def _voxels(
    skeleton: NDArray[np.bool_], core: Box, outer: Box, space: Space
) -> tuple[Voxels, Callable[[NDArray[np.int64]], NDArray[np.int64]]]:
    """Return the voxels of a tile, and a function from their places to positions."""
    missing = [
        (HALO_VOXELS - (a - c), HALO_VOXELS - (d - b))
        for a, b, c, d in zip(core.start, core.stop, outer.start, outer.stop, strict=True)
    ]
    padded = np.pad(skeleton.astype(bool), missing)
    start = np.array(core.start) - HALO_VOXELS
    shape = padded.shape
    if core.ndim == 2:
        padded = np.pad(padded[np.newaxis], [(HALO_VOXELS, HALO_VOXELS), (0, 0), (0, 0)])

    def position(places: NDArray[np.int64]) -> NDArray[np.int64]:
        # In 2-D the plane comes after others of the padding, which count for nothing.
        return np.stack(np.unravel_index(places % math.prod(shape), shape), axis=-1) + start

    return sort_voxels(padded, (1.0, *space.spacing_um)[-3:]), position


def _nodes(
    voxels: Voxels,
    position: NDArray[np.int64],
    degree: NDArray[np.int64],
    radius: NDArray[np.float32],
    space: Space,
) -> tuple[Nodes, NDArray[np.int64], NDArray[np.int64]]:
    """Return the nodes, the sums of their voxels' positions, and each voxel's row (-1: none)."""
    leader = clusters_of(voxels)
    of_node = np.flatnonzero(leader >= 0)
    first, row_of_node_voxel = np.unique(leader[of_node], return_inverse=True)
    row = np.full(len(leader), -1)
    row[of_node] = row_of_node_voxel

    def summed(values: NDArray[np.int64]) -> NDArray[np.int64]:
        sums = np.zeros((len(first), *values.shape[1:]), np.int64)
        np.add.at(sums, row_of_node_voxel, values[of_node])
        return sums

    sums = summed(position)
    count = summed(np.ones(len(leader), np.int64))
    widest = np.zeros(len(first), np.float32)
    np.maximum.at(widest, row_of_node_voxel, radius[of_node])
    nodes = Nodes(
        space.name(position[first]),
        mean_position_um(sums, count, space),
        widest,
        summed(voxels.course_nm),
        summed(degree),
        count,
        summed(voxels.euler_number),
    )
    return nodes, sums, row


def mean_position_um(
    position_sum: NDArray[np.int64], voxels: NDArray[np.int64], space: Space
) -> NDArray[np.float64]:
    """Return the mean positions of nodes in micrometres, from the sums over their voxels."""
    return position_sum / voxels[:, np.newaxis] * np.array(space.spacing_um)


def _ends(voxels: Voxels, runs: Runs, row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of the nodes at the ends of runs, -1 where a run goes on."""
    ends = np.full(runs.outer.shape, -1)
    inside = voxels.kind[runs.outer] < OUTSIDE
    ends[inside] = row[np.searchsorted(voxels.places, runs.outer[inside])]
    return ends


def _with_rings(
    nodes: Nodes,
    sums: NDArray[np.int64],
    ways: Ways,
    closed: NDArray[np.bool_],
    space: Space,
) -> tuple[Nodes, NDArray[np.int64], Ways]:
    """Make the first voxel of each closed run, which is its lowest, a node."""
    if not closed.any():
        return nodes, sums, ways
    at = ways.start[:-1][closed]
    rings = ring_nodes(ways.voxel[at], ways.radius_um[at], space)
    end = ways.end.copy()
    end[closed] = (len(nodes.node) + np.arange(len(at)))[:, np.newaxis]
    anchor = ways.anchor.copy()
    anchor[closed] = ways.voxel[at][:, np.newaxis]
    start = ways.start - np.concatenate([[0], np.cumsum(closed)])
    positions = np.stack(np.unravel_index(rings.node, space.shape), axis=-1)
    return (
        join_nodes([nodes, rings]),
        np.concatenate([sums, positions]),
        Ways(end, anchor, start, np.delete(ways.voxel, at), np.delete(ways.radius_um, at)),
    )


def _part(
    nodes: Nodes, sums: NDArray[np.int64], ways: Ways, links: _Links, space: Space
) -> tuple[Nodes, Edges, Seam]:
    """Split into what is finished and what is not."""
    # One row more, the last, stands for the nodes that ends have not met yet.
    complete = np.append(np.ones(len(nodes.node), bool), False)
    complete[links.row[links.joins]] = False
    finished = complete[ways.end].all(axis=1)
    open_ways = ways.take(~finished)
    on_seam = ~complete
    on_seam[links.row] = True
    on_seam[open_ways.end] = True
    row = np.cumsum(on_seam) - 1
    row[-1], on_seam = -1, on_seam[:-1]
    seam = Seam(
        nodes.take(on_seam),
        sums[on_seam],
        dataclasses.replace(open_ways, end=row[open_ways.end]),
        links.way[~finished],
        row[links.row],
        links.node,
        links.joins,
    )
    return nodes.take(complete[:-1]), measure_edges(nodes, ways.take(finished), space), seam
