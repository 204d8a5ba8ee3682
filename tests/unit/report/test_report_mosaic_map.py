import io
import re

import numpy as np
import pytest
from PIL import Image

from vasculome.report import colors, mosaic_arrows, panels
from vasculome.report.mosaic import read_mosaic
from vasculome.report.mosaic_map import displacement_map, gain_map
from vasculome.report.panels import png_bytes

SPACING_UM = (4.0, 2.0, 2.0)
PITCH_YX, SHAPE_YX = (90, 108), (100, 120)


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    monkeypatch.setattr(panels, "DPI", 60)


def _read(folder):
    return read_mosaic(folder, spacing_um=SPACING_UM)


@pytest.fixture
def read(tmp_path, faulty):
    return _read(faulty.write(tmp_path))


def _named(axes, name):
    return [artist for artist in axes.collections if artist.get_gid() == name]


def _arrows(figure, name="displacement"):
    """Beginning and way of each arrow, right and down, in micrometres, and how often too long."""
    (quiver,) = _named(figure.axes[0], name)
    ways = np.stack([quiver.U, quiver.V], axis=1)
    return np.asarray(quiver.get_offsets()), ways, 1 / quiver.scale


def _middles_um(faulty):
    row, column = np.divmod(np.arange(faulty.count), faulty.columns)
    middle = (
        np.stack([column * PITCH_YX[1], row * PITCH_YX[0]], axis=1) + np.array(SHAPE_YX[::-1]) / 2
    )
    return middle * 2.0


def test_arrows_begin_at_their_tiles_and_point_where_these_moved(read, faulty):
    at, ways, _ = _arrows(displacement_map(read))
    drawn = [k for k in range(30) if k not in (1, 15, 20)]
    assert len(at) == len(drawn)
    middles = _middles_um(faulty)[drawn]
    np.testing.assert_allclose(at - at[0], middles - middles[0])
    placed = np.array([read.tiles.state[k] == "placed" for k in drawn])
    true_um = 2.0 * faulty.moves_px[drawn][:, :0:-1]
    error = (ways - true_um)[placed]
    # All are relative to one median: they differ from the true ways by one vector.
    assert np.abs(error - np.median(error, axis=0)).max() < 0.6


def test_a_tile_that_moved_down_has_an_arrow_down_the_page(read, faulty):
    figure = displacement_map(read)
    at, ways, _ = _arrows(figure, "cut")
    assert len(at) == 1
    middles = _middles_um(faulty)
    np.testing.assert_allclose(at[0] - _arrows(figure)[0][0], middles[20] - middles[0])
    axes = figure.axes[0]
    tail, tip = axes.transData.transform(np.stack([at[0], at[0] + ways[0]]))
    # The canvas counts upwards; the tile moved by 40 px along y and -3 px along x.
    assert tip[1] < tail[1]
    assert tip[0] < tail[0]


def test_arrows_that_are_cut_bear_their_true_length(read):
    figure = displacement_map(read)
    (label,) = [text for text in figure.axes[0].texts if text.get_gid() == "length"]
    length = np.hypot(*(2 * read.tiles.displacement_px[20, 1:]))
    assert label.get_text() == f"{length:.3g} µm"
    _, ways, factor = _arrows(figure, "cut")
    assert np.hypot(*ways[0]) * factor == pytest.approx(0.75 * 200)
    _, rest, factor = _arrows(figure)
    assert (np.hypot(*rest.T) * factor).max() <= 0.75 * 200


def test_the_key_is_drawn_as_long_as_an_arrow_of_that_length(read):
    figure = displacement_map(read)
    foot = figure.axes[1]
    (quiver,) = _named(foot, "key")
    (text,) = [text.get_text() for text in foot.texts if text.get_gid() == "key"]
    um, px, factor = (
        float(part) for part in re.findall(r"([\d.]+) µm = ([\d.]+) px\ndrawn ×(\d+)", text)[0]
    )
    assert float(quiver.U[0]) == um == 2 * px
    assert 1 / quiver.scale == factor == _arrows(figure)[2]
    one_um = [np.ptp(axes.transData.transform([[0, 0], [1, 0]])[:, 0]) for axes in figure.axes[:2]]
    assert one_um[0] == pytest.approx(one_um[1])


def test_tiles_lie_where_the_stage_says_in_the_colours_of_their_state(read, faulty):
    axes = displacement_map(read).axes[0]
    tiles = {"stage": 29, "dark": 1, "misreported": 20}
    counts = {name: len(_named(axes, name)[0].get_paths()) for name in [*tiles, "placed"]}
    assert counts == {"stage": 1, "dark": 2, "misreported": 1, "placed": 27}
    first = _named(axes, "placed")[0].get_paths()[0].vertices[:4].min(axis=0)
    for name, tile in tiles.items():
        corners = _named(axes, name)[0].get_paths()[0].vertices[:4]
        np.testing.assert_allclose(np.ptp(corners, axis=0), 2 * np.array(SHAPE_YX[::-1]))
        moved = _middles_um(faulty)[tile] - _middles_um(faulty)[0]
        np.testing.assert_allclose(corners.min(axis=0) - first, moved)


def test_the_legend_counts_each_kind(read):
    (legend,) = displacement_map(read).legends
    words = [" ".join(text.get_text().split()) for text in legend.get_texts()]
    assert words == [
        "placed by overlaps (27)",
        "placed by the stage (1)",
        "dark, left out (2)",
        "misreported by the stage (1)",
    ]


def test_faulty_tiles_bear_their_names_where_there_is_room(read, faulty, tmp_path, stitched):
    def names(mosaic):
        axes = displacement_map(mosaic).axes[0]
        return {text.get_text() for text in axes.texts if text.get_gid() == "name"}

    assert names(read) == {faulty.name(k) for k in (1, 15, 20, 29)}
    assert names(_read(stitched(20, 20, dark=(5,)).write(tmp_path / "many"))) == set()


def test_displacement_along_z_is_colour_and_dark_tiles_have_none(read):
    figure = displacement_map(read)
    (tiles,) = _named(figure.axes[2], "values")
    expected = np.delete(4.0 * read.tiles.displacement_px[:, 0], (1, 15))
    np.testing.assert_allclose(np.sort(tiles.get_array()), np.sort(expected))
    assert tiles.norm.vmin == -tiles.norm.vmax
    assert tiles.norm.vmax == pytest.approx(np.abs(expected).max())
    np.testing.assert_allclose(tiles.cmap(tiles.norm(0.0))[:3], 0, atol=0.03)
    assert "along z (µm)" in [axes.get_ylabel() for axes in figure.axes]


def test_tiles_coloured_by_a_value_do_not_hide_one_another(tmp_path, stitched):
    (tiles,) = _named(displacement_map(_read(stitched(3, 3).write(tmp_path))).axes[2], "values")
    boxes = [path.vertices[:4] for path in tiles.get_paths()]
    for k, one in enumerate(boxes):
        for other in boxes[:k]:
            apart = (one.min(0) >= other.max(0)) | (other.min(0) >= one.max(0))
            assert apart.any()


def test_of_many_tiles_neighbours_share_the_arrow_of_their_mean(tmp_path, stitched, monkeypatch):
    rows = columns = 24
    stretch = np.zeros((rows * columns, 3))
    stretch[:, 1] = np.repeat(np.linspace(-5, 5, rows), columns)
    read = _read(stitched(rows, columns, stretch, noise_px=0.0).write(tmp_path))
    assert len(_arrows(displacement_map(read))[0]) == 576
    monkeypatch.setattr(mosaic_arrows, "MOST_ARROWS", 500)
    monkeypatch.setattr(mosaic_arrows, "_BLOCKS_A_SIDE", 8)
    at, ways, _ = _arrows(displacement_map(read))
    assert len(at) <= 9 * 9
    # Columns run left to right with no displacement; rows from up at the top to down at the foot.
    np.testing.assert_allclose(ways[:, 0], 0, atol=1e-6)
    slope = np.polyfit(at[:, 1], ways[:, 1], 1)[0]
    assert slope == pytest.approx(10 / (23 * 90), rel=0.02)


def test_tiles_that_did_not_move_have_no_arrows(tmp_path, stitched):
    read = _read(stitched(2, 2, np.zeros((4, 3)), noise_px=0.0).write(tmp_path))
    figure = displacement_map(read)
    assert _named(figure.axes[0], "displacement") == []
    assert "no tile moved in the plane" in [text.get_text() for text in figure.axes[1].texts]


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (12, 1)])
def test_every_shape_of_mosaic_can_be_drawn(tmp_path, stitched, shape):
    read = _read(stitched(*shape).write(tmp_path))
    for figure in (displacement_map(read), gain_map(read)):
        pixels = np.asarray(Image.open(io.BytesIO(png_bytes(figure))).convert("L"))
        assert pixels.std() > 5


def test_gains_are_percent_of_the_mean(read):
    figure = gain_map(read)
    (tiles,) = _named(figure.axes[0], "values")
    expected = np.delete(100 * (read.gain - 1), (1, 15))
    np.testing.assert_allclose(np.sort(tiles.get_array()), np.sort(expected))
    assert tiles.cmap is colors.SHIFT
