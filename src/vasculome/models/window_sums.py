"""What windows say of the voxels of a tile, summed up plane by plane."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.geometry import Box
from vasculome.models.windows import WindowPlan

Floats = NDArray[np.float32]

Take = Callable[[int, Floats], None]
"""Is given the first of some planes, counted from the first of the tile, and what is said of them,
float32 (planes, y, x), to be used at once: the memory is used again."""

# Not all of `fastmath`, which would let the compiler take it that there is no NaN. A quotient that
# may raise keeps the compiler from doing eight at once.
_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract"},
}


class WindowSums:
    """Sums over those windows that see a voxel; only planes that more windows may see are kept.

    Parameters
    ----------
    core
        The tile.
    plan
        Of the windows.
    take
        Is given planes when no more windows see them, in order.
    answers
        How often something is said of each window; the mean counts.
    """

    def __init__(self, core: Box, plan: WindowPlan, take: Take, *, answers: int = 1) -> None:
        self._core, self._plan, self._take = core, plan, take
        self._part = np.float32(1 / answers)
        shape = (min(core.shape[0], plan.shape[0]), *core.shape[1:])
        self._total = np.zeros(shape, np.float32)
        self._weight = np.zeros(shape if plan.weights is not None else (1, 1, 1), np.float32)
        self._first = core.start[0]

    def add(self, window: Box, logits: Floats) -> None:
        """Add what was said of a window, (z, y, x); windows come in the order of their planes."""
        shared = self._plan.own(window).intersect(self._core)
        if shared is None:
            return
        first = self._first, *self._core.start[1:]
        here = np.array([a - b for a, b in zip(shared.start, first, strict=True)])
        there = np.array([a - b for a, b in zip(shared.start, window.start, strict=True)])
        shape = np.array(shared.shape)
        if self._plan.weights is None:
            _put(self._total, logits, self._part, here, there, shape)
        else:
            _add(self._total, self._weight, logits, self._plan.weights, here, there, shape)

    def finish(self, end: int) -> None:
        """Give away the planes before ``end``, of the volume: no more windows see them.

        Raises
        ------
        FloatingPointError
            Something said of them is no number.
        """
        end = min(end, self._core.stop[0])
        while self._first < end:
            n = min(end - self._first, len(self._total))
            done = self._total[:n]
            if self._plan.weights is not None:
                _divide(done, self._weight)
            if not math.isfinite(float(done.sum())):
                raise FloatingPointError("the network says of some voxels what is no number")
            self._take(self._first - self._core.start[0], done)
            for sums in (self._total, self._weight):
                sums[:-n] = sums[n:].copy()
                sums[-n:] = 0
            self._first += n


def classify(
    probability: Floats,
    vessel: NDArray[np.uint8],
    parts_of_255: NDArray[np.uint8],
    *,
    threshold: float,
    value: int,
) -> int:
    """Sort planes into vessel and the rest, and round them; return how many voxels are vessel.

    Parameters
    ----------
    probability
        (planes, y, x) from 0 to 1.
    vessel
        Becomes ``value`` where the probability is ``threshold`` or more and not 0, else 0.
    parts_of_255
        Becomes the probability in 255ths.
    """
    limit, one = np.float32(threshold), np.uint8(value)
    return int(_classify(probability, vessel, parts_of_255, limit, one))


@njit(**_OPTIONS)
def _add(
    total: Floats,
    weight: Floats,
    logits: Floats,
    weights: Floats,
    here: NDArray[np.int64],
    there: NDArray[np.int64],
    shape: NDArray[np.int64],
) -> None:
    for z in range(shape[0]):
        for y in range(shape[1]):
            sums = total[here[0] + z, here[1] + y, here[2] :]
            counts = weight[here[0] + z, here[1] + y, here[2] :]
            said = logits[there[0] + z, there[1] + y, there[2] :]
            part = weights[there[0] + z, there[1] + y, there[2] :]
            for x in range(shape[2]):
                sums[x] += part[x] * _sigmoid(said[x])
                counts[x] += part[x]


@njit(**_OPTIONS)
def _put(
    total: Floats,
    logits: Floats,
    part: np.float32,
    here: NDArray[np.int64],
    there: NDArray[np.int64],
    shape: NDArray[np.int64],
) -> None:
    for z in range(shape[0]):
        for y in range(shape[1]):
            out = total[here[0] + z, here[1] + y, here[2] :]
            said = logits[there[0] + z, there[1] + y, there[2] :]
            for x in range(shape[2]):
                out[x] += part * _sigmoid(said[x])


@njit(**_OPTIONS)
def _divide(total: Floats, weight: Floats) -> None:
    for z in range(total.shape[0]):
        for y in range(total.shape[1]):
            out, counts = total[z, y], weight[z, y]
            for x in range(total.shape[2]):
                # Nothing was asked about what no window counts in.
                out[x] = out[x] / counts[x] if counts[x] > 0 else np.float32(0)


@njit(**_OPTIONS)
def _classify(
    probability: Floats,
    vessel: NDArray[np.uint8],
    parts_of_255: NDArray[np.uint8],
    threshold: np.float32,
    value: np.uint8,
) -> int:
    count = 0
    for z in range(probability.shape[0]):
        for y in range(probability.shape[1]):
            for x in range(probability.shape[2]):
                p = probability[z, y, x]
                # A threshold of 0 must not take what no window has seen anything in.
                is_vessel = (p >= threshold) & (p > 0)
                vessel[z, y, x] = value if is_vessel else np.uint8(0)
                parts_of_255[z, y, x] = np.uint8(np.rint(np.float32(255) * p))
                count += is_vessel
    return count


@njit(**_OPTIONS)
def _sigmoid(x: np.float32) -> np.float32:
    """Return 1 / (1 + exp(-x)) to 2e-7, by the rational function of tanh that Eigen has.

    Products and one quotient go eight at once, where an exponential function goes one by one.
    """
    h = np.float32(0.5) * x
    limit = np.float32(7.99881172180175781)
    h = limit if h > limit else (-limit if h < -limit else h)
    s = h * h
    over = np.float32(-2.76076847742355e-16)
    over = over * s + np.float32(2.00018790482477e-13)
    over = over * s + np.float32(-8.60467152213735e-11)
    over = over * s + np.float32(5.12229709037114e-08)
    over = over * s + np.float32(1.48572235717979e-05)
    over = over * s + np.float32(6.37261928875436e-04)
    over = over * s + np.float32(4.89352455891786e-03)
    under = np.float32(1.19825839466702e-06)
    under = under * s + np.float32(1.18534705686654e-04)
    under = under * s + np.float32(2.26843463243900e-03)
    under = under * s + np.float32(4.89352518554385e-03)
    p = np.float32(0.5) + np.float32(0.5) * (h * over / under)
    return np.float32(0) if p < 0 else p
