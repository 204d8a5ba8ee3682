import math

import numpy as np
import pytest
from scipy.fft import fftfreq, fftn, ifftn

from vasculome.metrics.resolution import FourierCorrelation, fourier_correlation


def band_limited(shape, spacing, cutoff, seed):
    """Noise without any frequency above the cut-off, of standard deviation 1."""
    square = sum(
        fftfreq(n, s).reshape([-1 if a == axis else 1 for a in range(len(shape))]) ** 2
        for axis, (n, s) in enumerate(zip(shape, spacing, strict=True))
    )
    spectrum = fftn(np.random.default_rng(seed).normal(size=shape)) * (square <= cutoff**2)
    image = ifftn(spectrum).real
    return image / image.std()


@pytest.mark.parametrize("criterion", ["half_bit", "one_seventh"])
@pytest.mark.parametrize(
    ("shape", "spacing", "cutoff"),
    [
        ((256, 256), (2.0, 2.0), 0.1),
        ((300, 200), (1.0, 2.0), 0.12),
        ((64, 64, 64), (4.0, 4.0, 4.0), 0.05),
    ],
)
def test_known_cutoff(shape, spacing, cutoff, criterion):
    common = band_limited(shape, spacing, cutoff, seed=0)
    halves = [common + np.random.default_rng(s).normal(0, 0.3, shape) for s in (1, 2)]
    found = fourier_correlation(*halves, spacing_um=spacing)
    step = found.frequency_per_um[0]
    assert 1 / found.resolution_um(criterion) == pytest.approx(cutoff, abs=2.5 * step)


def test_correlation_is_signal_over_signal_and_noise():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(400, 400))
    halves = [common + rng.normal(0, math.sqrt(3), common.shape) for _ in range(2)]
    found = fourier_correlation(*halves, spacing_um=(1.0, 1.0))
    np.testing.assert_allclose(found.correlation[20:].mean(), 1 / 4, atol=0.01)
    assert found.frequency_per_um[-1] == pytest.approx(0.5)
    # Rings hold all coefficients of the half plane up to their radius.
    assert found.samples.sum() == pytest.approx(math.pi * 200**2 / 2, rel=0.01)


def test_thresholds():
    curve = FourierCorrelation(np.array([0.1, 0.2]), np.ones(2), np.array([1.0, 1e12]))
    # Many samples: half a bit is a signal of 0.2071 of the noise in each half, as published.
    assert curve.threshold("half_bit")[1] == pytest.approx(0.2071 / 1.2071, abs=1e-5)
    assert curve.threshold("half_bit")[0] == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(curve.threshold("one_seventh"), 0.143, atol=1e-3)
    with pytest.raises(ValueError, match="criterion"):
        curve.threshold("two_sigma")


def test_curves_without_a_crossing():
    frequency, samples = np.array([0.1, 0.2, 0.3, 0.4]), np.full(4, 1e9)
    above = FourierCorrelation(frequency, np.ones(4), samples)
    assert above.resolution_um() == pytest.approx(2.5)
    below = FourierCorrelation(frequency, np.zeros(4), samples)
    assert below.resolution_um() == math.inf
    half = FourierCorrelation(frequency, np.array([1, 2 / 7, 0, 0]), samples)
    assert half.resolution_um("one_seventh") == pytest.approx(1 / 0.25)


def test_images_must_fit():
    with pytest.raises(ValueError, match="fit"):
        fourier_correlation(np.ones((8, 8)), np.ones((8, 9)), spacing_um=(1.0, 1.0))
    with pytest.raises(ValueError, match="fit"):
        fourier_correlation(np.ones((8, 8)), np.ones((8, 8)), spacing_um=(1.0,))


def test_empty_images_share_nothing():
    empty = fourier_correlation(np.zeros((16, 16)), np.zeros((16, 16)), spacing_um=(1.0, 1.0))
    assert empty.resolution_um() == math.inf
