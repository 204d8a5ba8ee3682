"""The least error that any unbiased localizer can have: the Cramér-Rao bound of a Gaussian spot."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d


def position_bound_px(
    shift_px: NDArray[np.floating],
    *,
    amplitude: float,
    widths_px: Sequence[float],
    half_width: int | Sequence[int],
    noise: float | NDArray[np.floating],
    known_ground: bool = True,
) -> NDArray[np.float64]:
    """Return the least standard deviation of the position of a spot in a patch of voxels.

    Assumptions: the patch holds one spot A exp(−Σ (p − c)²/2s²), sampled at voxel centres p, whose
    widths s are known; amplitude A and centre c are not, nor, if so asked, a constant ground; the
    noise is Gaussian, adds to the magnitude, and its covariance C is known. Then the Fisher
    information of these unknown is Jᵀ C⁻¹ J, with J the derivatives of the voxels by them, and its
    inverse bounds the covariance of any unbiased estimate. A biased estimate may vary less.

    Parameters
    ----------
    shift_px
        True positions from the middle of the patch, in voxels, shape (n, d).
    amplitude, widths_px
        Height of the spot, and its standard deviation along each axis in voxels.
    half_width
        Voxels the patch reaches from its middle, one for all axes or one for each.
    noise
        Standard deviation of white noise, or the covariance of the voxels of the patch in C order,
        shape (m, m), in the unit of the amplitude or its square.
    known_ground
        Whether what lies under the spot is known.

    Returns
    -------
    float64 array of shape (n, d): standard deviation along each axis, in voxels.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Notes
    -----
    Source: Kay, Fundamentals of Statistical Signal Processing: Estimation Theory, 1993,
    equation 3.31; for spots, Ober et al., Biophysical Journal 86, 2004,
    doi:10.1016/S0006-3495(04)74193-4.
    """
    n, d = shift_px.shape
    reach = np.broadcast_to(half_width, d)
    if len(widths_px) != d:
        raise ValueError(f"{d} axes need as many widths, not {len(widths_px)}")
    voxels = np.stack(
        np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1
    ).reshape(-1, d)
    away = (voxels - shift_px[:, None, :]) / np.asarray(widths_px)
    bell = np.exp(-0.5 * np.sum(away**2, axis=2))
    derivatives = [amplitude * bell[..., None] * away / np.asarray(widths_px), bell[..., None]]
    if not known_ground:
        derivatives.append(np.ones((n, len(voxels), 1)))
    jacobian = np.concatenate(derivatives, axis=2)
    if np.ndim(noise) == 0:
        weighted = jacobian / np.square(noise)
    elif np.shape(noise) == (len(voxels),) * 2:
        weighted = np.linalg.solve(np.asarray(noise), jacobian)
    else:
        raise ValueError(f"noise of {len(voxels)} voxels has no covariance {np.shape(noise)}")
    information = np.swapaxes(jacobian, 1, 2) @ weighted
    bound = np.linalg.inv(information)
    return np.sqrt(np.diagonal(bound, axis1=1, axis2=2)[:, :d])


def smoothed_noise_covariance(
    half_width: int | Sequence[int], ndim: int, *, noise: float, sigma_px: float, radius_px: int
) -> NDArray[np.float64]:
    """Return the covariance of white noise that a Gaussian filter has smoothed, over a patch.

    Parameters
    ----------
    half_width, ndim
        Voxels the patch reaches from its middle, one for all axes or one for each; number of axes.
    noise
        Standard deviation before smoothing.
    sigma_px, radius_px
        Standard deviation and reach of the filter, in voxels.

    Returns
    -------
    float64 array of shape (m, m) for the m voxels of the patch in C order.
    """
    reach = np.broadcast_to(half_width, ndim)
    farthest = 2 * radius_px + 1  # beyond it nothing correlates
    unit = np.zeros(2 * farthest + 1)
    unit[farthest] = 1.0
    kernel = gaussian_filter1d(unit, sigma_px, radius=radius_px)
    correlation = np.convolve(kernel, kernel[::-1], mode="same")
    lines = []
    for r in reach:
        lag = np.abs(np.subtract.outer(np.arange(2 * r + 1), np.arange(2 * r + 1)))
        lines.append(correlation[farthest - np.minimum(lag, farthest)])
    return noise**2 * reduce(np.kron, lines)
