"""Tissue clutter: speckle that moves with breathing and heartbeat and slowly changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasculome.simulate.echoes import Psf


@dataclass(frozen=True)
class TissueMotion:
    """How tissue moves along z, and how long its speckle stays the same.

    Attributes
    ----------
    breathing_um, heartbeat_um
        Amplitudes of the two motions; each is strongest at its own depth.
    breathing_hz, heartbeat_hz
        Their frequencies; the defaults are those of a mouse under anaesthesia.
    decorrelation_s
        Time over which the speckle pattern turns into another one.
    """

    breathing_um: float = 6.0
    heartbeat_um: float = 2.0
    breathing_hz: float = 2.0
    heartbeat_hz: float = 8.0
    decorrelation_s: float = 20.0


class Tissue:
    """Clutter of root-mean-square 1, frame by frame; any frame can be asked for at any time.

    Two speckle patterns S1, S2 (white noise filtered by the point spread function) turn into each
    other, and displacement u along z turns their phase:
    (S1 cos θ(t) + S2 sin θ(t)) · exp(−ik u(z, t)) with the pulse's carrier k, about 4π/λ, as
    sub-wavelength motion does. The frames have low rank in time.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        spacing_um: Sequence[float],
        psf: Psf,
        frame_rate_hz: float,
        motion: TissueMotion,
        rng: np.random.Generator,
        origin_um: Sequence[float] | None = None,
    ) -> None:
        patterns = (
            psf.speckle(
                shape, spacing_um=spacing_um, origin_um=origin_um or [0.0] * len(shape), rng=rng
            )
            for _ in range(2)
        )
        self._patterns = [p / np.sqrt(np.mean(np.abs(p) ** 2)) for p in patterns]
        self._psf = psf
        self._frame_rate_hz = frame_rate_hz
        self._motion = motion
        self._phase = rng.uniform(0, 2 * math.pi, 2)
        along = np.linspace(-1, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        centre, width = rng.uniform(-1, 1, 2), rng.uniform(1.0, 2.0, 2)
        self._shape_in_depth = [
            np.exp(-(((along - c) / w) ** 2)) for c, w in zip(centre, width, strict=True)
        ]

    def displacement_um(self, frame: int) -> NDArray[np.float64]:
        """Return the tissue's displacement along z in a frame, (z, 1, ...)."""
        time_s = frame / self._frame_rate_hz
        amplitude = (self._motion.breathing_um, self._motion.heartbeat_um)
        frequency = (self._motion.breathing_hz, self._motion.heartbeat_hz)
        return sum(
            a * math.sin(2 * math.pi * f * time_s + p) * g
            for a, f, p, g in zip(
                amplitude, frequency, self._phase, self._shape_in_depth, strict=True
            )
        )

    def frame(self, number: int) -> NDArray[np.complex64]:
        """Return a frame of clutter, complex64 (z, [y,] x)."""
        turn = number / (self._frame_rate_hz * self._motion.decorrelation_s)
        first, second = self._patterns
        pattern = math.cos(turn) * first + math.sin(turn) * second
        phase = -self._psf.carrier_rad_um * self.displacement_um(number)
        return (pattern * np.exp(1j * phase)).astype(np.complex64)
