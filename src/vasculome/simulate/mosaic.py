"""Tiles of one sample, each exposed on its own: sub-pixel positions, vignetting, gains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, spline_filter1d

from vasculome.simulate.microscope import Image, Microscope, expose

_MARGIN = 12
"""Voxels that the spline needs beyond a tile: its poles fall below 1e-6 by then."""


def grid_starts(
    counts: Sequence[int],
    *,
    tile_shape: Sequence[int],
    overlap: Sequence[int],
    jitter: Sequence[float],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the tiles of a grid truly start and where the stage aimed, in voxels.

    Parameters
    ----------
    counts
        Tiles along each axis.
    tile_shape, overlap
        Shape of a tile, and voxels that neighbours nominally share along each axis.
    jitter
        Largest error of the stage along each axis, in voxels, not a whole number of them.
    rng
        Source of the errors.

    Returns
    -------
    starts, nominal_starts
        Float64 of shape (tiles, axes) in raster order; starts are at least 0.
    """
    index = np.indices(counts).reshape(len(counts), -1).T
    nominal = index * np.subtract(tile_shape, overlap) + np.asarray(jitter, float)
    return nominal + rng.uniform(-1, 1, nominal.shape) * jitter, nominal


def vignette(shape_yx: Sequence[int], loss: float) -> Image:
    """Return the light that a lens passes over its field, 1 in the middle, 1 - loss in corners."""
    y, x = (np.linspace(-1, 1, n) for n in shape_yx)
    return (1 - loss * (y[:, None] ** 2 + x[None, :] ** 2) / 2).astype(np.float32)


def sample_at(volume: Image, start: Sequence[float], shape: Sequence[int]) -> Image:
    """Return ``volume`` at the voxels ``start + i``, by a cubic spline.

    Parameters
    ----------
    volume
        Float32; it should hold no detail finer than about two voxels.
    start
        First voxel along each axis, whole or not.
    shape
        Voxels along each axis.

    Raises
    ------
    ValueError
        If the voxels do not lie in the volume.
    """
    first = np.floor(start).astype(int)
    if (first < 0).any() or (np.ceil(start) + shape > volume.shape).any():
        raise ValueError(f"{tuple(shape)} voxels from {tuple(start)} leave {volume.shape}")
    low = np.maximum(first - _MARGIN, 0)
    high = np.minimum(first + shape + _MARGIN + 1, volume.shape)
    part = np.ascontiguousarray(volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    for axis, n in enumerate(shape):
        t = float(start[axis] - first[axis])
        if t:
            part = spline_filter1d(part, axis=axis, output=np.float32, mode="mirror")
            cubic = np.array([(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 0, t**3]) / 6
            cubic[2] = 1 - cubic.sum()
            part = correlate1d(part, cubic, axis=axis, mode="mirror", origin=-1)
        keep = [slice(None)] * part.ndim
        keep[axis] = slice(first[axis] - low[axis], first[axis] - low[axis] + n)
        part = part[tuple(keep)]
    return np.ascontiguousarray(part)


def take_tiles(
    light: Image,
    starts: NDArray[np.float64],
    *,
    tile_shape: Sequence[int],
    rng: np.random.Generator,
    microscope: Microscope,
    shading: Image | None = None,
    gains: Sequence[float] | None = None,
) -> list[NDArray[np.uint16]]:
    """Return the tiles of ``light`` at ``starts``, each with noise of its own.

    Parameters
    ----------
    light
        The sample's light (z, y, x), see `vasculome.simulate.microscope.expected_light`.
    starts
        First voxel of each tile, shape (tiles, 3), whole or not.
    tile_shape
        Voxels of a tile.
    rng
        Source of the noise.
    microscope
        Its camera.
    shading
        Light that reaches the camera over a tile's field (y, x); all of it by default.
    gains
        Brightness of each tile; 1 by default.
    """
    field = np.float32(1) if shading is None else shading
    brightness = np.ones(len(starts)) if gains is None else gains
    return [
        expose(
            np.maximum(sample_at(light, start, tile_shape), 0) * field * np.float32(gain),
            rng=rng,
            microscope=microscope,
        )
        for start, gain in zip(starts, brightness, strict=True)
    ]
