import numpy as np
import pytest

from vasculome.metrics.saturation import filled_part, fit_saturation


def test_filled_part_against_counting():
    rng = np.random.default_rng(0)
    frame, pixel = rng.integers(0, 50, 300), rng.integers(0, 120, 300)
    found = filled_part(frame, pixel, n_frames=50, n_pixels=120)
    expected = [len(set(pixel[frame <= t])) / 120 for t in range(50)]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(filled_part(frame[:0], pixel[:0], n_frames=3, n_pixels=9), 0)


@pytest.mark.parametrize("tau", [0.7, 20.0, 400.0])
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
    filled = filled_part(frame, pixel, n_frames=n_frames, n_pixels=n_pixels)
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
