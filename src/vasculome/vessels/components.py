"""Connected components of a volume that is seen one tile at a time.

Each tile is labelled alone; what it tells the others is small: the size of each of its
components, whether it holds a strong voxel, and the labels on its faces. Neighbouring faces
say which components are one. Voxels are neighbours across faces, edges and corners (26 in 3-D,
8 in 2-D), also between tiles that share an edge or a corner only.
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
class TileSummary:
    """What a tile must tell of its components.

    Attributes
    ----------
    index
        Index of the tile in its grid.
    sizes
        (labels + 1,) int64 voxels of each component; entry 0, the background, is 0.
    has_strong
        (labels + 1,) bool, whether the component holds a strong voxel.
    faces
        For each axis the labels on the tile's first and on its last plane along it, uint32.
    """

    index: Index
    sizes: NDArray[np.int64]
    has_strong: NDArray[np.bool_]
    faces: tuple[tuple[NDArray[np.uint32], NDArray[np.uint32]], ...]

    def border(self, step: Index) -> NDArray[np.uint32]:
        """Return the labels of the voxels that touch the neighbour at ``step``."""
        axis = next(i for i, s in enumerate(step) if s)
        face = self.faces[axis][step[axis] > 0]
        ends = {0: slice(None), 1: slice(-1, None), -1: slice(0, 1)}
        return face[tuple(ends[s] for i, s in enumerate(step) if i != axis)]


@dataclass(frozen=True)
class ComponentTable:
    """The components of the whole volume.

    Attributes
    ----------
    tile_labels
        For each tile, (labels + 1,) int64: the component that each of its labels belongs to.
        Components count from 1, in the order of the tiles' indices; 0 is the background.
    sizes
        (components + 1,) int64, voxels of each.
    has_strong
        (components + 1,) bool.
    """

    tile_labels: dict[Index, NDArray[np.int64]]
    sizes: NDArray[np.int64]
    has_strong: NDArray[np.bool_]


def label_block(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Label the components of a mask from 1, with 8 neighbours in 2-D and 26 in 3-D."""
    labels, _ = label(mask, np.ones((3,) * mask.ndim, bool))
    return labels.astype(np.uint32)


def summarize(
    labels: NDArray[np.uint32], classes: NDArray[np.uint8] | None = None, *, index: Index
) -> TileSummary:
    """Return what the other tiles must know of this one.

    Parameters
    ----------
    labels
        Labels of the tile's core, without a halo (see `label_block`).
    classes
        Hysteresis classes of the same voxels (see `vasculome.vessels.enhance`); without them
        no component is strong.
    index
        Index of the tile in its grid.
    """
    flat = labels.ravel()
    sizes = np.bincount(flat)
    sizes[0] = 0
    has_strong = np.zeros(len(sizes), bool)
    if classes is not None:
        has_strong[labels[classes == STRONG]] = True
        has_strong[0] = False
    faces = tuple(
        (labels.take(0, axis).copy(), labels.take(-1, axis).copy()) for axis in range(labels.ndim)
    )
    return TileSummary(index, sizes.astype(np.int64), has_strong, faces)


def join(summaries: Iterable[TileSummary], grid: TileGrid) -> ComponentTable:
    """Join the components of all tiles into those of the whole volume.

    Faces are held for two layers of tiles only: memory grows with the plane, not the volume.

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
    tile_sizes, tile_strong = [], []
    edges = [np.empty((0, 2), np.int64)]
    nodes = 0
    for tile, summary in itertools.zip_longest(grid, summaries):
        if tile is None or summary is None or tile.index != summary.index:
            raise ValueError("the summaries are not those of the grid's tiles in their order")
        first[tile.index] = nodes
        nodes += len(summary.sizes) - 1
        near = {i: other for i, other in near.items() if i[0] >= tile.index[0] - 1}
        near[tile.index] = summary
        tile_sizes.append(summary.sizes)
        tile_strong.append(summary.has_strong)
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

    sizes = np.zeros(total + 1, np.int64)
    has_strong = np.zeros(total + 1, bool)
    tile_labels = {}
    for (index, start), voxels, strong in zip(first.items(), tile_sizes, tile_strong, strict=True):
        components = np.concatenate([[0], component[start + 1 : start + len(voxels)]])
        np.add.at(sizes, components, voxels)
        has_strong[components[strong]] = True
        tile_labels[index] = components
    return ComponentTable(tile_labels, sizes, has_strong)


def keep(
    table: ComponentTable, *, min_voxels: int = 1, need_strong: bool = False
) -> dict[Index, NDArray[np.bool_]]:
    """Return, for each tile, which of its labels belong to a component that is kept.

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
        For each tile index (labels + 1,) bool; ``lookup[labels]`` is the tile's mask.
    """
    kept = table.sizes >= min_voxels
    if need_strong:
        kept &= table.has_strong
    kept[0] = False
    return {index: kept[labels] for index, labels in table.tile_labels.items()}


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
