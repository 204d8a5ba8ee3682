"""Planes of tiles at positions between voxels, corrected, summed and rounded.

No fastmath here: a voxel must come out the same whichever box it is computed in. Loops run over
slices from 0, as only those are vectorized.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def sample_plane(values, at, shift, light, dark, plane):  # type: ignore[no-untyped-def]
    """Correct a plane of a tile and interpolate it linearly between planes, rows and columns.

    Parameters
    ----------
    values
        Part of a tile (z, y, x), uint8, uint16 or float32.
    at
        Voxel (z, y, x) of ``values`` just before ``plane[0, 0]``.
    shift
        Parts of a voxel from there to it, float32 (z, y, x), 0 to 1.
    light
        Factor for each pixel of ``values``, float32 (y, x): v becomes (v - dark) * light + dark.
    dark
        Level that the factor leaves as it is, float32.
    plane
        Result, float32 (y, x).
    """
    height, length = plane.shape
    z, y0, x0 = at
    tz, ty, tx = shift
    sz, sy, sx = np.float32(1) - tz, np.float32(1) - ty, np.float32(1) - tx
    width = length + (1 if tx > 0 else 0)
    first = values[z]
    second = values[z + 1] if tz > 0 else first
    row = np.zeros(width + 1, np.float32)
    rows = np.empty((2, length), np.float32)
    for y in range(height + (1 if ty > 0 else 0)):
        a = first[y0 + y, x0 : x0 + width]
        b = second[y0 + y, x0 : x0 + width]
        factor = light[y0 + y, x0 : x0 + width]
        for x in range(width):
            value = sz * np.float32(a[x]) + tz * np.float32(b[x])
            row[x] = (value - dark) * factor[x] + dark
        here = rows[y & 1] if ty > 0 else plane[y]
        for x in range(length):
            here[x] = sx * row[x] + tx * row[x + 1]
        if ty > 0 and y > 0:
            before, out = rows[1 - (y & 1)], plane[y - 1]
            for x in range(length):
                out[x] = sy * before[x] + ty * here[x]


@njit(nogil=True, cache=True, error_model="numpy")
def copy_planes(values, at, shift, light, dark, top, target):  # type: ignore[no-untyped-def]
    """Write all planes of ``target`` from one tile; see `sample_plane` and `store_plane`."""
    plane = np.empty(target.shape[1:], np.float32)
    z, y, x = at
    for k in range(len(target)):
        sample_plane(values, (z + k, y, x), shift, light, dark, plane)
        store_plane(plane, top, target[k])


@njit(nogil=True, cache=True, error_model="numpy")
def add_plane(values, at, shift, light, dark, along_y, along_x, plane, summed, total):  # type: ignore[no-untyped-def]
    """Sample a plane of a tile, and add it to ``summed`` and its weights to ``total``."""
    sample_plane(values, at, shift, light, dark, plane)
    height, length = plane.shape
    for y in range(height):
        weight_y, row, sum_row, total_row = along_y[y], plane[y], summed[y], total[y]
        for x in range(length):
            weight = weight_y * along_x[x]
            sum_row[x] += weight * row[x]
            total_row[x] += weight


@njit(nogil=True, cache=True, error_model="numpy")
def store_plane(plane, top, target):  # type: ignore[no-untyped-def]
    """Write a plane, rounded to the nearest and clipped at ``top``; as it is if ``top`` is 0."""
    height, length = plane.shape
    for y in range(height):
        row, out = plane[y], target[y]
        if top > 0:
            for x in range(length):
                out[x] = min(max(np.rint(row[x]), np.float32(0)), top)
        else:
            for x in range(length):
                out[x] = row[x]


@njit(nogil=True, cache=True, error_model="numpy")
def store_mean(summed, total, plane, top, target):  # type: ignore[no-untyped-def]
    """Write ``summed / total`` as `store_plane` does."""
    height, length = summed.shape
    for y in range(height):
        row, sum_row, total_row = plane[y], summed[y], total[y]
        for x in range(length):
            row[x] = sum_row[x] / total_row[x]
    store_plane(plane, top, target)
