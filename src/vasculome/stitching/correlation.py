"""Phase correlation over a range of lags, and the correlation coefficient at one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.ndimage import maximum_filter

Image = NDArray[np.float32]


def phase_correlation(
    a: Image, b: Image, *, lag: Sequence[int], reach: Sequence[int]
) -> NDArray[np.float32]:
    """Return how well ``a[m + k]`` matches ``b[m]`` for the lags k within ``reach`` of ``lag``.

    Every frequency has one say, however strong it is (Kuglin and Hines 1975), so that a bright
    vessel or an uneven light does not outshout the rest.

    Parameters
    ----------
    a, b
        Images without background.
    lag, reach
        Middle and half-width of the range of lags, in voxels along each axis.

    Returns
    -------
    ndarray
        Float32 of shape ``2 reach + 1``; noise has a standard deviation of about 1.
    """
    size = [
        next_fast_len(max(n, m) + r, real=True)
        for n, m, r in zip(a.shape, b.shape, reach, strict=True)
    ]
    spectrum = rfftn(a, size, workers=1)
    spectrum *= np.conj(rfftn(b, size, workers=1))
    strength = np.abs(spectrum)
    spectrum /= np.maximum(strength, np.float32(1e-6) * max(float(strength.max()), 1e-30))
    surface = irfftn(spectrum, size, workers=1)
    at = [np.arange(k - r, k + r + 1) % n for k, r, n in zip(lag, reach, size, strict=True)]
    surface = surface[np.ix_(*at)] * np.float32(np.sqrt(np.prod(size)))
    return np.asarray(surface, np.float32)


def peaks(surface: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the indices (count, axes) of the highest local maxima, the highest first."""
    is_peak = surface == maximum_filter(surface, 3, mode="constant", cval=-np.inf)
    at = np.argwhere(is_peak)
    order = np.argsort(-surface[tuple(at.T)], kind="stable")
    return at[order[:count]]


def correlation(a: Image, b: Image, lag: Sequence[int]) -> tuple[float, int]:
    """Return the correlation coefficient of ``a[m + lag]`` and ``b[m]``, and how many they are.

    It is 0 where either does not vary.
    """
    first = [max(0, k) for k in lag]
    last = [min(n, m + k) for n, m, k in zip(a.shape, b.shape, lag, strict=True)]
    if any(q <= p for p, q in zip(first, last, strict=True)):
        return 0.0, 0
    u = a[tuple(slice(p, q) for p, q in zip(first, last, strict=True))].ravel()
    v = np.ravel(b[tuple(slice(p - k, q - k) for p, q, k in zip(first, last, lag, strict=True))])
    n = u.size
    mean_u, mean_v = float(u.mean()), float(v.mean())
    var_u = float(np.dot(u, u)) / n - mean_u**2
    var_v = float(np.dot(v, v)) / n - mean_v**2
    if var_u <= 1e-12 or var_v <= 1e-12:
        return 0.0, n
    return (float(np.dot(u, v)) / n - mean_u * mean_v) / float(np.sqrt(var_u * var_v)), n
