"""RF to IQ: mixing down by the centre frequency, low-pass filter, decimation."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import firwin, kaiser_beta

_STOPBAND_DB = 60.0
_STOPBAND_EDGE = 1.5
"""Where the stop band begins, in units of half the bandwidth; the pass band is 6 dB down at 1."""


def demodulate(
    rf: NDArray[np.integer] | NDArray[np.floating],
    *,
    sampling_frequency_hz: float,
    center_frequency_hz: float,
    bandwidth_hz: float,
    start_time_s: NDArray[np.floating],
    decimation: int = 1,
    device: str = "cpu",
) -> NDArray[np.complex64]:
    """Return the complex baseband of RF signals, its phase counted from time 0.

    ``iq(t) = 2 (h * rf exp(-2 pi i f t))(t)``, with a linear-phase low-pass h (Kaiser window,
    60 dB) that is 6 dB down at half the bandwidth and whose delay is taken out. RF below the
    Nyquist rate is taken as long as the band and its image stay apart.

    Parameters
    ----------
    rf
        Echoes, real, shape (t, transmits, elements, samples).
    sampling_frequency_hz, center_frequency_hz
        Of the RF; the centre frequency is the real one also where it is undersampled.
    bandwidth_hz
        Full width of the band that is kept, at -6 dB.
    start_time_s
        Time of the first sample of each transmit, shape (transmits,).
    decimation
        Every how many samples one is kept; the first one always is.
    device
        Torch device.

    Returns
    -------
    complex64 array, shape (t, transmits, elements, ceil(samples / decimation)); its amplitude is
    the envelope of the RF.

    Raises
    ------
    ValueError
        The band overlaps its image, or what decimation folds back; or a wrong shape.

    Source: Madiena et al., IEEE Trans. Ultrason. Ferroelectr. Freq. Control 65, 795-802, 2018
    (sub-Nyquist sampling).
    """
    if rf.ndim != 4 or rf.shape[1] != len(start_time_s) or np.iscomplexobj(rf):
        raise ValueError(
            f"RF must be real (t, {len(start_time_s)} transmits, elements, samples), "
            f"not {rf.dtype} {rf.shape}"
        )
    room_hz = free_bandwidth_hz(
        sampling_frequency_hz=sampling_frequency_hz, center_frequency_hz=center_frequency_hz
    )
    kept_hz = sampling_frequency_hz / decimation
    if not 0 < bandwidth_hz <= room_hz or kept_hz < least_sampling_frequency_hz(bandwidth_hz):
        raise ValueError(
            f"a band of {bandwidth_hz:g} Hz does not fit {room_hz:g} Hz between image and band, "
            f"or a sampling frequency of {kept_hz:g} Hz after decimation"
        )
    n_samples = rf.shape[-1]
    taps = _low_pass(bandwidth_hz / sampling_frequency_hz)
    n_fft = n_samples + len(taps) - 1
    response = torch.fft.fft(torch.as_tensor(taps, dtype=torch.complex64, device=device), n_fft)
    times_s = np.asarray(start_time_s)[:, None] + np.arange(n_samples) / sampling_frequency_hz
    # In double precision: a carrier runs through thousands of turns.
    mixer = 2 * np.exp(-2j * np.pi * np.mod(center_frequency_hz * times_s, 1.0))
    carrier = torch.as_tensor(mixer[:, None], dtype=torch.complex64, device=device)
    first = len(taps) // 2
    out = np.empty((*rf.shape[:-1], math.ceil(n_samples / decimation)), np.complex64)
    for frame, iq in zip(rf, out, strict=True):
        mixed = torch.as_tensor(np.asarray(frame, np.float32), device=device) * carrier
        filtered = torch.fft.ifft(torch.fft.fft(mixed, n_fft) * response)
        iq[...] = filtered[..., first : first + n_samples : decimation].cpu().numpy()
    return out


def free_bandwidth_hz(*, sampling_frequency_hz: float, center_frequency_hz: float) -> float:
    """Return the widest band around the centre frequency that its image does not touch.

    Mixing down moves the image of the band to minus twice the centre frequency, which sampling
    folds back.
    """
    turns = 2 * center_frequency_hz / sampling_frequency_hz
    return abs(turns - round(turns)) * sampling_frequency_hz


def least_sampling_frequency_hz(bandwidth_hz: float) -> float:
    """Return the sampling frequency at which decimation folds nothing back into the band."""
    return (1 + _STOPBAND_EDGE) * bandwidth_hz / 2


def _low_pass(relative_bandwidth: float) -> NDArray[np.float64]:
    """Return the taps, an odd number, for a bandwidth in units of the sampling frequency."""
    transition = (_STOPBAND_EDGE - 1) * relative_bandwidth  # both sides of the -6 dB point
    length = math.ceil((_STOPBAND_DB - 7.95) / (14.36 * transition)) | 1
    window = ("kaiser", kaiser_beta(_STOPBAND_DB))
    return firwin(length, relative_bandwidth / 2, window=window, fs=1.0)
