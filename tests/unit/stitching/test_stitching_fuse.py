import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from vasculome.geometry import Box, TileGrid
from vasculome.stitching.fuse import covered, fuse, tile_weights
from vasculome.stitching.illumination import Shading


def cut(volume, starts, shape):
    """Return overlapping tiles of ``volume``."""
    boxes = [Box(start, tuple(np.add(start, shape).tolist())) for start in starts]
    return [volume[box.intersect(Box.of_shape(volume.shape)).slices] for box in boxes]


STARTS = [(0, 0, 0), (0, 0, 9), (0, 7, 0), (0, 7, 9), (3, 4, 5)]
BETWEEN = [(0.25, 0.5, 0.0), (-0.4, 0.1, 9.3), (0.0, 7.0, 0.75), (0.5, 7.2, 9.9), (3.1, 4.0, 5.0)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiles_cut_from_a_volume_fuse_to_it(dtype):
    rng = np.random.default_rng(0)
    top = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    volume = (rng.random((6, 17, 21)) * top).astype(dtype)
    volume[0, :2] = top  # rounding must not overflow
    fused = fuse(cut(volume, STARTS, (6, 10, 12)), STARTS, Box.of_shape(volume.shape))
    assert fused.dtype == dtype
    np.testing.assert_allclose(fused, volume, rtol=1e-6)
    if dtype != np.float32:
        np.testing.assert_array_equal(fused, volume)


@given(
    core=st.tuples(*[st.integers(2, 9)] * 3),
    dtype=st.sampled_from([np.uint16, np.float32]),
    starts=st.sampled_from([STARTS, BETWEEN]),
    corrected=st.booleans(),
    gaps=st.sampled_from([None, [(1,), (), (0, 3), (), (2,)]]),
)
@settings(max_examples=30, deadline=None)
def test_the_result_does_not_depend_on_the_boxes(core, dtype, starts, corrected, gaps):
    rng = np.random.default_rng(1)
    tiles = [(rng.random((4, 8, 9)) * 60000).astype(dtype) for _ in starts]
    light = {"missing_planes": gaps}
    if corrected:
        light["shading"] = Shading(rng.uniform(0.7, 1.2, (8, 9)).astype(np.float32), 90.0)
        light["gains"] = rng.uniform(0.8, 1.2, len(tiles))
    domain = Box((-1, -1, -1), (9, 17, 20))
    whole = fuse(tiles, starts, domain, **light)
    for t in TileGrid(domain, core, (0, 0, 0)):
        part = fuse(tiles, starts, t.core, **light)
        np.testing.assert_array_equal(part, whole[t.core.relative_to(domain).slices])


def test_one_tile_is_kept_exactly_and_elsewhere_is_0():
    values = np.random.default_rng(2).random((1, 5, 6)).astype(np.float32) + 0.1
    other = np.ones((1, 5, 6), np.float32)
    fused = fuse([values, other], [(0, 2, 1), (0, 4, 1)], Box((0, 0, 0), (1, 12, 9)))
    np.testing.assert_array_equal(fused[:, 2:4, 1:7], values[:, :2])
    np.testing.assert_array_equal(fused[:, 7:9, 1:7], 1)
    empty = np.ones((1, 12, 9), bool)
    empty[:, 2:9, 1:7] = False
    assert not fused[empty].any()


def test_the_result_is_not_the_tile_itself():
    tile = np.ones((2, 3, 4), np.uint16)
    fuse([tile], [(0, 0, 0)], Box.of_shape(tile.shape))[:] = 7
    assert (tile == 1).all()


def test_values_between_voxels_are_interpolated_linearly():
    rng = np.random.default_rng(3)
    tile = rng.random((6, 12, 14)).astype(np.float32)
    start = (2.3, -1.75, 5.0)
    where = covered(start, tile.shape)
    assert where == Box((3, -1, 5), (8, 10, 19))
    fused = fuse([tile], [start], where.grow((1, 1, 1), Box((-9,) * 3, (99,) * 3)))
    at = np.indices(where.shape) + np.reshape(np.subtract(where.start, start), (3, 1, 1, 1))
    expected = map_coordinates(tile.astype(float), at, order=1)
    np.testing.assert_allclose(fused[1:-1, 1:-1, 1:-1], expected, atol=1e-6)
    assert fused.sum() == pytest.approx(expected.sum(), rel=1e-5)


def test_a_ramp_is_the_same_ramp_at_any_offset():
    def ramp(start):
        z, y, x = np.indices((8, 20, 20)) + np.reshape(start, (3, 1, 1, 1))
        return (100 + 3 * z + 5 * y + 7 * x).astype(np.float32)

    starts = [(0.5, 0.2, 0.1), (0.1, 0.7, 12.4), (0.9, 11.3, 3.6)]
    box = Box((1, 1, 1), (7, 20, 30))
    fused = fuse([ramp(s) for s in starts], starts, box)
    z, y, x = np.indices(box.shape) + 1
    inside = fused > 0
    assert inside.mean() > 0.8
    np.testing.assert_allclose(fused[inside], (100 + 3 * z + 5 * y + 7 * x)[inside], rtol=1e-5)


def test_whole_offsets_from_arithmetic_stay_whole():
    tile = np.random.default_rng(4).integers(0, 65536, (3, 9, 9), dtype=np.uint16)
    start = (1.0 + 1e-9, 2.0 - 1e-9, 0.1 + 0.2 - 0.3)
    np.testing.assert_array_equal(fuse([tile], [start], covered(start, tile.shape)), tile)
    assert covered(start, tile.shape) == Box((1, 2, 0), (4, 11, 9))


def test_the_blend_runs_smoothly_from_one_tile_to_the_other():
    tiles = [np.zeros((1, 1, 40), np.uint16), np.full((1, 1, 40), 1000, np.uint16)]
    blend = fuse(tiles, [(0, 0, 0), (0, 0, 20)], Box((0, 0, 0), (1, 1, 60)))[0, 0].astype(int)
    steps = np.diff(blend)
    assert (steps >= 0).all()
    assert steps.max() < 100
    middle = blend[20:40]
    np.testing.assert_allclose(middle + middle[::-1], 1000, atol=1)


def test_the_blend_is_the_mean_weighted_by_raised_cosines():
    rng = np.random.default_rng(5)
    tiles = [rng.integers(0, 5000, (4, 9, 8)).astype(np.float32) for _ in range(3)]
    starts = [(0, 0, 0), (1, 3, 2), (0, 5, 4)]
    box = Box((0, 0, 0), (5, 14, 12))
    summed, total = np.zeros(box.shape), np.zeros(box.shape)
    for tile, start in zip(tiles, starts, strict=True):
        w = [np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in tile.shape]
        weight = np.einsum("z,y,x->zyx", *w)
        where = tuple(slice(a, a + n) for a, n in zip(start, tile.shape, strict=True))
        summed[where] += weight * tile
        total[where] += weight
    expected = np.divide(summed, total, out=np.zeros_like(summed), where=total > 0)
    np.testing.assert_allclose(fuse(tiles, starts, box), expected, rtol=1e-4)


def test_weights_are_positive_up_to_the_edge():
    for weights, length in zip(tile_weights((2048, 5, 1)), (2048, 5, 1), strict=True):
        assert weights.shape == (length,)
        assert (weights > 0).all()
        np.testing.assert_allclose(weights, weights[::-1], rtol=1e-3)
    shifted = tile_weights((10,), (0.25,))[0]
    np.testing.assert_allclose(shifted, np.sin(np.pi * (np.arange(9) + 0.75) / 10) ** 2, rtol=1e-6)


def test_missing_planes_are_left_to_the_other_tile():
    one, two = np.full((6, 8, 8), 100, np.uint16), np.full((6, 8, 8), 300, np.uint16)
    one[3] = 0
    starts = [(0, 0, 0), (0, 0, 4)]
    box = Box((0, 0, 0), (6, 8, 12))
    fused = fuse([one, two], starts, box, missing_planes=[(3,), ()])
    assert (fused[3, :, 4:] == 300).all()
    assert not fused[3, :, :4].any()
    np.testing.assert_array_equal(fused[2], fused[4])
    # Between planes, both neighbours of the missing one say nothing.
    fused = fuse([one, two], [(0.5, 0, 0), (0, 0, 4)], box, missing_planes=[(3,), ()])
    assert (fused[3:5, :, 4:] == 300).all()
    assert (fused[2, :, :4] == 100).all()


def test_light_is_corrected_on_the_way():
    rng = np.random.default_rng(6)
    tile = rng.integers(200, 40000, (3, 10, 12), dtype=np.uint16)
    shading = Shading(rng.uniform(0.6, 1.3, (10, 12)).astype(np.float32), 150.0)
    fused = fuse([tile], [(0, 0, 0)], Box.of_shape(tile.shape), shading=shading, gains=[0.9])
    expected = (tile - 150.0) / (shading.flat * 0.9) + 150
    np.testing.assert_allclose(fused, np.clip(np.rint(expected), 0, 65535), atol=1)
    # A bright pixel in a dim corner saturates instead of wrapping round.
    tile[:] = 65000
    dim = Shading(np.full((10, 12), 0.5, np.float32), 0.0)
    assert (fuse([tile], [(0, 0, 0)], Box.of_shape(tile.shape), shading=dim) == 65535).all()


def test_only_what_is_fused_is_read_and_once():
    class Watched:
        shape, dtype = (8, 50, 50), np.dtype(np.uint16)

        def __init__(self):
            self.read = []

        def __getitem__(self, index):
            self.read.append(tuple((s.start, s.stop) for s in index))
            return np.ones([s.stop - s.start for s in index], np.uint16)

    tiles = [Watched(), Watched(), Watched()]
    fuse(tiles, [(0, 0, 0), (0, 0.5, 40.25), (0, 90, 0)], Box((2, 10, 30), (5, 20, 45)))
    assert tiles[0].read == [((2, 5), (10, 20), (30, 45))]
    assert tiles[1].read == [((2, 5), (9, 20), (0, 5))]
    assert tiles[2].read == []


def test_no_tile_needs_a_dtype_and_types_must_match():
    box = Box((0, 0, 0), (1, 2, 2))
    assert fuse([], [], box, dtype=np.dtype(np.uint8)).tolist() == [[[0, 0], [0, 0]]]
    with pytest.raises(TypeError, match="one dtype"):
        fuse([], [], box)
    with pytest.raises(TypeError, match="float64"):
        fuse([np.zeros((1, 2, 2))], [(0, 0, 0)], box)


def test_every_voxel_of_many_tiles_is_covered():
    starts = [(0, 7.3 * i, 6.8 * j) for i, j in itertools.product(range(3), range(3))]
    tiles = [np.full((2, 10, 10), 500, np.uint16)] * 9
    assert (fuse(tiles, starts, Box((0, 0, 0), (2, 23, 22))) == 500).all()
