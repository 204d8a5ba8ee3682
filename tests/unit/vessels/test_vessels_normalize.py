import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.errors import UserError
from vasculome.vessels import normalize


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    eighths=st.integers(0, 800),
)
@settings(max_examples=40, deadline=None)
def test_percentile_of_summed_tiles_equals_numpy_on_whole(seed, dtype, eighths):
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, np.iinfo(dtype).max + 1, (16, 4, 5)).astype(dtype)
    histogram = normalize.intensity_histogram(whole[:5]) + normalize.intensity_histogram(whole[5:])
    percent = eighths / 8
    expected = np.percentile(whole, percent, method="inverted_cdf")
    assert normalize.percentile(histogram, percent) == expected


def test_float_percentile_is_right_to_half_a_bin():
    rng = np.random.default_rng(0)
    whole = rng.lognormal(size=(8, 9, 10)).astype(np.float32)
    tiles = np.array_split(whole, 3)
    span = normalize.merge_ranges(normalize.value_range(tile) for tile in tiles)
    assert span == (whole.min(), whole.max())
    first, *others = (normalize.intensity_histogram(t, float_range=span) for t in tiles)
    histogram = sum(others, first)
    assert histogram.counts.sum() == whole.size
    half_bin = 0.5 * (span[1] - span[0]) / (normalize.FLOAT_BINS - 1)
    for percent in (0, 10, 50, 95, 100):
        expected = np.percentile(whole, percent, method="inverted_cdf")
        assert normalize.percentile(histogram, percent) == pytest.approx(
            expected, abs=half_bin * 1.01
        )


def test_rescale_truncates_and_spans_0_to_1():
    image = np.arange(101, dtype=np.uint16).reshape(1, -1)
    low, high = normalize.intensity_range(normalize.intensity_histogram(image), upper_percent=50)
    assert (low, high) == (0, 50)
    scaled = normalize.rescale(image, low=low, high=high)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[0], np.minimum(np.arange(101) / 50, 1), atol=1e-6)


def test_constant_volume_becomes_zero():
    image = np.full((2, 3), 7, np.uint8)
    low, high = normalize.intensity_range(normalize.intensity_histogram(image))
    assert not normalize.rescale(image, low=low, high=high).any()
    flat = np.full((2, 3), 0.5, np.float32)
    histogram = normalize.intensity_histogram(flat, float_range=normalize.value_range(flat))
    assert normalize.intensity_range(histogram) == (0.5, 0.5)


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="NaN or infinite"):
        normalize.value_range(np.array([[0.0, np.nan]], np.float32))
    with pytest.raises(UserError, match="int32"):
        normalize.intensity_histogram(np.zeros((2, 2), np.int32))
    small = normalize.intensity_histogram(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="different bins"):
        small + normalize.intensity_histogram(np.zeros((2, 2), np.uint16))
    with pytest.raises(ValueError, match="not 101"):
        normalize.percentile(small, 101)
