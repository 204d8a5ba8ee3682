import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import Normalize, PowerNorm
from PIL import Image

from vasculome.report import colors
from vasculome.report.figures import ulm_density
from vasculome.report.panels import (
    DPI,
    black_panels,
    draw_color_bar,
    draw_scale_bar,
    length_text,
    nice_length_um,
    png_bytes,
)
from vasculome.report.projections import Volume


@given(st.floats(1e-3, 1e6))
def test_a_scale_bar_is_round_and_takes_a_tenth_to_a_quarter(extent_um):
    length = nice_length_um(extent_um)
    assert 0.1 * extent_um * (1 - 1e-6) <= length <= 0.25 * extent_um * (1 + 1e-6)
    mantissa = length / 10.0 ** np.floor(np.log10(length) + 1e-9)
    assert min(abs(mantissa - n) for n in (1, 2, 5)) < 1e-6


def test_an_extent_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        nice_length_um(0.0)


@pytest.mark.parametrize(
    ("length_um", "text"),
    [(0.5, "500 nm"), (1, "1 µm"), (200, "200 µm"), (1000, "1 mm"), (50_000, "5 cm")],
)
def test_lengths_are_written_in_their_usual_unit(length_um, text):
    assert length_text(length_um) == text


def _longest_bright_run(row):
    edges = np.flatnonzero(np.diff(np.r_[False, row, False]))
    return max((edges[1::2] - edges[::2]).tolist(), default=0)


@pytest.mark.parametrize(
    ("width_um", "height_um"), [(8000.0, 8000.0), (700.0, 350.0), (90.0, 300.0)]
)
def test_the_scale_bar_has_its_length_in_pixels(width_um, height_um):
    figure, (panel,) = black_panels(
        (width_um, height_um), titles=[""], panel_width_in=4.0, legends=[False]
    )
    draw_scale_bar(panel, extent_um=width_um)
    picture = np.asarray(Image.open(io.BytesIO(png_bytes(figure))).convert("L"))
    drawn = max(_longest_bright_run(row > 200) for row in picture)
    panel_px = panel.axes.get_position().width * figure.get_figwidth() * DPI
    expected = nice_length_um(width_um) / width_um * panel_px
    assert drawn == pytest.approx(expected, abs=1.5)


def test_flat_volumes_are_stacked_and_tall_ones_made_narrower():
    flat, _ = black_panels((1000.0, 100.0), titles="ab", panel_width_in=4.0, legends=[False] * 2)
    square, _ = black_panels((100.0, 100.0), titles="ab", panel_width_in=4.0, legends=[False] * 2)
    tall, _ = black_panels((100.0, 1000.0), titles="ab", panel_width_in=4.0, legends=[False] * 2)
    assert flat.get_figwidth() < square.get_figwidth()
    assert tall.get_figheight() < 8


def test_pixels_are_square_in_every_panel():
    for extent in [(1000.0, 100.0), (100.0, 100.0), (100.0, 1000.0)]:
        figure, panels = black_panels(
            extent, titles="ab", panel_width_in=4.0, legends=[True, False]
        )
        for panel in panels:
            box = panel.axes.get_position()
            aspect = (box.height * figure.get_figheight()) / (box.width * figure.get_figwidth())
            assert aspect == pytest.approx(extent[1] / extent[0])


@pytest.mark.parametrize(("count", "rows"), [(2, 1), (3, 1), (4, 2), (7, 3)])
def test_panels_wrap_without_overlap(count, rows):
    _, panels = black_panels(
        (100.0, 80.0),
        titles=[""] * count,
        panel_width_in=2.0,
        legends=[i == 2 for i in range(count)],
        most_in_a_row=3,
    )
    boxes = [panel.axes.get_position() for panel in panels]
    assert len({round(box.y0, 6) for box in boxes}) == rows
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1 and box.y1 <= 1
        assert not any(box.overlaps(other) for other in boxes[:i])
    # In the order of reading.
    places = [(-round(box.y0, 6), box.x0) for box in boxes]
    assert places == sorted(places)


def test_the_same_figure_gives_the_same_bytes():
    density = Volume(np.arange(64.0).reshape(8, 8), (5.0, 5.0))
    assert png_bytes(ulm_density(density)) == png_bytes(ulm_density(density))


@pytest.mark.parametrize("high", [0.3, 0.6, 0.93, 1.0, 18.6, 23.4, 870.0])
@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_numbers_beside_a_color_bar_stand_at_their_colors(high, exponent):
    norm = Normalize(0.0, high, clip=True)
    if exponent != 1:
        norm = PowerNorm(exponent, 0.0, high, clip=True)
    figure, (panel,) = black_panels((1.0, 1.0), titles=[""], panel_width_in=4.0, legends=[True])
    draw_color_bar(panel, cmap=colors.RADIUS, norm=norm, label="radius", extend="max")
    figure.canvas.draw()
    bar = figure.axes[-1]
    numbers = [float(text.get_text()) for text in bar.get_yticklabels()]
    assert len(numbers) >= 3 and numbers[0] == 0 and numbers[-1] <= high
    if high in {0.3, 0.6, 1.0}:
        assert numbers[-1] == high
    heights = [bar.transData.transform((0, number))[1] for number in numbers]
    bottom, top = (bar.transData.transform((0, end))[1] for end in (0.0, high))
    shares = (np.array(heights) - bottom) / (top - bottom)
    np.testing.assert_allclose(shares, (np.array(numbers) / high) ** exponent, atol=0.01)
    labels = [text.get_window_extent() for text in bar.get_yticklabels()]
    assert all(lower.y1 < upper.y0 for lower, upper in itertools.pairwise(labels))
