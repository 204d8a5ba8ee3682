"""Localization by the centre of mass of the patch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.ultrasound.columns import Table
from vasculome.ultrasound.patches import Patches, Shifts, localize_patches


def weighted_average(
    magnitude_t: NDArray[np.floating],
    peaks: NDArray[np.int64],
    *,
    half_width: int | Sequence[int] = 2,
    first_frame: int = 0,
) -> Table:
    """Localize by the centroid of the patch, weighted by its magnitude as it is.

    The weighted average of PALA, to compare with: the ground pulls every position towards the
    middle of its voxel, and the more so the larger the patch.
    Parameters, result and errors are those of
    :func:`~vasculome.ultrasound.patches.localize_patches`.

    Notes
    -----
    Source: Heiles et al., Nature Biomedical Engineering 6, 605-616, 2022,
    doi:10.1038/s41551-021-00824-8.
    """
    return localize_patches(
        lambda patches: _centroids(patches, False),
        magnitude_t,
        peaks,
        half_width=half_width,
        first_frame=first_frame,
    )


def weighted_centroid(
    magnitude_t: NDArray[np.floating],
    peaks: NDArray[np.int64],
    *,
    half_width: int | Sequence[int] = 2,
    first_frame: int = 0,
) -> Table:
    """Localize by the centroid of the patch, weighted by its magnitude above its own minimum.

    Taking the minimum off keeps the ground from pulling the position towards the middle of the
    voxel. Parameters, result and errors are those of
    :func:`~vasculome.ultrasound.patches.localize_patches`.
    """
    return localize_patches(
        lambda patches: _centroids(patches, True),
        magnitude_t,
        peaks,
        half_width=half_width,
        first_frame=first_frame,
    )


@njit(cache=True, nogil=True)
def _centroids(patches: Patches, above_minimum: bool) -> Shifts:  # pragma: no cover - compiled
    count, nz, ny, nx = patches.shape
    shifts = np.full((count, 3), np.inf)
    for n in range(count):
        ground = patches[n].min() if above_minimum else np.float32(0)
        total = sum_z = sum_y = sum_x = 0.0
        for z in range(nz):
            for y in range(ny):
                for x in range(nx):
                    weight = patches[n, z, y, x] - ground
                    total += weight
                    sum_z += weight * (z - nz // 2)
                    sum_y += weight * (y - ny // 2)
                    sum_x += weight * (x - nx // 2)
        if total > 0:  # a flat patch has no centre
            shifts[n, 0], shifts[n, 1], shifts[n, 2] = sum_z / total, sum_y / total, sum_x / total
    return shifts
