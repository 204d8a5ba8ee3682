import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.ultrasound.correlate import correlation_map
from vasculome.ultrasound.psf import given_psf


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, 2)).view(np.complex128)[..., 0]


def by_definition(frame, rows):
    """The formula, voxel by voxel."""
    result = np.zeros(frame.shape, complex)
    reach = [n // 2 for n in rows.shape[1:]]
    padded = np.pad(frame, [(r, r) for r in reach])
    for place in itertools.product(*(range(n) for n in frame.shape)):
        part = padded[tuple(slice(p, p + 2 * r + 1) for p, r in zip(place, reach, strict=True))]
        h = rows[place[0]]
        result[place] = np.vdot(h, part) / np.linalg.norm(h) / np.linalg.norm(part)
    return result


@pytest.mark.parametrize(
    ("shape", "extent"), [((9, 11), (3, 5)), ((9, 11), (5, 3)), ((6, 5, 7), (3, 3, 5))]
)
def test_is_what_the_formula_says(shape, extent):
    frames, echoes = noise((2, *shape)), noise((2, *extent), seed=1)
    psf = given_psf(echoes, depth_px=[1.0, 6.0])
    found = correlation_map(frames, psf)
    assert found.dtype == np.complex64 and found.shape == frames.shape
    for t in range(2):
        expected = by_definition(frames[t], psf.at_depths(shape[0]))
        np.testing.assert_allclose(found[t], expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(1e-12, 1e12), st.floats(0, 6.28), st.integers(0, 1000), st.sampled_from([0.0, 1e-3])
)
def test_an_echo_gives_one_with_its_phase_however_bright(brightness, phase, seed, background):
    echo = noise((5, 5), seed)
    frame = background * noise((15, 15), seed + 1)
    psf = given_psf(echo)
    frame[5:10, 5:10] += psf.echoes[0] * np.exp(1j * phase)
    found = correlation_map((brightness * frame)[None], psf)[0]
    assert abs(found[7, 7]) == pytest.approx(1, abs=1e-3)
    assert found[7, 7] / np.exp(1j * phase) == pytest.approx(1, abs=1e-2)
    # A complex number of magnitude 1 may exceed it by its last digit.
    assert np.abs(found.astype(complex)).max() <= 1 + 2e-7


def test_nothing_correlates_with_nothing():
    found = correlation_map(np.zeros((1, 8, 8), np.complex64), given_psf(noise((3, 3))))
    np.testing.assert_array_equal(found, 0)


def test_axes_must_fit():
    with pytest.raises(ValueError, match="fit"):
        correlation_map(noise((1, 8, 8, 8)), given_psf(noise((3, 3))))
