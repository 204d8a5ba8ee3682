"""Where slices lie in their volume, against positions worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vasculome.ultrasound.slices import covering_axis, nearest_pixels, planes_of


def test_even_slices_have_one_plane_each():
    planes = planes_of([100.0, 200.0, 1000 * 0.3, 400.0])
    assert (planes.origin_um, planes.spacing_um) == (100.0, 100.0)
    np.testing.assert_array_equal(planes.slice_of, [0, 1, 2, 3])


def test_a_gap_is_filled_by_the_nearest_slice_and_ties_go_down():
    # Planes at 0, 100, ..., 500; 300 is half way between 100 and 500.
    planes = planes_of([0.0, 100.0, 500.0])
    np.testing.assert_array_equal(planes.slice_of, [0, 1, 1, 1, 2, 2])


def test_a_last_slice_between_planes_has_the_nearest_one():
    np.testing.assert_array_equal(planes_of([0, 100, 250]).slice_of, [0, 1, 2, 2])
    np.testing.assert_array_equal(planes_of([0, 100, 240]).slice_of, [0, 1, 2])


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12))
def test_every_slice_is_somewhere_and_each_plane_takes_the_nearest(gaps):
    at_um = np.concatenate([[0], np.cumsum(gaps)]) / 7 - 13.0
    planes = planes_of(at_um)
    assert set(planes.slice_of) == set(range(len(at_um)))
    place = planes.origin_um + planes.spacing_um * np.arange(len(planes.slice_of))
    away = np.abs(place[:, None] - at_um)
    np.testing.assert_allclose(
        away[np.arange(len(place)), planes.slice_of], away.min(axis=1), atol=1e-3
    )


@pytest.mark.parametrize("elevation_um", [[0.0], [0.0, 0.0], [1.0, 0.0]])
def test_elevations_must_rise(elevation_um):
    with pytest.raises(ValueError, match="rising"):
        planes_of(elevation_um)


def test_the_axis_holds_all_slices_on_the_pixels_of_the_first():
    origin_um, n = covering_axis([5.0, 0.0, 12.0], [5.0, 5.0, 5.0], [4, 2, 3])
    # Pixels of the first lie at 5, 10, 15, 20; the third ends at 22.
    assert (origin_um, n) == (0.0, 6)


def test_equal_grids_give_each_pixel_itself():
    origin_um, n = covering_axis([0.1, 0.1], [0.7, 0.7], [1000, 1000])
    at_um = origin_um + 0.7 * np.arange(n)
    found = nearest_pixels(at_um, origin_um=0.1, spacing_um=0.7, count=1000)
    np.testing.assert_array_equal(found, np.arange(1000))


def test_half_a_pixel_moves_a_slice_but_doubles_no_pixel():
    at_um = 9.856 * np.arange(-2, 300)
    found = nearest_pixels(at_um, origin_um=-9.856 / 2, spacing_um=9.856, count=290)
    np.testing.assert_array_equal(found[:1], [-1])
    np.testing.assert_array_equal(found[found >= 0], np.arange(290))
    assert (found[-11:] == -1).all()
