"""Kalman filter of a bubble that keeps its velocity, but for small random changes.

The axes are alike and independent, so that one 2 × 2 covariance of position and velocity serves
them all. Units are micrometres and frames.

Source: Bar-Shalom, Li and Kirubarajan, Estimation with Applications to Tracking and Navigation,
2001, section 6.2.2 (white-noise acceleration).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Covariance = tuple[float, float, float]
"""Variance of the position, its covariance with the velocity, variance of the velocity."""


@dataclass(frozen=True)
class ConstantVelocity:
    """How exactly bubbles are localized, and how steadily they flow.

    Parameters
    ----------
    position_error_um
        Standard deviation of a localization along one axis.
    speed_change_mm_s
        Standard deviation along one axis of the change of velocity from one frame to the next.
    """

    position_error_um: float
    speed_change_mm_s: float

    def __post_init__(self) -> None:
        if not (self.position_error_um > 0 and self.speed_change_mm_s > 0):
            raise ValueError("the errors of a Kalman filter must be positive")


@njit(cache=True, nogil=True, inline="always")
def predict(covariance: Covariance, frames: float, change: float) -> Covariance:
    """Return the covariance ``frames`` later; ``change`` is the variance of velocity a frame."""
    xx, xv, vv = covariance
    return (
        xx + 2 * frames * xv + frames**2 * vv + change * frames**3 / 3,
        xv + frames * vv + change * frames**2 / 2,
        vv + change * frames,
    )


@njit(cache=True, nogil=True)
def update(
    position: NDArray[np.float64],
    velocity: NDArray[np.float64],
    covariance: Covariance,
    measured: NDArray[np.float64],
    error: float,
) -> Covariance:
    """Take in a measurement of variance ``error``; position and velocity change in place."""
    xx, xv, vv = covariance
    gain_x, gain_v = xx / (xx + error), xv / (xx + error)
    for axis in range(len(position)):
        surprise = measured[axis] - position[axis]
        position[axis] += gain_x * surprise
        velocity[axis] += gain_v * surprise
    return (1 - gain_x) * xx, (1 - gain_x) * xv, vv - gain_v * xv
