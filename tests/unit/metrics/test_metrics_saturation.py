import numpy as np
import pytest

from vasculome.metrics.saturation import fit_saturation


@pytest.mark.parametrize("tau", [0.7, 20.0, 90.0])
def test_the_law_comes_back(tau):
    time_s = np.arange(1, 2001) * 0.05
    filled = 0.8 * (1 - np.exp(-time_s / tau))
    fit = fit_saturation(time_s, filled)
    assert fit.plateau == pytest.approx(0.8, rel=1e-3)
    assert fit.time_to_90_s == pytest.approx(tau * np.log(10), rel=1e-3)
    assert fit.rms_residual < 1e-5


def test_bubbles_that_fall_anywhere():
    # Each of n pixels is hit at a rate r: the map fills as 1 − exp(−rt), whatever n.
    rng = np.random.default_rng(1)
    n_pixels, per_frame, n_frames = 5000, 20, 2000
    pixel = rng.integers(0, n_pixels, per_frame * n_frames)
    frame = np.repeat(np.arange(n_frames), per_frame)
    _, first = np.unique(pixel, return_index=True)
    filled = np.cumsum(np.bincount(frame[first], minlength=n_frames)) / n_pixels
    fit = fit_saturation(1e-3 * np.arange(1, n_frames + 1), filled)
    assert fit.plateau == pytest.approx(1, rel=0.01)
    assert fit.time_constant_s == pytest.approx(1e-3 * n_pixels / per_frame, rel=0.02)
    reached = 1e-3 * (1 + np.searchsorted(filled, 0.9))
    assert fit.time_to_90_s == pytest.approx(reached, rel=0.02)


@pytest.mark.parametrize(
    ("time_s", "filled"),
    [
        ([1, 2], [0.1, 0.2]),
        ([0, 1, 2], [0, 0.1, 0.2]),
        ([1, 1, 2], [0, 0.1, 0.2]),
        ([1, 2, 3], [0] * 3),
    ],
)
def test_saturation_refusals(time_s, filled):
    with pytest.raises(ValueError, match="saturation"):
        fit_saturation(np.array(time_s, float), np.array(filled, float))


def test_a_map_that_fills_in_proportion_to_time_tells_no_plateau():
    time_s = np.arange(1, 21) * 0.5
    assert fit_saturation(time_s, 5e-5 * time_s) is None
    rng = np.random.default_rng(0)
    for _ in range(10):
        falls = np.cumsum(rng.poisson(40, 20)) / 1e6
        fit = fit_saturation(time_s, falls)
        assert fit is None or fit.plateau < 3 * falls[-1]
