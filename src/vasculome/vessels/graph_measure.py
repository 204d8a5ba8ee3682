"""Nodes and edges of a vessel graph as tables, and what is measured along an edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

Rows = NDArray[np.int64] | NDArray[np.bool_]


@dataclass(frozen=True)
class Space:
    """The volume that a graph lies in; voxels are named by their place in it, in C order."""

    shape: tuple[int, ...]
    spacing_um: tuple[float, ...]

    def name(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the names of voxels at (..., ndim) positions."""
        flat = np.ravel_multi_index(tuple(np.moveaxis(position, -1, 0)), self.shape)
        return np.asarray(flat, np.int64)

    def position_um(self, name: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (n, ndim) positions of voxels in micrometres from the centre of voxel 0."""
        return np.stack(np.unravel_index(name, self.shape), axis=-1) * np.array(self.spacing_um)


@dataclass(frozen=True)
class Nodes:
    """Nodes of a vessel graph.

    Attributes
    ----------
    node
        (n,) int64, its name: the first of its voxels, counted through the volume.
    position_um
        (n, ndim) float64, mean of its voxels.
    radius_um
        (n,) float32, largest radius at its voxels.
    course_nm
        (n,) int64, length of its own course in nanometres: that of the steps between its voxels,
        but for diagonals whose ends a third voxel of it joins. 0 for a single voxel.
    degree
        (n,) int64, edges that start here, those that end here too counted twice: 1 for the end
        of a vessel, 3 and more for a branch point; 2 for the node of a ring without branches,
        and for a thick place of a skeleton; 0 for what has no edges.
    voxels
        (n,) int64, how many it is made of.
    euler_number
        (n,) int64, Euler characteristic of its voxels, 1 nearly always; 1 less for each loop
        that is too small to have edges. Their sum less the edges is that of the skeleton.
    """

    node: NDArray[np.int64]
    position_um: NDArray[np.float64]
    radius_um: NDArray[np.float32]
    course_nm: NDArray[np.int64]
    degree: NDArray[np.int64]
    voxels: NDArray[np.int64]
    euler_number: NDArray[np.int64]

    def take(self, rows: Rows) -> Nodes:
        """Return some of the nodes."""
        return Nodes(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Ways:
    """Runs of skeleton voxels, and the nodes at their ends.

    Attributes
    ----------
    end
        (w, 2) int64, rows of a table of nodes at the first and at the last voxel.
    anchor
        (w, 2) int64 names of the voxels beyond its ends: where it hangs on a node, the voxel of
        the node that it touches.
    start
        (w + 1,) int64, where each way starts in ``voxel``; a way may have no voxel.
    voxel
        (p,) int64 names of voxels.
    radius_um
        (p,) float32.
    """

    end: NDArray[np.int64]
    anchor: NDArray[np.int64]
    start: NDArray[np.int64]
    voxel: NDArray[np.int64]
    radius_um: NDArray[np.float32]

    def take(self, rows: Rows, backwards: NDArray[np.bool_] | None = None) -> Ways:
        """Return some of the ways, those that are marked (one mark a way kept) turned round."""
        first, stop = self.start[:-1][rows], self.start[1:][rows]
        turned = np.zeros(len(first), bool) if backwards is None else backwards
        start = np.concatenate([[0], np.cumsum(stop - first)])
        way = np.repeat(np.arange(len(first)), stop - first)
        along = np.arange(start[-1]) - start[way]
        index = np.where(turned[way], stop[way] - 1 - along, first[way] + along)
        end, anchor = (
            np.where(turned[:, np.newaxis], pair[rows][:, ::-1], pair[rows])
            for pair in (self.end, self.anchor)
        )
        return Ways(end, anchor, start, self.voxel[index], self.radius_um[index])


@dataclass(frozen=True)
class Edges:
    """Edges of a vessel graph.

    Attributes
    ----------
    edge
        (e,) int64, its name: the first voxel between its nodes, counted through the volume;
        where there is none, the end that it leads to.
    nodes
        (e, 2) int64 names of the nodes at its ends, the lower first.
    length_um
        (e,) float32 along its path, from the voxel of one node to that of the other; what lies
        within nodes is theirs. Voxels are first moved to the mean of themselves and their
        neighbours on the path, on both sides as many as a voxel's longest side has of its
        shortest (fewer near the ends): staircases are longer than vessels.
    radius_um
        (e,) float32, mean radius at the voxels between its nodes, or else of its nodes.
    tortuosity
        (e,) float32, length over the distance of its path's ends; NaN where it returns to the
        node where it starts.
    path_start
        (e + 1,) int64, where each path starts in ``path_um``.
    path_um, path_radius_um
        (p, ndim) float64 and (p,) float32 of each edge: the voxel of the first node that it
        hangs on, with the radius of the node, its own voxels, and that of the second node.
    """

    edge: NDArray[np.int64]
    nodes: NDArray[np.int64]
    length_um: NDArray[np.float32]
    radius_um: NDArray[np.float32]
    tortuosity: NDArray[np.float32]
    path_start: NDArray[np.int64]
    path_um: NDArray[np.float64]
    path_radius_um: NDArray[np.float32]


def measure_edges(nodes: Nodes, ways: Ways, space: Space) -> Edges:
    """Measure ways between nodes; both directions of a way give the same edge.

    Parameters
    ----------
    nodes
        The nodes that ``ways.end`` tells of.
    ways
        With a node at every end.
    space
        The volume.
    """
    ways, name = _canonical(nodes, ways)
    ends = space.position_um(ways.anchor)
    count = len(name)
    path_start = ways.start + 2 * np.arange(count + 1)
    first, last = path_start[:-1], path_start[1:] - 1
    inner = np.ones(path_start[-1], bool)
    inner[first] = inner[last] = False
    path_um = np.empty((len(inner), len(space.shape)))
    path_um[inner] = space.position_um(ways.voxel)
    path_um[first], path_um[last] = ends[:, 0], ends[:, 1]
    radius = np.empty(len(inner), np.float32)
    radius[inner] = ways.radius_um
    radius[first], radius[last] = nodes.radius_um[ways.end].T
    reach = round(max(space.spacing_um) / min(space.spacing_um))
    length, mean_radius = _along(path_start, path_um, radius, reach)
    apart = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    returns = ways.end[:, 0] == ways.end[:, 1]
    tortuosity = np.divide(length, apart, out=np.full(count, np.nan), where=~returns & (apart > 0))
    return Edges(
        name,
        nodes.node[ways.end],
        length.astype(np.float32),
        mean_radius.astype(np.float32),
        tortuosity.astype(np.float32),
        path_start,
        path_um,
        radius,
    )


def _canonical(nodes: Nodes, ways: Ways) -> tuple[Ways, NDArray[np.int64]]:
    """Return the ways in the order of their names, from the lower node to the higher."""
    source, target = nodes.node[ways.end].T
    first, stop = ways.start[:-1], ways.start[1:]
    empty = first == stop
    # Of a way that returns to its node the lower end voxel comes first; where it has but one,
    # the lower anchor.
    ring = (source == target) & ~empty
    backwards = source > target
    one, other = ways.voxel[first[ring]], ways.voxel[stop[ring] - 1]
    backwards[ring] = np.where(one == other, np.greater(*ways.anchor[ring].T), one > other)
    name = np.empty(len(source), np.int64)
    if (~empty).any():
        name[~empty] = np.minimum.reduceat(ways.voxel, first[~empty])
    is_end = (nodes.degree == 1) & (nodes.voxels == 1)
    of_ends = np.where(is_end[ways.end], nodes.node[ways.end], np.iinfo(np.int64).max)
    name[empty] = of_ends[empty].min(axis=1, initial=np.iinfo(np.int64).max)
    order = np.argsort(name, kind="stable")
    return ways.take(order, backwards[order]), name[order]


@njit(cache=True)
def _along(start, path, radius, reach):
    """Return length of each smoothed path, and mean radius between its ends."""
    edges = len(start) - 1
    length, mean = np.zeros(edges), np.zeros(edges)
    axes = path.shape[1]
    before, here = np.empty(axes), np.empty(axes)
    for e in range(edges):
        first, last = start[e], start[e + 1] - 1
        before[:] = path[first]
        total = 0.0
        for i in range(first + 1, last + 1):
            near = min(reach, i - first, last - i)
            square = 0.0
            for axis in range(axes):
                around = 0.0
                for j in range(i - near, i + near + 1):
                    around += path[j, axis]
                here[axis] = around / (2 * near + 1)
                square += (here[axis] - before[axis]) ** 2
            length[e] += math.sqrt(square)
            before[:] = here
            if i < last:
                total += radius[i]
        if last - first > 1:
            mean[e] = total / (last - first - 1)
        else:
            mean[e] = 0.5 * (radius[first] + radius[last])
    return length, mean


def ring_nodes(voxel: NDArray[np.int64], radius_um: NDArray[np.float32], space: Space) -> Nodes:
    """Return the nodes of rings without branches: one voxel of each, its lowest."""
    ones = np.ones(len(voxel), np.int64)
    position_um = space.position_um(voxel)
    return Nodes(voxel, position_um, radius_um, 0 * ones, 2 * ones, ones, ones)


def join_nodes(parts: Sequence[Nodes]) -> Nodes:
    """Return all nodes of ``parts``, one after another; there must be one part at least."""
    return Nodes(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Nodes))
    )
