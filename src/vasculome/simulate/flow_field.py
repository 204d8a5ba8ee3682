"""Which way blood flows, inferred from measured maps of density and speed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

Float = NDArray[np.float64]

_DENSITY_SIGMA = 1.0  # pixels over which single tracks are blurred
_GRADIENT_SIGMA = 1.5
_TENSOR_SIGMAS = (2.0, 6.0)  # narrow vessels, and the inside of wide ones
_BALANCE_SIGMA = 5.0  # below it, growth and loss along a vessel are counting noise


@dataclass(frozen=True)
class FlowField:
    """A steady flow on the pixels of a map.

    Attributes
    ----------
    density
        Float64 (z, [y,] x): where bubbles are, relative; 0 outside vessels.
    speed_mm_s
        Float64 (z, [y,] x).
    direction
        Float64 (z, [y,] x, ndim): unit vector downstream; 0 outside vessels.
    growth_per_s
        Float64 (z, [y,] x): rate at which the density must gain (positive) or lose bubbles to
        stay as it is, relative to itself: the divergence of density x velocity over density.
    pixel_um, origin_um
        Pixel size along each axis, and centre of pixel 0.
    """

    density: Float
    speed_mm_s: Float
    direction: Float
    growth_per_s: Float
    pixel_um: tuple[float, ...]
    origin_um: tuple[float, ...]


def flow_field(
    density: NDArray[np.generic],
    speed_mm_s: NDArray[np.floating],
    *,
    pixel_um: Sequence[float],
    origin_um: Sequence[float] | None = None,
    threshold: float = 0.5,
) -> FlowField:
    """Infer from maps of density and speed which way blood flows.

    The axis of a vessel is the eigenvector of least eigenvalue of the structure tensor of the
    square root of the density. Its sign is not in the maps: it is carried from the pixel of most
    flow to all others over the spanning tree of neighbours whose axes agree best, so that it is
    consistent along each vessel and at branchings, but vessels may flow against their true
    direction.

    Parameters
    ----------
    density
        Bubble counts (z, [y,] x), not negative.
    speed_mm_s
        Unsigned mean speed where the density is positive.
    pixel_um, origin_um
        Pixel size along each axis, and centre of pixel 0 (0 by default).
    threshold
        Smoothed density from which a pixel belongs to a vessel.

    Raises
    ------
    ValueError
        If the maps differ in shape, hold negative values, or show no vessel.
    """
    counts = np.asarray(density, dtype=np.float64)
    speed = np.asarray(speed_mm_s, dtype=np.float64)
    if counts.shape != speed.shape:
        raise ValueError(f"density {counts.shape} and speed {speed.shape} differ in shape")
    if counts.min() < 0 or speed.min() < 0:
        raise ValueError("density and speed must not be negative")
    smooth = gaussian_filter(counts, _DENSITY_SIGMA)
    vessel = smooth >= threshold
    if not vessel.any():
        raise ValueError(f"no pixel's smoothed density reaches {threshold}")
    # Weighted by counts: a pixel that one bubble crossed says little about its speed.
    flux = gaussian_filter(counts * speed, _DENSITY_SIGMA)
    speed = np.where(vessel, flux / np.maximum(smooth, 1e-9), 0.0)
    smooth = np.where(vessel, smooth, 0.0)
    axis = _vessel_axis(np.sqrt(gaussian_filter(counts, 0.5)), vessel, pixel_um)
    direction = np.zeros((*counts.shape, counts.ndim))
    direction[vessel] = _consistent_signs(axis, vessel, strongest=smooth * speed)
    flow = (smooth * speed)[..., None] * direction
    divergence = sum(np.gradient(flow[..., i], size, axis=i) for i, size in enumerate(pixel_um))
    blurred = gaussian_filter(smooth, _BALANCE_SIGMA)
    growth = 1e3 * gaussian_filter(divergence, _BALANCE_SIGMA) / np.maximum(blurred, 1e-9)
    return FlowField(
        density=smooth,
        speed_mm_s=speed,
        direction=direction,
        growth_per_s=np.where(vessel, growth, 0.0),
        pixel_um=tuple(float(p) for p in pixel_um),
        origin_um=tuple(float(o) for o in origin_um or [0.0] * counts.ndim),
    )


def _vessel_axis(image: Float, vessel: NDArray[np.bool_], pixel_um: Sequence[float]) -> Float:
    """Return the way ``image`` changes least at each pixel in vessels: unit vectors of any sign."""
    ndim = image.ndim
    gradient = [
        gaussian_filter(image, _GRADIENT_SIGMA, order=[int(i == j) for j in range(ndim)]) / size
        for i, size in enumerate(pixel_um)
    ]
    tensor = np.zeros((int(vessel.sum()), ndim, ndim))
    for i, j in itertools.combinations_with_replacement(range(ndim), 2):
        product = gradient[i] * gradient[j]
        tensor[..., i, j] = tensor[..., j, i] = sum(
            gaussian_filter(product, sigma)[vessel] for sigma in _TENSOR_SIGMAS
        )
    _, vectors = np.linalg.eigh(tensor)
    return vectors[..., 0]


def _consistent_signs(axis: Float, vessel: NDArray[np.bool_], *, strongest: Float) -> Float:
    """Turn axes (pixels in vessels, ndim) so that neighbours agree, as far as that goes."""
    n, ndim = axis.shape
    number = np.full(vessel.shape, -1, dtype=np.int64)
    number[vessel] = np.arange(n)
    pairs = []
    for step in itertools.product((-1, 0, 1), repeat=ndim):
        if step > (0,) * ndim:
            here = tuple(
                slice(max(0, -s), min(m, m - s)) for s, m in zip(step, vessel.shape, strict=True)
            )
            there = tuple(
                slice(max(0, s), min(m, m + s)) for s, m in zip(step, vessel.shape, strict=True)
            )
            pair = np.stack([number[here].ravel(), number[there].ravel()], axis=1)
            pairs.append(pair[(pair >= 0).all(axis=1)])
    i, j = np.concatenate(pairs).T
    disagreement = 1.0 - np.abs((axis[i] * axis[j]).sum(axis=1)) + 1e-6
    _, part = connected_components(coo_array((disagreement, (i, j)), shape=(n, n)), directed=False)
    by_flow = np.argsort(-strongest[vessel], kind="stable")
    _, first = np.unique(part[by_flow], return_index=True)
    roots = by_flow[first]
    # One more node, joined to each part's pixel of most flow, makes all parts one tree.
    i = np.concatenate([i, np.full(len(roots), n)])
    j = np.concatenate([j, roots])
    links = coo_array(
        (np.concatenate([disagreement, np.ones(len(roots))]), (i, j)), shape=(n + 1, n + 1)
    )
    order, parent = breadth_first_order(minimum_spanning_tree(links), n, directed=False)
    turned = np.concatenate([axis, np.zeros((1, ndim))])
    _agree(turned, order[1:], parent)
    return turned[:n]


@njit(cache=True)
def _agree(axis: Float, order: NDArray[np.int32], parent: NDArray[np.int32]) -> None:
    """Flip each axis that points against its parent's; those of roots point down, to larger z."""
    for node in order:
        agreement = (axis[node] * axis[parent[node]]).sum()
        if agreement < 0 or (agreement == 0 and axis[node, 0] < 0):
            axis[node] *= -1
