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
    measured = {t.index: components.measure(labels[t.index], classes[t.core.slices]) for t in grid}
    summaries = [components.summarize(labels[i], *measured[i], index=i) for i in labels]
    return grid, labels, measured, components.join(summaries, grid)


def kept_of_tiles(classes, tile_shape, **wanted):
    """Return the mask that is kept, and how large the objects are, in falling order."""
    grid, labels, measured, table = label_in_tiles(classes, tile_shape)
    lookup = components.keep(table, **wanted)
    whole = np.empty(classes.shape, bool)
    sizes = table.objects.sizes[1:].tolist()
    for tile in grid:
        objects, on_face = measured[tile.index]
        kept = components.keep_in_tile(objects, on_face, lookup[tile.index], **wanted)
        whole[tile.core.slices] = kept[labels[tile.index]]
        sizes += objects.take(~on_face).sizes[1:].tolist()
    return whole, sorted(sizes, reverse=True)


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
    truth, count = measure.label(classes > 0, return_num=True, connectivity=classes.ndim)
    everything, sizes = kept_of_tiles(classes, tile_shape)
    np.testing.assert_array_equal(everything, truth > 0)
    assert sizes == sorted(np.bincount(truth.ravel())[1:], reverse=True)

    kept, _ = kept_of_tiles(classes, tile_shape, min_voxels=min_voxels, need_strong=True)
    index = np.arange(1, count + 1)
    strong = np.array(ndimage.maximum(classes, truth, index)).reshape(-1) == STRONG
    large = np.bincount(truth.ravel(), minlength=count + 1)[1:] >= min_voxels
    np.testing.assert_array_equal(kept, np.concatenate([[False], strong & large])[truth])


def test_summaries_out_of_order_are_refused():
    classes = np.ones((4, 4), np.uint8)
    grid = TileGrid(Box.of_shape(classes.shape), (2, 2), (0, 0))
    labels = components.label_block(classes[:2, :2] > 0)
    measured = components.measure(labels)
    summaries = [components.summarize(labels, *measured, index=t.index) for t in grid]
    for wrong in (summaries[::-1], summaries[:-1], [*summaries, summaries[0]]):
        with pytest.raises(ValueError, match="in their order"):
            components.join(wrong, grid)


@pytest.mark.parametrize("step", [s for s in itertools.product((-1, 0, 1), repeat=3) if any(s)])
def test_one_voxel_on_each_side_of_a_seam_is_one_component(step):
    classes = np.zeros((6, 6, 6), np.uint8)
    here = tuple(2 if s >= 0 else 3 for s in step)
    there = tuple(h + s for h, s in zip(here, step, strict=True))
    classes[here], classes[there] = WEAK, STRONG
    *_, table = label_in_tiles(classes, (3, 3, 3))
    assert table.objects.sizes.tolist() == [0, 2]
    assert table.objects.has_strong.tolist() == [False, True]


def test_tables_hold_nothing_but_what_touches_a_face():
    classes = np.zeros((40, 40, 40), np.uint8)
    classes[2:38:2, 2:38:2, 2:38:2] = STRONG
    classes[10, 10, 38:] = WEAK  # joins the last of its row, and the face
    _, labels, measured, table = label_in_tiles(classes, (40, 40, 20))
    assert [labels[index].max() for index in labels] == [18**2 * 9, 18**2 * 9 + 1]
    # Those in the first plane of the second tile, and the line.
    assert [len(components.measure(labels[i])[1].nonzero()[0]) for i in labels] == [0, 18**2 + 1]
    assert len(table.objects.sizes) == 1 + 18**2 + 1
    kept, sizes = kept_of_tiles(classes, (40, 40, 20), min_voxels=1, need_strong=True)
    assert len(sizes) == 18**3 + 1 and kept.sum() == 18**3
    assert all(on_face.sum() < len(on_face) / 2 for _, on_face in measured.values())


def test_empty_volume_has_no_components():
    classes = np.full((4, 4), BACKGROUND, np.uint8)
    kept, sizes = kept_of_tiles(classes, (2, 3))
    assert sizes == [] and not kept.any()


def test_missing_or_foreign_tiles_are_refused():
    grid = TileGrid(Box.of_shape((4, 4)), (2, 2), (0, 0))
    labels = np.zeros((2, 2), np.uint32)
    measured = components.measure(labels)
    summaries = [components.summarize(labels, *measured, index=t.index) for t in grid]
    with pytest.raises(ValueError, match="in their order"):
        components.join(summaries[:-1], grid)
