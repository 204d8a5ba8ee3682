"""Where the pixels of 2-D slices lie in the volume that they make together.

No value is invented: a voxel of the volume takes the nearest pixel of the nearest slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DECIMALS = 6
"""Of places in pixels: beyond them there is nothing but rounding."""


@dataclass(frozen=True)
class Planes:
    """The planes of a volume along y.

    Attributes
    ----------
    origin_um
        Position of plane 0.
    spacing_um
        Distance between neighbouring planes.
    slice_of
        Which slice each plane takes, int64.
    """

    origin_um: float
    spacing_um: float
    slice_of: NDArray[np.int64]


def planes_of(elevation_um: Sequence[float]) -> Planes:
    """Return the planes of slices at these elevations.

    Planes are as far apart as the two slices that are closest to each other; each takes the
    slice nearest to it, of two as near the lower one. Every slice has at least one plane.

    Parameters
    ----------
    elevation_um
        Position of each slice along y; two or more, rising.

    Raises
    ------
    ValueError
        For less than two elevations, or where they do not rise.
    """
    at_um = np.asarray(elevation_um, np.float64)
    gaps_um = np.diff(at_um)
    if len(at_um) < 2 or gaps_um.min() <= 0:
        raise ValueError(f"two elevations or more are needed, rising, got {elevation_um}")
    spacing_um = round(float(gaps_um.min()), _DECIMALS)
    place = np.round((at_um - at_um[0]) / spacing_um, _DECIMALS)
    planes = np.arange(math.floor(place[-1] + 0.5) + 1)
    halfway = (place[1:] + place[:-1]) / 2
    return Planes(float(at_um[0]), spacing_um, np.searchsorted(halfway, planes).astype(np.int64))


def covering_axis(
    origin_um: Sequence[float], spacing_um: Sequence[float], count: Sequence[int]
) -> tuple[float, int]:
    """Return origin and length of the axis that holds all pixels of all slices.

    It has the spacing of the first slice, and its pixels lie on those of the first slice.

    Parameters
    ----------
    origin_um, spacing_um, count
        Position of the first pixel, distance of pixels and their number, of each slice.
    """
    pixel_um = spacing_um[0]
    ends = zip(origin_um, spacing_um, count, strict=True)
    last_um = max(start + (n - 1) * step for start, step, n in ends)
    before = math.ceil(round((origin_um[0] - min(origin_um)) / pixel_um, _DECIMALS))
    after = math.ceil(round((last_um - origin_um[0]) / pixel_um, _DECIMALS))
    return origin_um[0] - before * pixel_um, before + after + 1


def nearest_pixels(
    at_um: NDArray[np.float64], *, origin_um: float, spacing_um: float, count: int
) -> NDArray[np.int64]:
    """Return the pixel of a slice nearest to each position along an axis; -1 beyond its ends.

    Half way between two pixels it is always the latter: a shift by half a pixel moves a slice,
    but neither doubles nor drops a pixel.
    """
    place = np.round((at_um - origin_um) / spacing_um, _DECIMALS)
    pixel = np.floor(place + 0.5).astype(np.int64)
    return np.where((pixel >= 0) & (pixel < count), pixel, -1)
