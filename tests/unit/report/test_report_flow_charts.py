import math

import numpy as np
import pytest

from vasculome.metrics.saturation import fit_saturation
from vasculome.report.flow_charts import clutter, quality_of_all, resolution, saturation

EVIDENCE = {
    "singular_values": np.array([100.0, 10.0, 1.0, 0.1]),
    "centroid_hz": np.array([2.0, 20.0, 80.0, 90.0]),
    "similarity": np.eye(3),
    "noise_value": np.array(0.5),
    "tissue_below_hz": np.array(50.0),
}
SUMMARY = {
    "keep_from": 2,
    "keep_to": 3,
    "keep_from_centroid": 3,
    "keep_from_similarity": 2,
    "keep_to_similarity": 3,
    "keep_to_noise": 3,
}


def _notes(figure):
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


def test_singular_values_are_shown_in_decibels_with_both_cuts():
    size = clutter(EVIDENCE, SUMMARY).axes[0]
    curve, noise, *cuts = size.lines
    np.testing.assert_allclose(curve.get_ydata(), [0, -20, -40, -60])
    np.testing.assert_allclose(noise.get_ydata(), 20 * math.log10(0.5 / 100))
    # Between the vectors: 1 is removed, 2 and 3 are kept, 4 is removed.
    assert [line.get_xdata()[0] for line in cuts] == [1.5, 3]
    removed = [patch.get_x() for patch in size.patches], [p.get_width() for p in size.patches]
    assert removed == ([1, 3], [0.5, 1])


def test_what_frequencies_and_images_propose_is_said():
    told = _notes(clutter(EVIDENCE, SUMMARY))
    assert "fast from 3" in told
    assert "above noise: to 3" in told
    assert "none is fast" in _notes(clutter(EVIDENCE, SUMMARY | {"keep_from_centroid": None}))
    similarity = clutter(EVIDENCE, SUMMARY).axes[2]
    assert similarity.get_xlabel() == "blood: 2 to 3"
    tissue, blood = [p for p in similarity.patches if p.get_fill() is False]
    assert (tissue.get_x(), tissue.get_width()) == (0.5, 1)
    assert (blood.get_x(), blood.get_width()) == (1.5, 2)


def test_resolution_is_marked_where_the_curves_cross():
    curves = {
        "frequency_per_um": np.array([0.0, 0.05, 0.1]),
        "correlation": np.array([1.0, 0.5, 0.0]),
        "threshold": np.array([0.5, 0.5, 0.5]),
    }
    figure = resolution(curves, resolution_um=20.0)
    assert figure.axes[0].lines[-1].get_xdata()[0] == pytest.approx(50)
    assert "20 µm" in _notes(figure)
    assert "nothing is resolved" in _notes(resolution(curves, resolution_um=None))


def test_the_exponential_goes_through_the_points_that_it_was_fitted_to():
    time_s = np.arange(1, 9.0)
    filled = 0.3 * (1 - np.exp(-time_s / 2))
    fitted = fit_saturation(time_s, filled)
    figure = saturation(
        {"time_s": time_s, "filled": filled},
        plateau_percent=100 * fitted.plateau,
        time_to_90_s=fitted.time_to_90_s,
    )
    points, line = figure.axes[0].lines
    drawn = np.interp(time_s, line.get_xdata(), line.get_ydata())
    np.testing.assert_allclose(drawn, points.get_ydata(), atol=0.05)
    assert "90 % of 30 %" in _notes(figure)
    alone = saturation(
        {"time_s": time_s, "filled": filled}, plateau_percent=None, time_to_90_s=None
    )
    assert len(alone.axes[0].lines) == 1
    assert "to be extrapolated" in _notes(alone)


def test_samples_are_told_apart_by_colour_and_their_numbers_said():
    curves = {
        "frequency_per_um": np.array([0.0, 0.05, 0.1]),
        "correlation": np.array([1.0, 0.5, 0.0]),
        "threshold": np.array([0.5, 0.5, 0.5]),
        "time_s": np.array([1.0, 2.0]),
        "filled": np.array([0.1, 0.15]),
    }
    longer = curves | {"time_s": np.array([1.0, 4.0]), "filled": np.array([0.1, 0.2])}
    figure = quality_of_all({"a": curves, "b": longer}, resolution_um={"a": 20.0, "b": None})
    left, right = figure.axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == [
        "a: 20 µm",
        "b: nothing resolved",
    ]
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "a: 15 % after 2 s",
        "b: 20 % after 4 s",
    ]
    (mark,) = [line for line in left.lines if line.get_linestyle() == "--"]
    assert mark.get_xdata()[0] == pytest.approx(50)
    assert mark.get_color() == right.lines[0].get_color() != right.lines[1].get_color()
