"""Vesselness: how much the surroundings of a voxel look like a bright tube.

No parameter depends on the data, so that a tile that is read with `halo_voxels` more on every
side gives, bit for bit, the vesselness of the whole volume.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.vessels.hessian import hessian_planes, kernel_radii

BACKGROUND, WEAK, STRONG = 0, 1, 2

_Response = Callable[[NDArray[np.float32], NDArray[np.float32]], None]


def halo_voxels(*, scales_um: Sequence[float], spacing_um: Sequence[float]) -> tuple[int, ...]:
    """Return how many voxels beyond a tile its vesselness depends on, along each axis."""
    return kernel_radii(scale_um=max(scales_um), spacing_um=spacing_um)


def frangi(
    image: NDArray[np.float32],
    *,
    scales_um: Sequence[float],
    spacing_um: Sequence[float],
    alpha: float = 0.5,
    beta: float = 0.5,
    structure: float = 0.1,
    core: Sequence[slice] | None = None,
) -> NDArray[np.float32]:
    """Return the greatest response over scales of Frangi's filter for bright vessels.

    Frangi et al. 1998, equations 13 (3-D) and 15 (2-D), on scale-normalized Hessians.

    Parameters
    ----------
    image
        (z, y, x) or (y, x) float32, normalized to [0, 1].
    scales_um
        Standard deviations of the Gaussians; a vessel of radius r answers most at about
        r / sqrt(2).
    spacing_um
        Voxel size along each axis.
    alpha, beta
        How much plates and blobs are suppressed (3-D: both; 2-D: only beta applies).
    structure
        The constant c: the Hessian norm at which contrast begins to count, in units of the
        image, the same everywhere (Frangi's half of the image's maximum would differ by tile).
    core
        The part of the image that is wanted, if not all of it: slices with start and stop.

    Returns
    -------
    ndarray
        float32 in [0, 1), of the shape of the core.
    """
    plates, blobs, contrast = (0.5 / width**2 for width in (alpha, beta, structure))

    def respond(hessian: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        if len(hessian) == 3:
            _frangi_2d(hessian, blobs, contrast, out)
        else:
            _frangi_3d(hessian, plates, blobs, contrast, out)

    return _greatest_over_scales(image, scales_um, spacing_um, core, respond)


def sato(
    image: NDArray[np.float32],
    *,
    scales_um: Sequence[float],
    spacing_um: Sequence[float],
    core: Sequence[slice] | None = None,
) -> NDArray[np.float32]:
    """Return the greatest response over scales of Sato's filter for bright vessels.

    The geometric mean of the scale-normalized curvatures across the vessel, 0 where one of them
    is not that of a bright ridge (Sato et al. 1998, equations 9 and 22, as in scikit-image).

    Parameters
    ----------
    image, scales_um, spacing_um, core
        As for `frangi`.

    Returns
    -------
    ndarray
        float32, 0 or more, in units of the image, of the shape of the core.
    """

    def respond(hessian: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        if len(hessian) == 3:
            _sato_2d(hessian, out)
        else:
            _sato_3d(hessian, out)

    return _greatest_over_scales(image, scales_um, spacing_um, core, respond)


def hysteresis_classes(
    vesselness: NDArray[np.float32], *, low: float, high: float
) -> NDArray[np.uint8]:
    """Return 0 (background), 1 (weak: above ``low``) or 2 (strong: above ``high``) by voxel.

    The vessels are the connected components of weak and strong voxels that hold a strong one
    (see `vasculome.vessels.components`).
    """
    if low > high:
        raise ValueError(f"low {low} is above high {high}")
    classes = (vesselness > low).astype(np.uint8)
    classes += vesselness > high
    return classes


def _greatest_over_scales(
    image: NDArray[np.float32],
    scales_um: Sequence[float],
    spacing_um: Sequence[float],
    core: Sequence[slice] | None,
    respond: _Response,
) -> NDArray[np.float32]:
    if image.ndim not in (2, 3) or image.dtype != np.float32:
        raise ValueError(f"image must be 2-D or 3-D float32, not {image.ndim}-D {image.dtype}")
    if len(spacing_um) != image.ndim or not scales_um or min(*scales_um, *spacing_um) <= 0:
        raise ValueError(f"bad scales {scales_um} or spacing {spacing_um} for {image.shape}")
    core = core or tuple(slice(0, length) for length in image.shape)
    result = np.zeros([part.stop - part.start for part in core], np.float32)
    planes = result if image.ndim == 3 else result[np.newaxis]
    for scale_um in scales_um:
        hessians = hessian_planes(image, scale_um=scale_um, spacing_um=spacing_um, core=core)
        for hessian, plane in zip(hessians, planes, strict=True):
            respond(hessian, plane)
    return result


@njit(cache=True)
def _eigenvalues_3d(hessian, y, x):
    """Return the eigenvalues of the symmetric 3×3 matrix at a pixel, greatest first.

    Smith 1961, in float64: in float32, two nearly equal ones, as in every good tube, would be
    off by 1e-3.
    """
    zz, zy, zx = (
        np.float64(hessian[0, y, x]),
        np.float64(hessian[1, y, x]),
        np.float64(hessian[2, y, x]),
    )
    yy, yx, xx = (
        np.float64(hessian[3, y, x]),
        np.float64(hessian[4, y, x]),
        np.float64(hessian[5, y, x]),
    )
    mean = (zz + yy + xx) / 3.0
    zz, yy, xx = zz - mean, yy - mean, xx - mean
    off = zy * zy + zx * zx + yx * yx
    size = math.sqrt((zz * zz + yy * yy + xx * xx + 2.0 * off) / 6.0)
    if size == 0.0:
        return mean, mean, mean
    half_det = 0.5 * (
        zz * (yy * xx - yx * yx) - zy * (zy * xx - yx * zx) + zx * (zy * yx - yy * zx)
    )
    cosine = min(1.0, max(-1.0, half_det / (size * size * size)))
    angle = math.acos(cosine) / 3.0
    greatest = mean + 2.0 * size * math.cos(angle)
    least = mean + 2.0 * size * math.cos(angle + 2.0 * math.pi / 3.0)
    return greatest, 3.0 * mean - greatest - least, least


@njit(cache=True)
def _eigenvalues_2d(hessian, y, x):
    """Return the eigenvalues of the symmetric 2×2 matrix at a pixel, greatest first."""
    yy, yx, xx = (
        np.float64(hessian[0, y, x]),
        np.float64(hessian[1, y, x]),
        np.float64(hessian[2, y, x]),
    )
    mean = 0.5 * (yy + xx)
    size = math.sqrt(0.25 * (yy - xx) ** 2 + yx * yx)
    return mean + size, mean - size


@njit(cache=True)
def _frangi_3d(hessian, plates, blobs, contrast, out):
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            if hessian[0, y, x] + hessian[3, y, x] + hessian[5, y, x] >= 0.0:
                # Two negative eigenvalues that outweigh the third make the trace negative.
                continue
            first, second, third = _eigenvalues_3d(hessian, y, x)
            # Frangi orders by size: a vessel's two greatest are both negative. In order of value
            # they are the second and third, unless the first is positive and outweighs one.
            if second >= 0.0 or abs(first) > -second:
                continue
            across = second * third
            norm = first * first + second * second + third * third
            flat = (second / third) ** 2
            round_ = first * first / across
            response = (
                (1.0 - math.exp(-flat * plates))
                * math.exp(-round_ * blobs)
                * (1.0 - math.exp(-norm * contrast))
            )
            out[y, x] = max(out[y, x], response)


@njit(cache=True)
def _frangi_2d(hessian, blobs, contrast, out):
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            along, across = _eigenvalues_2d(hessian, y, x)
            if across >= 0.0 or abs(along) > -across:
                continue
            response = math.exp(-((along / across) ** 2) * blobs) * (
                1.0 - math.exp(-(along * along + across * across) * contrast)
            )
            out[y, x] = max(out[y, x], response)


@njit(cache=True)
def _sato_3d(hessian, out):
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            _, second, third = _eigenvalues_3d(hessian, y, x)
            if second < 0.0:
                out[y, x] = max(out[y, x], math.sqrt(second * third))


@njit(cache=True)
def _sato_2d(hessian, out):
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            _, across = _eigenvalues_2d(hessian, y, x)
            if across < 0.0:
                out[y, x] = max(out[y, x], -across)
