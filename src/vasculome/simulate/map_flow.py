"""Microbubbles that flow along the vessels of a measured density and speed map."""

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

from vasculome.simulate.bubbles import BubbleTable, assemble

Float = NDArray[np.float64]
Int = NDArray[np.int64]

_DENSITY_SIGMA = 1.0  # pixels over which single tracks are blurred
_GRADIENT_SIGMA = 1.5
_TENSOR_SIGMAS = (2.0, 6.0)  # narrow vessels, and the inside of wide ones
_BALANCE_SIGMA = 5.0  # below it, growth and loss along a vessel are counting noise
_SUBSTEP = 0.5  # pixels
_TRIAL = 2000  # bubbles: their mean stay is known to about 3 %


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
    pixel_um
        Pixel size along each axis.
    """

    density: Float
    speed_mm_s: Float
    direction: Float
    growth_per_s: Float
    pixel_um: tuple[float, ...]


def flow_field(
    density: NDArray[np.generic],
    speed_mm_s: NDArray[np.floating],
    *,
    pixel_um: Sequence[float],
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
    pixel_um
        Pixel size along each axis.
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
    )


def flow_on_map(
    field: FlowField,
    *,
    n_frames: int,
    frame_rate_hz: float,
    mean_bubbles: float,
    rng: np.random.Generator,
    lifetime_s: float = 0.3,
) -> BubbleTable:
    """Let bubbles drift along a flow field so that their mean density stays the field's.

    New bubbles appear where density x velocity grows along the flow, and everywhere in proportion
    to the density to make up for those whose lifetime ends; bubbles vanish where it falls (they
    leave the imaged slice), at their lifetime's end, and where they leave the vessels. On its path
    a bubble keeps to the axis's sign that continues its own heading.

    Parameters
    ----------
    mean_bubbles
        Mean number of bubbles in a frame, Poisson distributed.
    lifetime_s
        Mean lifetime of a bubble before it vanishes on its way.

    Returns
    -------
    BubbleTable
        Positions with the centre of pixel 0 as origin.
    """
    inside = field.density > 0
    weight = field.density[inside]
    gain = weight * (np.maximum(field.growth_per_s[inside], 0) + 1 / lifetime_s)
    pixels = np.argwhere(inside)

    def seeds(n: int, odds: Float) -> Float:
        at = rng.choice(len(pixels), size=n, p=odds / odds.sum())
        return pixels[at] + rng.random((n, pixels.shape[1])) - 0.5

    # How long bubbles stay depends on the whole map; a trial tells how many must appear.
    trial = seeds(_TRIAL, gain)
    luck = rng.standard_exponential(_TRIAL)
    life_frames = luck * lifetime_s * frame_rate_hz
    stay = _follow(field, trial, np.zeros(_TRIAL), life_frames, luck, lifetime_s, frame_rate_hz)
    rate_per_frame = mean_bubbles * _TRIAL / len(stay[0])

    n_present = rng.poisson(mean_bubbles)
    n_appearing = rng.poisson(rate_per_frame * n_frames)
    start = np.concatenate([seeds(n_present, weight), seeds(n_appearing, gain)])
    birth = np.concatenate([np.zeros(n_present), rng.random(n_appearing) * n_frames])
    luck = rng.standard_exponential(len(birth))
    death = np.minimum(birth + luck * lifetime_s * frame_rate_hz, n_frames)
    bubble, frame, position, velocity = _follow(
        field, start, birth, death, luck, lifetime_s, frame_rate_hz
    )
    return assemble(
        bubble=bubble, frame=frame, position_um=position, velocity_mm_s=velocity, rng=rng
    )


def _follow(
    field: FlowField,
    start: Float,
    birth: Float,
    death: Float,
    luck: Float,
    lifetime_s: float,
    frame_rate_hz: float,
) -> tuple[Int, Int, Float, Float]:
    """Return bubble, frame, position in µm and velocity in mm/s of bubbles that start in pixels."""
    missing = 3 - field.density.ndim
    lift = (1,) * missing + field.density.shape
    start_zyx = np.zeros((len(start), 3))
    start_zyx[:, missing:] = start
    direction = np.zeros((*lift, 3))
    direction[..., missing:] = field.direction.reshape(*lift, -1)
    pixel = np.array([1.0] * missing + list(field.pixel_um))
    first_row = np.concatenate([[0], np.cumsum(np.ceil(death) - np.ceil(birth))]).astype(np.int64)
    frame = np.full(first_row[-1], -1, dtype=np.int64)
    where, velocity = np.empty((first_row[-1], 3)), np.empty((first_row[-1], 3))
    _drift(
        direction, field.speed_mm_s.reshape(lift), -field.growth_per_s.reshape(lift), pixel,
        start_zyx, birth, luck, 1 / lifetime_s, 1 / frame_rate_hz, first_row, frame, where,
        velocity,
    )  # fmt: skip
    kept = frame >= 0
    bubble = np.repeat(np.arange(len(start)), np.diff(first_row))[kept]
    position = where[kept, missing:] * pixel[missing:]
    return bubble, frame[kept], position, velocity[kept, missing:]


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


@njit(cache=True)
def _drift(
    direction: Float,
    speed_mm_s: Float,
    loss_per_s: Float,
    pixel_um: Float,
    start: Float,
    birth: Float,
    luck: Float,
    death_per_s: float,
    frame_s: float,
    first_row: Int,
    frame: Int,
    where: Float,
    velocity: Float,
) -> None:
    """Follow each bubble from its birth until it uses up its luck or leaves; fill its rows."""
    n_z, n_y, n_x = speed_mm_s.shape
    stride_um = _SUBSTEP * pixel_um.min()
    for i in range(len(start)):
        pz, py, px = start[i]
        hz = hy = hx = 0.0
        left, now = luck[i], np.ceil(birth[i])
        left_s = (now - birth[i]) * frame_s
        row, stop = first_row[i], first_row[i + 1]
        while row < stop:
            z, y, x = int(np.rint(pz)), int(np.rint(py)), int(np.rint(px))
            if min(z, y, x) < 0 or z >= n_z or y >= n_y or x >= n_x or speed_mm_s[z, y, x] <= 0:
                break
            if hz == hy == hx == 0.0:
                hz, hy, hx = direction[z, y, x]
            # Direction and speed between pixel centres; axes have no sign but the bubble's own.
            az = ay = ax = total = speed = loss = 0.0
            for corner in range(8):
                z = int(np.floor(pz)) + (corner >> 2)
                y = int(np.floor(py)) + ((corner >> 1) & 1)
                x = int(np.floor(px)) + (corner & 1)
                if min(z, y, x) < 0 or z >= n_z or y >= n_y or x >= n_x:
                    continue
                if speed_mm_s[z, y, x] <= 0:
                    continue
                w = (1 - abs(pz - z)) * (1 - abs(py - y)) * (1 - abs(px - x))
                dz, dy, dx = direction[z, y, x]
                sign = w if dz * hz + dy * hy + dx * hx >= 0 else -w
                az, ay, ax = az + sign * dz, ay + sign * dy, ax + sign * dx
                total += w
                speed += w * speed_mm_s[z, y, x]
                loss += w * loss_per_s[z, y, x]
            norm = max(np.sqrt(az * az + ay * ay + ax * ax), 1e-12)
            hz, hy, hx = az / norm, ay / norm, ax / norm
            speed /= total
            if left_s <= 0:
                frame[row] = int(now)
                where[row] = pz, py, px
                velocity[row] = speed * hz, speed * hy, speed * hx
                row += 1
                now += 1
                left_s = frame_s
            step_s = min(left_s, stride_um / (1e3 * speed))
            pz += 1e3 * speed * step_s * hz / pixel_um[0]
            py += 1e3 * speed * step_s * hy / pixel_um[1]
            px += 1e3 * speed * step_s * hx / pixel_um[2]
            left_s -= step_s
            left -= step_s * (death_per_s + max(0.0, loss / total))
            if left <= 0:
                break
