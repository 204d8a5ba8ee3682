"""The tile grid is a partition, halos cover what a filter needs, and every voxel has one owner."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vasculome.geometry import Box, TileGrid


@st.composite
def grids(draw):
    ndim = draw(st.integers(2, 4))
    top = {2: 20, 3: 9, 4: 6}[ndim]
    sizes = st.lists(st.integers(1, top), min_size=ndim, max_size=ndim)
    start = draw(st.lists(st.integers(-5, 5), min_size=ndim, max_size=ndim))
    domain = Box.of_shape(draw(sizes)).translate(start)
    halo = draw(st.lists(st.integers(0, 4), min_size=ndim, max_size=ndim))
    return TileGrid(domain, tuple(draw(sizes)), tuple(halo))


@settings(max_examples=60, deadline=None)
@given(grids())
def test_cores_partition_the_domain(grid):
    visits = np.zeros(grid.domain.shape, int)
    for tile in grid:
        visits[tile.core.relative_to(grid.domain).slices] += 1
    assert (visits == 1).all()
    assert len(list(grid)) == len(grid) == len({tile.id for tile in grid})
    assert [grid.number(tile) for tile in grid] == list(range(len(grid)))


@settings(max_examples=60, deadline=None)
@given(grids(), st.data())
def test_owner_is_the_only_core_that_holds_the_voxel(grid, data):
    point = [
        data.draw(st.integers(a, b - 1))
        for a, b in zip(grid.domain.start, grid.domain.stop, strict=True)
    ]
    holders = [tile for tile in grid if tile.core.contains(point)]
    assert holders == [grid.owner(point)]


@settings(max_examples=60, deadline=None)
@given(grids(), st.data())
def test_outer_box_holds_every_voxel_that_a_filter_of_the_halo_reads(grid, data):
    tile = data.draw(st.sampled_from(list(grid)))
    for axis, halo in enumerate(grid.halo):
        for corner, step in ((tile.core.start, -halo), (tile.core.stop, halo - 1)):
            reads = corner[axis] + step
            if grid.domain.start[axis] <= reads < grid.domain.stop[axis]:
                assert tile.outer.start[axis] <= reads < tile.outer.stop[axis]
    assert tile.outer.intersect(grid.domain) == tile.outer


@settings(max_examples=25, deadline=None)
@given(grids(), st.integers(0, 2**32 - 1))
def test_filtering_by_tiles_equals_filtering_the_whole(grid, seed):
    image = np.random.default_rng(seed).random(grid.domain.shape)
    footprint = tuple(2 * h + 1 for h in grid.halo)
    # A maximum filter's boundary rule at a cut equals that at the domain's edge.
    whole = ndimage.maximum_filter(image, size=footprint, mode="nearest")
    tiled = np.empty_like(whole)
    for tile in grid:
        outer = image[tile.outer.relative_to(grid.domain).slices]
        filtered = ndimage.maximum_filter(outer, size=footprint, mode="nearest")
        tiled[tile.core.relative_to(grid.domain).slices] = filtered[tile.core_in_outer]
    np.testing.assert_array_equal(tiled, whole)


@settings(max_examples=40, deadline=None)
@given(grids(), st.data())
def test_neighbours_touch_and_touching_is_mutual(grid, data):
    tile = data.draw(st.sampled_from(list(grid)))
    near = set(grid.neighbours(tile.index))
    ones = (1,) * grid.domain.ndim
    touching = {
        other.index
        for other in grid
        if other.index != tile.index
        and other.core.intersect(tile.core.grow(ones, grid.domain)) is not None
    }
    assert near == touching
    assert all(tile.index in set(grid.neighbours(index)) for index in near)


@given(grids(), st.data())
def test_touching_are_the_tiles_that_share_a_voxel_with_the_box(grid, data):
    ends = [
        sorted((data.draw(st.integers(a - 5, b + 5)), data.draw(st.integers(a - 5, b + 5))))
        for a, b in zip(grid.domain.start, grid.domain.stop, strict=True)
    ]
    box = Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))
    shared = [tile.index for tile in grid if tile.core.intersect(box)]
    assert list(grid.touching(box)) == shared


def test_box_arithmetic():
    a, b = Box((0, 0), (4, 6)), Box((2, 5), (9, 9))
    assert a.intersect(b) == Box((2, 5), (4, 6))
    assert a.intersect(Box((4, 0), (5, 1))) is None
    assert b.relative_to(a.translate((2, 5))) == Box((0, 0), (7, 4))
    assert (a.size, a.shape, a.ndim) == (24, (4, 6), 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Box((0, 0), (1,)),
        lambda: Box((2,), (1,)),
        lambda: TileGrid(Box.of_shape((4, 4)), (0, 2), (0, 0)),
        lambda: TileGrid(Box.of_shape((4, 4)), (2, 2), (-1, 0)),
        lambda: TileGrid(Box.of_shape((4, 4)), (2,), (0,)),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(ValueError):
        make()


def test_tiles_beyond_the_grid_do_not_exist():
    grid = TileGrid(Box.of_shape((4, 4)), (2, 2), (1, 1))
    for index in itertools.product((-1, 2), (0, 1)):
        with pytest.raises(IndexError):
            grid.tile(index)
