"""Maps of vessel density: fine voxels reduced to coarse ones.

A coarse voxel at the end of an axis may hold fewer fine voxels; densities divide by the volume
that it really has. A tile gives the maps of the whole volume if its core starts and ends at
multiples of ``factor`` (or at the volume's end).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def block_sum(values: NDArray[np.generic], *, factor: Sequence[int]) -> NDArray[np.float64]:
    """Return the sum over each block of ``factor`` voxels, float64."""
    if len(factor) != values.ndim or min(factor) < 1:
        raise ValueError(f"factor {tuple(factor)} does not fit an array of {values.ndim} axes")
    sums = values
    for axis, step in enumerate(factor):
        starts = np.arange(0, values.shape[axis], step)
        sums = np.add.reduceat(sums, starts, axis=axis, dtype=np.float64)
    return np.asarray(sums, np.float64)


def block_voxels(shape: Sequence[int], *, factor: Sequence[int]) -> NDArray[np.int64]:
    """Return how many fine voxels each block holds."""
    counts = np.ones((1,) * len(shape), np.int64)
    for axis, (length, step) in enumerate(zip(shape, factor, strict=True)):
        starts = np.arange(0, length, step)
        held = np.minimum(length - starts, step)
        counts = counts * held.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return counts


def volume_fraction(mask: NDArray[np.bool_], *, factor: Sequence[int]) -> NDArray[np.float32]:
    """Return the fraction of each coarse voxel that is vessel.

    Parameters
    ----------
    mask
        ([z,] y, x) bool.
    factor
        Fine voxels per coarse voxel along each axis.

    Returns
    -------
    ndarray
        float32 in [0, 1], of shape ``ceil(mask.shape / factor)``.
    """
    fraction = block_sum(mask, factor=factor) / block_voxels(mask.shape, factor=factor)
    return fraction.astype(np.float32)


def length_density_mm_per_mm3(
    points: NDArray[np.int64],
    length_um: NDArray[np.floating],
    *,
    shape: Sequence[int],
    factor: Sequence[int],
    spacing_um: Sequence[float],
) -> NDArray[np.float32]:
    """Return the length of vessel per volume (in 2-D per area: mm/mm²).

    Parameters
    ----------
    points
        (points, ndim) positions of skeleton voxels in an array of ``shape``.
    length_um
        (points,) length that each stands for (see
        `vasculome.vessels.centerline.length_per_voxel_um`).
    shape
        Shape of the fine array.
    factor
        Fine voxels per coarse voxel along each axis.
    spacing_um
        Size of a fine voxel along each axis.

    Returns
    -------
    ndarray
        float32, of shape ``ceil(shape / factor)``.
    """
    length = _sum_by_block(points, length_um, shape=shape, factor=factor)
    volume = block_voxels(shape, factor=factor) * math.prod(spacing_um)
    unit = 1e3 ** (len(shape) - 1)
    return (length / volume * unit).astype(np.float32)


def mean_radius_um(
    points: NDArray[np.int64],
    radius_um: NDArray[np.floating],
    length_um: NDArray[np.floating],
    *,
    shape: Sequence[int],
    factor: Sequence[int],
) -> NDArray[np.float32]:
    """Return the mean radius of the vessels in each coarse voxel, weighted by their length.

    Parameters
    ----------
    points
        (points, ndim) positions of skeleton voxels in an array of ``shape``.
    radius_um, length_um
        (points,) radius, and length that the voxel stands for, at each.
    shape
        Shape of the fine array.
    factor
        Fine voxels per coarse voxel along each axis.

    Returns
    -------
    ndarray
        float32, of shape ``ceil(shape / factor)``; NaN where no vessel runs.
    """
    weighted = _sum_by_block(points, radius_um * length_um, shape=shape, factor=factor)
    length = _sum_by_block(points, length_um, shape=shape, factor=factor)
    mean = np.divide(weighted, length, out=np.full(length.shape, np.nan), where=length > 0)
    return mean.astype(np.float32)


def _sum_by_block(
    points: NDArray[np.int64],
    values: NDArray[np.floating],
    *,
    shape: Sequence[int],
    factor: Sequence[int],
) -> NDArray[np.float64]:
    coarse = tuple(math.ceil(n / f) for n, f in zip(shape, factor, strict=True))
    block = np.ravel_multi_index(tuple((points // np.asarray(factor)).T), coarse)
    sums = np.bincount(block, weights=values, minlength=math.prod(coarse))
    return sums.reshape(coarse)
