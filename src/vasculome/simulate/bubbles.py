"""The truth about simulated microbubbles: where each one is in each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AMPLITUDE_DRIFT = 0.02


@dataclass(frozen=True)
class BubbleSizes:
    """How bubbles differ in size, and so in their echoes.

    Radii are log-normally distributed. The scattering cross-section of a bubble is
    σ = 4πr² / ((f0²/f² − 1)² + δ²) with its resonance f0 ∝ 1/r: well above resonance σ ∝ r², well
    below it σ ∝ r⁶. The echo's amplitude goes with √σ, relative here to a bubble of median radius.

    Attributes
    ----------
    log_spread
        Standard deviation of the radius' natural logarithm. The default is that of a population
        which circulation has filtered: large bubbles stay behind, small ones dissolve.
    exponent
        The amplitude is proportional to radius ** exponent: 1 above resonance (bubbles of 1 µm
        above some 5 MHz), 3 below.

    Notes
    -----
    Source: Ainslie & Leighton, J. Acoust. Soc. Am. 126(5), 2163, 2009, doi:10.1121/1.3180130.
    """

    log_spread: float = 0.35
    exponent: float = 1.0

    def amplitudes(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw the echo amplitudes of so many bubbles; their median is 1."""
        return rng.lognormal(0.0, self.exponent * self.log_spread, count)


SONOVUE = BubbleSizes(log_spread=0.76)
"""SonoVue as it leaves the vial: the log-normal distribution with a mean diameter of 2.5 µm and
99 % of bubbles below 11 µm (Schneider, Eur. Radiol. 9 suppl. 3, S347, 1999)."""


@dataclass(frozen=True)
class BubbleTable:
    """Rows of one bubble in one frame, sorted by frame.

    Attributes
    ----------
    track, frame
        Int64 (rows,); tracks are numbered from 0 in order of first appearance.
    position_um
        Float64 (rows, ndim), in axis order (z, [y,] x).
    velocity_mm_s
        Float64 (rows, ndim), at the moment of the frame.
    amplitude
        Float32 (rows,): echo at the peak, median 1 over bubbles.
    """

    track: NDArray[np.int64]
    frame: NDArray[np.int64]
    position_um: NDArray[np.float64]
    velocity_mm_s: NDArray[np.float64]
    amplitude: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def ndim(self) -> int:
        """Dimensions of space."""
        return int(self.position_um.shape[1])

    def take(self, rows: slice | NDArray[np.bool_] | NDArray[np.integer]) -> BubbleTable:
        """Return some of the rows."""
        return BubbleTable(
            track=self.track[rows],
            frame=self.frame[rows],
            position_um=self.position_um[rows],
            velocity_mm_s=self.velocity_mm_s[rows],
            amplitude=self.amplitude[rows],
        )

    def between(self, first_frame: int, stop_frame: int) -> BubbleTable:
        """Return the rows of frames ``first_frame`` to ``stop_frame`` − 1, as views."""
        return self.take(slice(*np.searchsorted(self.frame, [first_frame, stop_frame]).tolist()))

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return the table as named columns, ready to be written."""
        axes = "zx" if self.ndim == 2 else "zyx"
        return {
            "track": self.track,
            "frame": self.frame,
            **{f"{a}_um": self.position_um[:, i] for i, a in enumerate(axes)},
            **{f"v{a}_mm_s": self.velocity_mm_s[:, i] for i, a in enumerate(axes)},
            "amplitude": self.amplitude,
        }


@dataclass(frozen=True)
class Rows:
    """Rows in any order, with a number for each bubble that need not begin at 0.

    Attributes
    ----------
    bubble, frame
        Int64 (rows,).
    position_um, velocity_mm_s
        Float64 (rows, ndim).
    """

    bubble: NDArray[np.int64]
    frame: NDArray[np.int64]
    position_um: NDArray[np.float64]
    velocity_mm_s: NDArray[np.float64]


def draw_echoes(count: int, sizes: BubbleSizes, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw what :func:`amplitudes` needs to know of so many bubbles, float64 (3, count)."""
    size = sizes.amplitudes(count, rng)
    return np.stack([size, rng.uniform(100, 500, count), rng.uniform(0, 2 * np.pi, count)])


def amplitudes(echoes: NDArray[np.float64], frame: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the amplitude of bubbles (3, rows) in a frame each.

    It is log-normal over bubbles (size), and each oscillates by a few per cent within half a second
    or so.
    """
    size, period_frames, phase = echoes
    drift = np.sin(2 * np.pi * frame / period_frames + phase)
    return (size * np.exp(AMPLITUDE_DRIFT * drift)).astype(np.float32)


def assemble(rows: Rows, *, sizes: BubbleSizes, rng: np.random.Generator) -> BubbleTable:
    """Sort rows into a table, number its tracks and give bubbles their amplitudes."""
    order = np.lexsort((rows.bubble, rows.frame))
    frame = rows.frame[order]
    _, first, inverse = np.unique(rows.bubble[order], return_index=True, return_inverse=True)
    track = rank(first)[inverse]
    echoes = draw_echoes(len(first), sizes, rng)
    return BubbleTable(
        track=track,
        frame=frame,
        position_um=rows.position_um[order],
        velocity_mm_s=rows.velocity_mm_s[order],
        amplitude=amplitudes(echoes[:, track], frame),
    )


def rank(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the place of each of different values among all, from 0."""
    place = np.empty(len(values), dtype=np.int64)
    place[np.argsort(values, kind="stable")] = np.arange(len(values))
    return place
