"""Maps of one field drawn to be compared: one scale, an overlay, and the right detail."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from vasculome.report import colors
from vasculome.report.compared_maps import (
    cropped,
    flat_map,
    most_different,
    same_field,
    scale_of,
    side_by_side,
)
from vasculome.report.panels import png_bytes
from vasculome.report.projections import Volume

STEP_UM = 5.0


def _map(values, name="a", spacing=None):
    volume = Volume(np.asarray(values, np.float32), spacing or (STEP_UM,) * np.ndim(values))
    return flat_map(volume, name=name, title=name)


def _pair(shape=(60, 60)):
    counts = np.random.default_rng(0).poisson(1.0, shape)
    return _map(counts, "few"), _map(9 * counts, "many")


def _images(figure):
    """Return the pictures of the panels, in their order, without the colour bar."""
    return [axes.images[0] for axes in figure.axes if axes.images]


def test_all_maps_share_a_scale_that_the_brightest_sets():
    few, many = _pair()
    norms = [image.norm for image in _images(side_by_side([few, many], scale_of([few, many])))[:2]]
    assert (
        norms[0].vmax == norms[1].vmax == np.percentile(many.pictures[0][few.pictures[0] > 0], 99.5)
    )
    assert norms[0].vmin == 0
    # Square-root compressed.
    assert norms[0](0.25 * norms[0].vmax) == pytest.approx(0.5)


def test_two_maps_are_white_where_alike_and_coloured_where_one_has_more():
    first, second = np.zeros((2, 8, 8))
    first[1, 1] = second[2, 2] = first[3, 3] = second[3, 3] = 4
    maps = [_map(first), _map(second, "b")]
    overlay = _images(side_by_side(maps, scale_of(maps)))[-1].get_array()
    np.testing.assert_allclose(overlay[1, 1], to_rgb(colors.PAIR[0]))
    np.testing.assert_allclose(overlay[2, 2], to_rgb(colors.PAIR[1]))
    np.testing.assert_allclose(overlay[3, 3], 1)
    np.testing.assert_allclose(overlay[5, 5], 0)


def test_only_two_maps_of_the_same_pixels_are_overlaid():
    few, many = _pair()
    larger = _map(np.ones((70, 60)), "larger")
    assert len(_images(side_by_side([few, many], scale_of([few, many])))) == 3
    for maps in ([few], [few, larger], [few, many, few], [few, many, few, many]):
        assert len(_images(side_by_side(maps, scale_of(maps)))) == len(maps)
    assert same_field([few, many]) and not same_field([few, larger])
    # As many pixels, but others.
    assert not same_field([few, _map(few.pictures[0], spacing=(5.0, 6.0))])


@pytest.mark.parametrize("corner", [(0, 0), (37, 11), (50, 80)])
def test_the_detail_is_where_maps_differ_most(corner):
    first = np.random.default_rng(1).poisson(3.0, (60, 90)).astype(float)
    second = first.copy()
    row, column = corner
    second[row : row + 10, column : column + 10] += 50
    maps = [_map(first), _map(second)]
    # A sixth of the shorter side.
    assert most_different(maps, scale_of(maps)) == (
        slice(row, row + 10),
        slice(column, column + 10),
    )


def test_maps_that_are_the_same_have_no_detail():
    few, _ = _pair()
    assert most_different([few, few], scale_of([few, few])) is None


def test_a_detail_is_drawn_to_its_own_size():
    few, _ = _pair()
    part = cropped(few, (slice(10, 30), slice(40, 50)))
    np.testing.assert_array_equal(part.pictures[0], few.pictures[0][10:30, 40:50])
    assert (part.layout[0].height_um, part.layout[0].width_um) == (20 * STEP_UM, 10 * STEP_UM)


def test_the_frame_is_around_the_detail():
    few, many = _pair()
    window = slice(10, 30), slice(40, 50)
    figure = side_by_side([few, many], scale_of([few, many]), window=window)
    frames = [p for axes in figure.axes for p in axes.patches if p.get_gid() == "window"]
    assert len(frames) == 3
    for frame in frames:
        assert frame.get_xy() == (40 * STEP_UM, 10 * STEP_UM)
        assert (frame.get_width(), frame.get_height()) == (10 * STEP_UM, 20 * STEP_UM)


def test_volumes_are_compared_by_their_projections():
    volume = np.random.default_rng(2).poisson(1.0, (20, 12, 30)).astype(float)
    other = volume.copy()
    other[4:6, 5, 20:22] = 60
    maps = [_map(volume), _map(other, "b")]
    rows, columns = most_different(maps, scale_of(maps))
    assert rows.start <= 4 < rows.stop and columns.start <= 20 < columns.stop
    figure = side_by_side(maps, scale_of(maps), window=(rows, columns))
    assert [len(axes.images) for axes in figure.axes if len(axes.images) > 1] == [3, 3, 3]
    assert png_bytes(figure) == png_bytes(
        side_by_side(maps, scale_of(maps), window=(rows, columns))
    )
