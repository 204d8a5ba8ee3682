import io

import numpy as np
import pytest
from PIL import Image

from vasculome.report.charts import histogram, singular_values
from vasculome.report.panels import png_bytes


def _texts(figure):
    (axes,) = figure.axes
    return " ".join(text.get_text() for text in axes.texts)


def _bars(figure):
    (stairs,) = figure.axes[0].patches[:1]
    return stairs.get_data()


def _draw(values, **more):
    return histogram(values, title="T", label="radius", unit="µm", counted="voxels", **more)


def test_bars_hold_all_values_but_what_is_said_to_lie_beyond():
    values = np.random.default_rng(0).gamma(2.0, 3.0, 5000)
    figure = _draw(values)
    bars = _bars(figure)
    beyond = 100 * np.mean(values > bars.edges[-1])
    assert bars.values.sum() + beyond == pytest.approx(100)
    assert 0 < beyond < 1
    assert f"{beyond:.1g} % beyond" in _texts(figure)


def test_median_and_quartiles_are_written_with_the_unit():
    figure = _draw(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert "median 3 µm" in _texts(figure)
    assert "quartiles 2 to 4 µm" in _texts(figure)
    assert "n = 5" in _texts(figure)
    assert figure.axes[0].get_xlabel() == "radius (µm)"
    assert figure.axes[0].get_ylabel() == "voxels (%)"


def test_whole_numbers_get_whole_bins():
    bars = _bars(_draw(np.repeat([3, 4, 200], [50, 50, 1])))
    widths = np.diff(bars.edges)
    assert np.all(widths == widths[0])
    assert widths[0] == round(widths[0])
    short = _bars(_draw(np.array([3, 3, 4])))
    assert dict(zip(short.edges[:-1] + 0.5, short.values, strict=True))[3] == pytest.approx(200 / 3)


def test_stepped_values_get_bins_as_wide_as_their_steps():
    bars = _bars(_draw(np.repeat([2.0, 4.0, 6.0], 10), bin_width=2.0))
    np.testing.assert_allclose(np.diff(bars.edges), 2.0)
    assert bars.values.sum() == pytest.approx(100)


def test_equal_values_and_zeros_can_be_drawn():
    for values in (np.zeros(4), np.full(4, 2.5), np.zeros(3, int)):
        assert _bars(_draw(values)).values.sum() == pytest.approx(100)


@pytest.mark.parametrize("values", [[], [np.nan, 1.0], [-1.0, 2.0]])
def test_a_histogram_needs_values_it_can_show(values):
    with pytest.raises(ValueError, match="histogram"):
        _draw(np.array(values))


def test_singular_values_are_shown_in_decibels_with_the_cut():
    figure = singular_values(np.array([100.0, 10.0, 1.0]), first_kept=1)
    curve, cut = figure.axes[0].lines
    np.testing.assert_allclose(curve.get_ydata(), [0, -20, -40])
    assert cut.get_xdata()[0] == 1.5


def test_charts_are_white_pictures():
    picture = Image.open(io.BytesIO(png_bytes(_draw(np.arange(50.0))))).convert("RGB")
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert np.asarray(picture).std() > 10
