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


def test_sonovue_is_as_its_source_says() -> None:
    """A mean diameter of 2.5 µm, and 99 % below 11 µm, 90 % below 6 µm."""
    median_um = 2.5 / np.exp(SONOVUE.log_spread**2 / 2)
    diameter = stats.lognorm(s=SONOVUE.log_spread, scale=median_um)
    assert diameter.mean() == pytest.approx(2.5)
    assert diameter.cdf(11) == pytest.approx(0.99, abs=0.001)
    assert diameter.cdf(6) > 0.9
