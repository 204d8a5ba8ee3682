import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.geometry import Box, TileGrid
from vasculome.storage.pyramid import fit_blocks, plan_levels, reduce_block


def _windows(values, steps):
    """Every window, by plain loops."""
    shape = [math.ceil(n / s) for n, s in zip(values.shape, steps, strict=True)]
    for index in itertools.product(*map(range, shape)):
        window = tuple(slice(i * s, (i + 1) * s) for i, s in zip(index, steps, strict=True))
        yield index, values[window].ravel()


@st.composite
def blocks(draw):
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    steps = tuple(draw(st.sampled_from([1, 2])) for _ in shape)
    dtype = draw(st.sampled_from(["uint8", "uint16", "uint32", "int16", "int32"]))
    seed = draw(st.integers(0, 1000))
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True), steps


@given(blocks())
@settings(max_examples=60, deadline=None)
def test_mean_of_integers_is_exact_and_rounded_half_up(block):
    values, steps = block
    reduced = reduce_block(values, steps, "mean")
    assert reduced.dtype == values.dtype
    for index, window in _windows(values, steps):
        mean = Fraction(sum(int(v) for v in window), len(window))
        assert reduced[index] == math.floor(mean + Fraction(1, 2))


@given(blocks())
@settings(max_examples=30, deadline=None)
def test_max_and_nearest(block):
    values, steps = block
    highest, nearest = reduce_block(values, steps, "max"), reduce_block(values, steps, "nearest")
    for index, window in _windows(values, steps):
        assert highest[index] == window.max()
        assert nearest[index] == window[0]


def test_mean_of_floats():
    values = np.random.default_rng(0).normal(size=(5, 6, 7)).astype("float32")
    reduced = reduce_block(values, (2, 2, 2), "mean")
    assert reduced.dtype == np.float32
    for index, window in _windows(values, (2, 2, 2)):
        assert reduced[index] == pytest.approx(window.mean(dtype=float), abs=1e-6)


def test_an_axis_with_long_voxels_waits():
    levels = plan_levels(
        shape=(1000, 4000, 4000),
        chunk=(64, 64, 64),
        shard=(256, 256, 256),
        spacing=(5.0, 1.0, 1.0),
        spatial=(True,) * 3,
    )
    factors = [level.factors for level in levels]
    assert factors[:4] == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8)]
    assert levels[-1].shape == (63, 63, 63)


def test_a_thin_stack_does_not_stop_the_others():
    levels = plan_levels(
        shape=(1, 5000, 4000),
        chunk=(64, 64, 64),
        shard=(64, 256, 256),
        spacing=(1.0, 2.0, 2.0),
        spatial=(True,) * 3,
    )
    assert max(levels[-1].shape) <= 64


def test_time_and_channels_are_not_reduced():
    levels = plan_levels(
        shape=(7, 3, 100, 100),
        chunk=(1, 1, 32, 32),
        shard=(2, 1, 64, 64),
        spacing=(0.1, 1.0, 2.0, 2.0),
        spatial=(False, False, True, True),
    )
    assert [level.shape for level in levels] == [(7, 3, 100, 100), (7, 3, 50, 50), (7, 3, 25, 25)]


@st.composite
def plans(draw):
    ndim = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 300)) for _ in range(ndim))
    chunk = tuple(draw(st.sampled_from([4, 6, 8])) for _ in range(ndim))
    shard = tuple(c * draw(st.sampled_from([1, 2, 3, 4, 8])) for c in chunk)
    chunk, shard = fit_blocks(shape, chunk, shard)
    spacing = tuple(draw(st.sampled_from([0.7, 1.0, 2.0, 5.0])) for _ in range(ndim))
    return plan_levels(
        shape=shape, chunk=chunk, shard=shard, spacing=spacing, spatial=(True,) * ndim
    )


@given(plans())
@settings(max_examples=60, deadline=None)
def test_tiles_own_whole_shards_on_their_levels(levels):
    first = levels[0]
    grid = TileGrid(Box.of_shape(first.shape), first.shard, (0,) * len(first.shape))
    ends = itertools.product(*({0, n // 2, n - 1} for n in grid.counts))
    boxes = [grid.tile(index).core for index in ends]
    for level in levels:
        assert all(s % c == 0 for s, c in zip(level.shard, level.chunk, strict=True))
        if level.with_tile:
            boxes = [level.box_of(box) for box in boxes]
            for box in boxes:
                edges = zip(box.start, box.stop, level.shard, level.shape, strict=True)
                assert all(a % s == 0 and (b % s == 0 or b == n) for a, b, s, n in edges)
    assert all(n <= c for n, c in zip(levels[-1].shape, levels[-1].chunk, strict=True))


@given(plans())
@settings(max_examples=60, deadline=None)
def test_coarse_shards_read_no_more_than_a_tile(levels):
    whole_tile = math.prod(
        max(s, 2 * c) for s, c in zip(levels[0].shard, levels[0].chunk, strict=True)
    )
    for finer, level in itertools.pairwise(levels):
        if not level.with_tile:
            box = Box.of_shape(tuple(map(min, level.shard, level.shape)))
            assert level.source_of(box, finer.shape).size <= whole_tile
