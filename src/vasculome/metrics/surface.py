"""How far the walls of a vessel mask lie from those of its reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree


def hausdorff95(
    mask: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    *,
    spacing: Sequence[float] | None = None,
) -> float:
    """Return the 95th percentile of the distances between surfaces, the larger of both ways.

    As ``monai.metrics.compute_hausdorff_distance`` with ``percentile=95``: the surface is the
    foreground that erosion by faces takes away, at the border of the array too, and percentiles
    are interpolated.

    Parameters
    ----------
    mask, reference
        2-D or 3-D bool, of one shape.
    spacing
        Size of a voxel along each axis; without it the distance is in voxels.

    Returns
    -------
    float
        In the unit of ``spacing``; 0 where both are empty. Where one of two is empty MONAI's is
        infinite, and no mean over volumes could be told: here it is the diagonal of the array,
        the farthest that two voxels can lie apart.

    Raises
    ------
    ValueError
        Shapes differ, or ``spacing`` does not fit them.
    """
    if mask.shape != reference.shape:
        raise ValueError(f"shapes differ: {mask.shape} and {reference.shape}")
    size = np.ones(mask.ndim) if spacing is None else np.asarray(spacing, float)
    if size.shape != (mask.ndim,):
        raise ValueError(f"spacing {spacing} does not fit an array of {mask.ndim} axes")
    walls = [_surface(np.asarray(one, bool)) * size for one in (mask, reference)]
    if not all(map(len, walls)):
        diagonal = float(np.linalg.norm((np.array(mask.shape) - 1) * size))
        return diagonal if any(map(len, walls)) else 0.0
    there, back = (KDTree(b).query(a)[0] for a, b in (walls, walls[::-1]))
    return float(max(np.quantile(there, 0.95), np.quantile(back, 0.95)))


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.argwhere(mask & ~binary_erosion(mask))
