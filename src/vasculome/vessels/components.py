"""Connected components of a volume that is seen one tile at a time.

Each tile is labelled alone. What lies within it as a whole is decided there; of the components
that touch its faces, and of no others, it tells the size, whether there is a strong voxel, and
where on the faces they lie. Neighbouring faces say which components are one. Voxels are
neighbours across faces, edges and corners (26 in 3-D, 8 in 2-D), also between tiles that share an
edge or a corner only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vasculome.geometry import TileGrid
from vasculome.vessels.enhance import STRONG

Index = tuple[int, ...]


@dataclass(frozen=True)
class Objects:
    """Components by their labels; entry 0 is the background.

    Attributes
    ----------
    sizes
        (labels + 1,) int64 voxels of each; 0 for the background.
    has_strong
        (labels + 1,) bool, whether it holds a strong voxel.
    """

    sizes: NDArray[np.int64]
    has_strong: NDArray[np.bool_]

    def take(self, labels: NDArray[np.bool_]) -> Objects:
        """Return those marked, after the background, which always is there."""
        rows = np.concatenate([[0], 1 + np.flatnonzero(labels[1:])])
        return Objects(self.sizes[rows], self.has_strong[rows])

    def wanted(self, *, min_voxels: int = 1, need_strong: bool = False) -> NDArray[np.bool_]:
        """Return which are kept, see `keep`."""
        wanted = self.sizes >= min_voxels
        if need_strong:
            wanted &= self.has_strong
        wanted[0] = False
        return wanted


@dataclass(frozen=True)
class TileSummary:
    """What a tile must tell of its components: of those that touch its faces, from 1.

    Attributes
    ----------
    index
        Index of the tile in its grid.
    objects
        The components on its faces, as far as they lie in the tile.
    faces
        For each axis their labels on the tile's first and on its last plane along it, uint32.
    """

    index: Index
    objects: Objects
    faces: tuple[tuple[NDArray[np.uint32], NDArray[np.uint32]], ...]

    def border(self, step: Index) -> NDArray[np.uint32]:
        """Return the labels of the voxels that touch the neighbour at ``step``."""
        axis = next(i for i, s in enumerate(step) if s)
        face = self.faces[axis][step[axis] > 0]
        ends = {0: slice(None), 1: slice(-1, None), -1: slice(0, 1)}
        return face[tuple(ends[s] for i, s in enumerate(step) if i != axis)]


@dataclass(frozen=True)
class ComponentTable:
    """The components of the whole volume that touch a face of a tile.

    Attributes
    ----------
    tile_labels
        For each tile, (labels + 1,) int64: the component that each label on its faces belongs to.
        Components count from 1, in the order of the tiles' indices; 0 is the background.
    objects
        The components.
    """

    tile_labels: dict[Index, NDArray[np.int64]]
    objects: Objects


def label_block(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Label the components of a mask from 1, with 8 neighbours in 2-D and 26 in 3-D."""
    labels, _ = label(mask, np.ones((3,) * mask.ndim, bool))
    return labels.astype(np.uint32)


def measure(
    labels: NDArray[np.uint32], classes: NDArray[np.uint8] | None = None
) -> tuple[Objects, NDArray[np.bool_]]:
    """Measure the components of a tile, and return which of them touch its faces.

    Parameters
    ----------
    labels
        Labels of the tile's core, without a halo (see `label_block`).
    classes
        Hysteresis classes of the same voxels (see `vasculome.vessels.enhance`); without them
        no component is strong.

    Returns
    -------
    objects
        The components.
    on_face
        (labels + 1,) bool.
    """
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    has_strong, on_face = np.zeros((2, len(sizes)), bool)
    if classes is not None:
        has_strong[labels[classes == STRONG]] = True
    for axis in range(labels.ndim):
        on_face[labels.take([0, -1], axis)] = True
    has_strong[0] = on_face[0] = False
    return Objects(sizes.astype(np.int64), has_strong), on_face


def summarize(
    labels: NDArray[np.uint32], objects: Objects, on_face: NDArray[np.bool_], *, index: Index
) -> TileSummary:
    """Return what the other tiles must know of this one.

    Parameters
    ----------
    labels
        Labels of the tile's core.
    objects, on_face
        What `measure` tells of them.
    index
        Index of the tile in its grid.
    """
    number = np.where(on_face, np.cumsum(on_face), 0).astype(np.uint32)
    faces = tuple(
        (number[labels.take(0, axis)], number[labels.take(-1, axis)]) for axis in range(labels.ndim)
    )
    return TileSummary(index, objects.take(on_face), faces)


def join(summaries: Iterable[TileSummary], grid: TileGrid) -> ComponentTable:
    """Join the components on the faces of all tiles into those of the whole volume.

    Faces are held for two layers of tiles only; beside them memory grows with the components
    that cross a face, not with all.

    Parameters
    ----------
    summaries
        One for each tile of ``grid``, in its order; may be a generator.
    grid
        The tiles.

    Raises
    ------
    ValueError
        If the summaries are not those of the tiles, in their order.
    """
    back = [s for s in itertools.product((-1, 0, 1), repeat=grid.domain.ndim) if s < (0,) * len(s)]
    # Label k >= 1 of a tile is node first + k - 1 of one graph over all tiles.
    first: dict[Index, int] = {}
    near: dict[Index, TileSummary] = {}
    parts: list[Objects] = []
    edges = [np.empty((0, 2), np.int64)]
    nodes = 0
    for tile, summary in itertools.zip_longest(grid, summaries):
        if tile is None or summary is None or tile.index != summary.index:
            raise ValueError("the summaries are not those of the grid's tiles in their order")
        first[tile.index] = nodes
        nodes += len(summary.objects.sizes) - 1
        near = {i: other for i, other in near.items() if i[0] >= tile.index[0] - 1}
        near[tile.index] = summary
        parts.append(summary.objects)
        for step in back:
            index = tuple(i + s for i, s in zip(tile.index, step, strict=True))
            if index in near:
                ahead = tuple(-s for s in step)
                pairs = _touching(near[index].border(ahead), summary.border(step))
                edges.append(pairs + np.array([first[index] - 1, first[tile.index] - 1]))
    node_of = np.concatenate(edges)
    graph = coo_array((np.ones(len(node_of), bool), node_of.T), shape=(nodes, nodes))
    total, component = connected_components(graph, directed=False)
    component = np.concatenate([[0], component.astype(np.int64) + 1])

    joined = Objects(np.zeros(total + 1, np.int64), np.zeros(total + 1, bool))
    tile_labels = {}
    for (index, start), part in zip(first.items(), parts, strict=True):
        components = np.concatenate([[0], component[start + 1 : start + len(part.sizes)]])
        np.add.at(joined.sizes, components, part.sizes)
        joined.has_strong[components[part.has_strong]] = True
        tile_labels[index] = components
    return ComponentTable(tile_labels, joined)


def keep(
    table: ComponentTable, *, min_voxels: int = 1, need_strong: bool = False
) -> dict[Index, NDArray[np.bool_]]:
    """Return, for each tile, which labels on its faces belong to a component that is kept.

    Parameters
    ----------
    table
        The joined components.
    min_voxels
        Least size of a component in the whole volume.
    need_strong
        Keep components that hold a strong voxel only (hysteresis thresholding).

    Returns
    -------
    dict
        For each tile index (labels + 1,) bool, for `keep_in_tile`.
    """
    kept = table.objects.wanted(min_voxels=min_voxels, need_strong=need_strong)
    return {index: kept[labels] for index, labels in table.tile_labels.items()}


def keep_in_tile(
    objects: Objects,
    on_face: NDArray[np.bool_],
    kept_on_face: NDArray[np.bool_],
    *,
    min_voxels: int = 1,
    need_strong: bool = False,
) -> NDArray[np.bool_]:
    """Return which components of a tile are kept; ``lookup[labels]`` is its mask.

    Parameters
    ----------
    objects, on_face
        What `measure` tells of the tile.
    kept_on_face
        What `keep` tells of those on its faces.
    min_voxels, need_strong
        As of `keep`.
    """
    kept = objects.wanted(min_voxels=min_voxels, need_strong=need_strong)
    kept[on_face] = kept_on_face[1:]
    return kept


def _touching(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the (n, 2) pairs of labels that touch across two facing borders."""
    pairs = []
    for shift in itertools.product((-1, 0, 1), repeat=a.ndim):
        of_a = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, a.shape, strict=True))
        of_b = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(shift, a.shape, strict=True))
        here, there = a[of_a].ravel(), b[of_b].ravel()
        both = (here > 0) & (there > 0)
        pairs.append(np.stack([here[both], there[both]], axis=1))
    return np.unique(np.concatenate(pairs).astype(np.int64), axis=0)
