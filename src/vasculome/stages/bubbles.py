"""Bubbles of a block of filtered frames: where they are looked for, and how localized."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vasculome.config import LocalizeConfig
from vasculome.ultrasound.columns import Table, axis_names
from vasculome.ultrasound.detect import find_peaks, noise_level
from vasculome.ultrasound.localize import LOCALIZERS, passing


def bright_bubbles(
    magnitude: NDArray[np.float32], how: LocalizeConfig, *, first_frame: int = 0
) -> Table:
    """Return the spots of the magnitude (t, z, [y,] x) above the noise, positions in voxels."""
    return _localized(
        magnitude,
        how,
        threshold=how.threshold_snr * noise_level(magnitude),
        first_frame=first_frame,
    )


def correlated_bubbles(
    correlation: NDArray[np.float32],
    magnitude: NDArray[np.float32],
    how: LocalizeConfig,
    *,
    first_frame: int = 0,
) -> Table:
    """Return the spots of the correlation with the echo of a bubble, positions in voxels.

    Parameters
    ----------
    correlation, magnitude
        Magnitude of the local correlation, and of the frames themselves, (t, z, [y,] x).
    how
        Settings; peaks are to reach ``min_correlation``.
    first_frame
        Number of the first frame.

    Returns
    -------
    Table whose ``amplitude`` is the frames' own at the voxel of the position, with the correlation
    at the peak as a column more.
    """
    found = _localized(correlation, how, threshold=how.min_correlation, first_frame=first_frame)
    place = [
        np.clip(np.rint(found[axis]).astype(np.int64), 0, n - 1)
        for axis, n in zip(axis_names(magnitude.ndim - 1), magnitude.shape[1:], strict=True)
    ]
    amplitude = magnitude[(found["frame"] - first_frame, *place)]
    return found | {"amplitude": amplitude, "correlation": found["amplitude"]}


def _localized(
    image: NDArray[np.float32], how: LocalizeConfig, *, threshold: ArrayLike, first_frame: int
) -> Table:
    peaks = find_peaks(
        image,
        threshold=threshold,
        half_width=how.half_width_px,
        max_per_frame=how.max_per_frame,
    )
    return passing(
        LOCALIZERS[how.localizer](
            image, peaks, half_width=how.half_width_px, first_frame=first_frame
        ),
        max_maxima=how.max_maxima,
        max_shift_px=how.max_shift_px,
    )
