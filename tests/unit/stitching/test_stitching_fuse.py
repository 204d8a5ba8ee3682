import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.geometry import Box, TileGrid
from vasculome.stitching.fuse import fuse, overlapping, tile_weights


def cut(volume, starts, shape):
    """Return overlapping tiles of ``volume`` with their positions."""
    tiles = []
    for start in starts:
        box = Box(start, tuple(s + n for s, n in zip(start, shape, strict=True)))
        tiles.append((volume[box.intersect(Box.of_shape(volume.shape)).slices], start))
    return tiles


STARTS = [(0, 0, 0), (0, 0, 9), (0, 7, 0), (0, 7, 9), (3, 4, 5)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiles_cut_from_a_volume_fuse_to_it(dtype):
    rng = np.random.default_rng(0)
    top = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    volume = (rng.random((6, 17, 21)) * top).astype(dtype)
    volume[0, :2] = top  # rounding must not overflow
    fused = fuse(cut(volume, STARTS, (6, 10, 12)), Box.of_shape(volume.shape))
    assert fused.dtype == dtype
    np.testing.assert_allclose(fused, volume, rtol=1e-6)
    if dtype != np.float32:
        np.testing.assert_array_equal(fused, volume)


@given(core=st.tuples(*[st.integers(2, 9)] * 3), dtype=st.sampled_from([np.uint16, np.float32]))
@settings(max_examples=20, deadline=None)
def test_the_result_does_not_depend_on_the_boxes(core, dtype):
    rng = np.random.default_rng(1)
    tiles = [((rng.random((4, 8, 9)) * 60000).astype(dtype), start) for start in STARTS]
    domain = Box((-1, -1, -1), (9, 17, 20))
    whole = fuse(tiles, domain)
    for t in TileGrid(domain, core, (0, 0, 0)):
        part = fuse(tiles, t.core)
        np.testing.assert_array_equal(part, whole[t.core.relative_to(domain).slices])


def test_one_tile_is_kept_exactly_and_elsewhere_is_0():
    values = np.random.default_rng(2).random((5, 6)).astype(np.float32) + 0.1
    other = np.ones((5, 6), np.float32)
    fused = fuse([(values, (2, 1)), (other, (4, 1))], Box((0, 0), (12, 9)))
    np.testing.assert_array_equal(fused[2:4, 1:7], values[:2])
    np.testing.assert_array_equal(fused[7:9, 1:7], 1)
    covered = np.zeros((12, 9), bool)
    covered[2:9, 1:7] = True
    assert not fused[~covered].any()


def test_the_blend_runs_smoothly_from_one_tile_to_the_other():
    tiles = [(np.zeros((1, 40), np.uint16), (0, 0)), (np.full((1, 40), 1000, np.uint16), (0, 20))]
    blend = fuse(tiles, Box((0, 0), (1, 60)))[0].astype(int)
    steps = np.diff(blend)
    assert (steps >= 0).all()
    assert steps.max() < 100
    middle = blend[20:40]
    np.testing.assert_allclose(middle + middle[::-1], 1000, atol=1)


def test_weights_are_positive_up_to_the_edge():
    for weights, length in zip(tile_weights((2048, 5, 1)), (2048, 5, 1), strict=True):
        assert weights.shape == (length,)
        assert (weights > 0).all()
        np.testing.assert_allclose(weights, weights[::-1], rtol=1e-3)


def test_overlapping_selects_tiles_in_order():
    positions, shapes = [(0, 0), (0, 8), (8, 0), (-5, -5)], [(10, 10)] * 4
    assert overlapping(positions, shapes, Box((9, 1), (12, 3))) == [0, 2]
    assert overlapping(positions, shapes, Box((18, 0), (20, 5))) == []


def test_no_tile_needs_a_dtype_and_types_must_match():
    box = Box((0, 0), (2, 2))
    assert fuse([], box, dtype=np.dtype(np.uint8)).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(TypeError, match="one dtype"):
        fuse([], box)
    tile = np.zeros((2, 2))
    with pytest.raises(TypeError, match="float64"):
        fuse([(tile, (0, 0))], box)
