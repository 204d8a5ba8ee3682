"""How much of the grid of voxels is left in a super-resolved map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fftn


def gridding_index_db(
    density: NDArray[np.floating], *, pixels_per_voxel: int = 10, harmonics: Sequence[int] = (1, 2)
) -> float:
    """Return PALA's gridding index of a density map: peaks at the voxels' frequency, in dB.

    Localizers that favour some positions in the voxel, mostly its middle, leave its grid in the
    map, which shows as peaks of the power spectrum at the voxels' frequency and its multiples. The
    power is summed over the other axes; each peak (the largest of three lines) is divided by the
    mean of the six lines 3 to 5 away; these ratios are summed over harmonics, averaged over axes
    and given as 20 log10, as PALA does. Two harmonics without any peak give about 6 dB.

    Parameters
    ----------
    density
        Counts, of localizations and not of smoothed tracks, on a fine grid of any number of axes.
    pixels_per_voxel
        Pixels of the map to a voxel of the frames.
    harmonics
        Multiples of the voxels' frequency.

    Raises
    ------
    ValueError
        If the map is too small or too coarse to show a harmonic and its surroundings.

    Notes
    -----
    Source: Heiles et al., Nature Biomedical Engineering 6, 605-616, 2022,
    doi:10.1038/s41551-021-00824-8.
    """
    power = np.abs(fftn(density)) ** 2
    near, around = np.arange(-1, 2), np.array([-5, -4, -3, 3, 4, 5])
    total = 0.0
    for axis, n in enumerate(density.shape):
        fundamental = round(n / pixels_per_voxel)
        if fundamental <= around[-1] or fundamental * max(harmonics) + around[-1] > n // 2:
            raise ValueError(f"{n} pixels at {pixels_per_voxel} a voxel do not show gridding")
        line = power.sum(axis=tuple(a for a in range(density.ndim) if a != axis))
        for harmonic in harmonics:
            middle = fundamental * harmonic
            total += line[middle + near].max() / line[middle + around].mean()
    return float(20 * np.log10(total / density.ndim))
