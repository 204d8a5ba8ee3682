import numpy as np
import pytest

from vasculome.ultrasound.clutter import decompose, singular_values, spatial_vectors, svd_filter


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def svd_reference(iq, keep_from, keep_to):
    casorati = iq.reshape(len(iq), -1).astype(np.complex128)
    u, s, vh = np.linalg.svd(casorati, full_matrices=False)
    kept = slice(keep_from - 1, keep_to)
    return ((u[:, kept] * s[kept]) @ vh[kept]).reshape(iq.shape)


@pytest.mark.parametrize("shape", [(40, 12, 15), (24, 6, 7, 8)])
@pytest.mark.parametrize(
    ("keep_from", "keep_to"), [(1, None), (1, 10), (5, None), (5, 20), (24, 24)]
)
def test_equals_full_svd(shape, keep_from, keep_to):
    iq = complex_normal(np.random.default_rng(1), *shape).astype(np.complex64)
    filtered = svd_filter(iq, keep_from=keep_from, keep_to=keep_to)
    expected = svd_reference(iq, keep_from, keep_to)
    assert filtered.dtype == np.complex64 and filtered.shape == shape
    assert np.abs(filtered - expected).max() < 1e-4 * np.abs(iq).max()


@pytest.mark.parametrize("range_db", [20, 60, 90])
def test_tissue_of_any_strength_is_removed_to_rounding(range_db):
    # Four clutter components spread over the range; at 90 dB a Gram matrix in single precision
    # alone would lose the weaker ones and leave tissue stronger than the rest by far.
    rng = np.random.default_rng(2)
    levels = 10 ** (np.array([1, 0.8, 0.5, 0]) * range_db / 20) * 10
    tissue = (complex_normal(rng, 60, 4) * levels) @ complex_normal(rng, 4, 900)
    iq = (tissue + complex_normal(rng, 60, 900)).astype(np.complex64).reshape(60, 30, 30)
    filtered = svd_filter(iq, keep_from=5)
    expected = svd_reference(iq, 5, None)
    rounding = np.finfo(np.float32).eps * np.linalg.norm(iq)
    assert np.linalg.norm(filtered - expected) < max(2e-2 * np.linalg.norm(expected), 20 * rounding)


@pytest.mark.parametrize("range_db", [20, 60, 90])
@pytest.mark.parametrize("keep_to", [None, 30])
def test_randomized_removes_tissue_as_exactly(range_db, keep_to):
    rng = np.random.default_rng(2)
    levels = 10 ** (np.array([1, 0.8, 0.5, 0]) * range_db / 20) * 10
    tissue = (complex_normal(rng, 60, 4) * levels) @ complex_normal(rng, 4, 900)
    bubbles = 4 * complex_normal(rng, 60, 26) @ complex_normal(rng, 26, 900)
    iq = (tissue + bubbles + complex_normal(rng, 60, 900)).astype(np.complex64).reshape(60, 30, 30)
    expected = svd_reference(iq, 5, keep_to)
    filtered = svd_filter(iq, keep_from=5, keep_to=keep_to, randomized=True)
    rounding = np.finfo(np.float32).eps * np.linalg.norm(iq)
    assert np.linalg.norm(filtered - expected) < max(2e-3 * np.linalg.norm(expected), 20 * rounding)
    again = svd_filter(iq, keep_from=5, keep_to=keep_to, randomized=True)
    assert again.tobytes() == filtered.tobytes()


def test_randomized_with_more_vectors_than_frames_can_give():
    iq = complex_normal(np.random.default_rng(3), 12, 5, 6).astype(np.complex64)
    filtered = svd_filter(iq, keep_from=9, randomized=True)
    assert np.abs(filtered - svd_reference(iq, 9, None)).max() < 1e-4 * np.abs(iq).max()


@pytest.mark.parametrize("shape", [(20, 8, 9), (12, 4, 3, 5)])
def test_decomposition_puts_the_block_together_again(shape):
    iq = complex_normal(np.random.default_rng(5), *shape).astype(np.complex64)
    values, temporal = decompose(iq)
    spatial = spatial_vectors(iq, temporal)
    np.testing.assert_allclose(values, singular_values(iq), rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(spatial, axis=1), values, rtol=1e-4)
    np.testing.assert_allclose(
        (temporal @ spatial).reshape(shape), iq, atol=1e-5 * np.abs(iq).max()
    )


def test_moving_bubbles_survive_slow_tissue(draw_spots):
    t = np.arange(100)
    path = np.stack([4 + 0.3 * t, 6 + 0.25 * t], axis=1)
    bubble = draw_spots([p[None] for p in path], (40, 40))
    bubble *= np.exp(0.9j * t).astype(np.complex64)[:, None, None]  # one phase speed, not random
    speckle = complex_normal(np.random.default_rng(3), 40, 40)
    tissue = 300 * np.exp(0.05j * np.sin(t / 15))[:, None, None] * speckle
    filtered = svd_filter((bubble + tissue).astype(np.complex64), keep_from=4)
    assert np.linalg.norm(filtered - bubble) < 0.5 * np.linalg.norm(bubble)
    middle = [np.unravel_index(np.argmax(np.abs(f)), f.shape) for f in filtered[20:80]]
    assert np.abs(np.array(middle) - path[20:80]).max() < 1


def test_input_is_left_alone():
    iq = complex_normal(np.random.default_rng(4), 10, 5, 5).astype(np.complex64)
    before = iq.copy()
    for keep_from in (1, 3):
        svd_filter(iq, keep_from=keep_from)[:] = 0
    assert (iq == before).all()


@pytest.mark.parametrize("randomized", [False, True])
@pytest.mark.parametrize(("keep_from", "keep_to"), [(1, None), (3, None), (3, 8)])
def test_result_is_the_same_where_the_input_may_be_overwritten(keep_from, keep_to, randomized):
    # More voxels than are taken at once.
    iq = complex_normal(np.random.default_rng(5), 80, 150, 120).astype(np.complex64)
    bounds = {"keep_from": keep_from, "keep_to": keep_to, "randomized": randomized}
    filtered = svd_filter(iq, **bounds)
    overwritten = svd_filter(iq, **bounds, overwrite=True)
    assert overwritten.tobytes() == filtered.tobytes()
    assert np.shares_memory(overwritten, iq) == (keep_to is None)


def test_randomized_equals_full_svd_in_pieces():
    rng = np.random.default_rng(6)
    tissue = complex_normal(rng, 80, 3) * [1000, 300, 100] @ complex_normal(rng, 3, 18000)
    iq = (tissue + complex_normal(rng, 80, 18000)).astype(np.complex64).reshape(80, 150, 120)
    expected = svd_reference(iq, 4, None)
    filtered = svd_filter(iq, keep_from=4, randomized=True)
    assert np.linalg.norm(filtered - expected) < 2e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize(("keep_from", "keep_to"), [(0, None), (5, 4), (11, None), (1, 11)])
def test_bounds_out_of_range(keep_from, keep_to):
    with pytest.raises(ValueError, match="singular vectors"):
        svd_filter(np.ones((10, 3, 3), np.complex64), keep_from=keep_from, keep_to=keep_to)


def test_real_or_not_finite_iq():
    with pytest.raises(ValueError, match="complex"):
        svd_filter(np.ones((10, 3, 3)), keep_from=2)
    iq = np.ones((10, 3, 3), np.complex64)
    iq[4, 1, 1] = np.nan
    for randomized in (False, True):
        with pytest.raises(ValueError, match="finite"):
            svd_filter(iq, keep_from=2, randomized=randomized)


@pytest.mark.parametrize("shape", [(12, 9, 8), (10, 4, 3, 5)])
def test_singular_values_are_those_of_the_casorati_matrix(shape):
    rng = np.random.default_rng(4)
    iq = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    expected = np.linalg.svd(iq.reshape(shape[0], -1).astype(complex), compute_uv=False)
    np.testing.assert_allclose(singular_values(iq), expected, rtol=1e-6)
