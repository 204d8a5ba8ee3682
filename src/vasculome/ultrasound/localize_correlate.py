"""Localization by normalized cross-correlation with the point spread function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.ultrasound.columns import Table
from vasculome.ultrasound.localize_fit import common_width_px
from vasculome.ultrasound.patches import Patches, Shifts, localize_patches


def correlation_centroid(
    magnitude_t: NDArray[np.floating],
    peaks: NDArray[np.int64],
    *,
    half_width: int | Sequence[int] = 2,
    first_frame: int = 0,
) -> Table:
    """Localize by the centroid of the normalized cross-correlation with a Gaussian spot.

    The spot has the width that the bubbles of the block share
    (:func:`~vasculome.ultrasound.localize_fit.common_width_px`) and fills a patch. Its correlation
    coefficient with the frame is taken at every voxel of the patch around the peak, and the
    centroid of its square, where it is positive, is the position: without the square, or above
    half of the largest value, errors at 5 voxels are 2 to 4 times as large. Of 3 voxels the
    correlation fills only a part, and the centroid is pulled to the middle.
    Parameters, result and errors are those of
    :func:`~vasculome.ultrasound.patches.localize_patches`.
    """

    def centres(wide: Patches) -> Shifts:
        inner = tuple(slice(n // 4, n - n // 4) for n in wide.shape[1:])
        spot = _gaussian(
            tuple((n - 1) // 2 + 1 for n in wide.shape[1:]),
            common_width_px(np.ascontiguousarray(wide[:, *inner])),
        )
        return _correlation_centres(wide, spot)

    return localize_patches(
        centres,
        magnitude_t,
        peaks,
        half_width=half_width,
        first_frame=first_frame,
        half_widths_read=2,
    )


def _gaussian(shape: tuple[int, ...], widths_px: NDArray[np.float64]) -> NDArray[np.float64]:
    lines = [
        np.exp(-0.5 * ((np.arange(n) - n // 2) / width) ** 2)
        for n, width in zip(shape, widths_px, strict=True)
    ]
    return np.ascontiguousarray(lines[0][:, None, None] * lines[1][:, None] * lines[2])


@njit(cache=True, nogil=True)
def _correlation_centres(
    wide: Patches, spot: NDArray[np.float64]
) -> Shifts:  # pragma: no cover - compiled
    count = len(wide)
    sz, sy, sx = spot.shape
    even = spot - spot.mean()
    even /= np.sqrt((even**2).sum())
    coefficient = np.empty((sz, sy, sx))
    shifts = np.full((count, 3), np.inf)
    for n in range(count):
        for z in range(sz):
            for y in range(sy):
                for x in range(sx):
                    total = square = product = 0.0
                    for k in range(sz):
                        for j in range(sy):
                            for i in range(sx):
                                value = wide[n, z + k, y + j, x + i]
                                total += value
                                square += value * value
                                product += value * even[k, j, i]
                    spread = square - total * total / even.size
                    rho = product / np.sqrt(spread) if spread > 1e-12 * square else 0.0
                    coefficient[z, y, x] = rho
        weight_sum = sum_z = sum_y = sum_x = 0.0
        for z in range(sz):
            for y in range(sy):
                for x in range(sx):
                    weight = max(coefficient[z, y, x], 0.0) ** 2
                    if weight > 0:
                        weight_sum += weight
                        sum_z += weight * (z - sz // 2)
                        sum_y += weight * (y - sy // 2)
                        sum_x += weight * (x - sx // 2)
        if weight_sum > 0:
            shifts[n, 0] = sum_z / weight_sum
            shifts[n, 1] = sum_y / weight_sum
            shifts[n, 2] = sum_x / weight_sum
    return shifts
