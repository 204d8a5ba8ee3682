import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label
from skimage.morphology import local_maxima

from vasculome.ultrasound.detect import find_peaks, noise_level


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.float32,
        st.one_of(st.tuples(*[st.integers(3, 8)] * 3), st.tuples(*[st.integers(3, 6)] * 4)),
        elements=st.integers(0, 4),
    )
)
def test_one_peak_for_each_regional_maximum(frames):
    # Small integers make plateaus of every shape. A rim of zeros keeps all of them off the edge.
    frames = np.pad(frames, [(0, 0)] + [(1, 1)] * (frames.ndim - 1))
    peaks = find_peaks(frames, threshold=0.5, half_width=1)
    for t, frame in enumerate(frames):
        maxima, count = _label(local_maxima(frame, connectivity=frame.ndim))
        labels = maxima[tuple(peaks[peaks[:, 0] == t, 1:].T)]
        assert sorted(labels) == list(range(1, count + 1))


def _label(mask):
    return label(mask, structure=np.ones((3,) * mask.ndim))


def test_plateau_is_placed_at_its_middle():
    frame = np.zeros((1, 9, 9))
    frame[0, 2:7, 3:6] = 1
    assert find_peaks(frame, threshold=0, half_width=1).tolist() == [[0, 4, 4]]


def test_edge_threshold_and_number():
    frames = np.zeros((2, 20, 20))
    for value, (t, z, x) in enumerate(
        [(0, 1, 5), (0, 5, 5), (0, 10, 10), (1, 4, 4), (1, 15, 17), (1, 15, 18)], start=1
    ):
        frames[t, z, x] = value
    everything = [[0, 1, 5], [0, 5, 5], [0, 10, 10], [1, 4, 4], [1, 15, 18]]
    assert find_peaks(frames, threshold=0, half_width=1).tolist() == everything
    assert find_peaks(frames, threshold=0, half_width=2).tolist() == everything[1:4]
    assert find_peaks(frames, threshold=2, half_width=1).tolist() == everything[2:]
    bright = find_peaks(frames, threshold=0, half_width=1, max_per_frame=1)
    assert bright.tolist() == [[0, 10, 10], [1, 15, 18]]
    assert find_peaks(frames, threshold=0, half_width=(2, 1)).tolist() == everything[1:]


def test_nothing_to_find():
    assert find_peaks(np.zeros((3, 8, 8)), threshold=0).shape == (0, 3)
    assert find_peaks(np.zeros((0, 8, 8, 8)), threshold=0).shape == (0, 4)
    assert find_peaks(np.full((1, 8, 8), np.nan), threshold=0).shape == (0, 3)
    assert find_peaks(np.ones((1, 3, 3)), threshold=0, half_width=5).shape == (0, 3)


def test_noise_level_is_rms_of_noise_despite_bubbles(draw_spots):
    rng = np.random.default_rng(0)
    positions = [rng.uniform(5, 55, (10, 2)) for _ in range(20)]
    magnitude = np.abs(draw_spots(positions, (60, 60), noise=0.05, seed=1))
    np.testing.assert_allclose(noise_level(magnitude), 0.05, rtol=0.12)
    alone = np.abs(draw_spots([np.empty((0, 2))] * 40, (60, 60), noise=0.05))
    np.testing.assert_allclose(noise_level(alone), 0.05, rtol=0.03)
    # The rule that goes with it: at 3.5 times the noise, false alarms are rare.
    assert len(find_peaks(alone, threshold=3.5 * noise_level(alone))) < 5


def _noise(shape, seed=0):
    rng = np.random.default_rng(seed)
    return np.abs(rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)


@pytest.mark.parametrize("shape", [(60, 50, 64), (40, 50, 6, 12)])
def test_noise_that_grows_with_depth_is_followed(shape):
    growth = np.linspace(0.3, 1.5, 50).reshape(-1, *(1,) * (len(shape) - 2))
    magnitude = _noise(shape) * growth
    level = noise_level(magnitude)
    np.testing.assert_allclose(level[5:-5], growth.ravel()[5:-5], rtol=0.05)
    peaks = find_peaks(magnitude, threshold=3.5 * level)
    # exp(-3.5²) of the voxels, if they were alike at all depths: by chance, and anywhere.
    assert len(peaks) < 3 * magnitude.size * np.exp(-(3.5**2))


@pytest.mark.parametrize("part", [0.3, 0.55, 0.9])
def test_voxels_without_data_are_no_noise(part):
    magnitude = _noise((200, 40, 60))
    magnitude[:, :, : int(60 * part)] = 0
    np.testing.assert_allclose(noise_level(magnitude), 1, rtol=0.05)
    magnitude[:, :7] = 0
    level = noise_level(magnitude)
    assert np.isinf(level[:7]).all()
    np.testing.assert_allclose(level[7:], 1, rtol=0.05)
    assert not len(find_peaks(magnitude[:, :9], threshold=np.inf))


def test_wrong_shapes():
    with pytest.raises(ValueError, match="axes"):
        find_peaks(np.zeros((8, 8)), threshold=0)
    with pytest.raises(ValueError, match="half widths"):
        find_peaks(np.zeros((1, 8, 8)), threshold=0, half_width=(2, 2, 2))
    with pytest.raises(ValueError, match="half widths"):
        find_peaks(np.zeros((1, 8, 8)), threshold=0, half_width=0)
