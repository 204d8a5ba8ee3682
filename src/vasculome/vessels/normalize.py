"""Intensity normalization from a histogram that is gathered tile by tile.

The histogram of a volume is the sum of the histograms of its tiles, so that percentiles of a
terabyte cost one pass and a few hundred kilobytes. 8- and 16-bit volumes are counted exactly;
float volumes in bins of a range found in a first pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasculome.errors import UserError

FLOAT_BINS = 65536
_EXACT_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16))


@dataclass(frozen=True)
class Histogram:
    """How many voxels have which intensity.

    Attributes
    ----------
    counts
        (bins,) int64, voxels in each bin.
    low, high
        Intensities that the first and the last bin stand for; bins are evenly spaced between.
    """

    counts: NDArray[np.int64]
    low: float
    high: float

    @property
    def values(self) -> NDArray[np.float64]:
        """(bins,) intensity that each bin stands for."""
        return np.linspace(self.low, self.high, len(self.counts))

    def __add__(self, other: Histogram) -> Histogram:
        """Return the histogram of both sets of voxels; raises ValueError if the bins differ."""
        mine, theirs = ((h.low, h.high, len(h.counts)) for h in (self, other))
        if mine != theirs:
            raise ValueError(f"histograms have different bins: {mine} and {theirs}")
        return Histogram(self.counts + other.counts, self.low, self.high)


def value_range(image: NDArray[np.floating]) -> tuple[float, float]:
    """Return the least and the greatest intensity of a float tile (the first of two passes).

    Raises
    ------
    UserError
        If an intensity is NaN or infinite.
    """
    low, high = float(image.min()), float(image.max())
    if not np.isfinite(low + high):
        raise UserError(
            "an intensity is NaN or infinite",
            where="image",
            fix="replace such voxels, for instance by 0, before the run",
        )
    return low, high


def merge_ranges(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Return the range that covers all ``ranges``."""
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def intensity_histogram(
    image: NDArray[np.generic], *, float_range: tuple[float, float] | None = None
) -> Histogram:
    """Count the intensities of one tile.

    Parameters
    ----------
    image
        Two or more axes; uint8, uint16 or a float type.
    float_range
        Range of the whole volume (see `value_range`), needed for float images only; voxels
        beyond it are counted in the first or the last bin.

    Returns
    -------
    Histogram
        One bin per possible value for integers; `FLOAT_BINS` bins, whose centres span
        ``float_range``, for floats. Histograms of tiles add up to that of the volume.

    Raises
    ------
    UserError
        If the type is not one of those above.
    """
    if image.dtype in _EXACT_DTYPES:
        bins = int(np.iinfo(image.dtype).max) + 1
        # By planes, since bincount copies its input to int64.
        planes = (np.bincount(plane.ravel(), minlength=bins) for plane in image)
        return Histogram(sum(planes, np.zeros(bins, np.int64)), 0.0, float(bins - 1))
    if not np.issubdtype(image.dtype, np.floating):
        raise UserError(
            f"intensities are {image.dtype}",
            where="image",
            fix="convert to uint8, uint16 or float32",
        )
    if float_range is None:
        raise ValueError("a float image needs float_range")
    low, high = float_range
    width = (high - low) / (FLOAT_BINS - 1) or 1.0
    counts = np.zeros(FLOAT_BINS, np.int64)
    for plane in image:
        index = np.rint((plane.ravel().astype(np.float64) - low) / width)
        index = np.clip(index, 0, FLOAT_BINS - 1).astype(np.int64)
        counts += np.bincount(index, minlength=FLOAT_BINS)
    return Histogram(counts, low, high)


def percentile(histogram: Histogram, percent: float) -> float:
    """Return the least intensity that at least ``percent`` % of the voxels do not exceed.

    Equals ``numpy.percentile(..., method="inverted_cdf")``: exactly for integers, to half a bin
    for floats.

    Raises
    ------
    ValueError
        If ``percent`` is not in [0, 100] or the histogram is empty.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be in [0, 100], not {percent}")
    cumulative = np.cumsum(histogram.counts)
    if cumulative[-1] == 0:
        raise ValueError("the histogram counts no voxels")
    needed = max(1, int(np.ceil(cumulative[-1] * percent / 100)))
    return float(histogram.values[np.searchsorted(cumulative, needed)])


def intensity_range(
    histogram: Histogram, *, lower_percent: float = 0.0, upper_percent: float = 95.0
) -> tuple[float, float]:
    """Return the intensities that become 0 and 1.

    The default truncates at the 95th percentile and starts at the minimum (VpbSD, section
    "implementation details"). Where vessels fill less than 5 % of the volume this cuts into
    their contrast, and a higher upper percentile serves better.
    """
    if lower_percent >= upper_percent:
        raise ValueError(f"lower_percent {lower_percent} is not below {upper_percent}")
    return percentile(histogram, lower_percent), percentile(histogram, upper_percent)


def rescale(image: NDArray[np.generic], *, low: float, high: float) -> NDArray[np.float32]:
    """Map intensities linearly from [low, high] to [0, 1], and cut off what lies beyond.

    Parameters
    ----------
    image
        Any shape and real type.
    low, high
        See `intensity_range`. Where they are equal, as in a constant volume, there is no
        contrast and the result is 0 everywhere.

    Returns
    -------
    ndarray
        float32, of the same shape.
    """
    if high < low:
        raise ValueError(f"high {high} is below low {low}")
    if high == low:
        return np.zeros(image.shape, np.float32)
    scaled = image.astype(np.float32)
    scaled -= np.float32(low)
    scaled *= np.float32(1.0 / (high - low))
    return np.clip(scaled, 0.0, 1.0, out=scaled)
