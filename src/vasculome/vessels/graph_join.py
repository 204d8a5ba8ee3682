"""What tiles could not finish of a vessel graph, joined tile by tile.

Tiles come one after another. Every link across a border is told by both of its tiles: the first
to come leaves it waiting, the second finds it. A node is finished when no voxel of it is missing,
an edge when both its ends are at finished nodes; it then is handed out and forgotten, so that
only what touches tiles that are still to come is held. What comes out does not depend on where
the borders are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vasculome.vessels.graph import Seam, mean_position_um
from vasculome.vessels.graph_measure import (
    Edges,
    Nodes,
    Space,
    Ways,
    join_nodes,
    measure_edges,
    ring_nodes,
)

_VOXEL = np.dtype([("name", np.int64), ("radius_um", np.float32)])
_Voxels = NDArray[np.void]


@dataclass(eq=False)
class _Node:
    """A node, or the parts of one that have come so far."""

    name: int
    position_sum: list[int]
    radius_um: float
    course_nm: int
    degree: int
    voxels: int
    euler_number: int
    # Of the links to further parts; a node that had none was finished in its tile.
    missing: int
    became: _Node | None = None
    edges: list[_Way] = field(default_factory=list)

    def root(self) -> _Node:
        """Return the node that this part of one belongs to by now."""
        node = self
        while node.became is not None:
            node = node.became
        return node


@dataclass(eq=False)
class _Way:
    """A run of voxels; its ends hang on nodes, or go on."""

    voxels: _Voxels
    ends: list[_End] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether both ends hang on nodes."""
        return all(end.node for end in self.ends)

    def nodes(self) -> list[_Node]:
        """Return the nodes that the ends hang on."""
        return [end.node.root() for end in self.ends if end.node]


@dataclass(eq=False)
class _End:
    way: _Way
    node: _Node | None
    # The voxel beyond the way: where it hangs on a node, that of the node.
    anchor: int


class GraphJoiner:
    """Joins the seams of all tiles of a volume, in any order.

    Parameters
    ----------
    shape
        Shape of the volume.
    spacing_um
        Voxel size along each axis.
    """

    def __init__(self, *, shape: Sequence[int], spacing_um: Sequence[float]) -> None:
        self._space = Space(tuple(shape), tuple(spacing_um))
        self._waiting: dict[tuple[int, int], _End | tuple[_Node, bool]] = {}
        self._nodes: list[_Node] = []
        self._ways: list[_Way] = []
        self._rings: list[_Voxels] = []

    @property
    def held(self) -> int:
        """How many links wait for a tile that has not come."""
        return len(self._waiting)

    @property
    def finished(self) -> int:
        """How many edges `take` would return, but for rings."""
        return len(self._ways)

    def add(self, seam: Seam) -> None:
        """Join the seam of one more tile to those that came before."""
        nodes = _nodes(seam)
        ways = _ways(seam, nodes)
        for way in ways:
            if way.is_whole:
                self._hang(way)
        for way, links in zip(ways, seam.way_link.tolist(), strict=True):
            for end, link in zip(way.ends, links, strict=True):
                if end.node is None:
                    self._meet((link[0], link[1]), end)
        links = seam.node_link.tolist()
        hung = zip(seam.node_row.tolist(), links, seam.joins.tolist(), strict=True)
        for row, link, joins in hung:
            self._meet((link[0], link[1]), (nodes[row], joins))

    def take(self) -> tuple[Nodes, Edges]:
        """Return the nodes and edges that were finished since the last call, and forget them."""
        made, self._nodes = self._nodes, []
        ways, self._ways = self._ways, []
        rings, self._rings = self._rings, []
        at_ends = [node for way in ways for node in way.nodes()]
        table = list({id(node): node for node in (*made, *at_ends)}.values())
        row = {id(node): i for i, node in enumerate(table)}
        of_rings = [np.roll(ring, -int(np.argmin(ring["name"]))) for ring in rings]
        lowest = _joined([ring[:1] for ring in of_rings])
        at_rings = ring_nodes(lowest["name"].copy(), lowest["radius_um"].copy(), self._space)
        nodes = join_nodes([self._table(table), at_rings])
        end = [row[id(node)] for node in at_ends]
        end += [len(table) + i for i in range(len(rings)) for _ in range(2)]
        anchor = [tip.anchor for way in ways for tip in way.ends]
        anchor += np.repeat(lowest["name"], 2).tolist()
        paths = [way.voxels for way in ways] + [ring[1:] for ring in of_rings]
        edges = measure_edges(nodes, _packed(end, anchor, paths), self._space)
        mine = np.zeros(len(nodes.node), bool)
        mine[[row[id(node)] for node in made]] = True
        mine[len(table) :] = True
        kept = nodes.take(mine)
        return kept.take(np.argsort(kept.node)), edges

    def finish(self) -> None:
        """Raise ValueError where links still wait: a tile has not come, or is of other voxels."""
        if self._waiting:
            raise ValueError(f"{self.held} links across tiles have no other end")

    def _meet(self, link: tuple[int, int], here: _End | tuple[_Node, bool]) -> None:
        there = self._waiting.pop(link, None)
        if there is None:
            self._waiting[link] = here
        elif isinstance(here, _End):
            if isinstance(there, _End):
                self._connect(there, here)
            else:
                self._attach(here, there[0])
        elif isinstance(there, _End):
            self._attach(there, here[0])
        else:
            self._unite(there[0], here[0])

    def _attach(self, end: _End, node: _Node) -> None:
        end.node = node
        if end.way.is_whole:
            self._hang(end.way)

    def _connect(self, a: _End, b: _End) -> None:
        """Make one way of two that meet here, or a ring of one that meets itself."""
        if a.way is b.way:
            self._rings.append(a.way.voxels)
            return
        way, other = a.way, b.way
        far = [other_end for one in (a, b) for other_end in one.way.ends if other_end is not one]
        towards = way.voxels if a is way.ends[1] else way.voxels[::-1]
        onwards = other.voxels if b is other.ends[0] else other.voxels[::-1]
        way.voxels = np.concatenate([towards, onwards])
        way.ends = far
        far[1].way = way
        if way.is_whole:
            self._hang(way)

    def _unite(self, a: _Node, b: _Node) -> None:
        """Make one node of two parts, or count a link within one off."""
        a, b = a.root(), b.root()
        if a is b:
            a.missing -= 2
        else:
            if b.voxels > a.voxels:
                a, b = b, a
            b.became = a
            a.name = min(a.name, b.name)
            sums = zip(a.position_sum, b.position_sum, strict=True)
            a.position_sum = [one + other for one, other in sums]
            a.radius_um = max(a.radius_um, b.radius_um)
            a.course_nm += b.course_nm
            a.degree += b.degree
            a.voxels += b.voxels
            a.euler_number += b.euler_number
            a.missing += b.missing - 2
            a.edges += b.edges
            b.edges = []
        if not a.missing:
            self._nodes.append(a)
            # A way between parts of what has become one node waits for both of them.
            for way in {id(way): way for way in a.edges}.values():
                if not any(node.missing for node in way.nodes()):
                    self._ways.append(way)
            a.edges = []

    def _hang(self, way: _Way) -> None:
        """Wait with a way for the nodes at its ends, if they are not finished."""
        unfinished = {id(node): node for node in way.nodes() if node.missing}
        for node in unfinished.values():
            node.edges.append(way)
        if not unfinished:
            self._ways.append(way)

    def _table(self, nodes: list[_Node]) -> Nodes:
        ndim = len(self._space.shape)
        sums = np.array([node.position_sum for node in nodes], np.int64).reshape(-1, ndim)
        name, course_nm, degree, voxels, euler_number = (
            np.array([getattr(node, key) for node in nodes], np.int64)
            for key in ("name", "course_nm", "degree", "voxels", "euler_number")
        )
        radius_um = np.array([node.radius_um for node in nodes], np.float32)
        position_um = mean_position_um(sums, voxels, self._space)
        return Nodes(name, position_um, radius_um, course_nm, degree, voxels, euler_number)


def _nodes(seam: Seam) -> list[_Node]:
    table = seam.nodes
    missing = np.bincount(seam.node_row[seam.joins], minlength=len(table.node))
    columns = (
        table.node,
        seam.position_sum,
        table.radius_um,
        table.course_nm,
        table.degree,
        table.voxels,
        table.euler_number,
        missing,
    )
    return [_Node(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _ways(seam: Seam, nodes: list[_Node]) -> list[_Way]:
    voxels = np.empty(len(seam.ways.voxel), _VOXEL)
    voxels["name"], voxels["radius_um"] = seam.ways.voxel, seam.ways.radius_um
    ways = []
    runs = itertools.pairwise(seam.ways.start.tolist())
    ends = zip(seam.ways.end.tolist(), seam.ways.anchor.tolist(), strict=True)
    for (first, stop), (rows, anchors) in zip(runs, ends, strict=True):
        # Copied, or one way that waits would hold those of its whole tile.
        way = _Way(voxels[first:stop].copy())
        hung = [nodes[row] if row >= 0 else None for row in rows]
        way.ends = [_End(way, *end) for end in zip(hung, anchors, strict=True)]
        ways.append(way)
    return ways


def _packed(end: list[int], anchor: list[int], paths: list[_Voxels]) -> Ways:
    start = np.concatenate([[0], np.cumsum([len(path) for path in paths], dtype=np.int64)])
    voxels = _joined(paths)
    ends, anchors = (np.array(pairs, np.int64).reshape(-1, 2) for pairs in (end, anchor))
    return Ways(ends, anchors, start, voxels["name"].copy(), voxels["radius_um"].copy())


def _joined(parts: list[_Voxels]) -> _Voxels:
    return np.concatenate([np.empty(0, _VOXEL), *parts])
