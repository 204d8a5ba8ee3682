"""The loops of `models.student_engine`, which see volumes of float32 as flat as they can.

An activation has a border of zeros around each channel, (C, z + 2, y + 2, x + 2). A convolution
runs over a whole plane of it as over one long row, borders included, which a processor does eight
voxels at once however short the rows are; what it says of the borders is never read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RUN = 256
"""Voxels of a channel that are summed at once: they stay in the nearest cache."""

LANES = 8
"""Voxels that runs are rounded up to."""

TOGETHER = 5
"""Channels that are summed at once, so that what is loaded serves all of them."""

_SLOPE = 0.01
"""Of the leaky ReLU, below zero."""

# Not all of `fastmath`, which would let the compiler take it that there is no NaN.
_EXACT: dict[str, Any] = {"cache": True, "nogil": True, "fastmath": {"contract"}}
_FAST = _EXACT | {"fastmath": {"contract", "reassoc"}}


@njit(**_EXACT)
def convolve(
    raw: Floats, source: Floats, rows: NDArray[np.int64], fives: Floats, ones: Floats
) -> None:
    """Sum three neighbours of each of many rows into each channel.

    Parameters
    ----------
    raw
        (C, z, n) what comes out, planes as runs of n voxels, a multiple of `LANES`.
    source
        Activations, flat.
    rows
        (rows + 1,) where in ``source`` the first voxel of each row is, and last the voxels of a
        plane.
    fives, ones
        Weights of the channels that are summed five together, (C // 5, rows / 3, 45), and of those
        that are left, (C % 5, rows / 3, 9).
    """
    _, depth, length = raw.shape
    total = np.empty(TOGETHER * RUN, np.float32)
    for z in range(depth):
        for begin in range(0, length, RUN):
            n = min(RUN, length - begin)
            place = z * rows[-1] + begin
            for five in range(fives.shape[0]):
                total[:] = 0
                for k in range(fives.shape[1]):
                    _add_to_five(
                        total,
                        source[place + rows[3 * k] :],
                        source[place + rows[3 * k + 1] :],
                        source[place + rows[3 * k + 2] :],
                        fives[five, k],
                        n,
                    )
                for i in range(TOGETHER):
                    for x in range(n):
                        raw[TOGETHER * five + i, z, begin + x] = total[i * RUN + x]
            for one in range(ones.shape[0]):
                total[:RUN] = 0
                for k in range(ones.shape[1]):
                    _add_to_one(
                        total,
                        source[place + rows[3 * k] :],
                        source[place + rows[3 * k + 1] :],
                        source[place + rows[3 * k + 2] :],
                        ones[one, k],
                        n,
                    )
                for x in range(n):
                    raw[TOGETHER * fives.shape[0] + one, z, begin + x] = total[x]


# Of more than one array of sums, at fixed distances, and three of input the compiler would not
# check that they are apart, and take one voxel at a time. Each sum is a chain of fused products.


@njit(**_EXACT)
def _add_to_five(total: Floats, a: Floats, b: Floats, c: Floats, w: Floats, n: int) -> None:
    """Add three rows, at three places each, to five sums: 45 products for 9 loads."""
    for x in range(n):
        a0, a1, a2 = a[x], a[x + 1], a[x + 2]
        b0, b1, b2 = b[x], b[x + 1], b[x + 2]
        c0, c1, c2 = c[x], c[x + 1], c[x + 2]
        # fmt: off
        total[x] = (
            total[x]
            + w[0] * a0 + w[1] * a1 + w[2] * a2
            + w[3] * b0 + w[4] * b1 + w[5] * b2
            + w[6] * c0 + w[7] * c1 + w[8] * c2
        )
        total[RUN + x] = (
            total[RUN + x]
            + w[9] * a0 + w[10] * a1 + w[11] * a2
            + w[12] * b0 + w[13] * b1 + w[14] * b2
            + w[15] * c0 + w[16] * c1 + w[17] * c2
        )
        total[2 * RUN + x] = (
            total[2 * RUN + x]
            + w[18] * a0 + w[19] * a1 + w[20] * a2
            + w[21] * b0 + w[22] * b1 + w[23] * b2
            + w[24] * c0 + w[25] * c1 + w[26] * c2
        )
        total[3 * RUN + x] = (
            total[3 * RUN + x]
            + w[27] * a0 + w[28] * a1 + w[29] * a2
            + w[30] * b0 + w[31] * b1 + w[32] * b2
            + w[33] * c0 + w[34] * c1 + w[35] * c2
        )
        total[4 * RUN + x] = (
            total[4 * RUN + x]
            + w[36] * a0 + w[37] * a1 + w[38] * a2
            + w[39] * b0 + w[40] * b1 + w[41] * b2
            + w[42] * c0 + w[43] * c1 + w[44] * c2
        )
        # fmt: on


@njit(**_EXACT)
def _add_to_one(total: Floats, a: Floats, b: Floats, c: Floats, w: Floats, n: int) -> None:
    """Do as `_add_to_five` for a single channel."""
    for x in range(n):
        # fmt: off
        total[x] = (
            total[x]
            + w[0] * a[x] + w[1] * a[x + 1] + w[2] * a[x + 2]
            + w[3] * b[x] + w[4] * b[x + 1] + w[5] * b[x + 2]
            + w[6] * c[x] + w[7] * c[x + 1] + w[8] * c[x + 2]
        )
        # fmt: on


@njit(**_FAST)
def moments(raw: Floats, height: int, width: int) -> tuple[float, float]:
    """Return the sums of all voxels and of their squares; borders do not count."""
    total, squares = 0.0, 0.0
    for c in range(raw.shape[0]):
        for z in range(raw.shape[1]):
            for y in range(height):
                row = raw[c, z, y * (width + 2) :]
                one, two = np.float32(0), np.float32(0)
                for x in range(width):
                    one += row[x]
                    two += row[x] * row[x]
                total += one
                squares += two
    return total, squares


@njit(**_EXACT)
def split(target: Floats, image: Floats, stride: int) -> None:
    """Fill an activation with every ``stride``-th voxel, a channel for each that may be first."""
    for c in range(target.shape[0]):
        z0, y0, x0 = c // stride**2, c // stride % stride, c % stride
        for z in range(target.shape[1] - 2):
            for y in range(target.shape[2] - 2):
                row = image[stride * z + z0, stride * y + y0]
                for x in range(target.shape[3] - 2):
                    target[c, z + 1, y + 1, x + 1] = row[stride * x + x0]


@njit(**_EXACT)
def activate(target: Floats, raw: Floats, scale: Floats, shift: Floats) -> None:
    """Fill an activation with the leaky ReLU of ``scale`` × ``raw`` + ``shift``."""
    width = target.shape[3] - 2
    for c in range(target.shape[0]):
        for z in range(target.shape[1] - 2):
            for y in range(target.shape[2] - 2):
                row = raw[c, z, y * (width + 2) :]
                out = target[c, z + 1, y + 1, 1:]
                for x in range(width):
                    value = scale[c] * row[x] + shift[c]
                    out[x] = value if value > 0 else np.float32(_SLOPE) * value


@njit(**_EXACT)
def activate_with_past(
    target: Floats, raw: Floats, scale: Floats, shift: Floats, source: Floats, past: Floats
) -> None:
    """Do as `activate`, with what goes past added: ``past`` (C, C of ``source``) × ``source``."""
    width = target.shape[3] - 2
    value = np.empty(width, np.float32)
    for c in range(target.shape[0]):
        for z in range(target.shape[1] - 2):
            for y in range(target.shape[2] - 2):
                row = raw[c, z, y * (width + 2) :]
                for x in range(width):
                    value[x] = scale[c] * row[x] + shift[c]
                for k in range(source.shape[0]):
                    weight = past[c, k]
                    if weight != 0:
                        before = source[k, z + 1, y + 1, 1:]
                        for x in range(width):
                            value[x] += weight * before[x]
                out = target[c, z + 1, y + 1, 1:]
                for x in range(width):
                    out[x] = value[x] if value[x] > 0 else np.float32(_SLOPE) * value[x]


@njit(**_EXACT)
def pool(target: Floats, source: Floats) -> None:
    """Fill an activation with the greatest of each 2 × 2 × 2 voxels of another."""
    width = target.shape[3] - 2
    greatest = np.empty(2 * width, np.float32)
    for c in range(target.shape[0]):
        for z in range(target.shape[1] - 2):
            for y in range(target.shape[2] - 2):
                first = source[c, 2 * z + 1, 2 * y + 1, 1:]
                second = source[c, 2 * z + 1, 2 * y + 2, 1:]
                third = source[c, 2 * z + 2, 2 * y + 1, 1:]
                fourth = source[c, 2 * z + 2, 2 * y + 2, 1:]
                for x in range(2 * width):
                    greatest[x] = max(first[x], second[x], third[x], fourth[x])
                for x in range(width):
                    target[c, z + 1, y + 1, x + 1] = max(greatest[2 * x], greatest[2 * x + 1])


@njit(**_EXACT)
def mix(target: Floats, source: Floats, weights: Floats, bias: float) -> None:
    """Fill (C, z, y, x) with ``weights`` (C, C of ``source``) × an activation + ``bias``."""
    width = target.shape[3]
    for c in range(target.shape[0]):
        for z in range(target.shape[1]):
            for y in range(target.shape[2]):
                out = target[c, z, y]
                for x in range(width):
                    out[x] = bias
                for k in range(source.shape[0]):
                    weight, row = weights[c, k], source[k, z + 1, y + 1, 1:]
                    for x in range(width):
                        out[x] += weight * row[x]


@njit(**_EXACT)
def upsample(target: Floats, low: Floats, border: int, adds: bool) -> None:
    """Interpolate (C, z, y, x) linearly to twice the voxels, as torch does without align_corners.

    Into the first C channels of ``target``, (≥ C, 2z + 2·border, …), or added to what is there.
    """
    channels, depth, height, width = low.shape
    near, far = np.float32(0.75), np.float32(0.25)
    between = np.empty(width + 2, np.float32)
    for c in range(channels):
        for z in range(2 * depth):
            z1 = min(max(z // 2 + 2 * (z % 2) - 1, 0), depth - 1)
            for y in range(2 * height):
                y1 = min(max(y // 2 + 2 * (y % 2) - 1, 0), height - 1)
                one, two = low[c, z // 2, y // 2], low[c, z // 2, y1]
                three, four = low[c, z1, y // 2], low[c, z1, y1]
                for x in range(width):
                    between[x + 1] = near * (near * one[x] + far * two[x]) + far * (
                        near * three[x] + far * four[x]
                    )
                between[0], between[width + 1] = between[1], between[width]
                out = target[c, z + border, y + border, border:]
                if adds:
                    for x in range(width):
                        out[2 * x] += near * between[x + 1] + far * between[x]
                        out[2 * x + 1] += near * between[x + 1] + far * between[x + 2]
                else:
                    for x in range(width):
                        out[2 * x] = near * between[x + 1] + far * between[x]
                        out[2 * x + 1] = near * between[x + 1] + far * between[x + 2]
