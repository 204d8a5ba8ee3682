import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vasculome.report.projections import (
    Volume,
    flatten,
    panel_extent_um,
    rasterize_skeleton,
    views,
    weighted_mean,
)


def _volume(shape=(3, 4, 5)):
    return np.random.default_rng(0).random(shape).astype(np.float32)


@pytest.mark.parametrize("main", ["xy", "xz"])
def test_each_view_is_the_maximum_along_the_axis_it_lacks(main):
    values = _volume()
    for view in views((3.0, 4.0, 5.0), main=main):
        picture = flatten(values, view)
        for row in range(picture.shape[0]):
            for column in range(picture.shape[1]):
                index = [slice(None)] * 3
                index[view.row_axis], index[view.column_axis] = row, column
                assert picture[row, column] == max(values[tuple(index)])


def test_views_share_one_scale_and_line_up_with_the_main_view():
    main, right, below = views((30.0, 200.0, 100.0), main="xy")
    assert (main.name, right.name, below.name) == ("xy", "yz", "xz")
    assert (main.width_um, main.height_um) == (100.0, 200.0)
    assert (right.width_um, right.height_um, right.top_um) == (30.0, 200.0, 0.0)
    assert (below.width_um, below.height_um, below.left_um) == (100.0, 30.0, 0.0)
    assert right.left_um > main.width_um
    assert below.top_um > main.height_um
    width, height = panel_extent_um([main, right, below])
    assert width == right.left_um + 30.0
    assert height == below.top_um + 30.0


def test_ultrasound_shows_depth_down_and_a_plane_as_it_is():
    main, right, below = views((10.0, 20.0, 30.0), main="xz")
    assert (main.name, right.name, below.name) == ("xz", "yz", "xy")
    assert (main.row_axis, main.column_axis) == (0, 2)
    (plane,) = views((10.0, 30.0), main="xz")
    values = _volume((2, 6))
    assert flatten(values, plane) is values


def test_flatten_leaves_nan_out():
    values = _volume()
    values[0] = np.nan
    (main, _, _) = views((3.0, 4.0, 5.0), main="xy")
    np.testing.assert_array_equal(flatten(values, main), values[1:].max(axis=0))


def test_weighted_mean_knows_its_weights_and_says_nothing_where_there_are_none():
    values = np.array([[[1.0, 5.0, np.nan]], [[3.0, 7.0, 2.0]]])
    weights = np.array([[[1.0, 0.0, 4.0]], [[3.0, 0.0, 1.0]]])
    (main, _, _) = views((2.0, 1.0, 3.0), main="xy")
    np.testing.assert_array_equal(weighted_mean(values, weights, main), [[2.5, np.nan, 2.0]])


@settings(max_examples=20, deadline=None)
@given(st.floats(0.21, 3.0), st.tuples(*[st.integers(0, 1)] * 3).filter(any))
def test_a_straight_skeleton_is_one_line_at_every_magnification(pixel_um, step):
    spacing = (2.0, 1.0, 1.0)
    points = np.arange(12)[:, None] * np.array(step) * spacing
    for view in views((24.0, 12.0, 12.0), main="xy"):
        picture = rasterize_skeleton(
            points, np.ones(12), view, spacing_um=spacing, pixel_um=pixel_um
        )
        drawn = np.isfinite(picture)
        assert ndimage.label(drawn, np.ones((3, 3)))[1] == 1
        rows, columns = np.nonzero(drawn)
        lengths = (np.ptp(rows) * pixel_um, np.ptp(columns) * pixel_um)
        expected = np.ptp(points[:, [view.row_axis, view.column_axis]], axis=0)
        np.testing.assert_allclose(lengths, expected, atol=2 * pixel_um)


def test_the_widest_vessel_of_a_pixel_is_drawn_at_its_voxel():
    points = np.array([[0.0, 4.0, 6.0], [10.0, 4.0, 6.0]])
    (main, _, _) = views((12.0, 8.0, 8.0), main="xy")
    picture = rasterize_skeleton(
        points, np.array([3.0, 9.0]), main, spacing_um=(2.0, 2.0, 2.0), pixel_um=2.0
    )
    assert picture[2, 3] == 9.0
    assert np.isfinite(picture).sum() == 1


def test_an_empty_skeleton_draws_nothing():
    (main, _, _) = views((4.0, 4.0, 4.0), main="xy")
    picture = rasterize_skeleton(
        np.empty((0, 3)), np.empty(0), main, spacing_um=(1.0,) * 3, pixel_um=0.5
    )
    assert np.isnan(picture).all()


def test_a_volume_needs_one_spacing_an_axis():
    with pytest.raises(ValueError, match="must agree"):
        Volume(np.zeros((2, 2)), (1.0, 1.0, 1.0))
