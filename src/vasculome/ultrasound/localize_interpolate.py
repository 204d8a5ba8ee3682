"""Localization by the maximum of the interpolated patch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from vasculome.ultrasound.columns import Table
from vasculome.ultrasound.patches import Patches, Shifts, localize_patches

_STEPS_PER_VOXEL = 10
"""The finer grid of PALA; between its points a parabola finds the maximum."""

_KERNEL_REACH = 3
_FLAT = 1e-6
"""Relief of a patch, relative to its height, that single precision cannot tell from none."""


def interpolation_cubic(
    magnitude_t: NDArray[np.floating],
    peaks: NDArray[np.int64],
    *,
    half_width: int | Sequence[int] = 2,
    first_frame: int = 0,
) -> Table:
    """Localize by the maximum of the patch under Keys' cubic convolution (a = −1/2).

    The patch is interpolated on ten points a voxel within one voxel of its peak, mirrored beyond
    its edge; a parabola through the largest sample and its neighbours places the maximum between
    them. Parameters, result and errors are those of
    :func:`~vasculome.ultrasound.patches.localize_patches`.

    Notes
    -----
    Sources: Heiles et al., Nature Biomedical Engineering 6, 605-616, 2022,
    doi:10.1038/s41551-021-00824-8; Keys, IEEE Trans. ASSP 29(6), 1981,
    doi:10.1109/TASSP.1981.1163711.
    """
    return _interpolation(_by_kernel(_keys), magnitude_t, peaks, half_width, first_frame)


def interpolation_lanczos(
    magnitude_t: NDArray[np.floating],
    peaks: NDArray[np.int64],
    *,
    half_width: int | Sequence[int] = 2,
    first_frame: int = 0,
) -> Table:
    """Localize by the maximum of the patch under Lanczos' kernel of order 3.

    As :func:`interpolation_cubic` but for the kernel, sinc(u) sinc(u/3), normalized to sum 1.
    """
    return _interpolation(_by_kernel(_lanczos), magnitude_t, peaks, half_width, first_frame)


def interpolation_spline(
    magnitude_t: NDArray[np.floating],
    peaks: NDArray[np.int64],
    *,
    half_width: int | Sequence[int] = 2,
    first_frame: int = 0,
) -> Table:
    """Localize by the maximum of the not-a-knot cubic spline through the patch.

    As :func:`interpolation_cubic` but for the spline; through three voxels it is a parabola.
    """
    return _interpolation(_by_spline, magnitude_t, peaks, half_width, first_frame)


Weights = Callable[[int, NDArray[np.float64]], NDArray[np.float64]]
"""Voxels of a line and points on it → weight of each voxel at each point."""


def _interpolation(
    weights: Weights,
    magnitude_t: NDArray[np.floating],
    peaks: NDArray[np.int64],
    half_width: int | Sequence[int],
    first_frame: int,
) -> Table:
    return localize_patches(
        lambda patches: _maxima(patches, *(_matrix(weights, n) for n in patches.shape[1:])),
        magnitude_t,
        peaks,
        half_width=half_width,
        first_frame=first_frame,
    )


def _matrix(weights: Weights, voxels: int) -> NDArray[np.float64]:
    """Return the interpolation of a line within a voxel of its middle, shape (points, voxels)."""
    if voxels == 1:
        return np.ones((1, 1))
    fine = np.arange(-_STEPS_PER_VOXEL, _STEPS_PER_VOXEL + 1) / _STEPS_PER_VOXEL
    return np.ascontiguousarray(weights(voxels, fine + voxels // 2))


def _by_spline(voxels: int, points: NDArray[np.float64]) -> NDArray[np.float64]:
    # The spline is linear in its samples: that of each unit vector is that voxel's weight.
    matrix: NDArray[np.float64] = CubicSpline(np.arange(voxels), np.eye(voxels))(points)
    return matrix


def _by_kernel(kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Weights:
    return functools.partial(_kernel_weights, kernel)


def _kernel_weights(
    kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    voxels: int,
    points: NDArray[np.float64],
) -> NDArray[np.float64]:
    taps = np.arange(-_KERNEL_REACH - 1, voxels + _KERNEL_REACH + 1)
    weight = kernel(points[:, None] - taps)
    weight /= weight.sum(axis=1, keepdims=True)
    folded = taps % (2 * voxels)
    mirrored = np.minimum(folded, 2 * voxels - 1 - folded)
    return weight @ (mirrored[:, None] == np.arange(voxels))


def _keys(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    u = np.abs(distance)
    near = (1.5 * u - 2.5) * u**2 + 1
    far = ((-0.5 * u + 2.5) * u - 4) * u + 2
    return np.where(u <= 1, near, np.where(u < 2, far, 0.0))


def _lanczos(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.abs(distance) < _KERNEL_REACH
    return np.where(inside, np.sinc(distance) * np.sinc(distance / _KERNEL_REACH), 0.0)


@njit(cache=True, nogil=True)
def _maxima(
    patches: Patches,
    by_z: NDArray[np.float64],
    by_y: NDArray[np.float64],
    by_x: NDArray[np.float64],
) -> Shifts:  # pragma: no cover - compiled
    """Return the maximum of each patch interpolated by one matrix an axis."""
    count, nz, ny, _ = patches.shape
    pz, py, px = len(by_z), len(by_y), len(by_x)
    along_x = np.empty((nz, ny, px))
    along_yx = np.empty((nz, py, px))
    fine = np.empty((pz, py, px))
    shifts = np.empty((count, 3))
    for n in range(count):
        _interpolate(patches[n], by_z, by_y, by_x, along_x, along_yx, fine)
        best = fine.argmax()
        k, j, i = best // (py * px), best // px % py, best % px
        shifts[n, 0] = (k - pz // 2 + _vertex(fine[:, j, i], k)) / _STEPS_PER_VOXEL
        shifts[n, 1] = (j - py // 2 + _vertex(fine[k, :, i], j)) / _STEPS_PER_VOXEL
        shifts[n, 2] = (i - px // 2 + _vertex(fine[k, j, :], i)) / _STEPS_PER_VOXEL
        # A maximum on the rim of the grid is none, nor is one made by rounding on a flat patch.
        on_rim = k in (0, pz - 1) or i in (0, px - 1) or (py > 1 and j in (0, py - 1))
        if on_rim or fine.max() - fine.min() <= _FLAT * abs(fine.max()):
            shifts[n] = np.inf
    return shifts


@njit(cache=True, nogil=True)
def _interpolate(
    patch: NDArray[np.float32],
    by_z: NDArray[np.float64],
    by_y: NDArray[np.float64],
    by_x: NDArray[np.float64],
    along_x: NDArray[np.float64],
    along_yx: NDArray[np.float64],
    fine: NDArray[np.float64],
) -> None:  # pragma: no cover - compiled
    """Fill in the patch interpolated along x, then also along y, then along all axes."""
    nz, ny, nx = patch.shape
    pz, py, px = fine.shape
    for z in range(nz):
        for y in range(ny):
            for i in range(px):
                total = 0.0
                for x in range(nx):
                    total += by_x[i, x] * patch[z, y, x]
                along_x[z, y, i] = total
    along_yx[:] = 0
    for z in range(nz):
        for j in range(py):
            for y in range(ny):
                for i in range(px):
                    along_yx[z, j, i] += by_y[j, y] * along_x[z, y, i]
    fine[:] = 0
    for k in range(pz):
        for z in range(nz):
            for j in range(py):
                for i in range(px):
                    fine[k, j, i] += by_z[k, z] * along_yx[z, j, i]


@njit(cache=True, nogil=True)
def _vertex(line: NDArray[np.float64], top: int) -> float:  # pragma: no cover - compiled
    """Return the vertex of the parabola through the largest sample and its neighbours."""
    if top in (0, len(line) - 1):
        return 0.0
    left, here, right = line[top - 1], line[top], line[top + 1]
    curvature = left - 2 * here + right
    return float(0.5 * (left - right) / curvature) if curvature < 0 else 0.0
