"""Point spread functions with halo and rings, applied while a fine grid becomes an image's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.simulate.trees import Float, Int

Image = NDArray[np.float32]

_REACH = 3.5  # standard deviations at which Gaussians are cut off
_RING_PERIOD = 2.5  # of σ along z: about as far apart as the rings of a defocused line
_RING_DECAY = 3.0  # of σ


@dataclass(frozen=True)
class PointSpread:
    """The picture of a point: a Gaussian core, a wide halo, and echoes above and below focus.

    Attributes
    ----------
    sigma_um
        Standard deviation of the core along (z, y, x).
    halo
        Part of the light that a Gaussian ``halo_width`` times as wide takes.
    halo_width
        Its width over the core's.
    rings
        Height over the core's peak of the rings along z, before they decay.
    """

    sigma_um: tuple[float, float, float]
    halo: float = 0.0
    halo_width: float = 4.0
    rings: float = 0.0


@dataclass(frozen=True)
class FineGrid:
    """Where light is drawn that an image is to be taken of.

    Attributes
    ----------
    shape, spacing_um
        Of the fine grid.
    parts
        Fine voxels for each of the image.
    rim
        Fine voxels before the image's voxel 0, whose centre is the origin.
    """

    shape: tuple[int, int, int]
    spacing_um: tuple[float, float, float]
    parts: tuple[int, int, int]
    rim: tuple[int, int, int]

    @property
    def start_um(self) -> tuple[float, float, float]:
        """Centre of the fine grid's voxel 0."""
        z, y, x = (-r * s for r, s in zip(self.rim, self.spacing_um, strict=True))
        return (z, y, x)


def fine_grid(
    shape: Sequence[int],
    *,
    spacing_um: Sequence[float],
    sigma_um: Sequence[float],
    most: int = 4,
) -> FineGrid:
    """Return a grid that reaches beyond an image by its core's cut, with more planes where needed.

    Between planes that are far apart lie vessels that no plane cuts, but whose light reaches them.

    Parameters
    ----------
    shape, spacing_um
        Of the image.
    sigma_um
        Of the point spread function.
    most
        Fine planes for each plane at the most; as many as make voxels about cubes.
    """
    parts = [min(most, max(1, round(spacing_um[0] / min(spacing_um[1:])))), 1, 1]
    fine = [s / p for s, p in zip(spacing_um, parts, strict=True)]
    # At least half of a plane's parts, so that the outermost planes gather from both sides.
    rim = [
        max(p // 2, math.ceil(_REACH * sigma / s))
        for p, sigma, s in zip(parts, sigma_um, fine, strict=True)
    ]
    size = [(n - 1) * p + 1 + 2 * r for n, p, r in zip(shape, parts, rim, strict=True)]
    return FineGrid(tuple(size), tuple(fine), tuple(parts), tuple(rim))  # type: ignore[arg-type]


def brightest(light: Image, *, grid: FineGrid, shape: Sequence[int]) -> Image:
    """Return the greatest fine voxel within each voxel of an image, float32 of ``shape``."""
    for axis, (n, p, r) in enumerate(zip(shape, grid.parts, grid.rim, strict=True)):
        around = range(-(p // 2), p // 2 + 1)
        planes = [light.take(r + at + p * np.arange(n), axis) for at in around]
        light = np.maximum.reduce(planes)
    return light


def photograph(
    light: Image,
    *,
    grid: FineGrid,
    shape: Sequence[int],
    spacing_um: Sequence[float],
    spread: PointSpread,
) -> Image:
    """Return what the optics make of ``light``, at the voxels of the image.

    Parameters
    ----------
    light
        Float32 (z, y, x) on ``grid``; beyond it, light is as within the point spread function's
        reach on average.
    grid
        From `fine_grid`.
    shape, spacing_um
        Of the image, whose voxel 0 is at the origin.
    spread
        Point spread function.

    Returns
    -------
    numpy.ndarray
        Float32 of ``shape``. An even light stays as it is.
    """
    if light.shape != grid.shape:
        raise ValueError(f"light is of {light.shape}, the grid of {grid.shape}")
    core = _spread(light, grid, shape, spacing_um, spread, 1.0)
    if spread.halo == 0:
        return core
    halo = _spread(light, grid, shape, spacing_um, spread, spread.halo_width)
    return (1 - np.float32(spread.halo)) * core + np.float32(spread.halo) * halo


def _spread(
    light: Image,
    grid: FineGrid,
    shape: Sequence[int],
    spacing_um: Sequence[float],
    spread: PointSpread,
    width: float,
) -> Image:
    """Apply one Gaussian, axis by axis, z first: it takes away most voxels."""
    for axis in range(3):
        at = np.arange(shape[axis]) * spacing_um[axis]
        fine = grid.start_um[axis] + np.arange(grid.shape[axis]) * grid.spacing_um[axis]
        sigma = max(width * spread.sigma_um[axis], 1e-6)
        rings = spread.rings if axis == 0 and width == 1 else 0.0
        weights, first, last = _weights(at, fine, sigma, rings)
        # The axis in front, the others as one row, along which the sums are quick.
        rows = np.ascontiguousarray(np.moveaxis(light, axis, 0))
        done = np.zeros((shape[axis], *rows.shape[1:]), np.float32)
        _gather(rows.reshape(len(rows), -1), weights, first, last, done.reshape(len(done), -1))
        light = np.moveaxis(done, 0, axis)
    return np.ascontiguousarray(light)


def _weights(at: Float, fine: Float, sigma: float, rings: float) -> tuple[Image, Int, Int]:
    """Return the weight of each fine voxel in each voxel, sum 1, and from where to where it is."""
    away = np.abs(at[:, None] - fine[None, :]) / sigma
    weights = np.exp(-0.5 * away**2) * (away <= _REACH)
    if rings:
        wave = np.sin(np.pi * away / _RING_PERIOD) ** 2 * np.exp(-away / _RING_DECAY)
        weights += rings * wave * (away > _RING_PERIOD)
    # Sharper than the grid: the nearest voxel alone.
    alone = np.flatnonzero(weights.sum(axis=1) < 1e-3)
    weights[alone, away[alone].argmin(axis=1)] = 1.0
    seen = weights > 1e-5 * weights.max(axis=1, keepdims=True)
    weights *= seen
    weights /= weights.sum(axis=1, keepdims=True)
    first = seen.argmax(axis=1)
    last = len(fine) - seen[:, ::-1].argmax(axis=1)
    return weights.astype(np.float32), first, last


@njit(cache=True, nogil=True)
def _gather(
    rows: Image, weights: Image, first: Int, last: Int, done: Image
) -> None:  # pragma: no cover - compiled
    for i in range(len(done)):
        for j in range(first[i], last[i]):
            weight = weights[i, j]
            for k in range(rows.shape[1]):
                done[i, k] += weight * rows[j, k]
