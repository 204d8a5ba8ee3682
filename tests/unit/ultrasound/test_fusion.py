import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from vasculome.ultrasound.fusion import (
    DISTANCE_ONLY,
    PUBLISHED,
    Bubbles,
    FusionWeights,
    centred_patches,
    pair_as_published,
    pair_fused,
    published_features,
    unit_patches,
)


def random_bubbles(rng, n, ndim=2, patch=9):
    return Bubbles(
        rng.random((n, ndim)) * 100,
        rng.uniform(0.2, 1, n),
        unit_patches(rng.random((n, patch)).astype(np.float32)),
    )


def equation_3(before, after, weights, distance_scale, amplitude_scale, unlike_scale):
    """Write out Eq. 3, pair by pair; a scale is a number or one for each pair."""
    cost = np.empty((len(before.position_um), len(after.position_um)))
    scales = [
        np.broadcast_to(s, cost.shape) for s in (distance_scale, amplitude_scale, unlike_scale)
    ]
    for pair in np.ndindex(cost.shape):
        i, j = pair
        away = np.linalg.norm(before.position_um[i] - after.position_um[j])
        brighter = abs(before.amplitude[i] - after.amplitude[j])
        unlike = 1 - float(before.patch[i] @ after.patch[j])
        cost[pair] = (
            weights.distance * away / scales[0][pair]
            + weights.amplitude * brighter / scales[1][pair]
            + weights.correlation * unlike / scales[2][pair]
        )
    return cost


@pytest.mark.parametrize("shape", [(3, 20, 24), (3, 9, 11, 10)])
def test_patches_are_interpolated_linearly_and_padded_with_zeros(shape):
    rng = np.random.default_rng(0)
    frames = rng.random(shape).astype(np.float32)
    position = rng.uniform(-1.5, np.array(shape[1:]) + 0.5, (60, len(shape) - 1))
    frame = rng.integers(0, 3, 60)
    patches = centred_patches(frames, frame, position, half_width=2)
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * (len(shape) - 1), indexing="ij"), axis=-1)
    at = position[:, None] + steps.reshape(1, -1, len(shape) - 1)
    for n in range(60):
        expected = map_coordinates(
            frames[frame[n]].astype(float), at[n].T, order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(patches[n], expected, atol=1e-6)


def test_patches_that_cannot_be_cut():
    frames = np.zeros((2, 8, 8), np.float32)
    with pytest.raises(ValueError, match="shape"):
        centred_patches(frames, np.zeros(1, int), np.zeros((1, 3)), half_width=1)
    with pytest.raises(ValueError, match="frames 2 to 2"):
        centred_patches(frames, np.array([2]), np.zeros((1, 2)), half_width=1)


def test_unit_patches_leave_an_empty_one_empty():
    patches = unit_patches(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(patches, [[0.6, 0.8], [0, 0]])


def test_published_features_are_the_summands_of_equation_3():
    rng = np.random.default_rng(1)
    before, after = random_bubbles(rng, 12), random_bubbles(rng, 9)
    features = published_features(before, after)
    assert features.shape == (12, 9, 3)
    np.testing.assert_allclose(features.max(axis=(0, 1)), 1, rtol=1e-6)
    distance = cdist(before.position_um, after.position_um)
    brighter = np.abs(before.amplitude[:, None] - after.amplitude)
    unlike = 1 - before.patch @ after.patch.T
    expected = equation_3(before, after, PUBLISHED, distance.max(), brighter.max(), unlike.max())
    np.testing.assert_allclose(features @ [1.0, 0.2, 0.2], expected, rtol=1e-4)
    i, j = pair_as_published(before, after)
    assert len(i) == 9 and expected[i, j].sum() == pytest.approx(
        expected[linear_sum_assignment(expected)].sum(), rel=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 20), st.integers(0, 20), st.sampled_from([2, 3]))
def test_gated_fusion_is_as_cheap_as_the_dense_assignment(seed, m, n, ndim):
    rng = np.random.default_rng(seed)
    before, after = random_bubbles(rng, m, ndim), random_bubbles(rng, n, ndim)
    gate = rng.uniform(10, 60, m)
    weights = FusionWeights(1.0, 0.7, 0.4)
    i, j = pair_fused(before, after, gate_um=gate, weights=weights)
    larger = np.maximum(before.amplitude[:, None], after.amplitude)
    cost = gate[:, None] * equation_3(before, after, weights, gate[:, None], larger, 1.0)
    distance = cdist(before.position_um, after.position_um)
    alone = 3 * 2.1 * gate
    inside = distance < gate[:, None]
    dense = np.concatenate(
        [np.where(inside, cost, 1e9), np.where(np.eye(m, dtype=bool), alone, 1e9)], axis=1
    )
    best = dense[linear_sum_assignment(dense)].sum()
    assert cost[i, j].sum() + np.delete(alone, i).sum() == pytest.approx(best, rel=1e-5)
    assert inside[i, j].all()


def test_brightness_and_shape_tell_crossing_bubbles_apart():
    # Two bubbles change places; by distance they would both have stayed.
    before = np.array([[0.0, 0.0], [10.0, 0.0]])
    after = np.array([[9.0, 0.0], [1.0, 0.0]])
    alike = unit_patches(np.ones((2, 4), np.float32))
    unlike = unit_patches(np.array([[1, 0, 0, 0], [0, 0, 1, 1]], np.float32))
    same, two = np.ones(2), np.array([1.0, 0.3])
    for amplitude, patch, expected in (
        (same, alike, [1, 0]),
        (two, alike, [0, 1]),
        (same, unlike, [0, 1]),
    ):
        a, b = Bubbles(before, amplitude, patch), Bubbles(after, amplitude, patch)
        assert pair_fused(a, b, gate_um=20, weights=FusionWeights(1, 3, 3))[1].tolist() == expected
        assert pair_fused(a, b, gate_um=20, weights=DISTANCE_ONLY)[1].tolist() == [1, 0]


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="weight"):
        FusionWeights(0, 1, 1)
    with pytest.raises(ValueError, match="weight"):
        FusionWeights(1, -1, 1)
    with pytest.raises(ValueError, match="every bubble"):
        Bubbles(np.zeros((2, 2)), np.ones(1), np.ones((2, 4), np.float32))
