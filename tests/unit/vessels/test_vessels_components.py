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


def label_in_tiles(classes, tile_shape):
    grid = TileGrid(Box.of_shape(classes.shape), tile_shape, (0,) * classes.ndim)
    labels = {t.index: components.label_block(classes[t.core.slices] > 0) for t in grid}
    summaries = [
        components.summarize(labels[t.index], classes[t.core.slices], index=t.index) for t in grid
    ]
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


@given(volumes_and_tiles(), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_joined_tiles_equal_the_whole(case, min_voxels):
    classes, tile_shape = case
    grid, labels, table = label_in_tiles(classes, tile_shape)
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


def test_summaries_out_of_order_are_refused():
    classes = np.ones((4, 4), np.uint8)
    grid = TileGrid(Box.of_shape(classes.shape), (2, 2), (0, 0))
    summaries = [
        components.summarize(components.label_block(classes[t.core.slices] > 0), index=t.index)
        for t in grid
    ]
    for wrong in (summaries[::-1], summaries[:-1], [*summaries, summaries[0]]):
        with pytest.raises(ValueError, match="in their order"):
            components.join(wrong, grid)


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
    with pytest.raises(ValueError, match="in their order"):
        components.join(summaries[:-1], grid)
