"""The truth about simulated microbubbles: where each one is in each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AMPLITUDE_SPREAD = 0.35
AMPLITUDE_DRIFT = 0.02


@dataclass(frozen=True)
class BubbleTable:
    """Rows of one bubble in one frame, sorted by frame, then by track.

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

    def between(self, first_frame: int, stop_frame: int) -> BubbleTable:
        """Return the rows of frames ``first_frame`` to ``stop_frame`` − 1, as views."""
        rows = slice(*np.searchsorted(self.frame, [first_frame, stop_frame]).tolist())
        return BubbleTable(
            track=self.track[rows],
            frame=self.frame[rows],
            position_um=self.position_um[rows],
            velocity_mm_s=self.velocity_mm_s[rows],
            amplitude=self.amplitude[rows],
        )

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


def assemble(
    *,
    bubble: NDArray[np.int64],
    frame: NDArray[np.int64],
    position_um: NDArray[np.float64],
    velocity_mm_s: NDArray[np.float64],
    rng: np.random.Generator,
) -> BubbleTable:
    """Sort rows into a table, number its tracks and give bubbles slowly varying amplitudes.

    Amplitudes are log-normal over bubbles (size), and each oscillates by a few per cent within half
    a second or so.
    """
    order = np.lexsort((bubble, frame))
    frame = frame[order]
    names, first, track = np.unique(bubble[order], return_index=True, return_inverse=True)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(names))
    track = rank[track]
    size = rng.lognormal(0.0, AMPLITUDE_SPREAD, len(names))
    period, phase = rng.uniform(100, 500, len(names)), rng.uniform(0, 2 * np.pi, len(names))
    drift = np.sin(2 * np.pi * frame / period[track] + phase[track])
    return BubbleTable(
        track=track,
        frame=frame,
        position_um=position_um[order],
        velocity_mm_s=velocity_mm_s[order],
        amplitude=(size[track] * np.exp(AMPLITUDE_DRIFT * drift)).astype(np.float32),
    )
