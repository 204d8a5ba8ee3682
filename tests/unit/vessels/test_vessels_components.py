import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import measure

from vasculome.geometry import Box, TileGrid
from vasculome.vessels import components
from vasculome.vessels.enhance import BACKGROUND, STRONG, WEAK


def label_in_tiles(classes, tile_shape, order=None):
    grid = TileGrid(Box.of_shape(classes.shape), tile_shape, (0,) * classes.ndim)
    labels = {t.index: components.label_block(classes[t.core.slices] > 0) for t in grid}
    summaries = [
        components.summarize(labels[t.index], classes[t.core.slices], index=t.index) for t in grid
    ]
    if order is not None:
        order.shuffle(summaries)
    return grid, labels, components.join(summaries, grid)


def assemble(grid, labels, lookup):
    whole = np.empty(grid.domain.shape, np.result_type(*lookup.values()))
    for tile in grid:
        whole[tile.core.slices] = lookup[tile.index][labels[tile.index]]
    return whole


@st.composite
def volumes_and_tiles(draw):
    ndim = draw(st.sampled_from([2, 3]))
    shape = draw(st.tuples(*[st.integers(1, 14)] * ndim))
    tile = draw(st.tuples(*[st.integers(1, 8)] * ndim))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.03, 0.1, 0.2, 0.5]))
    classes = (rng.random(shape) < density).astype(np.uint8) * rng.choice(
        [WEAK, STRONG], shape, p=[0.9, 0.1]
    )
    return classes.astype(np.uint8), tile


@given(volumes_and_tiles(), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_joined_tiles_equal_the_whole(case, min_voxels, order):
    classes, tile_shape = case
    grid, labels, table = label_in_tiles(classes, tile_shape, order)
    tiled = assemble(grid, labels, table.tile_labels)

    truth, count = measure.label(classes > 0, return_num=True, connectivity=classes.ndim)
    assert len(table.sizes) == count + 1
    pairs = np.unique(np.stack([tiled.ravel(), truth.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(truth))  # one of ours for each of theirs
    np.testing.assert_array_equal(table.sizes[1:], np.bincount(tiled.ravel())[1:])

    kept = assemble(grid, labels, components.keep(table, min_voxels=min_voxels, need_strong=True))
    index = np.arange(1, count + 1)
    strong = np.array(ndimage.maximum(classes, truth, index)).reshape(-1) == STRONG
    large = np.bincount(truth.ravel(), minlength=count + 1)[1:] >= min_voxels
    np.testing.assert_array_equal(kept, np.concatenate([[False], strong & large])[truth])


def test_table_does_not_depend_on_the_order_of_tiles():
    rng = np.random.default_rng(3)
    classes = (rng.random((12, 12, 12)) < 0.1).astype(np.uint8)
    grid, _, table = label_in_tiles(classes, (4, 5, 6))
    _, labels, _ = label_in_tiles(classes, (4, 5, 6))
    summaries = [components.summarize(labels[t.index], index=t.index) for t in grid]
    again = components.join(reversed(summaries), grid)
    np.testing.assert_array_equal(again.sizes, table.sizes)
    for index, mapped in table.tile_labels.items():
        np.testing.assert_array_equal(again.tile_labels[index], mapped)


@pytest.mark.parametrize("step", [s for s in itertools.product((-1, 0, 1), repeat=3) if any(s)])
def test_one_voxel_on_each_side_of_a_seam_is_one_component(step):
    classes = np.zeros((6, 6, 6), np.uint8)
    here = tuple(2 if s >= 0 else 3 for s in step)
    there = tuple(h + s for h, s in zip(here, step, strict=True))
    classes[here], classes[there] = WEAK, STRONG
    _, _, table = label_in_tiles(classes, (3, 3, 3))
    assert table.sizes.tolist() == [0, 2]
    assert table.has_strong.tolist() == [False, True]


def test_empty_volume_has_no_components():
    classes = np.full((4, 4), BACKGROUND, np.uint8)
    grid, labels, table = label_in_tiles(classes, (2, 3))
    assert table.sizes.tolist() == [0]
    assert not assemble(grid, labels, components.keep(table)).any()


def test_missing_or_foreign_tiles_are_refused():
    grid = TileGrid(Box.of_shape((4, 4)), (2, 2), (0, 0))
    labels = np.zeros((2, 2), np.uint32)
    summaries = [components.summarize(labels, index=t.index) for t in grid]
    with pytest.raises(ValueError, match="do not match"):
        components.join(summaries[:-1], grid)
