"""Microbubbles that flow along the vessels of a measured density and speed map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.simulate.bubbles import BubbleSizes, BubbleTable, Rows, assemble
from vasculome.simulate.flow_field import Float, FlowField
from vasculome.simulate.stream import Swarm, drift_blocks

Int = NDArray[np.int64]

_SUBSTEP = 0.5  # pixels
_TRIAL = 2000  # bubbles: their mean stay is known to about 3 %


def flow_on_map(
    field: FlowField,
    *,
    n_frames: int,
    frame_rate_hz: float,
    mean_bubbles: float,
    rng: np.random.Generator,
    lifetime_s: float = 0.3,
    sizes: BubbleSizes | None = None,
) -> BubbleTable:
    """Let bubbles drift along a flow field so that their mean density stays the field's.

    New bubbles appear where density x velocity grows along the flow, where blood comes over the
    map's border, and everywhere in proportion to the density to make up for those whose lifetime
    ends; bubbles vanish where it falls (they leave the imaged slice), at their lifetime's end, and
    where they leave the vessels or the map. On its path a bubble keeps to the axis's sign that
    continues its own heading.

    Parameters
    ----------
    mean_bubbles
        Mean number of bubbles in a frame, Poisson distributed.
    lifetime_s
        Mean lifetime of a bubble before it vanishes on its way.
    sizes
        How bubbles differ in their echoes.
    """
    drift = _MapDrift(field, mean_bubbles, lifetime_s, frame_rate_hz, rng)
    swarm = drift.newcomers(0, n_frames, rng)
    return assemble(drift.advance(swarm, n_frames, rng), sizes=sizes or BubbleSizes(), rng=rng)


def map_flow_blocks(
    field: FlowField,
    *,
    n_frames: int,
    frame_rate_hz: float,
    mean_bubbles: float,
    seed: int,
    lifetime_s: float = 0.3,
    sizes: BubbleSizes | None = None,
    block_frames: int = 100,
) -> Iterator[BubbleTable]:
    """Yield the bubbles of :func:`flow_on_map` block by block, in bounded memory.

    The same seed gives the same rows whatever ``block_frames`` is, and the first frames are the
    same whatever ``n_frames`` is. They are not those of :func:`flow_on_map`, which draws all its
    random numbers at once.

    Parameters
    ----------
    field, n_frames, frame_rate_hz, mean_bubbles, lifetime_s, sizes
        As of :func:`flow_on_map`.
    block_frames
        Frames yielded at a time.

    Yields
    ------
    BubbleTable
        Rows of ``block_frames`` frames, fewer at the end. Frames and tracks are numbered through.
    """
    drift = _MapDrift(field, mean_bubbles, lifetime_s, frame_rate_hz, np.random.default_rng(seed))
    return drift_blocks(
        drift,
        n_frames=n_frames,
        block_frames=block_frames,
        sizes=sizes or BubbleSizes(),
        seed=seed,
    )


@dataclass
class _OnMap(Swarm):
    """Bubbles on a map: (bubbles, 3) or (bubbles,).

    ``pixel`` is where each is, ``heading`` where it goes (0 before its first step), ``luck`` what
    remains to it of losses, which its lifetime and falling densities use up.
    """

    pixel: Float
    heading: Float
    luck: Float


class _MapDrift:
    """A flow field in which bubbles drift, as arrays for the loop over bubbles."""

    def __init__(
        self,
        field: FlowField,
        mean_bubbles: float,
        lifetime_s: float,
        frame_rate_hz: float,
        rng: np.random.Generator,
    ) -> None:
        missing = 3 - field.density.ndim
        lift = (1,) * missing + field.density.shape
        self._missing = missing
        self._direction = np.zeros((*lift, 3))
        self._direction[..., missing:] = field.direction.reshape(*lift, -1)
        self._speed_mm_s = field.speed_mm_s.reshape(lift)
        self._loss_per_s = -field.growth_per_s.reshape(lift)
        self._pixel_um = np.array([1.0] * missing + list(field.pixel_um))
        self._origin_um = np.array(field.origin_um)
        self._lifetime_s = lifetime_s
        self._frame_rate_hz = frame_rate_hz
        self._n_named = 0

        inside = field.density > 0
        self._pixels = np.argwhere(inside)
        self._weight = field.density[inside]
        gain_per_s = np.maximum(field.growth_per_s, 0) + _entering_per_s(field) + 1 / lifetime_s
        self._gain = self._weight * gain_per_s[inside]
        self._mean_bubbles = mean_bubbles
        # How long bubbles stay depends on the whole map; a trial tells how many must appear.
        start = self._seeds(_TRIAL, self._gain, rng)
        trial = self._swarm(start, np.zeros(_TRIAL), rng)
        stay = self.advance(trial, np.iinfo(np.int64).max, rng)
        self._rate_per_frame = mean_bubbles * _TRIAL / len(stay.frame)

    def newcomers(self, first: int, stop: int, rng: np.random.Generator) -> _OnMap:
        """Return the bubbles born from one frame to another; with frame 0 those already there."""
        n_present = rng.poisson(self._mean_bubbles) if first == 0 else 0
        n_appearing = rng.poisson(self._rate_per_frame * (stop - first))
        start = np.concatenate(
            [
                self._seeds(n_present, self._weight, rng),
                self._seeds(n_appearing, self._gain, rng),
            ]
        )
        birth = first + rng.random(n_appearing) * (stop - first)
        return self._swarm(start, np.concatenate([np.zeros(n_present), birth]), rng)

    def advance(self, swarm: _OnMap, stop: int, rng: np.random.Generator) -> Rows:
        """Let bubbles drift up to a frame, in place; return their rows before it."""
        first_row = swarm.first_rows(stop)
        frame = np.full(first_row[-1], -1, dtype=np.int64)
        pixel, velocity = np.empty((first_row[-1], 3)), np.empty((first_row[-1], 3))
        _drift(
            self._direction, self._speed_mm_s, self._loss_per_s, self._pixel_um, swarm.pixel,
            swarm.heading, swarm.luck, swarm.frame, swarm.left_s, swarm.gone, 1 / self._lifetime_s,
            1 / self._frame_rate_hz, first_row, frame, pixel, velocity,
        )  # fmt: skip
        kept = frame >= 0
        return Rows(
            bubble=np.repeat(swarm.name, np.diff(first_row))[kept],
            frame=frame[kept],
            position_um=pixel[kept, self._missing :] * self._pixel_um[self._missing :]
            + self._origin_um,
            velocity_mm_s=velocity[kept, self._missing :],
        )

    def _seeds(self, n: int, odds: Float, rng: np.random.Generator) -> Float:
        at = rng.choice(len(self._pixels), size=n, p=odds / odds.sum())
        return self._pixels[at] + rng.random((n, self._pixels.shape[1])) - 0.5

    def _swarm(self, start: Float, birth: Float, rng: np.random.Generator) -> _OnMap:
        """Return bubbles born in pixels ``start`` (n, ndim)."""
        count = len(birth)
        luck = rng.standard_exponential(count)
        frame = np.ceil(birth).astype(np.int64)
        self._n_named += count
        return _OnMap(
            name=np.arange(self._n_named - count, self._n_named),
            frame=frame,
            left_s=(frame - birth) / self._frame_rate_hz,
            stop=np.ceil(birth + luck * self._lifetime_s * self._frame_rate_hz),
            gone=np.zeros(count, np.bool_),
            pixel=np.concatenate([np.zeros((count, self._missing)), start], axis=1),
            heading=np.zeros((count, 3)),
            luck=luck,
        )


def _entering_per_s(field: FlowField) -> Float:
    """Return the rate at which bubbles come over the border into its pixels, per bubble there."""
    rate = np.zeros(field.density.shape)
    for axis, size_um in enumerate(field.pixel_um):
        pixels_per_s = 1e3 * field.speed_mm_s * field.direction[..., axis] / size_um
        before = (slice(None),) * axis
        rate[*before, 0] += np.maximum(pixels_per_s[*before, 0], 0)
        rate[*before, -1] += np.maximum(-pixels_per_s[*before, -1], 0)
    return rate


@njit(cache=True, nogil=True)
def _drift(
    direction: Float,
    speed_mm_s: Float,
    loss_per_s: Float,
    pixel_um: Float,
    pixel: Float,
    heading: Float,
    luck: Float,
    next_frame: Int,
    bubble_left_s: Float,
    gone: NDArray[np.bool_],
    death_per_s: float,
    frame_s: float,
    first_row: Int,
    frame: Int,
    where: Float,
    velocity: Float,
) -> None:
    """Follow each bubble until it uses up its luck or leaves; fill its rows, update its state."""
    n_z, n_y, n_x = speed_mm_s.shape
    stride_um = _SUBSTEP * pixel_um.min()
    for i in range(len(pixel)):
        pz, py, px = pixel[i]
        hz, hy, hx = heading[i]
        left, left_s = luck[i], bubble_left_s[i]
        row, stop = first_row[i], first_row[i + 1]
        while row < stop:
            z, y, x = int(np.rint(pz)), int(np.rint(py)), int(np.rint(px))
            if min(z, y, x) < 0 or z >= n_z or y >= n_y or x >= n_x or speed_mm_s[z, y, x] <= 0:
                gone[i] = True
                break
            if hz == hy == hx == 0.0:
                hz, hy, hx = direction[z, y, x]
            hz, hy, hx, speed, loss = _ahead(
                direction, speed_mm_s, loss_per_s, pz, py, px, hz, hy, hx
            )
            if left_s <= 0:
                frame[row] = next_frame[i]
                where[row] = pz, py, px
                velocity[row] = speed * hz, speed * hy, speed * hx
                row += 1
                next_frame[i] += 1
                left_s = frame_s
            step_s = min(left_s, stride_um / (1e3 * speed))
            pz += 1e3 * speed * step_s * hz / pixel_um[0]
            py += 1e3 * speed * step_s * hy / pixel_um[1]
            px += 1e3 * speed * step_s * hx / pixel_um[2]
            left_s -= step_s
            left -= step_s * (death_per_s + max(0.0, loss))
            if left <= 0:
                gone[i] = True
                break
        pixel[i] = pz, py, px
        heading[i] = hz, hy, hx
        luck[i], bubble_left_s[i] = left, left_s


@njit(cache=True, nogil=True)
def _ahead(
    direction: Float,
    speed_mm_s: Float,
    loss_per_s: Float,
    pz: float,
    py: float,
    px: float,
    hz: float,
    hy: float,
    hx: float,
) -> tuple[float, float, float, float, float]:
    """Return heading, speed and loss between pixel centres, for a bubble that has a heading."""
    n_z, n_y, n_x = speed_mm_s.shape
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
        # Axes have no sign but the bubble's own.
        sign = w if dz * hz + dy * hy + dx * hx >= 0 else -w
        az, ay, ax = az + sign * dz, ay + sign * dy, ax + sign * dx
        total += w
        speed += w * speed_mm_s[z, y, x]
        loss += w * loss_per_s[z, y, x]
    norm = max(np.sqrt(az * az + ay * ay + ax * ax), 1e-12)
    return az / norm, ay / norm, ax / norm, speed / total, loss / total
