"""What the report shows of overlaps: the right pairs, and the same place in both tiles."""

import numpy as np

from vasculome.stitching.crops import MAX_CROP_PX, crop_pair, worst_and_median
from vasculome.stitching.place import Placement


def _placement(misfits, used):
    residuals = np.zeros((len(misfits), 3))
    residuals[:, 1] = misfits
    return Placement(
        starts=np.zeros((2, 3)),
        parts=np.zeros(2, np.int64),
        used=np.array(used, bool),
        outliers=(),
        residuals=residuals,
        stage_outliers=(),
    )


def test_the_worst_first_then_the_median_of_those_in_use():
    placement = _placement([0.1, 9.0, np.nan, 0.3, -0.5, 0.2, 0.4], [1, 0, 0, 1, 1, 1, 1])
    assert worst_and_median(placement) == ([1, 4, 6, 3], [True, True, True, False])


def test_a_pair_is_shown_once():
    assert worst_and_median(_placement([0.2], [1])) == ([0], [True])
    assert worst_and_median(_placement([np.nan], [0])) == ([], [])


def test_both_crops_show_the_same_place():
    volume = np.random.default_rng(0).integers(0, 60000, (9, 400, 700), dtype=np.uint16)
    one, two = volume[:8, :, :400], volume[1:, 10:, 100:]
    first, second = crop_pair(one, two, (0, 0, 0), (1, 10, 100))
    assert first.shape == second.shape == (MAX_CROP_PX, MAX_CROP_PX)
    np.testing.assert_array_equal(first, second)
    # The middle plane of the planes 1 to 7 that they share.
    np.testing.assert_array_equal(first, volume[4, 77:333, 122:378])


def test_tiles_apart_have_no_crops():
    tile = np.ones((2, 8, 8), np.uint8)
    assert crop_pair(tile, tile, (0, 0, 0), (0, 0, 8)) is None
