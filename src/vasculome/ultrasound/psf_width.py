"""How wide the echo of a bubble is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from vasculome.ultrasound.psf import DepthPsf

_STEPS_PER_VOXEL = 200


def fwhm_px(psf: DepthPsf) -> NDArray[np.float64]:
    """Return the full width at half of the maximum of each echo, along each axis, in voxels.

    The magnitude along the axis through the middle voxel is interpolated by a cubic spline (of
    Gaussians, 3 % wrong at the most from a width of 1.4 voxels on).

    Returns
    -------
    float64 (bands, d); NaN where the echo ends before it has fallen to a half on both sides.
    """
    ndim = psf.echoes.ndim - 1
    widths = np.empty((len(psf.echoes), ndim))
    for band, echo in enumerate(np.abs(psf.echoes)):
        middle = tuple(n // 2 for n in echo.shape)
        for axis in range(ndim):
            line = echo[tuple(slice(None) if a == axis else n for a, n in enumerate(middle))]
            widths[band, axis] = sum(_half_width(side) for side in _sides(line / echo[middle]))
    return widths


def _sides(line: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the line from its middle to both ends, finely."""
    reach = len(line) // 2
    away = np.arange(-reach, reach + 1)
    spline = make_interp_spline(away, line, k=min(3, 2 * reach))
    fine = np.linspace(0, reach, reach * _STEPS_PER_VOXEL + 1)
    return spline(-fine), spline(fine)


def _half_width(side: NDArray[np.float64]) -> float:
    below = np.flatnonzero(side < 0.5)
    if not len(below):
        return float("nan")
    end = below[0]
    part = (side[end - 1] - 0.5) / (side[end - 1] - side[end])
    return float((end - 1 + part) / _STEPS_PER_VOXEL)
