"""Frames of Gaussian spots with exact truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

Draw = Callable[..., NDArray[np.complex64]]


def _draw_spots(
    positions_t: Sequence[NDArray[np.float64]],
    shape: tuple[int, ...],
    *,
    fwhm: float = 3.0,
    noise: float = 0.0,
    seed: int = 0,
) -> NDArray[np.complex64]:
    """Draw unit spots of random phase at ``positions_t[t]`` (n, d), and complex noise."""
    rng = np.random.default_rng(seed)
    sigma = fwhm / np.sqrt(8 * np.log(2))
    frames = np.zeros((len(positions_t), *shape), np.complex64)
    for t, positions in enumerate(positions_t):
        for position in positions:
            spot = np.exp(2j * np.pi * rng.random())
            for centre, n in zip(position, shape, strict=True):
                line = np.exp(-((np.arange(n) - centre) ** 2) / (2 * sigma**2))
                spot = np.multiply.outer(spot, line)
            frames[t] += spot.astype(np.complex64)
    real, imaginary = rng.normal(0, noise / np.sqrt(2), (2, *frames.shape))
    return (frames + (real + 1j * imaginary)).astype(np.complex64)


@pytest.fixture
def draw_spots() -> Draw:
    return _draw_spots
