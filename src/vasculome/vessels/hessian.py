"""Hessians by Gaussian derivatives, plane by plane."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

TRUNCATE = 4.0
"""Kernels end at this many standard deviations, whatever the scale."""


def kernel_radii(*, scale_um: float, spacing_um: Sequence[float]) -> tuple[int, ...]:
    """Return the half-lengths of the kernels along each axis, in voxels."""
    return tuple(math.ceil(TRUNCATE * scale_um / step) for step in spacing_um)


def derivative_kernels(*, sigma: float, radius: int) -> NDArray[np.float32]:
    """Return a Gaussian kernel and its first two derivatives, sampled.

    The samples are corrected so that constants, slopes and parabolas give the exact answer:
    plain samples are biased where planes are far apart (sigma below 1 voxel).

    Parameters
    ----------
    sigma
        Standard deviation, in voxels.
    radius
        Half-length, in voxels, at least 1.

    Returns
    -------
    ndarray
        (3, 2 radius + 1) float32, to correlate with; row d, the derivative of order d, carries
        the factor sigma**d that makes scales comparable (Lindeberg 1998, gamma = 1).
    """
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    smooth = np.exp(-0.5 * (x / sigma) ** 2)
    smooth /= smooth.sum()
    slope = x * smooth
    slope /= (x * slope).sum()
    curve = (x**2 - (x**2 * smooth).sum()) * smooth
    curve /= (0.5 * x**2 * curve).sum()
    return np.stack([smooth, sigma * slope, sigma**2 * curve]).astype(np.float32)


def hessian_planes(
    image: NDArray[np.float32],
    *,
    scale_um: float,
    spacing_um: Sequence[float],
    core: Sequence[slice],
) -> Iterator[NDArray[np.float32]]:
    """Yield the scale-normalized Hessian of each plane of the core.

    The image is mirrored beyond its edges (the mode "reflect" of ``scipy.ndimage``).

    Parameters
    ----------
    image
        (z, y, x) or (y, x) float32.
    scale_um
        Standard deviation of the Gaussian.
    spacing_um
        Voxel size along each axis.
    core
        The part of the image that is wanted: slices with a start and a stop.

    Yields
    ------
    ndarray
        (6, y, x) float32 for each z of the core: zz, zy, zx, yy, yx, xx; of a 2-D image once,
        (3, y, x): yy, yx, xx. The next plane overwrites it.
    """
    radii = kernel_radii(scale_um=scale_um, spacing_um=spacing_um)
    kernels = [
        derivative_kernels(sigma=scale_um / step, radius=radius)
        for step, radius in zip(spacing_um, radii, strict=True)
    ]
    near = [
        slice(max(0, part.start - radius), min(length, part.stop + radius))
        for part, length, radius in zip(core, image.shape, radii, strict=True)
    ]
    image = np.ascontiguousarray(image[tuple(near)])
    reads = [
        _mirrored_reads(part.start - seen.start, part.stop - seen.start, seen.stop - seen.start, r)
        for part, seen, r in zip(core, near, radii, strict=True)
    ]
    rows, columns = (part.stop - part.start for part in core[-2:])
    smooth_y = np.empty((rows, image.shape[-1]), np.float32)

    def in_plane(plane: NDArray[np.float32], out: NDArray[np.float32], degree: int) -> None:
        """Write the derivatives of total order ``degree``, those along y first."""
        for i in range(degree + 1):
            _across_rows(plane, reads[-2], kernels[-2][degree - i], smooth_y)
            _along_rows(smooth_y, reads[-1], kernels[-1][i], out[i])

    if image.ndim == 2:
        hessian = np.empty((3, rows, columns), np.float32)
        in_plane(image, hessian, 2)
        yield hessian
        return
    hessian = np.empty((6, rows, columns), np.float32)
    along_z = np.empty(image.shape[1:], np.float32)
    for z in range(core[0].stop - core[0].start):
        for first, degree in ((0, 0), (1, 1), (3, 2)):
            _across_planes(image, reads[0][z:], kernels[0][2 - degree], along_z)
            in_plane(along_z, hessian[first:], degree)
        yield hessian


def _mirrored_reads(start: int, stop: int, length: int, radius: int) -> NDArray[np.int64]:
    """Return where each voxel of start - radius to stop + radius is read, mirrored at the ends."""
    wanted = np.arange(start - radius, stop + radius) % (2 * length)
    return np.where(wanted < length, wanted, 2 * length - 1 - wanted)


@njit(cache=True)
def _across_planes(image, reads, kernel, out):
    out[:] = 0
    for y in range(image.shape[1]):
        for tap in range(len(kernel)):
            weight = kernel[tap]
            z = reads[tap]
            for x in range(image.shape[2]):
                out[y, x] += weight * image[z, y, x]


@njit(cache=True)
def _across_rows(plane, reads, kernel, out):
    out[:] = 0
    for y in range(out.shape[0]):
        for tap in range(len(kernel)):
            weight = kernel[tap]
            row = reads[y + tap]
            for x in range(plane.shape[1]):
                out[y, x] += weight * plane[row, x]


@njit(cache=True)
def _along_rows(plane, reads, kernel, out):
    padded = np.empty(len(reads), plane.dtype)
    out[:] = 0
    for y in range(out.shape[0]):
        for i in range(len(reads)):
            padded[i] = plane[y, reads[i]]
        for tap in range(len(kernel)):
            weight = kernel[tap]
            for x in range(out.shape[1]):
                out[y, x] += weight * padded[x + tap]
