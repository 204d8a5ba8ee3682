import numpy as np
import pytest

from vasculome.ultrasound.clutter_bounds import (
    centroid_frequency_hz,
    find_bounds,
    noise_value,
    spatial_similarity,
    two_blocks,
)


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def layered(rng, *, tissue, blood, n_frames=120, shape=(24, 30)):
    """Slow tissue of one anatomy, fast blood in one vessel, and white noise; each of a rank."""
    t = np.arange(n_frames)[:, None]
    slow = np.exp(2j * np.pi * (np.arange(tissue) - tissue // 2) * t / n_frames)  # to 25 Hz
    fast = np.exp(2j * np.pi * rng.choice([-1, 1], blood) * rng.uniform(90, 300, blood) / 1000 * t)
    anatomy = rng.random(shape)
    vessel = np.zeros(shape)
    vessel[:, 10:14] = 1
    slow_images = anatomy * complex_normal(rng, tissue, *shape)
    fast_images = vessel * complex_normal(rng, blood, *shape)
    slow, fast = slow / np.sqrt(n_frames), np.linalg.qr(fast)[0]
    level_slow = np.geomspace(3000, 300, tissue)
    level_fast = np.geomspace(40, 30, blood)
    iq = np.tensordot(slow * level_slow, slow_images, 1)
    iq += np.tensordot(fast * level_fast, fast_images, 1)
    return (iq + complex_normal(rng, n_frames, *shape)).astype(np.complex64)


@pytest.mark.parametrize(("tissue", "blood"), [(3, 12), (7, 20)])
def test_tissue_blood_and_noise_are_told_apart(tissue, blood):
    iq = layered(np.random.default_rng(tissue), tissue=tissue, blood=blood)
    bounds = find_bounds(iq, frame_rate_hz=1000)
    assert bounds.keep_from_centroid == tissue + 1
    assert bounds.keep_from_similarity == tissue + 1
    assert bounds.keep_to_similarity == tissue + blood
    assert bounds.keep_to_noise == tissue + blood
    np.testing.assert_allclose(
        bounds.singular_values,
        np.linalg.svd(iq.reshape(len(iq), -1).astype(complex), compute_uv=False),
        rtol=1e-6,
    )
    assert bounds.similarity.shape == (120, 120)
    assert find_bounds(iq, frame_rate_hz=1000, compared=40).keep_from_similarity == tissue + 1


def test_still_frames_have_no_fast_vector_in_a_wide_band():
    iq = layered(np.random.default_rng(0), tissue=3, blood=2)
    assert find_bounds(iq, frame_rate_hz=1000, tissue_below_hz=500).keep_from_centroid is None
    with pytest.raises(ValueError, match="too few"):
        find_bounds(iq[:7], frame_rate_hz=1000)


def test_centroid_is_the_frequency_of_a_tone_of_either_sign():
    t = np.arange(200) / 400
    tones = np.exp(2j * np.pi * np.outer(t, [0.0, 30.0, -30.0, 110.0]))
    both = tones[:, [1]] + tones[:, [3]]
    centroid = centroid_frequency_hz(np.hstack([tones, both]), frame_rate_hz=400)
    np.testing.assert_allclose(centroid, [0, 30, 30, 110, 70], atol=1e-9)


def test_similarity_is_the_correlation_of_magnitudes():
    rng = np.random.default_rng(0)
    spatial = complex_normal(rng, 6, 400)
    np.testing.assert_allclose(
        spatial_similarity(spatial), np.corrcoef(np.abs(spatial)), atol=1e-12
    )


@pytest.mark.parametrize(("first", "last"), [(1, 2), (4, 11), (6, 20), (1, 20)])
def test_two_squares_are_found_and_no_others_fit_better(first, last):
    rng = np.random.default_rng(first)
    squares = np.zeros((20, 20))
    squares[:first, :first] = squares[first:last, first:last] = 1
    noise = 0.05 * rng.normal(size=squares.shape)
    assert two_blocks(squares + noise + noise.T) == (first, last)


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.9])
def test_the_noise_ends_where_its_law_says(ratio):
    # White noise: the largest singular value scatters by a part or two in a hundred at this size.
    n = 250
    rng = np.random.default_rng(3)
    noise = 7 * complex_normal(rng, n, round(n / ratio))
    values = np.linalg.svd(noise, compute_uv=False)
    assert noise_value(values) == pytest.approx(values[0], rel=0.04)
    strong = np.concatenate([values[0] * np.array([50, 9, 2.0]), values[:-3]])
    assert (strong > noise_value(strong)).sum() == pytest.approx(3, abs=2)
