"""Coarse offset of two tiles: all sub-slabs' phase correlations together, then a verified peak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vasculome.stitching.bandpass import band_pass
from vasculome.stitching.correlation import Image, correlation, peaks, phase_correlation
from vasculome.stitching.slabs import Slab, bin_down

_BINNING = (2, 4, 4)
_CANDIDATES = 8
_LIMIT = 4.0
_MIN_SHARED = 0.1


class CoarseMatch(NamedTuple):
    """Where the sub-slabs of a pair match best together.

    Attributes
    ----------
    offset
        Float64 (z, y, x), voxels from the first tile's start to the second's.
    height
        Height of the phase correlation's peak over its noise; noise alone rarely passes 5.
    sharpness
        Height of the peak over the next one's.
    textured
        For each sub-slab and tile whether it varies at all, shape (slabs, 2).
    """

    offset: NDArray[np.float64]
    height: float
    sharpness: float
    textured: NDArray[np.bool_]


def match_coarsely(
    slabs: Sequence[Slab], *, offset: Sequence[int], search: Sequence[int]
) -> CoarseMatch:
    """Return the offset within ``search`` voxels of ``offset`` at which the sub-slabs match best.

    The surfaces of all sub-slabs are summed, each with the same say, so that blank ones add
    nothing but noise. The highest peaks are then judged by the correlation coefficient.
    """
    thickness = np.min([box.shape for slab in slabs for box in slab.boxes], axis=0)
    binning = np.clip(thickness // 4, 1, _BINNING)
    reach = -(-np.asarray(search) // binning)
    total = np.zeros(2 * reach + 1, np.float32)
    images, lags, textured = [], [], []
    for slab in slabs:
        a, b, lag = _binned(slab, np.asarray(offset), binning)
        textured.append([bool(np.square(image).mean() > 1e-9) for image in (a, b)])
        if all(textured[-1]):
            total += phase_correlation(a, b, lag=lag, reach=reach)
            images.append((a, b))
            lags.append(lag)
    if not images:
        return CoarseMatch(np.asarray(offset, float), 0.0, 1.0, np.array(textured))
    total /= np.float32(np.sqrt(len(images)))
    candidates = peaks(total, _CANDIDATES) - reach
    scores = [_score(images, lags, step) for step in candidates]
    best = candidates[int(np.argmax(scores))]
    height = float(total[tuple(best + reach)])
    rivals = [
        float(total[tuple(step + reach)]) for step in candidates if np.abs(step - best).max() > 2
    ]
    sharpness = height / max(max(rivals, default=1.0), 1.0)
    finer = best + _parabola(images, lags, best, reach)
    return CoarseMatch(offset + finer * binning, height, sharpness, np.array(textured))


def _binned(
    slab: Slab, offset: NDArray[np.int_], binning: NDArray[np.int_]
) -> tuple[Image, Image, NDArray[np.int_]]:
    """Return both images on coarse voxels, and the lag at which they lie at ``offset``."""
    apart = np.subtract(slab.boxes[0].start, slab.boxes[1].start)
    # Whole coarse voxels from every slab's zero to the nominal offset: surfaces can be summed.
    trim = (apart - offset) % binning
    second = slab.values[1][tuple(slice(int(t), None) for t in trim)]
    a, b = (
        band_pass(bin_down(v, binning), sigma=0, limit=_LIMIT) for v in (slab.values[0], second)
    )
    return a, b, (offset - (apart - trim)) // binning


def _score(
    images: Sequence[tuple[Image, Image]], lags: Sequence[NDArray[np.int_]], step: NDArray[np.int_]
) -> float:
    """Return the significance of the correlation over sub-slabs (Fisher's z times root n)."""
    total = 0.0
    for (a, b), lag in zip(images, lags, strict=True):
        ncc, shared = correlation(a, b, lag + step)
        if shared >= _MIN_SHARED * min(a.size, b.size):
            total += float(np.arctanh(np.clip(ncc, 0.0, 0.999))) * shared**0.5
    return total


def _parabola(
    images: Sequence[tuple[Image, Image]],
    lags: Sequence[NDArray[np.int_]],
    best: NDArray[np.int_],
    reach: NDArray[np.int_],
) -> NDArray[np.float64]:
    """Return where the parabola through the score's neighbours peaks, along each axis."""
    middle = _score(images, lags, best)
    shift = np.zeros(len(best))
    for axis in np.flatnonzero(reach > 0):
        step = np.zeros_like(best)
        step[axis] = 1
        low, high = _score(images, lags, best - step), _score(images, lags, best + step)
        bend = low + high - 2 * middle
        if bend < 0:
            shift[axis] = np.clip((low - high) / (2 * bend), -1.0, 1.0)
    return shift
