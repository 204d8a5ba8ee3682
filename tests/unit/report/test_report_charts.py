import io

import numpy as np
import pytest
from PIL import Image

from vasculome.report.charts import histogram, residuals
from vasculome.report.distribution import Distribution
from vasculome.report.panels import png_bytes


def _texts(figure):
    (axes,) = figure.axes
    return " ".join(text.get_text() for text in axes.texts)


def _bars(figure):
    (stairs,) = figure.axes[0].patches[:1]
    return stairs.get_data()


def _spread(values, bin_width=0.1, **more):
    return Distribution.empty(bin_width=bin_width).add(np.asarray(values), **more)


def _draw(distribution, **more):
    labels = {"title": "T", "label": "radius", "unit": "µm", "counted": "length"}
    return histogram(distribution, **labels, values="points", **more)


def test_counting_in_parts_is_counting_at_once():
    values = np.random.default_rng(0).gamma(2.0, 3.0, 500)
    weight = np.random.default_rng(1).random(500)
    at_once = _spread(values, weight=weight)
    parts = Distribution.empty(bin_width=0.1)
    for part in np.array_split(np.arange(500), 7):
        parts = parts.add(values[part], weight=weight[part])
    np.testing.assert_allclose(parts.weight, at_once.weight)
    assert parts.count == at_once.count == 500
    assert at_once.weight.sum() == pytest.approx(weight.sum())


def test_quantiles_are_those_of_the_values_to_a_bin():
    values = np.random.default_rng(0).gamma(2.0, 3.0, 501)
    for share in (0.25, 0.5, 0.75):
        middle = 0.1 * (_spread(values).quantile(share) + 0.5)
        assert middle == pytest.approx(np.quantile(values, share), abs=0.1)


def test_weights_move_the_median():
    weighted = _spread([1.05, 2.05, 3.05], weight=np.array([1.0, 1.0, 5.0]))
    assert weighted.quantile(0.5) == 30


@pytest.mark.parametrize("values", [[np.nan, 1.0], [-1.0, 2.0], [np.inf]])
def test_a_distribution_takes_values_it_can_count(values):
    with pytest.raises(ValueError, match="distribution"):
        _spread(values)


def test_bars_hold_all_weight_but_what_is_said_to_lie_beyond():
    values = np.random.default_rng(0).gamma(2.0, 3.0, 5000)
    figure = _draw(_spread(values))
    bars = _bars(figure)
    assert len(bars.values) <= 60
    for low, high, share in zip(bars.edges, bars.edges[1:], bars.values, strict=False):
        inside = (values >= low - 1e-9) & (values < high - 1e-9)
        assert share == pytest.approx(100 * inside.mean(), abs=0.05)
    beyond = 100 - bars.values.sum()
    assert 0 < beyond < 1
    assert f"{beyond:.1g} % beyond" in _texts(figure)


def test_median_and_quartiles_are_written_with_the_unit():
    figure = _draw(_spread([1.05, 2.05, 3.05, 4.05, 9.05]))
    assert "median 3.05 µm" in _texts(figure)
    assert "quartiles 2.05 to 4.05 µm" in _texts(figure)
    assert "5 points" in _texts(figure)
    assert figure.axes[0].get_xlabel() == "radius (µm)"
    assert figure.axes[0].get_ylabel() == "length (%)"


def test_whole_numbers_stand_in_the_middle_of_their_bars():
    figure = _draw(_spread([3, 3, 4], bin_width=1.0), whole_numbers=True)
    bars = _bars(figure)
    shares = dict(zip(bars.edges[:-1] + 0.5, bars.values, strict=True))
    assert shares == {0: 0, 1: 0, 2: 0, 3: pytest.approx(200 / 3), 4: pytest.approx(100 / 3)}
    assert "median 3 µm" in _texts(figure)


def test_bars_are_as_wide_as_the_steps_of_the_values():
    bars = _bars(_draw(_spread(np.repeat([2.0, 4.0, 6.0], 10)), narrowest_bar=2.0))
    np.testing.assert_allclose(np.diff(bars.edges), 2.0)
    assert bars.values.sum() == pytest.approx(100)


def test_equal_values_and_zeros_can_be_drawn():
    for values in (np.zeros(4), np.full(4, 2.5)):
        assert _bars(_draw(_spread(values))).values.sum() == pytest.approx(100)


def test_nothing_cannot_be_drawn():
    with pytest.raises(ValueError, match="weight"):
        _draw(Distribution.empty(bin_width=1.0))


def test_charts_are_white_pictures():
    picture = Image.open(io.BytesIO(png_bytes(_draw(_spread(np.arange(50.0)))))).convert("RGB")
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert np.asarray(picture).std() > 10


def _residuals(count=400, left_out=0):
    values = np.random.default_rng(0).normal(size=(count, 3)) * [0.05, 0.1, 0.2]
    return values, residuals(values, spacing_um=(4.0, 2.0, 3.0), left_out=left_out)


def test_residuals_are_counted_along_each_axis_on_one_scale():
    values, figure = _residuals()
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    for axes, along in zip(figure.axes, values.T, strict=True):
        bars = axes.patches[0].get_data()
        np.testing.assert_array_equal(bars.values, np.histogram(along, bars.edges)[0])
        text = " ".join(text.get_text() for text in axes.texts)
        beyond = len(along) - int(bars.values.sum())
        assert (f"{beyond} beyond the axis" in text) == (beyond > 0)
        # No residual has a bar of its own, whose middle is 0.
        np.testing.assert_allclose(bars.edges, -bars.edges[::-1], atol=1e-12)
        assert len(bars.values) % 2 == 1


def test_residuals_have_their_root_mean_square_in_both_units():
    values, figure = _residuals()
    for axes, along, step in zip(figure.axes, values.T, (4, 2, 3), strict=True):
        root = np.sqrt((along**2).mean())
        assert axes.texts[0].get_text().startswith(f"RMS {root:.2g} px = {root * step:.2g} µm")
        assert f"1 px is {step} µm" in axes.get_xlabel()
    assert figure.axes[2].get_title(loc="left") == "Residuals along x"


def test_few_residuals_are_all_shown_and_outliers_mentioned():
    _, figure = _residuals(count=5, left_out=2)
    assert [axes.patches[0].get_data().values.sum() for axes in figure.axes] == [5, 5, 5]
    assert figure.get_suptitle() == "5 pairs, 2 outliers left out"


def test_rounding_errors_are_not_magnified():
    figure = residuals(np.full((3, 3), 1e-12), spacing_um=(1.0, 1.0, 1.0), left_out=0)
    assert figure.axes[0].get_xlim()[1] >= 0.01
