import numpy as np
import pytest
from scipy import stats

from vasculome.simulate.bubbles import SONOVUE, BubbleSizes


@pytest.mark.parametrize("exponent", [1.0, 3.0])
def test_amplitudes_follow_the_radius(exponent: float) -> None:
    sizes = BubbleSizes(log_spread=0.3, exponent=exponent)
    drawn = sizes.amplitudes(5000, np.random.default_rng(0))
    expected = stats.lognorm(s=0.3 * exponent)
    assert stats.kstest(drawn, expected.cdf).pvalue > 0.01


@pytest.mark.parametrize(("radius_um", "exponent"), [(2.0, 1.0), (0.01, 3.0)])
def test_amplitudes_are_roots_of_scattering_cross_sections(
    radius_um: float, exponent: float
) -> None:
    """σ = 4πr² / ((f0²/f² − 1)² + δ²) with Minnaert's f0 = 3.26 µm MHz / r, far from resonance."""
    f_mhz, damping = 15.6, 0.1
    sizes = BubbleSizes(log_spread=0.3, exponent=exponent)
    drawn = sizes.amplitudes(2000, np.random.default_rng(1))
    radius = radius_um * np.exp(0.3 * np.random.default_rng(2).normal(size=2000))

    def echo(r: np.ndarray) -> np.ndarray:
        return r / np.hypot((3.26 / r / f_mhz) ** 2 - 1, damping)

    expected = np.log(echo(radius) / echo(np.array([radius_um])))
    assert np.log(drawn).std() == pytest.approx(expected.std(), rel=0.06)
    assert stats.ks_2samp(np.log(drawn), expected).pvalue > 0.01


def test_sonovue_is_as_its_source_says() -> None:
    """A mean diameter of 2.5 µm, and 99 % below 11 µm, 90 % below 6 µm."""
    median_um = 2.5 / np.exp(SONOVUE.log_spread**2 / 2)
    diameter = stats.lognorm(s=SONOVUE.log_spread, scale=median_um)
    assert diameter.mean() == pytest.approx(2.5)
    assert diameter.cdf(11) == pytest.approx(0.99, abs=0.001)
    assert diameter.cdf(6) > 0.9
