import functools
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vasculome.report import colors, figures, panels
from vasculome.report.panels import png_bytes
from vasculome.report.projections import Volume

SPACING = (5.0, 5.0)


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    monkeypatch.setattr(panels, "DPI", 60)


@functools.cache
def _pixels(figure):
    return np.asarray(Image.open(io.BytesIO(png_bytes(figure))).convert("RGB"))


def _labels(figure):
    return [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]


def _colour_at(figure, x_um, y_um):
    """Colour that the first panel shows at a place of the sample."""
    pixels = _pixels(figure)
    axes = figure.axes[0]
    column, up = axes.transData.transform((x_um, y_um))
    return pixels[round(pixels.shape[0] - up), round(column)] / 255


def _plane(left, right, shape=(20, 40)):
    values = np.zeros(shape, np.float32)
    values[5:15, 5:15], values[5:15, 25:35] = left, right
    return Volume(values, SPACING)


LEFT, RIGHT, OUTSIDE = (50.0, 50.0), (150.0, 50.0), (100.0, 10.0)
DENSITY = _plane(10, 10)


@pytest.fixture(scope="module")
def vessels():
    rng = np.random.default_rng(0)
    mask = np.zeros((12, 24, 32), bool)
    mask[6, 12, :] = mask[:, 8, 16] = True
    image = 1000 * ndimage.gaussian_filter(mask.astype(np.float32), 1) + rng.random(mask.shape)
    spacing = (4.0, 2.0, 2.0)
    points = np.argwhere(mask) * spacing
    skeleton = figures.Skeleton(points, np.linspace(1, 4, len(points)), spacing)
    return (
        Volume(image.astype(np.uint16), spacing),
        Volume(mask.astype(np.uint8), spacing),
        skeleton,
    )


def test_overview_shows_three_panels_and_the_radius_scale(vessels):
    image, mask, skeleton = vessels
    figure = figures.microscopy_overview(image=image, mask=mask, skeleton=skeleton)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title for title in titles if title] == ["Image", "Vessel mask", "Skeleton"]
    assert _labels(figure) == ["radius (µm)"]
    pixels = _pixels(figure)
    assert pixels[0, 0].tolist() == [0, 0, 0]
    thirds = np.array_split(pixels.astype(float), 3, axis=1)
    assert all(third.std() > 5 for third in thirds)
    # Only the skeleton is in colour.
    assert np.ptp(thirds[0], axis=2).max() == 0
    assert np.ptp(thirds[2], axis=2).max() > 100


def test_overview_does_without_mask_and_skeleton(vessels):
    figure = figures.microscopy_overview(image=vessels[0], mask=None, skeleton=None)
    assert _labels(figure) == []
    assert _pixels(figure).max() > 200


def test_a_mask_of_another_level_lies_on_the_same_place(vessels):
    image, mask, _ = vessels
    coarse = Volume(mask.values.reshape(6, 2, 12, 2, 16, 2).max(axis=(1, 3, 5)), (8.0, 4.0, 4.0))
    figure = figures.microscopy_overview(image=image, mask=coarse, skeleton=None)
    mask_axes = next(a for a in figure.axes if a.get_title(loc="left") == "Vessel mask")
    pixels = _pixels(figure)
    column, up = mask_axes.transData.transform((50.0, 2.0 * 12 + 1))
    assert pixels[round(pixels.shape[0] - up), round(column)].min() > 100


def test_near_vessels_hide_far_ones_in_the_mask():
    values = np.zeros((10, 20, 20), np.uint8)
    values[0, 5:10, 5:15], values[9, 10:15, 5:15] = 1, 1
    mask = Volume(values, (1.0, 1.0, 1.0))
    figure = figures.microscopy_overview(image=mask, mask=mask, skeleton=None)
    mask_axes = next(a for a in figure.axes if a.get_title(loc="left") == "Vessel mask")
    pixels = _pixels(figure)
    shades = []
    for y in (7.5, 12.5, 2.0):
        column, up = mask_axes.transData.transform((10.0, y))
        shades.append(int(pixels[round(pixels.shape[0] - up), round(column), 0]))
    near, far, none = shades
    assert near > 250
    assert 30 < far < 80
    assert none == 0


def test_density_has_quantity_and_unit_and_the_value_has_its_colour():
    volume = Volume(np.full((3, 4, 5), 800.0), (50.0, 50.0, 50.0))
    volume.values[:, 2, 2] = 400.0
    figure = figures.density_figure(
        volume, title="Length density", label="length density (mm/mm³)", cmap=colors.LENGTH_DENSITY
    )
    assert _labels(figure) == ["length density (mm/mm³)"]
    half = colors.LENGTH_DENSITY(0.5)[:3]
    np.testing.assert_allclose(_colour_at(figure, 125.0, 125.0), half, atol=0.02)


def test_nothing_is_black_even_where_the_colours_begin_with_violet():
    volume = Volume(np.full((2, 4, 5), 3.0), (50.0, 50.0, 50.0))
    volume.values[:, 1, 1], volume.values[:, 2, 3] = 0.0, np.nan
    figure = figures.density_figure(volume, title="R", label="radius (µm)", cmap=colors.RADIUS)
    assert _colour_at(figure, 75.0, 75.0).max() == 0
    assert _colour_at(figure, 175.0, 125.0).max() == 0
    assert _colour_at(figure, 125.0, 125.0).max() > 0.5


def test_ulm_density_is_compressed_by_a_square_root():
    figure = figures.ulm_density(_plane(25, 100))
    assert _labels(figure) == ["microbubbles per pixel"]
    quarter = colors.DENSITY(0.5)[:3]
    np.testing.assert_allclose(_colour_at(figure, *LEFT), quarter, atol=0.02)
    np.testing.assert_allclose(_colour_at(figure, *OUTSIDE), colors.DENSITY(0.0)[:3], atol=0.02)


def test_power_doppler_stands_beside_in_decibels():
    doppler = Volume(np.array([[1.0, 0.1], [0.01, 0.0]]), (50.0, 100.0))
    figure = figures.ulm_density(DENSITY, power_doppler=doppler)
    assert _labels(figure) == ["power (dB)", "microbubbles per pixel"]
    shades = [_colour_at(figure, x, z)[0] for z, x in [(25, 50), (25, 150), (75, 50), (75, 150)]]
    np.testing.assert_allclose(shades, [1.0, 25 / 35, 15 / 35, 0.0], atol=0.02)


def test_speed_is_hue_and_density_is_brightness():
    figure = figures.ulm_speed(_plane(2, 20), density=DENSITY)
    assert _labels(figure) == ["speed (mm/s)"]
    slow, fast = _colour_at(figure, *LEFT), _colour_at(figure, *RIGHT)
    assert slow[2] > slow[0]
    assert fast[0] > fast[2]
    assert _colour_at(figure, *OUTSIDE).max() == 0
    rare = figures.ulm_speed(_plane(20, 20), density=_plane(1, 100))
    assert 0 < _colour_at(rare, *LEFT).max() < 0.5 * _colour_at(rare, *RIGHT).max()


@pytest.mark.parametrize(
    ("velocity_zx", "angle"), [((0, 3), 0), ((-3, 0), 90), ((0, -3), 180), ((3, 0), 270)]
)
def test_direction_has_the_colour_of_the_wheel(velocity_zx, angle):
    components = [_plane(v, v) for v in velocity_zx]
    figure = figures.ulm_direction(components, density=DENSITY)
    expected = colors.DIRECTION(angle)[:3]
    np.testing.assert_allclose(_colour_at(figure, *LEFT), expected, atol=0.02)


def test_the_wheel_shows_what_the_map_shows():
    figure = figures.ulm_direction([_plane(0, 0), _plane(1, 1)], density=DENSITY)
    wheel = figure.axes[-1]
    pixels = _pixels(figure)
    for angle in (0, 90, 180, 270):
        at = 0.75 * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
        column, up = wheel.transData.transform(at)
        shown = pixels[round(pixels.shape[0] - up), round(column)] / 255
        np.testing.assert_allclose(shown, colors.DIRECTION(angle)[:3], atol=0.05)


def test_axial_velocity_is_red_toward_the_probe():
    figure = figures.ulm_axial(_plane(-8, 8), density=DENSITY)
    toward, away = _colour_at(figure, *LEFT), _colour_at(figure, *RIGHT)
    assert toward[0] > toward[2]
    assert away[2] > away[0]
    assert "mm/s" in _labels(figure)[0]


@pytest.mark.parametrize("empty", [False, True])
def test_volumes_of_flow_are_drawn_in_three_views_even_when_empty(empty):
    rng = np.random.default_rng(0)
    shape, spacing = (8, 6, 10), (25.0, 25.0, 25.0)
    values = np.zeros(shape) if empty else rng.poisson(0.3, shape) * rng.random(shape)
    density = Volume(values, spacing)
    flow = [Volume(rng.normal(size=shape) * (values > 0), spacing) for _ in range(3)]
    speed = Volume(np.sqrt(sum(f.values**2 for f in flow)), spacing)
    for figure in (
        figures.ulm_density(density, power_doppler=density),
        figures.ulm_speed(speed, density=density),
        figures.ulm_direction(flow, density=density),
        figures.ulm_axial(flow[0], density=density),
    ):
        names = {text.get_text() for text in figure.axes[0].texts}
        assert {"xz", "yz", "xy"} <= names
        assert _pixels(figure).std() > 1
