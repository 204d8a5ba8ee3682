import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.vessels import density

SHAPES = st.lists(st.integers(1, 9), min_size=2, max_size=3)


def points_of(length_um):
    points = np.argwhere(length_um)
    return points, length_um[tuple(points.T)]


@given(shape=SHAPES, seed=st.integers(0, 1000), data=st.data())
@settings(max_examples=30, deadline=None)
def test_volume_and_length_are_conserved(shape, seed, data):
    factor = data.draw(st.tuples(*[st.integers(1, 5)] * len(shape)))
    spacing_um = (5.0, 2.0, 2.0)[-len(shape) :]
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.4
    length_um = rng.random(shape).astype(np.float32) * mask
    voxels = density.block_voxels(shape, factor=factor)
    assert voxels.sum() == mask.size

    fraction = density.volume_fraction(mask, factor=factor)
    assert fraction.shape == voxels.shape
    assert (fraction * voxels).sum() == pytest.approx(mask.sum(), abs=1e-3)

    per_mm3 = density.length_density_mm_per_mm3(
        *points_of(length_um), shape=length_um.shape, factor=factor, spacing_um=spacing_um
    )
    volume_mm3 = voxels * np.prod(np.array(spacing_um) / 1e3)
    assert (per_mm3 * volume_mm3).sum() * 1e3 == pytest.approx(length_um.sum(), rel=1e-4)


def test_one_block_by_hand():
    mask = np.zeros((4, 5), bool)
    mask[0, 0] = mask[3, 4] = True
    np.testing.assert_allclose(
        density.volume_fraction(mask, factor=(2, 4)), [[1 / 8, 0], [0, 1 / 2]]
    )


def test_a_vessel_through_a_cubic_millimetre():
    length_um = np.zeros((10, 10, 10), np.float32)
    length_um[:, 5, 5] = 100.0
    found = density.length_density_mm_per_mm3(
        *points_of(length_um),
        shape=length_um.shape,
        factor=(10, 10, 10),
        spacing_um=(100.0, 100.0, 100.0),
    )
    assert found.item() == pytest.approx(1.0)


def test_tiles_aligned_to_the_factor_give_the_whole():
    mask = np.random.default_rng(0).random((11, 13, 10)) < 0.3
    factor = (2, 4, 5)
    whole = density.volume_fraction(mask, factor=factor)
    parts = [density.volume_fraction(part, factor=factor) for part in (mask[:, :8], mask[:, 8:])]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_mean_radius_is_weighted_by_length():
    points = np.array([[0, 0, 0], [1, 1, 1], [3, 3, 3]])
    found = density.mean_radius_um(
        points,
        np.array([2.0, 5.0, 7.0]),
        np.array([1.0, 2.0, 0.5]),
        shape=(4, 4, 5),
        factor=(2, 2, 3),
    )
    assert found.shape == (2, 2, 2)
    assert found[0, 0, 0] == pytest.approx(4.0)
    assert found[1, 1, 1] == pytest.approx(7.0)
    assert np.isnan(found).sum() == 6


def test_a_factor_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="3 axes"):
        density.volume_fraction(np.zeros((2, 2, 2), bool), factor=(2, 2))
