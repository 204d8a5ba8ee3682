"""Localization by radial symmetry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.ultrasound.columns import Table
from vasculome.ultrasound.patches import Patches, Shifts, localize_patches


def radial_symmetry(
    magnitude_t: NDArray[np.floating],
    peaks: NDArray[np.int64],
    *,
    half_width: int | Sequence[int] = 2,
    first_frame: int = 0,
) -> Table:
    """Localize by radial symmetry: the point nearest to the gradient lines of the patch.

    Every cell of 2^d voxels gives one gradient g = |g|ĝ at the point p in its middle; the centre c
    minimizes Σ w |(I − ĝĝᵀ)(c − p)|², a d × d linear system, with w = |g|² over the distance of p
    to the centroid of |g|, so that far cells, where other bubbles show, count less.
    Parameters, result and errors are those of
    :func:`~vasculome.ultrasound.patches.localize_patches`.

    Notes
    -----
    Source: Parthasarathy, Nature Methods 9, 724-726, 2012, doi:10.1038/nmeth.2071, whose formulas
    are the 2-D case. His optional 3 × 3 smoothing of the gradients is left out: on 5-voxel patches
    of crowded frames (70 spots of 3 voxels full width in 78 × 118) it raises the error from 0.19
    to 0.22 voxels, and only pays for lone spots below 20 dB.
    """
    return localize_patches(
        _radial_centres, magnitude_t, peaks, half_width=half_width, first_frame=first_frame
    )


@njit(cache=True, nogil=True)
def _radial_centres(patches: Patches) -> Shifts:  # pragma: no cover - compiled
    count, nz, ny, nx = patches.shape
    shifts = np.empty((count, 3))
    gradients = np.empty((3, nz - 1, max(ny - 1, 1), nx - 1))
    for n in range(count):
        _gradients(patches[n], gradients)
        centre = _nearest_to_gradient_lines(gradients, ny > 1)
        shifts[n, 0] = centre[0] - nz // 2
        shifts[n, 1] = centre[1] - ny // 2
        shifts[n, 2] = centre[2] - nx // 2
    return shifts


@njit(cache=True, nogil=True)
def _gradients(
    patch: NDArray[np.float32], gradients: NDArray[np.float64]
) -> None:  # pragma: no cover - compiled
    """Fill in the gradient of every cell of 2^d voxels, shape (3, z, y, x)."""
    dy = 1 if patch.shape[1] > 1 else 0
    _, cz, cy, cx = gradients.shape
    for z in range(cz):
        for y in range(cy):
            for x in range(cx):
                along_z = along_y = along_x = 0.0
                for k in range(2):
                    for j in range(dy + 1):
                        left = float(patch[z + k, y + j, x])
                        right = float(patch[z + k, y + j, x + 1])
                        along_z += (2 * k - 1) * (left + right)
                        along_y += (2 * j - 1) * dy * (left + right)
                        along_x += right - left
                gradients[0, z, y, x] = along_z
                gradients[1, z, y, x] = along_y
                gradients[2, z, y, x] = along_x


@njit(cache=True, nogil=True)
def _nearest_to_gradient_lines(
    gradients: NDArray[np.float64], solid: bool
) -> tuple[float, float, float]:  # pragma: no cover - compiled
    _, cz, cy, cx = gradients.shape
    half_y = 0.5 if solid else 0.0
    total = mean_z = mean_y = mean_x = 0.0
    for z in range(cz):
        for y in range(cy):
            for x in range(cx):
                g0, g1, g2 = gradients[0, z, y, x], gradients[1, z, y, x], gradients[2, z, y, x]
                strength = np.sqrt(g0**2 + g1**2 + g2**2)
                total += strength
                mean_z += strength * (z + 0.5)
                mean_y += strength * (y + half_y)
                mean_x += strength * (x + 0.5)
    if total == 0:
        return np.inf, np.inf, np.inf
    mean_z, mean_y, mean_x = mean_z / total, mean_y / total, mean_x / total
    m00 = m11 = m22 = m01 = m02 = m12 = r0 = r1 = r2 = 0.0
    for z in range(cz):
        for y in range(cy):
            for x in range(cx):
                g0, g1, g2 = gradients[0, z, y, x], gradients[1, z, y, x], gradients[2, z, y, x]
                square = g0**2 + g1**2 + g2**2
                pz, py, px = z + 0.5 - mean_z, y + half_y - mean_y, x + 0.5 - mean_x
                # w (I − ĝĝᵀ) is (|g|² I − ggᵀ) over the distance.
                far = max(np.sqrt(pz**2 + py**2 + px**2), 1e-6)
                w00, w11, w22 = (
                    (square - g0**2) / far,
                    (square - g1**2) / far,
                    (square - g2**2) / far,
                )
                w01, w02, w12 = -g0 * g1 / far, -g0 * g2 / far, -g1 * g2 / far
                m00, m11, m22 = m00 + w00, m11 + w11, m22 + w22
                m01, m02, m12 = m01 + w01, m02 + w02, m12 + w12
                r0 += w00 * pz + w01 * py + w02 * px
                r1 += w01 * pz + w11 * py + w12 * px
                r2 += w02 * pz + w12 * py + w22 * px
    c00, c01, c02 = m11 * m22 - m12**2, m12 * m02 - m01 * m22, m01 * m12 - m11 * m02
    c11, c12, c22 = m00 * m22 - m02**2, m01 * m02 - m00 * m12, m00 * m11 - m01**2
    determinant = m00 * c00 + m01 * c01 + m02 * c02
    if not abs(determinant) > 1e-12 * (m00 + m11 + m22) ** 3:
        return np.inf, np.inf, np.inf  # parallel gradients have no centre
    return (
        mean_z + (c00 * r0 + c01 * r1 + c02 * r2) / determinant,
        mean_y + (c01 * r0 + c11 * r1 + c12 * r2) / determinant,
        mean_x + (c02 * r0 + c12 * r1 + c22 * r2) / determinant,
    )
