"""Localization by fitting a Gaussian to the patch."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.ultrasound.columns import Table
from vasculome.ultrasound.patches import Patches, Shifts, localize_patches

_MAX_STEPS = 40
"""Where a spot is narrower than a voxel, height and width change together for hundreds of steps
more, but its centre hardly moves."""
_CLOSE_ENOUGH_PX = 1e-3
"""Step after which a fit ends; the next would be far smaller, as convergence is quadratic."""
_NARROWEST_PX = 1 / 3
"""Least width of a fit: below it a spot shows in one voxel only, and its height has no bound."""
_PATCHES_FOR_WIDTH = 2048
"""Patches that the common width is estimated from; its error is then far below the voxel's."""


def gaussian_fit(
    magnitude_t: NDArray[np.floating],
    peaks: NDArray[np.int64],
    *,
    half_width: int | Sequence[int] = 2,
    first_frame: int = 0,
) -> Table:
    """Localize by the least-squares fit of a Gaussian with a width of its own along each axis.

    Unknown are amplitude, ground, centre and widths: 6 in 2-D, 8 in 3-D. Widths are kept between a
    third of a voxel and the patch. Parameters, result and errors are those of
    :func:`~vasculome.ultrasound.patches.localize_patches`.

    Notes
    -----
    Levenberg-Marquardt with Marquardt's scaling: Marquardt, J. SIAM 11(2), 1963,
    doi:10.1137/0111030.
    """
    return localize_patches(
        functools.partial(_fitted_centres, widths_px=None),
        magnitude_t,
        peaks,
        half_width=half_width,
        first_frame=first_frame,
    )


def gaussian_fit_common_width(
    magnitude_t: NDArray[np.floating],
    peaks: NDArray[np.int64],
    *,
    half_width: int | Sequence[int] = 2,
    first_frame: int = 0,
    widths_px: Sequence[float] | None = None,
) -> Table:
    """Localize by the least-squares fit of a Gaussian of a width that all bubbles share.

    As :func:`gaussian_fit`, but unknown are only amplitude, ground and centre.

    Parameters
    ----------
    widths_px
        Standard deviations along z, [y,] x in voxels; None takes the median over the bubbles of
        the block, see :func:`common_width_px`.
    """

    def centres(patches: Patches) -> Shifts:
        found = common_width_px(patches) if widths_px is None else np.asarray(widths_px, float)
        if len(found) == 2:
            found = np.insert(found, 1, 1.0)
        return _fitted_centres(patches, widths_px=found)

    return localize_patches(
        centres, magnitude_t, peaks, half_width=half_width, first_frame=first_frame
    )


def common_width_px(patches: Patches) -> NDArray[np.float64]:
    """Return the median standard deviations of the Gaussians that fit patches best.

    Parameters
    ----------
    patches
        Shape (n, z, y, x), with one plane along y in 2-D. About 2,048 of them, evenly spread,
        are fitted.

    Returns
    -------
    float64 array of shape (3,), in voxels; where nothing can be fitted, half the reach of the
    patch and a quarter of a voxel.
    """
    step = max(1, len(patches) // _PATCHES_FOR_WIDTH)
    fitted = _fit_all(patches[::step], np.ones(3), True)[:, 3:]
    fitted = fitted[np.isfinite(fitted).all(axis=1)]
    if len(fitted) == 0:
        return np.array([n / 4 for n in patches.shape[1:]])
    return np.median(fitted, axis=0)


def _fitted_centres(patches: Patches, *, widths_px: NDArray[np.float64] | None) -> Shifts:
    free = widths_px is None
    return _fit_all(patches, np.ones(3) if widths_px is None else widths_px, free)[:, :3]


@njit(cache=True, nogil=True)
def _fit_all(
    patches: Patches, widths: NDArray[np.float64], free: bool
) -> NDArray[np.float64]:  # pragma: no cover - compiled
    """Return centre and widths of the Gaussian in each patch, (n, 6); infinite without one."""
    count, nz, ny, nx = patches.shape
    axes = np.array([0, 2]) if ny == 1 else np.array([0, 1, 2])
    size = np.array([nz, ny, nx])[axes]
    d = len(axes)
    m = 2 + (2 * d if free else d)
    first, low, high = np.zeros(m), np.full(m, -np.inf), np.full(m, np.inf)
    low[2 : 2 + d], high[2 : 2 + d] = -size / 2, size / 2
    if free:
        first[2 + d :] = np.log(size / 4)
        low[2 + d :], high[2 + d :] = np.log(_NARROWEST_PX), np.log(size)
    unknown, trial, step = np.empty(m), np.empty(m), np.empty(m)
    normal, trial_normal, lower = np.empty((m, m)), np.empty((m, m)), np.empty((m, m))
    pull, trial_pull = np.empty(m), np.empty(m)
    scratch = np.empty((4, max(8, nx)))
    found = np.full((count, 6), np.inf)
    for n in range(count):
        patch = patches[n]
        ground = patch.min()
        unknown[:] = first
        unknown[0], unknown[1] = patch[nz // 2, ny // 2, nx // 2] - ground, ground
        if not unknown[0] > 0:
            continue
        cost = _normal_equations(patch, unknown, axes, widths, free, normal, pull, scratch)
        damping = 1e-3
        for _ in range(_MAX_STEPS):
            _hold_at_bounds(unknown, low, high, normal, pull)
            if not _solve(normal, pull, damping, lower, step):
                damping *= 10
                continue
            trial[:] = np.minimum(np.maximum(unknown + step, low), high)
            moved = np.abs(trial[2:] - unknown[2:]).max()
            trial_cost = _normal_equations(
                patch, trial, axes, widths, free, trial_normal, trial_pull, scratch
            )
            if trial_cost <= cost:
                unknown, trial = trial, unknown
                normal, trial_normal = trial_normal, normal
                pull, trial_pull = trial_pull, pull
                cost, damping = trial_cost, max(damping / 10, 1e-9)
            else:
                damping *= 10
            if moved < _CLOSE_ENOUGH_PX:
                break
        if unknown[0] > 0:
            found[n, :3], found[n, 3:] = 0.0, widths
            found[n, axes] = unknown[2 : 2 + d]
            if free:
                found[n, 3 + axes] = np.exp(unknown[2 + d :])
    return found


@njit(cache=True, nogil=True)
def _hold_at_bounds(
    unknown: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    normal: NDArray[np.float64],
    pull: NDArray[np.float64],
) -> None:  # pragma: no cover - compiled
    """Take out of the equations what is at a bound and pulled beyond it."""
    for i in range(len(unknown)):
        if (unknown[i] <= low[i] and pull[i] < 0) or (unknown[i] >= high[i] and pull[i] > 0):
            normal[i, :] = 0.0
            normal[:, i] = 0.0
            normal[i, i] = 1.0
            pull[i] = 0.0


@njit(cache=True, nogil=True)
def _normal_equations(
    patch: NDArray[np.float32],
    unknown: NDArray[np.float64],
    axes: NDArray[np.int64],
    widths: NDArray[np.float64],
    free: bool,
    normal: NDArray[np.float64],
    pull: NDArray[np.float64],
    scratch: NDArray[np.float64],
) -> float:  # pragma: no cover - compiled
    """Fill in JᵀJ and Jᵀr of a Gaussian, return the sum of squares of the residuals r.

    Unknown are amplitude A, ground, centres c and, where free, logarithms of the widths s. With
    u = (p − c)/s the derivatives of A exp(−Σu²/2) are itself times 1/A, u/s and u².
    """
    nz, ny, nx = patch.shape
    d, m = len(axes), len(unknown)
    inverse, centre, u, row = scratch[0, :3], scratch[0, 3:6], scratch[1, :3], scratch[2]
    bell_x = scratch[3]
    inverse[1], centre[1] = 1.0, 0.0
    for a in range(d):
        centre[axes[a]] = unknown[2 + a] + patch.shape[axes[a]] // 2
        inverse[axes[a]] = 1 / (np.exp(unknown[2 + d + a]) if free else widths[axes[a]])
    for x in range(nx):
        bell_x[x] = np.exp(-0.5 * ((x - centre[2]) * inverse[2]) ** 2)
    normal[:] = 0
    pull[:] = 0
    cost = 0.0
    for z in range(nz):
        u[0] = (z - centre[0]) * inverse[0]
        for y in range(ny):
            u[1] = (y - centre[1]) * inverse[1]
            bell_zy = np.exp(-0.5 * (u[0] ** 2 + u[1] ** 2))
            for x in range(nx):
                u[2] = (x - centre[2]) * inverse[2]
                bell = bell_zy * bell_x[x]
                residual = patch[z, y, x] - unknown[1] - unknown[0] * bell
                cost += residual * residual
                row[0], row[1] = bell, 1.0
                for a in range(d):
                    rise = unknown[0] * bell * u[axes[a]]
                    row[2 + a] = rise * inverse[axes[a]]
                    if free:
                        row[2 + d + a] = rise * u[axes[a]]
                for i in range(m):
                    pull[i] += row[i] * residual
                    for j in range(i + 1):
                        normal[i, j] += row[i] * row[j]
    return cost


@njit(cache=True, nogil=True)
def _solve(
    normal: NDArray[np.float64],
    pull: NDArray[np.float64],
    damping: float,
    lower: NDArray[np.float64],
    step: NDArray[np.float64],
) -> bool:  # pragma: no cover - compiled
    """Solve (JᵀJ + damping · its diagonal) step = Jᵀr by Cholesky; False where it is singular."""
    n = len(pull)
    for i in range(n):
        for j in range(i + 1):
            total = normal[i, j] * (1 + damping if i == j else 1.0)
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            if i != j:
                lower[i, j] = total / lower[j, j]
            elif total > 1e-14 * normal[i, i]:
                lower[i, i] = np.sqrt(total)
            else:
                return False
    for i in range(n):
        total = pull[i]
        for k in range(i):
            total -= lower[i, k] * step[k]
        step[i] = total / lower[i, i]
    for i in range(n - 1, -1, -1):
        total = step[i]
        for k in range(i + 1, n):
            total -= lower[k, i] * step[k]
        step[i] = total / lower[i, i]
    return True
