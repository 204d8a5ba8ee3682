"""The fine structure of an image, without background, shading and most of the noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_BACKGROUND_REACH = 7


def band_pass(values: NDArray[Any], *, sigma: float, limit: float) -> NDArray[np.float32]:
    """Return the fine structure of an image (z, y, x).

    The square root evens out photon noise (Anscombe 1948); the mean over 15 x 15 voxels is taken
    away, and with it background and shading. All filters but a smoothing over neighbouring planes
    act within planes, so that a missing plane turns to 0, with its neighbours, and says nothing.
    What is far above the median is clipped, as saturated and dark regions have huge edges.

    Parameters
    ----------
    values
        Grey levels; those below 0 count as 0.
    sigma
        Standard deviation of the smoothing within the plane, in voxels; with 0 there is none,
        within planes or over them.
    limit
        Largest size of the result, in medians of its size.
    """
    reach = math.ceil(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    fine = np.empty(values.shape, np.float32)
    _filter_planes(np.ascontiguousarray(values), kernel, _BACKGROUND_REACH, fine)
    if sigma and len(fine) > 1:
        _smooth_over_planes(fine)
    sample = np.abs(fine[:, ::4, ::4])
    top = limit * np.median(sample[sample > 0]) if sample.any() else np.float32(0)
    return np.clip(fine, -top, top, out=fine)


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _filter_planes(values, kernel, ground, fine):  # type: ignore[no-untyped-def]
    depth, height, length = values.shape
    box = np.full(2 * ground + 1, 1 / (2 * ground + 1), np.float32)
    root = np.empty((height, length), np.float32)
    background = np.empty((height, length), np.float32)
    for z in range(depth):
        # From the first voxel's level: a plain plane must come out as 0, not as rounding errors.
        level = np.sqrt(max(np.float32(values[z, 0, 0]), np.float32(0)))
        for y in range(height):
            for x in range(length):
                root[y, x] = np.sqrt(max(np.float32(values[z, y, x]), np.float32(0))) - level
        _smooth_plane(root, kernel, fine[z])
        _smooth_plane(fine[z], box, background)
        for y in range(height):
            for x in range(length):
                fine[z, y, x] -= background[y, x]


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _smooth_plane(plane, kernel, smooth):  # type: ignore[no-untyped-def]
    height, length = plane.shape
    reach = len(kernel) // 2
    rows = np.empty((height, length), np.float32)
    padded = np.empty(length + 2 * reach, np.float32)
    for y in range(height):
        out = rows[y]
        out[:] = 0
        for k in range(2 * reach + 1):
            row, weight = plane[min(max(y + k - reach, 0), height - 1)], kernel[k]
            for x in range(length):
                out[x] += weight * row[x]
    for y in range(height):
        row, out = rows[y], smooth[y]
        padded[:reach] = row[0]
        padded[reach : reach + length] = row
        padded[reach + length :] = row[length - 1]
        out[:] = 0
        for k in range(2 * reach + 1):
            part, weight = padded[k : k + length], kernel[k]
            for x in range(length):
                out[x] += weight * part[x]


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _smooth_over_planes(image):  # type: ignore[no-untyped-def]
    depth, height, length = image.shape
    plain = np.empty(depth, np.bool_)
    for z in range(depth):
        plain[z] = not image[z].any()
    before = image[0].copy()
    for z in range(depth):
        low, high = max(z - 1, 0), min(z + 1, depth - 1)
        # Half a neighbourhood would draw the plane towards the half that is left.
        keep = np.float32(0 if plain[low] or plain[z] or plain[high] else 1)
        after = image[high]
        for y in range(height):
            for x in range(length):
                here = image[z, y, x]
                sides = before[y, x] + after[y, x]
                image[z, y, x] = keep * (np.float32(0.5) * here + np.float32(0.25) * sides)
                before[y, x] = here
