import numpy as np
from skimage.color import rgb2lab

from vasculome.report import colors


def _lab(cmap):
    return rgb2lab(cmap(np.arange(cmap.N))[:, :3])


def test_speed_and_direction_have_even_lightness():
    for cmap in (colors.SPEED, colors.DIRECTION):
        assert np.ptp(_lab(cmap)[:, 0]) < 1.0


def test_direction_closes_its_circle_without_a_step():
    lab = _lab(colors.DIRECTION)
    steps = np.linalg.norm(lab - np.roll(lab, 1, axis=0), axis=1)
    assert steps.max() < 3 * np.median(steps)


def test_hues_of_direction_are_told_apart_all_around():
    lab = _lab(colors.DIRECTION)
    assert np.linalg.norm(lab - np.roll(lab, 45, axis=0), axis=1).min() > 15


def test_speed_runs_from_blue_to_red():
    slow, fast = colors.SPEED(0.0), colors.SPEED(1.0)
    assert slow[2] > slow[0]
    assert fast[0] > fast[2]


def test_axial_is_blue_below_black_at_and_red_above_zero():
    away, rest, toward = (colors.AXIAL(x)[:3] for x in (0.3, 0.5, 0.7))
    assert away[2] > away[0]
    assert toward[0] > toward[2]
    assert max(rest) < 0.05


def test_shifts_leave_black_alike_on_both_sides():
    lab = _lab(colors.SHIFT)
    below, above = lab[: len(lab) // 2][::-1], lab[len(lab) // 2 :]
    np.testing.assert_allclose(below[:, 0], above[:, 0], atol=0.5)
    assert (np.diff(above[:, 0]) > 0).all()
    assert below[0, 0] < 1
    # Blue against orange: along the axis that red-green colour blindness leaves.
    assert (below[32:-8, 2] < -10).all()
    assert (above[32:-8, 2] > 10).all()


def test_missing_values_are_black():
    for cmap in (colors.DENSITY, colors.LENGTH_DENSITY, colors.RADIUS, colors.AXIAL):
        assert cmap(np.nan)[:3] == (0.0, 0.0, 0.0)
