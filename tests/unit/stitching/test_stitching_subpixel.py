import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import (
    correlate1d,
    fourier_shift,
    gaussian_filter,
    gaussian_filter1d,
    uniform_filter1d,
)

from vasculome.stitching.bandpass import band_pass
from vasculome.stitching.correlation import correlation, peaks, phase_correlation
from vasculome.stitching.slabs import bin_down
from vasculome.stitching.subpixel import refine


def texture(shape, seed=0, sigma=1.5):
    noise = np.random.default_rng(seed).standard_normal(shape)
    image = gaussian_filter(noise, sigma, mode="wrap")
    return image / image.std()


def shifted(image, by):
    return np.fft.ifftn(fourier_shift(np.fft.fftn(image), by)).real


@given(by=st.tuples(st.floats(-1.5, 1.5), st.floats(-4, 4), st.floats(-4, 4)))
@settings(max_examples=15, deadline=None)
def test_a_known_shift_is_found_to_a_hundredth_of_a_voxel(by):
    image = texture((24, 56, 48))
    moved = shifted(image, by)
    rng = np.random.default_rng(1)
    a, b = (
        gaussian_filter(v + 0.3 * rng.standard_normal(v.shape), (0, 1, 1)).astype(np.float32)
        for v in (moved, image)
    )
    peak = refine(a, b, reach=(2, 5, 5))
    assert peak.found
    assert peak.ncc > 0.9
    np.testing.assert_allclose(peak.lag, by, atol=0.02)


def test_its_own_error_is_foretold():
    image = texture((16, 48, 48))
    moved = shifted(image, (0.3, -0.4, 1.2))
    rng = np.random.default_rng(2)
    errors, told = [], []
    for _ in range(25):
        a, b = (
            gaussian_filter(v + 2.0 * rng.standard_normal(v.shape), (0.7, 1, 1)).astype(np.float32)
            for v in (moved, image)
        )
        peak = refine(a, b, reach=(2, 5, 5))
        errors.append(peak.lag - (0.3, -0.4, 1.2))
        told.append(np.sqrt(np.diag(np.linalg.inv(peak.information))))
    ratio = np.sqrt(np.square(errors).mean(0)) / np.mean(told, axis=0)
    assert (ratio > 0.3).all()
    assert (ratio < 3).all()


def test_nothing_is_known_along_a_straight_vessel():
    vessel = np.zeros((16, 64, 48), np.float32)
    vessel[8, :, 24] = 100
    vessel = gaussian_filter(vessel, 1.5)
    peak = refine(vessel, np.roll(vessel, 1, axis=2), reach=(2, 5, 5))
    along = np.diag(peak.information)
    assert along[1] < 1e-3 * along[2]
    assert peak.lag[2] == pytest.approx(-1, abs=0.01)


def test_images_without_structure_or_too_small_give_no_peak():
    flat, some = np.zeros((8, 20, 20), np.float32), texture((8, 20, 20)).astype(np.float32)
    for a, b in ((flat, some), (some, flat), (some[..., :4], some[..., :4])):
        peak = refine(a, b, reach=(2, 5, 5))
        assert not peak.found
        assert peak.ncc == 0


def test_a_peak_beyond_reach_is_not_found():
    image = texture((12, 60, 60), sigma=3)
    a, b = shifted(image, (0, 12, 0)).astype(np.float32), image.astype(np.float32)
    assert not refine(a, b, reach=(2, 5, 5)).found


def test_single_planes_can_be_compared():
    image = texture((1, 80, 80), sigma=(0, 1.5, 1.5))
    moved = shifted(image, (0, 1.3, -2.6))
    peak = refine(moved.astype(np.float32), image.astype(np.float32), reach=(2, 5, 5))
    np.testing.assert_allclose(peak.lag, (0, 1.3, -2.6), atol=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_band_pass_is_its_filters(dtype):
    values = np.random.default_rng(3).integers(0, 250, (5, 30, 26)).astype(dtype)
    root = np.sqrt(values.astype(float))
    for axis in (1, 2):
        root = gaussian_filter1d(root, 1.0, axis=axis, mode="nearest", truncate=3.0)
    ground = root
    for axis in (1, 2):
        ground = uniform_filter1d(ground, 15, axis=axis, mode="nearest")
    expected = correlate1d(root - ground, [0.25, 0.5, 0.25], axis=0, mode="nearest")
    np.testing.assert_allclose(band_pass(values, sigma=1.0, limit=15), expected, atol=1e-4)


def test_missing_planes_and_plain_light_say_nothing():
    values = np.random.default_rng(4).integers(100, 5000, (6, 40, 40), dtype=np.uint16)
    values[2] = 0
    assert not band_pass(values, sigma=0, limit=15)[2].any()
    plain = np.full((3, 40, 40), 41234, np.uint16)
    assert not band_pass(plain, sigma=1.0, limit=15).any()
    smooth = band_pass(values, sigma=1.0, limit=15)
    assert smooth.any((1, 2)).tolist() == [True, False, False, False, True, True]


def test_edges_of_saturated_regions_are_clipped():
    values = np.random.default_rng(4).poisson(400, (4, 60, 60)).astype(np.uint16)
    plain = band_pass(values, sigma=1.0, limit=15)
    values[:, 30:] = 65535
    clipped = band_pass(values, sigma=1.0, limit=15)
    assert clipped.max() < 20 * np.median(np.abs(plain))
    np.testing.assert_allclose(clipped[:, :20], plain[:, :20], atol=1e-5)


def test_the_coefficient_is_pearsons():
    rng = np.random.default_rng(5)
    a, b = rng.random((2, 5, 9, 12)).astype(np.float32)
    ncc, count = correlation(a, b, (1, -2, 3))
    u, v = a[1:, :-2, 3:], b[:-1, 2:, :-3]
    assert count == u.size
    assert ncc == pytest.approx(np.corrcoef(u.ravel(), v.ravel())[0, 1], abs=1e-5)
    assert correlation(a, b, (0, 0, 12)) == (0.0, 0)
    assert correlation(a, np.ones_like(b), (0, 0, 0))[0] == 0


def test_phase_correlation_peaks_at_the_lag_and_noise_is_of_1():
    rng = np.random.default_rng(6)
    whole = rng.standard_normal((20, 70, 60)).astype(np.float32)
    a, b = whole[:16, 5:60, :40], whole[3:19, 10:65, 7:47]
    surface = phase_correlation(a, b, lag=(2, 4, 6), reach=(3, 5, 5))
    best = peaks(surface, 3)[0] - (3, 5, 5) + (2, 4, 6)
    assert best.tolist() == [3, 5, 7]
    noise = phase_correlation(
        a, rng.random(a.shape, np.float32) - 0.5, lag=(0,) * 3, reach=(5,) * 3
    )
    assert noise.std() == pytest.approx(1, rel=0.15)


def test_binning_takes_means_and_drops_the_rest():
    values = np.arange(3 * 5 * 7, dtype=np.uint16).reshape(3, 5, 7)
    binned = bin_down(values, (1, 2, 3))
    assert binned.shape == (3, 2, 2)
    assert binned[1, 1, 1] == values[1, 2:4, 3:6].mean()
