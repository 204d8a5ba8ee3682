"""Clutter filter by frequency: tissue moves slowly, and so does its echo's phase.

The plain alternative to singular vectors: no block to decompose and nothing to choose but the
band, but blind to where tissue is, so that slow bubbles go with the tissue and fast tissue stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt, sosfiltfilt

_PIECE_SAMPLES = 1 << 21


def bandpass(
    iq_t: NDArray[np.complexfloating],
    *,
    frame_rate_hz: float,
    low_hz: float = 50.0,
    high_hz: float = 249.0,
    order: int = 2,
    causal: bool = False,
) -> NDArray[np.complex64]:
    """Keep the Doppler frequencies of a band, in every voxel of a block of frames.

    A Butterworth filter in second-order sections. Its coefficients are real, so that the band holds
    flow towards the probe and away from it alike. The default is run forwards and backwards: it
    delays nothing and damps twice, by 6 dB at the edges of the band. The causal one is run
    forwards, as the field's toolboxes do: it delays what passes by a few frames, differently by
    frequency, and needs some 20 frames to settle.

    Parameters
    ----------
    iq_t
        Beamformed IQ, complex, shape (t, z, x) or (t, z, y, x).
    frame_rate_hz
        Frames a second.
    low_hz, high_hz
        Edges of the band; 50 and 249 Hz are the field's at 1 kHz.
    order
        Order of the low-pass prototype: the band-pass has twice as many poles.
    causal
        Forwards only.

    Returns
    -------
    complex64 array of the shape of ``iq_t``.

    Raises
    ------
    ValueError
        If the array is not complex or not finite, the edges do not satisfy
        0 < low_hz < high_hz < frame_rate_hz / 2, or the block is too short for the filter.
    """
    if iq_t.ndim < 2 or not np.iscomplexobj(iq_t):
        raise ValueError(
            f"IQ must be complex with axes (t, space...), not {iq_t.dtype} {iq_t.shape}"
        )
    if not (0 < low_hz < high_hz < frame_rate_hz / 2 and order >= 1):
        raise ValueError(
            f"the band {low_hz} to {high_hz} Hz must lie between 0 and half of {frame_rate_hz} Hz"
        )
    sections = butter(order, (low_hz, high_hz), btype="bandpass", fs=frame_rate_hz, output="sos")
    padding = 3 * (2 * len(sections) + 1)  # that of sosfiltfilt
    if not causal and len(iq_t) <= padding:
        raise ValueError(
            f"{len(iq_t)} frames are too few to filter both ways: {padding + 1} at least"
        )
    run = sosfilt if causal else sosfiltfilt
    series = iq_t.reshape(len(iq_t), -1)
    filtered = np.empty(series.shape, np.complex64)
    # In pieces of voxels: the filter works in double precision on several copies.
    step = max(1, _PIECE_SAMPLES // len(iq_t))
    for start in range(0, series.shape[1], step):
        piece = np.ascontiguousarray(series[:, start : start + step].T)
        if not np.isfinite(piece).all():
            raise ValueError("IQ holds values that are not finite")
        filtered[:, start : start + step] = run(sections, piece, axis=1).T
    return filtered.reshape(iq_t.shape)
