"""Hessians by Gaussian derivatives, plane by plane, and the eigenvalues of 3×3 symmetric ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

TRUNCATE = 4.0
"""Kernels end at this many standard deviations, whatever the scale."""


def kernel_radii(scale_um: float, spacing_um: Sequence[float]) -> tuple[int, ...]:
    """Return the half-lengths of the kernels along each axis, in voxels."""
    return tuple(max(1, math.ceil(TRUNCATE * scale_um / step)) for step in spacing_um)


def derivative_kernels(sigma: float, radius: int) -> NDArray[np.float32]:
    """Return the non-negative half of the Gaussian kernel and its first two derivatives.

    Sampled, then corrected so that constants, slopes and parabolas give exactly 1, sigma and
    sigma²: coarse steps between planes (sigma below 1 voxel) bias the plain samples.

    Parameters
    ----------
    sigma
        Standard deviation, in voxels.
    radius
        Half-length, in voxels.

    Returns
    -------
    ndarray
        (3, radius + 1) float32; row d is for the derivative of order d, normalized to scale by
        the factor sigma**d (Lindeberg's gamma = 1).
    """
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    smooth = np.exp(-0.5 * (x / sigma) ** 2)
    smooth /= smooth.sum()
    slope = x * smooth
    slope /= (x * slope).sum()
    curve = (x**2 - (x**2 * smooth).sum()) * smooth
    curve /= (0.5 * x**2 * curve).sum()
    kernels = np.stack([smooth, sigma * slope, sigma**2 * curve])
    return kernels[:, radius:].astype(np.float32)


def hessian_planes(
    image: NDArray[np.float32],
    *,
    scale_um: float,
    spacing_um: Sequence[float],
    core: tuple[slice, ...],
) -> Iterator[NDArray[np.float32]]:
    """Yield the scale-normalized Hessian of each plane of the core.

    The image is mirrored beyond its edges (``scipy.ndimage`` mode "reflect").

    Parameters
    ----------
    image
        ([z,] y, x) float32.
    scale_um
        Standard deviation of the Gaussian.
    spacing_um
        Voxel size along each axis.
    core
        The part of the image that is wanted, with start and stop.

    Yields
    ------
    ndarray
        (6, y, x) float32 for each z of the core: zz, zy, zx, yy, yx, xx; of a 2-D image once,
        (3, y, x): yy, yx, xx. The array is used again for the next plane.
    """
    radii = kernel_radii(scale_um, spacing_um)
    kernels = [
        derivative_kernels(scale_um / step, radius)
        for step, radius in zip(spacing_um, radii, strict=True)
    ]
    reads = [
        _mirrored_indices(length, part, radius)
        for length, part, radius in zip(image.shape, core, radii, strict=True)
    ]
    rows, columns = core[-2].stop - core[-2].start, core[-1].stop - core[-1].start
    in_y = np.empty((3, rows, image.shape[-1]), np.float32)
    if image.ndim == 2:
        hessian = np.empty((3, rows, columns), np.float32)
        _across_rows(image, reads[0], kernels[0], 3, in_y)
        for order in range(3):
            _along_rows(in_y[order], reads[1], kernels[1][2 - order], order, hessian[2 - order])
        yield hessian[::-1]
        return
    hessian = np.empty((6, rows, columns), np.float32)
    in_z = np.empty((3, 1, *image.shape[1:]), np.float32)
