"""IQ and the echo of a bubble on finer pixels, for networks that were trained on those."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft, ifft

from vasculome.ultrasound.correlate import correlation_map
from vasculome.ultrasound.psf import DepthPsf, given_psf

PIXELS_AT_ONCE = 1 << 20
"""Finer pixels that are correlated with the echo at once; a frame at least."""

_PIXEL_BYTES = 120
"""Of one of them: finer frames and their transforms, correlation, mask and places."""


def upsample(
    iq_t: NDArray[np.complexfloating], factors: Sequence[int], *, turn_rad: Sequence[float]
) -> NDArray[np.complex64]:
    """Return frames with pixels between the pixels, by zeros added to their Fourier transform.

    It is exact for what a band of less than a cycle a pixel holds, wherever that band lies: the
    carrier is taken out before and put back after, since IQ whose carrier is near half a cycle
    would be torn in two. Frames are taken to repeat: an echo that is cut by one border leaves
    ripples of its cut edge, and at the other.

    Parameters
    ----------
    iq_t
        Complex, (t, z, [y,] x).
    factors
        Pixels for each pixel along z, [y,] x.
    turn_rad
        By how much the phase turns from a pixel to the next along each axis, the carrier:
        :func:`echo_turn`.

    Returns
    -------
    complex64 array whose pixel ``factor · i`` is pixel i of ``iq_t``: along each axis
    ``factor · (n − 1) + 1``.

    Raises
    ------
    ValueError
        If a factor is not at least 1, or there is not one for each axis.
    """
    if len(factors) != iq_t.ndim - 1 or min(factors) < 1:
        raise ValueError(f"factors {tuple(factors)} do not fit frames of shape {iq_t.shape[1:]}")
    fine = np.asarray(iq_t, np.complex64)
    for axis, (factor, turn) in enumerate(zip(factors, turn_rad, strict=True), start=1):
        if factor > 1:
            fine = _along(fine, axis, factor, turn)
    return fine


def upsample_psf(psf: DepthPsf, factors: Sequence[int]) -> DepthPsf:
    """Return the echo of a bubble on finer pixels: see :func:`upsample`."""
    echoes = upsample(psf.echoes, factors, turn_rad=echo_turn(psf))
    return given_psf(echoes, depth_px=(psf.depth_px * factors[0]).tolist())


def echo_turn(psf: DepthPsf) -> tuple[float, ...]:
    """Return by how much an echo's phase turns from a pixel to the next, along z, [y,] x."""
    turns = []
    for axis in range(1, psf.echoes.ndim):
        n = psf.echoes.shape[axis]
        ahead = psf.echoes.take(range(1, n), axis=axis)
        turns.append(float(np.angle(np.vdot(psf.echoes.take(range(n - 1), axis=axis), ahead))))
    return tuple(turns)


def fine_correlation(
    iq_t: NDArray[np.complexfloating],
    psf: DepthPsf,
    factors: Sequence[int],
) -> Iterator[tuple[int, NDArray[np.complex64], NDArray[np.complex64]]]:
    """Yield finer frames and their correlation with the echo of a bubble, some at a time.

    Parameters
    ----------
    iq_t
        Complex, (t, z, [y,] x).
    psf
        Echo on its pixels.
    factors
        As in :func:`upsample`.

    Yields
    ------
    Number of the first frame, the frames, and their :func:`correlation_map`.
    """
    fine_psf, turn_rad = psf, echo_turn(psf)
    if max(factors) > 1:
        fine_psf = upsample_psf(psf, factors)
    step = max(1, PIXELS_AT_ONCE // (math.prod(iq_t.shape[1:]) * math.prod(factors)))
    for begin in range(0, len(iq_t), step):
        fine = upsample(iq_t[begin : begin + step], factors, turn_rad=turn_rad)
        yield begin, fine, correlation_map(fine, fine_psf)


def correlating_bytes(n_frames: int, fine_px: int) -> int:
    """Return the memory of :func:`fine_correlation` for frames of ``fine_px`` finer pixels."""
    return _PIXEL_BYTES * min(n_frames * fine_px, max(fine_px, PIXELS_AT_ONCE))


def _along(
    frames: NDArray[np.complex64], axis: int, factor: int, turn_rad: float
) -> NDArray[np.complex64]:
    n = frames.shape[axis]
    shape = [-1 if a == axis else 1 for a in range(frames.ndim)]

    def turned(length: int, step: float) -> NDArray[np.complex64]:
        return np.exp(1j * step * np.arange(length)).astype(np.complex64).reshape(shape)

    spectrum = np.moveaxis(fft(frames * turned(n, -turn_rad), axis=axis), axis, -1)
    wide = np.zeros((*spectrum.shape[:-1], n * factor), np.complex64)
    half = (n + 1) // 2
    wide[..., :half] = spectrum[..., :half]
    wide[..., wide.shape[-1] - (n - half) :] = spectrum[..., half:]
    if n % 2 == 0:
        # What is at half a cycle is as much at the other end: real frames stay real.
        wide[..., half] = wide[..., -half] = spectrum[..., half] / 2
    fine = np.moveaxis(ifft(wide, axis=-1), -1, axis) * np.float32(factor)
    # What lies beyond the last pixel is on the way to the first.
    last = factor * (n - 1) + 1
    return fine.take(range(last), axis=axis) * turned(last, turn_rad / factor)
