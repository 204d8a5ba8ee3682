"""Patches around the maxima that detection found, and the table that a localizer makes of them.

A localizer differs from another only in where it sees the centre of a patch; the rest is here.
2-D frames are handled as volumes of one plane along y, so that one kernel serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.ultrasound.columns import Table, axis_names
from vasculome.ultrasound.detect import as_volumes, widths

Patches = NDArray[np.float32]
"""Shape (n, z, y, x), odd along each axis, the maximum in the middle; one plane along y in 2-D."""

Shifts = NDArray[np.float64]
"""Centres less the middle of the patch, in voxels, shape (n, 3); infinite where there is none."""


def localize_patches(
    centres: Callable[[Patches], Shifts],
    magnitude_t: NDArray[np.floating],
    peaks: NDArray[np.int64],
    *,
    half_width: int | Sequence[int],
    first_frame: int,
    half_widths_read: int = 1,
) -> Table:
    """Cut the patches, ask ``centres`` where the bubbles in them are, and tabulate.

    Parameters
    ----------
    centres
        Takes patches, returns shifts.
    magnitude_t
        Magnitude of the IQ, shape (t, z, x) or (t, z, y, x).
    peaks
        int64, shape (n, 1 + d), as from :func:`~vasculome.ultrasound.detect.find_peaks`.
    half_width
        Voxels the patch reaches from the peak, one for all axes or one for each.
    first_frame
        Number of the first frame of the block.
    half_widths_read
        How many half widths the patches for ``centres`` reach; beyond the frame they repeat its
        edge.

    Returns
    -------
    Table of detections, sorted as the peaks are:

    - ``frame`` (int64), ``z``, [``y``,] ``x`` in voxels (float64), ``amplitude`` (of the peak,
      float32);
    - ``score`` (float32, in [0, 1]): the contrast of the patch, 1 − mean of its rim / peak; near 1
      for a bubble alone, low for one on a bright ground;
    - ``maxima`` (int16): the local maxima in the patch; more than one tells of bubbles too close to
      be trusted apart;
    - ``shift_px`` (float32): the largest distance from the peak along any axis.

    Peaks whose centre comes out further from the peak than half the reach of the patch and half a
    voxel are left out: they are not spots.

    Raises
    ------
    ValueError
        If shapes do not fit, or a patch does not lie within its frame.
    """
    ndim = magnitude_t.ndim - 1
    frames = as_volumes(magnitude_t)
    reach = np.array(widths(half_width, ndim))
    if peaks.ndim != 2 or peaks.shape[1] != 1 + ndim:
        raise ValueError(f"peaks must have shape (n, {1 + ndim}), not {peaks.shape}")
    voxels = np.ascontiguousarray(np.insert(peaks, 2, 0, axis=1) if ndim == 2 else peaks)
    low, high = voxels[:, 1:] - reach, voxels[:, 1:] + reach
    beyond = (low < 0).any() or (high >= frames.shape[1:]).any()
    if beyond or (voxels[:, 0] < 0).any() or (voxels[:, 0] >= len(frames)).any():
        raise ValueError("a patch reaches beyond its frame")
    patches = _cut(frames, voxels, reach)
    shift = centres(
        patches if half_widths_read == 1 else _cut(frames, voxels, reach * half_widths_read)
    )
    distance = np.abs(shift)
    kept = (distance <= (reach + 1) / 2).all(axis=1)
    position = voxels[kept, 1:] + shift[kept]
    score, maxima = _describe(patches)
    return {
        "frame": voxels[kept, 0] + first_frame,
        **{name: position[:, "zyx".index(name)] for name in axis_names(ndim)},
        "amplitude": frames[tuple(voxels[kept].T)],
        "score": score[kept],
        "maxima": maxima[kept],
        "shift_px": distance[kept].max(axis=1, initial=0).astype(np.float32),
    }


@njit(cache=True, nogil=True)
def _cut(
    frames: NDArray[np.float32], voxels: NDArray[np.int64], reach: NDArray[np.int64]
) -> Patches:  # pragma: no cover - compiled
    """Return the patches that reach so far from the voxels; the frame's edge is repeated."""
    _, nz, ny, nx = frames.shape
    hz, hy, hx = reach
    patches = np.empty((len(voxels), 2 * hz + 1, 2 * hy + 1, 2 * hx + 1), np.float32)
    for n in range(len(voxels)):
        t, z, y, x = voxels[n]
        for k in range(2 * hz + 1):
            zk = min(max(z + k - hz, 0), nz - 1)
            for j in range(2 * hy + 1):
                yj = min(max(y + j - hy, 0), ny - 1)
                for i in range(2 * hx + 1):
                    patches[n, k, j, i] = frames[t, zk, yj, min(max(x + i - hx, 0), nx - 1)]
    return patches


@njit(cache=True, nogil=True)
def _describe(
    patches: Patches,
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:  # pragma: no cover - compiled
    """Return contrast and number of maxima of every patch."""
    score = np.empty(len(patches), np.float32)
    maxima = np.empty(len(patches), np.int16)
    for n in range(len(patches)):
        score[n] = _contrast(patches[n])
        maxima[n] = _count_maxima(patches[n])
    return score, maxima


@njit(cache=True, nogil=True)
def _contrast(patch: NDArray[np.float32]) -> float:  # pragma: no cover - compiled
    nz, ny, nx = patch.shape
    total, count = 0.0, 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                on_rim = z in (0, nz - 1) or x in (0, nx - 1) or (ny > 1 and y in (0, ny - 1))
                if on_rim:
                    total += patch[z, y, x]
                    count += 1
    peak = patch[nz // 2, ny // 2, nx // 2]
    if not peak > 0:
        return 0.0
    return float(min(max(1 - total / (count * peak), 0.0), 1.0))


@njit(cache=True, nogil=True)
def _count_maxima(patch: NDArray[np.float32]) -> int:  # pragma: no cover - compiled
    """Count the voxels inside the patch that no neighbour exceeds; of equals the first counts."""
    nz, ny, nx = patch.shape
    count = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                count += _is_first_maximum(patch, z, y, x)
    return count


@njit(cache=True, nogil=True)
def _is_first_maximum(
    patch: NDArray[np.float32], z: int, y: int, x: int
) -> bool:  # pragma: no cover - compiled
    nz, ny, nx = patch.shape
    here = patch[z, y, x]
    # Most voxels have a higher neighbour along x: these two settle them.
    if (x > 0 and patch[z, y, x - 1] >= here) or (x + 1 < nx and patch[z, y, x + 1] > here):
        return False
    for k in range(max(z - 1, 0), min(z + 2, nz)):
        for j in range(max(y - 1, 0), min(y + 2, ny)):
            for i in range(max(x - 1, 0), min(x + 2, nx)):
                there = patch[k, j, i]
                if there > here or (there == here and (k, j, i) < (z, y, x)):
                    return False
    return True
