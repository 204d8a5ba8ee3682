"""What is measured along a skeleton: where it runs, how long it is, how wide the vessel is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, generate_binary_structure
from scipy.spatial import KDTree

LENGTH_HALO_VOXELS = 2
"""How many voxels beyond a tile `length_per_voxel_um` depends on, along each axis."""

_OFFSETS = np.array([o for o in itertools.product((-1, 0, 1), repeat=3) if any(o)])


def skeleton_points(
    skeleton: NDArray[np.bool_], *, origin: Sequence[int] | None = None
) -> NDArray[np.int64]:
    """Return the (points, ndim) positions of a tile's skeleton voxels in the volume.

    ``origin`` is the position of the tile's first voxel.
    """
    return np.argwhere(skeleton) + np.array(origin or (0,) * skeleton.ndim, np.int64)


def radius_um(
    mask: NDArray[np.bool_],
    points: NDArray[np.int64],
    *,
    spacing_um: Sequence[float],
    maximum_um: float,
) -> NDArray[np.float32]:
    """Return the radius of the vessel at points inside it.

    The distance to the centre of the nearest background voxel (the Euclidean distance transform,
    here at the points only, which spares a dense transform). The vessel's wall lies about half a
    voxel nearer, and a skeleton voxel about as far off the axis, which cancels in part: for
    cylinders of 1, 2, 3 and 5 voxels the mean error is 0.0, -0.3, -0.3 and -0.4 voxels. What
    lies beyond the array is no background.

    Parameters
    ----------
    mask
        ([z,] y, x) bool. A tile needs ``ceil(maximum_um / spacing_um)`` voxels of halo.
    points
        (points, ndim) positions in the array, all in the foreground.
    spacing_um
        Voxel size along each axis.
    maximum_um
        Greater radii, and those of vessels without a wall in sight, are cut to this one.

    Returns
    -------
    ndarray
        (points,) float32.
    """
    # The background voxel nearest to a foreground voxel has a foreground voxel at one face,
    # since the step from it towards the latter would come nearer.
    faces = generate_binary_structure(mask.ndim, 1)
    walls = np.argwhere(binary_dilation(mask, faces) & ~mask)
    if not len(walls) or not len(points):
        return np.full(len(points), maximum_um, np.float32)
    spacing = np.asarray(spacing_um, float)
    _, nearest = KDTree(walls * spacing).query(points * spacing)
    # From whole voxels, so that rounding does not depend on where the array starts.
    distance = np.linalg.norm((walls[nearest] - points) * spacing, axis=1)
    return np.minimum(distance, maximum_um).astype(np.float32)


def length_per_voxel_um(
    skeleton: NDArray[np.bool_], *, spacing_um: Sequence[float]
) -> NDArray[np.float32]:
    """Return the length of vessel that each skeleton voxel stands for.

    Every pair of neighbouring skeleton voxels (8 in 2-D, 26 in 3-D) is an edge, and half its
    length goes to each. A diagonal edge is left out where a third skeleton voxel joins its ends
    in steps along fewer axes, so that corners do not count twice. Each voxel with two or more
    edges is first moved to the mean of itself and its neighbours: the plain staircase is on
    average 13 % longer than the straight vessel that it stands for (thinned cylinders of random
    direction), the smoothed one 4 %, never more than 8 %. The sum over a volume is the length of
    its vessels. A tile needs `LENGTH_HALO_VOXELS` of halo.

    Parameters
    ----------
    skeleton
        (z, y, x) or (y, x) bool.
    spacing_um
        Voxel size along each axis.

    Returns
    -------
    ndarray
        float32, micrometres, 0 off the skeleton and at lone voxels.
    """
    volume = skeleton[np.newaxis] if skeleton.ndim == 2 else skeleton
    spacing = np.array((1.0, *spacing_um)[-3:])
    padded = np.pad(volume.astype(bool), 1)
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    between = steps_between(_OFFSETS, strides)
    voxels = np.flatnonzero(padded)
    flat = padded.ravel()
    lengths = np.zeros(padded.size, np.float32)
    lengths[voxels] = _half_edges(flat, voxels, _OFFSETS @ strides, between, _OFFSETS * spacing)
    inner = lengths.reshape(padded.shape)[1:-1, 1:-1, 1:-1]
    return np.ascontiguousarray(inner[0] if skeleton.ndim == 2 else inner)


def steps_between(offsets: NDArray[np.int64], strides: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the flat steps to the voxels that join the ends of a diagonal along fewer axes.

    Parameters
    ----------
    offsets
        (n, 3) from a voxel to its neighbours.
    strides
        (3,) flat steps along the axes.

    Returns
    -------
    ndarray
        (n, 6) int64: at most 6 steps for each offset, the rest filled with 0, which is none.
    """
    between = np.zeros((len(offsets), 6), np.int64)
    for row, offset in zip(between, offsets.tolist(), strict=True):
        middles = [m for m in itertools.product(*({0, o} for o in offset)) if m != tuple(offset)]
        found = [int(np.dot(m, strides)) for m in middles if any(m)]
        row[: len(found)] = found
    return between


@njit(cache=True)
def _half_edges(skeleton, voxels, steps, between, vectors):
    # Loops over axes, since array expressions take Numba ten times as long to compile.
    is_edge = np.zeros((len(voxels), len(steps)), np.bool_)
    shifts = np.zeros((len(voxels), 3))
    for i in range(len(voxels)):
        edges = 0
        for k in range(len(steps)):
            if not skeleton[voxels[i] + steps[k]]:
                continue
            direct = True
            for middle in between[k]:
                if middle != 0 and skeleton[voxels[i] + middle]:
                    direct = False
            if direct:
                is_edge[i, k] = True
                edges += 1
                for axis in range(3):
                    shifts[i, axis] += vectors[k, axis]
        for axis in range(3):
            # Ends stay, or every vessel would shrink.
            shifts[i, axis] *= 1.0 / (edges + 1) if edges > 1 else 0.0
    lengths = np.zeros(len(voxels))
    for i in range(len(voxels)):
        for k in range(len(steps)):
            if is_edge[i, k]:
                j = np.searchsorted(voxels, voxels[i] + steps[k])
                square = 0.0
                for axis in range(3):
                    square += (vectors[k, axis] + shifts[j, axis] - shifts[i, axis]) ** 2
                lengths[i] += 0.5 * math.sqrt(square)
    return lengths
