"""Detection: regional maxima of the magnitude of clutter-filtered frames, above the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import median_filter

_NOISE_SAMPLES = 1 << 20
"""Samples the noise level is estimated from; its error is then near 1 % a row of 100."""

_ROWS_TOGETHER = 9
"""Depths over which the median of levels is taken: a vessel that fills a row moves it little."""


def noise_level(magnitude_t: NDArray[np.floating]) -> NDArray[np.float64]:
    """Estimate the root-mean-square noise at each depth from the median of the magnitude.

    After the clutter filter most voxels hold no bubble, so the median is that of the noise, and
    bubbles, however bright, hardly move it. The magnitude of complex Gaussian noise follows a
    Rayleigh law, whose median is √ln 2 of its root mean square; it exceeds k times that with the
    probability exp(−k²): at k = 3.5, one voxel in 200,000. Gain over time and the growing aperture
    of a beamformer make noise change with depth. Voxels that are exactly 0 hold no data, such as
    those beside the field of the probe, and are left out.

    Parameters
    ----------
    magnitude_t
        Magnitude of the IQ, shape (t, z, x) or (t, z, y, x).

    Returns
    -------
    Root mean square of the noise, in the unit of ``magnitude_t``, float64 (z,); infinite at depths
    without data.
    """
    step = max(1, magnitude_t.size // _NOISE_SAMPLES)
    flat = magnitude_t.reshape(len(magnitude_t), magnitude_t.shape[1], -1)
    level = np.full(magnitude_t.shape[1], np.inf)
    for z in range(len(level)):
        values = flat[:, z].ravel()[::step]
        values = values[values > 0]
        if len(values):
            level[z] = np.median(values) / np.sqrt(np.log(2))
    seen = np.isfinite(level)
    if seen.any():
        level[seen] = median_filter(level[seen], size=_ROWS_TOGETHER, mode="nearest")
    return level


def find_peaks(
    magnitude_t: NDArray[np.floating],
    *,
    threshold: ArrayLike,
    half_width: int | Sequence[int] = 2,
    max_per_frame: int | None = None,
) -> NDArray[np.int64]:
    """Find the regional maxima above a threshold, far enough from the edge to hold a patch.

    A voxel is a regional maximum if none of its 3^d − 1 neighbours is larger. Voxels of equal
    value that touch are one maximum, placed at the voxel nearest to their centroid; it counts
    only if no neighbour of any of them is larger. The result does not depend on the order of
    anything but the voxels themselves.

    Parameters
    ----------
    magnitude_t
        Magnitude of the IQ, shape (t, z, x) or (t, z, y, x).
    threshold
        Maxima must be larger than this; one number, or one for each depth, shape (z,).
    half_width
        Voxels a patch reaches from its centre, one for all axes or one for each; maxima nearer to
        the edge than this are left out.
    max_per_frame
        Keep at most this many in each frame, the brightest; None keeps all.

    Returns
    -------
    int64 array of shape (n, 1 + d): frame (index in the block) and voxel, in that order.

    Raises
    ------
    ValueError
        If the array has no time axis and 2 or 3 space axes, or a bound is negative.
    """
    frames = as_volumes(magnitude_t)
    margin = widths(half_width, magnitude_t.ndim - 1)
    if max_per_frame is not None and max_per_frame < 0:
        raise ValueError(f"max_per_frame must not be negative: {max_per_frame}")
    least = np.broadcast_to(np.asarray(threshold, np.float64), frames.shape[1:2]).copy()
    flat = np.array(_regional_maxima(frames, least, *margin), dtype=np.int64)
    frame, voxel = np.divmod(flat, math.prod(frames.shape[1:]))
    if max_per_frame is not None:
        brightness = frames.reshape(len(frames), -1)[frame, voxel]
        by_brightness = np.lexsort((-brightness, frame))
        rank = np.arange(len(frame)) - np.searchsorted(frame, frame)
        keep = np.sort(by_brightness[rank < max_per_frame])
        frame, voxel = frame[keep], voxel[keep]
    index = np.unravel_index(voxel, magnitude_t.shape[1:])
    return np.stack([frame, *index], axis=1).astype(np.int64)


def as_volumes(magnitude_t: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return frames as float32 (t, z, y, x), with one plane along y where they are 2-D."""
    if magnitude_t.ndim not in (3, 4):
        raise ValueError(f"frames must have axes (t, z, [y,] x), not shape {magnitude_t.shape}")
    volumes = magnitude_t[:, :, None, :] if magnitude_t.ndim == 3 else magnitude_t
    return np.ascontiguousarray(volumes, dtype=np.float32)


def widths(half_width: int | Sequence[int], ndim: int) -> tuple[int, int, int]:
    """Return the half widths along z, y and x; along the y that 2-D frames lack it is 0."""
    given = (half_width,) * ndim if isinstance(half_width, int) else tuple(half_width)
    if len(given) != ndim or any(n < 1 for n in given):
        raise ValueError(f"half widths must be {ndim} numbers of at least 1, not {half_width}")
    return (given[0], 0, given[1]) if ndim == 2 else (given[0], given[1], given[2])


@njit(cache=True, nogil=True)
def _regional_maxima(
    frames: NDArray[np.floating], threshold: NDArray[np.float64], mz: int, my: int, mx: int
) -> list[int]:  # pragma: no cover - compiled
    nt, nz, ny, nx = frames.shape
    size = nz * ny * nx
    flooded_in = np.full(size, -1, np.int64)  # the last frame whose flood reached the voxel
    plateau = np.empty(size, np.int64)
    found = [0 for _ in range(0)]  # typed, though empty
    for t in range(nt):
        volume = frames[t]
        for z in range(mz, nz - mz):
            for y in range(my, ny - my):
                for x in range(mx, nx - mx):
                    if not volume[z, y, x] > threshold[z]:
                        continue
                    higher, equal = _compare(volume, z, y, x)
                    if higher:
                        continue
                    voxel = (z * ny + y) * nx + x
                    if equal:
                        if flooded_in[voxel] == t:
                            continue
                        voxel = _flood(volume, voxel, flooded_in, t, plateau)
                        if voxel < 0:
                            continue
                        pz, py, px = voxel // (ny * nx), voxel // nx % ny, voxel % nx
                        if not (mz <= pz < nz - mz and my <= py < ny - my and mx <= px < nx - mx):
                            continue
                    found.append(t * size + voxel)
    # A plateau is met at its first voxel but placed at its middle one.
    return sorted(found)


@njit(cache=True, nogil=True)
def _compare(
    volume: NDArray[np.floating], z: int, y: int, x: int
) -> tuple[bool, bool]:  # pragma: no cover - compiled
    """Tell whether any neighbour is higher, and whether any is equal."""
    nz, ny, nx = volume.shape
    here = volume[z, y, x]
    equal = False
    for k in range(max(z - 1, 0), min(z + 2, nz)):
        for j in range(max(y - 1, 0), min(y + 2, ny)):
            for i in range(max(x - 1, 0), min(x + 2, nx)):
                there = volume[k, j, i]
                if there > here:
                    return True, False
                if there == here and not (k == z and j == y and i == x):
                    equal = True
    return False, equal


@njit(cache=True, nogil=True)
def _flood(
    volume: NDArray[np.floating],
    seed: int,
    flooded_in: NDArray[np.int64],
    frame: int,
    plateau: NDArray[np.int64],
) -> int:  # pragma: no cover - compiled
    """Walk a plateau; return the voxel nearest to its centroid, or -1 if it has a higher side."""
    nz, ny, nx = volume.shape
    here = volume[seed // (ny * nx), seed // nx % ny, seed % nx]
    plateau[0] = seed
    flooded_in[seed] = frame
    count, done = 1, 0
    is_maximum = True
    sum_z = sum_y = sum_x = 0.0
    while done < count:
        voxel = plateau[done]
        done += 1
        z, y, x = voxel // (ny * nx), voxel // nx % ny, voxel % nx
        sum_z, sum_y, sum_x = sum_z + z, sum_y + y, sum_x + x
        for k in range(max(z - 1, 0), min(z + 2, nz)):
            for j in range(max(y - 1, 0), min(y + 2, ny)):
                for i in range(max(x - 1, 0), min(x + 2, nx)):
                    there = volume[k, j, i]
                    if there > here:
                        is_maximum = False
                    neighbour = (k * ny + j) * nx + i
                    if there == here and flooded_in[neighbour] != frame:
                        flooded_in[neighbour] = frame
                        plateau[count] = neighbour
                        count += 1
    if not is_maximum:
        return -1
    best, best_distance = -1, np.inf
    for n in range(count):
        voxel = plateau[n]
        z, y, x = voxel // (ny * nx), voxel // nx % ny, voxel % nx
        distance = (z - sum_z / count) ** 2 + (y - sum_y / count) ** 2 + (x - sum_x / count) ** 2
        if distance < best_distance or (distance == best_distance and voxel < best):
            best, best_distance = voxel, distance
    return best
