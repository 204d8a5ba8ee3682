import tracemalloc

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vasculome.geometry import Box
from vasculome.simulate.mosaic import vignette
from vasculome.stitching import register as registering
from vasculome.stitching.blank import find_blank_planes
from vasculome.stitching.register import Pair, find_pairs, register, register_pair
from vasculome.stitching.slabs import cut_overlap, pair_bytes
from vasculome.stitching.subpixel import Peak

SHAPE = (24, 160, 160)
STARTS = np.array([[1.0, 20.0, 20.0], [2.3, 21.45, 139.7]])
TRUE = STARTS[1] - STARTS[0]
NOMINAL = (0.0, 0.0, 120.0)


@pytest.fixture
def pair(take):
    one, two = take(STARTS, SHAPE)
    return Pair(0, 1, one, two, NOMINAL)


def test_two_noisy_tiles_are_registered_to_a_twentieth_of_a_voxel(pair):
    edge = register_pair(pair, search=(3, 12, 12))
    assert edge.accepted
    assert edge.reason == ""
    assert np.abs(np.subtract(edge.offset, TRUE)).max() < 0.05
    assert np.max(edge.sigma) < 0.1
    assert edge.agreement < 0.1
    assert edge.ncc > 0.8
    assert edge.peak_height > 20
    assert edge.peak_sharpness > 2
    assert edge.nominal_offset == NOMINAL


@pytest.mark.parametrize("seed", range(3))
def test_any_fraction_of_a_voxel_is_found(take, seed):
    rng = np.random.default_rng(seed)
    starts = np.array([[1, 20, 20], [1, 140, 30]]) + rng.uniform(0, 2, (2, 3))
    one, two = take(starts, SHAPE, seed=seed)
    edge = register_pair(Pair(0, 1, one, two, (0, 120, 10)), search=(3, 8, 8))
    assert np.abs(np.subtract(edge.offset, starts[1] - starts[0])).max() < 0.05


def test_the_way_back_is_the_way_there(pair):
    there = register_pair(pair, search=(3, 12, 12))
    back = Pair(1, 0, pair.tile_j, pair.tile_i, tuple(-n for n in NOMINAL))
    back = register_pair(back, search=(3, 12, 12))
    np.testing.assert_allclose(back.offset, np.negative(there.offset), atol=0.02)


def test_vignetting_and_gains_do_not_matter(take):
    one, two = take(STARTS, SHAPE, shading=vignette(SHAPE[1:], 0.5), gains=(1.2, 0.7))
    edge = register_pair(Pair(0, 1, one, two, NOMINAL), search=(3, 12, 12))
    assert np.abs(np.subtract(edge.offset, TRUE)).max() < 0.05


def test_a_stage_that_is_40_voxels_off_is_corrected(pair):
    off = Pair(0, 1, pair.tile_i, pair.tile_j, (0.0, 40.0, 82.0))
    edge = register_pair(off, search=(3, 45, 45))
    assert edge.accepted
    assert np.abs(np.subtract(edge.offset, TRUE)).max() < 0.05


def test_an_offset_beyond_the_search_range_is_not_accepted(pair):
    off = Pair(0, 1, pair.tile_i, pair.tile_j, (0.0, 40.0, 82.0))
    edge = register_pair(off, search=(3, 20, 20))
    assert not edge.accepted
    assert edge.reason
    assert edge.offset == (0.0, 40.0, 82.0)


def test_blank_and_saturated_tiles_are_named(pair):
    for value in (0, 65535):
        plain = np.full(SHAPE, value, np.uint16)
        edge = register_pair(Pair(4, 7, pair.tile_i, plain, NOMINAL), search=(3, 12, 12))
        assert not edge.accepted
        assert edge.reason == "tile 7 is blank in the overlap"
        edge = register_pair(Pair(4, 7, plain, plain, NOMINAL), search=(3, 12, 12))
        assert edge.reason == "tile 4 is blank and tile 7 is blank in the overlap"


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_nothing_in_common(pair, seed):
    rng = np.random.default_rng(seed)
    noise = rng.poisson(100, SHAPE).astype(np.uint16)
    edge = register_pair(Pair(0, 1, pair.tile_i, noise, NOMINAL), search=(3, 12, 12))
    assert not edge.accepted
    assert edge.reason.startswith("nothing in common")


@pytest.mark.parametrize(
    ("ncc", "found", "reason"),
    [
        (0.2, False, "no sub-slab reaches NCC 0.3 (best 0.20)"),
        (0.8, False, "no sub-slab has a maximum of its NCC near the coarse offset (best 0.80)"),
    ],
)
def test_why_no_sub_slab_has_an_offset(pair, monkeypatch, ncc, found, reason):
    peak = Peak(np.zeros(3), ncc, np.zeros((3, 3)), found)
    monkeypatch.setattr(registering, "refine", lambda a, b, reach: peak)
    edge = register_pair(pair, search=(3, 12, 12))
    assert not edge.accepted
    assert edge.reason == reason


@pytest.mark.parametrize("fault", ["dark", "saturated", "blank"])
@pytest.mark.parametrize("half", [slice(0, 195), slice(185, None)])
def test_a_bad_sub_slab_does_not_win(take, fault, half):
    starts = STARTS - (0, 15, 0)
    one, two = take(starts, (24, 375, 160))
    noise = np.random.default_rng(1).poisson(4000, two[:, half].shape)
    two[:, half] = {"dark": 0, "saturated": 65535, "blank": noise}[fault]
    edge = register_pair(Pair(0, 1, one, two, NOMINAL), search=(3, 12, 12))
    assert edge.accepted
    assert np.abs(np.subtract(edge.offset, TRUE)).max() < 0.1


def test_missing_planes_do_not_matter(pair):
    pair.tile_i[[5, 6, 17]] = 0
    pair.tile_j[11] = 0
    edge = register_pair(pair, search=(3, 12, 12))
    assert edge.accepted
    assert np.abs(np.subtract(edge.offset, TRUE)).max() < 0.1
    assert find_blank_planes(pair.tile_i) == (5, 6, 17)
    assert find_blank_planes(pair.tile_j) == (11,)


def test_sub_slabs_that_disagree_are_rejected(take):
    # The sample moved between the tiles: its halves ask for offsets 3 voxels apart.
    starts = np.array([[1, 5, 20], [1, 5, 140], [1, 8, 140]], float)
    one, two, moved = take(starts, (24, 380, 160))
    two[:, 190:] = moved[:, 190:]
    edge = register_pair(Pair(0, 1, one, two, (0, 0, 120)), search=(3, 12, 12))
    assert not edge.accepted or edge.agreement > 0.5
    assert edge.slabs_agreeing < 2 or edge.agreement > 0.5


def test_a_lattice_is_not_matched():
    y, x = np.indices((200, 200))
    lattice = np.exp(3 * (np.cos(2 * np.pi * y / 12) + np.cos(2 * np.pi * x / 12)))
    volume = np.broadcast_to(lattice, (16, 200, 200))
    rng = np.random.default_rng(0)
    one, two = (rng.poisson(volume[:, :, a : a + 120] + 50).astype(np.uint16) for a in (0, 72))
    edge = register_pair(Pair(0, 1, one, two, (0, 0, 72)), search=(0, 20, 20))
    assert not edge.accepted
    assert edge.reason


def test_along_straight_vessels_the_offset_is_known_to_be_unknown():
    rng = np.random.default_rng(0)
    lines = gaussian_filter((rng.random((24, 1, 120)) < 0.02).astype(float), (1, 0, 1.5)) * 3e4
    volume = np.broadcast_to(lines, (24, 160, 120))
    one, two = (rng.poisson(volume[..., a : a + 80] + 300).astype(np.uint16) for a in (0, 40))
    edge = register_pair(Pair(0, 1, one, two, (0, 0, 40)), search=(2, 2, 6), min_peak_height=5)
    if edge.accepted:
        assert edge.sigma[1] > 5 * edge.sigma[2]
        assert abs(edge.offset[2] - 40) < 0.1
    else:
        assert edge.reason


def test_tiles_that_do_not_overlap_say_so(pair):
    edge = register_pair(Pair(0, 1, pair.tile_i, pair.tile_j, (0, 0, 500)), search=(3, 5, 5))
    assert not edge.accepted
    assert edge.reason == "the tiles do not overlap"
    with pytest.raises(ValueError, match="three axes"):
        register_pair(Pair(0, 1, np.zeros((9, 9)), np.zeros((9, 9)), (0, 5)), search=(1, 1))


def test_single_planes_are_registered_too(take):
    one, two = (tile[10:11] for tile in take([[1, 20, 20], [1, 22.4, 139.7]], SHAPE))
    edge = register_pair(Pair(0, 1, one, two, NOMINAL), search=(0, 12, 12))
    assert edge.accepted
    assert edge.offset[0] == 0
    assert np.abs(np.subtract(edge.offset[1:], (2.4, 119.7))).max() < 0.15


def test_threads_change_nothing(pair):
    pairs = [pair, Pair(1, 0, pair.tile_j, pair.tile_i, (0, 0, -120)), pair]
    one = register(pairs, search=(3, 12, 12))
    assert register(iter(pairs), search=(3, 12, 12), threads=2) == one


class Lazy:
    """A tall tile that exists only where it is read."""

    shape, dtype = (4000, 2048, 512), np.dtype(np.uint16)

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.voxels = 0

    def __getitem__(self, index):
        shape = [s.stop - s.start for s in index]
        self.voxels += int(np.prod(shape))
        return self.rng.integers(0, 1000, shape, dtype=np.uint16)


def test_memory_holds_sub_slabs_only():
    register_pair(Pair(0, 1, Lazy(0), Lazy(1), (0, 0, 450)), search=(4, 8, 8))
    one, two = Lazy(0), Lazy(1)
    bound = pair_bytes(one.shape, two.shape, offset=(0, 0, 450), search=(4, 8, 8), itemsize=2)
    tracemalloc.start()
    register_pair(Pair(0, 1, one, two, (0, 0, 450)), search=(4, 8, 8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < bound < 100e6
    assert one.voxels < 0.02 * np.prod(one.shape)


@pytest.mark.parametrize("shape", [(64, 512, 60), (4, 30, 2048), (2000, 3000, 200), (1, 20, 16)])
def test_sub_slabs_lie_in_the_overlap_and_spread_over_it(shape):
    overlap = Box((5, 6, 7), tuple(np.add((5, 6, 7), shape).tolist()))
    pieces = cut_overlap(overlap)
    assert len(set(pieces)) == len(pieces) <= 9
    assert all(piece.intersect(overlap) == piece for piece in pieces)
    middles = np.mean([np.add(p.start, p.stop) / 2 for p in pieces], axis=0)
    assert np.abs(middles - np.add(overlap.start, overlap.stop) / 2).max() <= 1


def test_pairs_are_those_that_share_enough():
    starts = np.array([(0, 90 * r, 90 * c) for r in range(3) for c in range(3)], float)
    shapes = [(10, 110, 110)] * 9
    pairs = find_pairs(starts, shapes)
    assert len(pairs) == 12 + 8
    assert find_pairs(starts, shapes, min_overlap=(1, 21, 21)) == []
    assert (0, 4) not in find_pairs(starts, [(10, 110, 105)] * 9, min_overlap=(1, 16, 16))
    assert pairs == sorted(pairs)
    assert find_pairs(starts[:1], shapes[:1]) == []
    mixed = find_pairs(np.array([[0, 0, 0], [0, 0, 30]]), [(5, 40, 50), (9, 300, 300)])
    assert mixed == [(0, 1)]
