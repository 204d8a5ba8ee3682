"""Noise of a scanner, and the noise of the PALA benchmark; each frame's has a seed of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

# PALA: wgn of −2 dBW in 0.2 Ω has this standard deviation; its filter is imgaussfilt(…, 1.5).
PALA_NOISE_STD = 0.355
PALA_NOISE_ABOVE_GROUND_DB = 10.0
PALA_SIGMA_PX = 1.5
_REACH_SIGMAS = 2.0  # of imgaussfilt


def complex_noise(
    shape: Sequence[int], *, seed: int, frame: int, sigma_px: float = 0.0
) -> NDArray[np.complex64]:
    """Return circular complex noise of root-mean-square 1, the same for the same seed and frame.

    Parameters
    ----------
    shape
        Pixels of the frame (z, [y,] x).
    sigma_px
        Standard deviation of the Gaussian that it is smoothed with; 0 leaves it white.
    """
    parts = _random(seed, frame).standard_normal((*shape, 2), dtype=np.float32)
    noise = parts.view(np.complex64)[..., 0] * np.float32(np.sqrt(0.5))
    if sigma_px == 0:
        return noise
    radius = _radius(sigma_px)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    gain = (np.sqrt((taps**2).sum()) / taps.sum()) ** len(shape)
    # Around the edges: so its strength is the same everywhere.
    return gaussian_filter(noise, sigma_px, mode="wrap", radius=radius) / np.float32(gain)


def add_pala_noise(
    magnitude: NDArray[np.float32],
    *,
    noise_db: float,
    peak: float,
    seed: int,
    first_frame: int = 0,
) -> NDArray[np.float32]:
    """Return magnitudes with the noise of PALA's in-silico benchmark.

    |IQ| + gauss2D(p·10^(dB/20) + w·p·10^((10 + dB)/20), σ = 1.5 px) with white w of standard
    deviation 0.355: a ground and smoothed noise upon it.

    Parameters
    ----------
    magnitude
        Float32 (frames, z, [y,] x).
    noise_db
        Level of the ground over the peak.
    peak
        Brightest pixel p of the whole acquisition, which a block need not hold.
    seed, first_frame
        The noise depends on the seed and the frame's number alone.

    Notes
    -----
    Source: Heiles et al., Nature Biomedical Engineering 6, 605, 2022,
    doi:10.1038/s41551-021-00824-8, and its code.
    """
    level = peak * 10 ** (noise_db / 20)
    strength = level * 10 ** (PALA_NOISE_ABOVE_GROUND_DB / 20) * PALA_NOISE_STD
    noisy = np.empty_like(magnitude)
    for i, image in enumerate(magnitude):
        white = _random(seed, first_frame + i).standard_normal(image.shape, dtype=np.float32)
        smooth = gaussian_filter(
            white, PALA_SIGMA_PX, mode="nearest", radius=_radius(PALA_SIGMA_PX)
        )
        noisy[i] = image + np.float32(level) + np.float32(strength) * smooth
    return noisy


def _radius(sigma_px: float) -> int:
    return int(np.ceil(_REACH_SIGMAS * sigma_px))


def _random(seed: int, frame: int) -> np.random.Generator:
    # The frame sits in the counter's last word, which one frame's draws never reach.
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, frame]))
