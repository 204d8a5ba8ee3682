import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vasculome.report import panels
from vasculome.report.mosaic import Overlap, read_mosaic
from vasculome.report.overlap_views import (
    checkerboard,
    even_contrast,
    false_colour,
    overlap_figure,
    square_px,
)


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    monkeypatch.setattr(panels, "DPI", 60)


def _vessels(shape=(120, 160), seed=0):
    rng = np.random.default_rng(seed)
    image = np.zeros(shape)
    image.flat[rng.integers(0, image.size, 40)] = 1
    image = gaussian_filter(image, 2)
    return 200 + 3000 * image / image.max()


def _tint(first, second):
    """How far false colour is from grey, where there is something to be seen."""
    picture = false_colour(*even_contrast(first, second))
    bright = picture.max(axis=2) > 0.3
    return np.ptp(picture[bright], axis=1).mean()


def test_agreement_is_grey_and_each_tile_alone_has_its_colour():
    one, none = np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)
    np.testing.assert_array_equal(false_colour(one, one)[0, 0], [1, 1, 1])
    np.testing.assert_array_equal(false_colour(one, none)[0, 0], [0, 1, 0])
    np.testing.assert_array_equal(false_colour(none, one)[0, 0], [1, 0, 1])


def test_light_is_evened_out_but_a_shift_of_two_pixels_stays():
    image = _vessels()
    across = np.linspace(0.7, 1.2, image.shape[1])
    darker = 200 + (image - 200) * across
    assert _tint(image, darker) < 0.05
    assert _tint(image, np.roll(image, 2, axis=1)) > 0.2
    assert _tint(image, np.roll(darker, 2, axis=1)) > 0.2


def test_both_pieces_are_shown_on_one_scale_from_black_to_white():
    image = _vessels()
    for part in even_contrast(image.astype(np.uint16), (0.5 * image).astype(np.uint16)):
        assert part.min() == 0
        assert part.max() == 1
        assert np.median(part) < 0.2


def test_pieces_without_anything_in_them_can_be_drawn():
    for part in even_contrast(np.full((30, 40), 7, np.uint16), np.full((30, 40), 9, np.uint16)):
        assert np.isfinite(part).all()
        assert part.max() == 0


def test_squares_are_of_both_tiles_in_turn():
    first, second = np.full((60, 90), 0.2, np.float32), np.full((60, 90), 0.9, np.float32)
    side = square_px(first.shape)
    board = checkerboard(first, second)
    shown = board.max(axis=2)[side // 2 :: side, side // 2 :: side]
    rows, columns = np.indices(shown.shape)
    of_first = (rows + columns) % 2 == 0
    assert shown[of_first].max() < shown[~of_first].min()
    # Squares of the first tile are greener than red, those of the second the other way.
    assert ((board[..., 1] > board[..., 0]) == (board.max(axis=2) < 0.5)).all()


def test_each_overlap_is_shown_twice_with_its_pair_and_residual(tmp_path, faulty):
    read = read_mosaic(faulty.write(tmp_path), spacing_um=(4.0, 2.0, 2.0))
    row = int(np.flatnonzero(read.edges.outlier)[0])
    piece = _vessels((30, 400)).astype(np.uint16)
    overlaps = [Overlap(row, True, piece, piece), *read.overlaps]
    figure = overlap_figure(dataclasses.replace(read, overlaps=overlaps))
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(pictures) == 2 * len(overlaps)
    # Narrow pieces are cut, so that pixels can be seen: 128 of 400.
    assert pictures[0].shape == (30, 128, 3)
    words = [text.get_text() for text in figure.texts]
    assert faulty.pair(7, 8) in words
    (fact,) = [word for word in words if word.startswith("Worst: outlier")]
    assert f"residual {read.edges.misfit_px[row]:.2f} px" in fact
    assert "NCC 0.90" in fact
    assert sum(word.startswith("Median: residual") for word in words) == 1


def test_pixels_that_are_not_square_keep_their_shape(tmp_path, faulty):
    read = read_mosaic(faulty.write(tmp_path), spacing_um=(4.0, 3.0, 1.0))
    piece = _vessels((60, 120)).astype(np.uint16)
    figure = overlap_figure(dataclasses.replace(read, overlaps=[Overlap(0, True, piece, piece)]))
    box = figure.axes[0].get_position()
    width, height = figure.get_size_inches()
    assert box.height * height / (box.width * width) == pytest.approx(60 * 3 / 120)


def test_long_names_are_shortened(tmp_path, faulty):
    read = read_mosaic(faulty.write(tmp_path), spacing_um=(4.0, 2.0, 2.0))
    for k in range(30):
        read.tiles.names[k] = f"begin_{'x' * 60}_{k}_end"
    names = [text.get_text() for text in overlap_figure(read).texts if "begin" in text.get_text()]
    assert names
    assert all(len(name) <= 46 and "…" in name and name.endswith("_end") for name in names)
