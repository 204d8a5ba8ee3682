import numpy as np
import pytest

from vasculome.report.psf_charts import psf


def kept(axes=2, bands=3, **changed):
    line = np.exp(-0.5 * np.arange(-2, 3) ** 2)
    echo = np.outer(line, line) if axes == 2 else np.multiply.outer(np.outer(line, line), line)
    widths = {2: [60.0, 80.0], 3: [60.0, 90.0, 80.0]}[axes]
    return {
        "echoes": np.stack([echo * np.exp(1j)] * bands),
        "depth_um": 1000.0 * np.arange(1, bands + 1),
        "spacing_um": np.full(axes, 50.0),
        "wavelength_um": np.array(100.0),
        "fwhm_um": np.tile(widths, (bands, 1)),
        "bubbles": 10 * np.arange(1, bands + 1),
    } | changed


def panels(figure):
    return [axes for axes in figure.axes if axes.images and axes.get_xlabel()]


def test_the_envelope_is_in_decibels_below_the_middle():
    first = panels(psf(kept()))[0]
    (image,) = first.images
    shown = image.get_array()
    # A Gaussian of one pixel: 4.34 dB a pixel from the middle, 17.4 dB two, 34.7 dB in the corner.
    np.testing.assert_allclose(shown[2], [-17.37, -4.343, 0, -4.343, -17.37], atol=0.01)
    assert shown[0, 0] == pytest.approx(-30)
    assert image.get_extent() == [-125, 125, 125, -125]


def test_each_depth_has_its_place_its_bubbles_and_its_width():
    drawn = panels(psf(kept()))
    assert len(drawn) == 3
    for number, axes in enumerate(drawn, start=1):
        title = axes.get_title(loc="left")
        assert f"{number} mm below" in title and f"{10 * number} bubbles" in title
        assert "axial 60 µm = 0.60 λ" in axes.get_xlabel()
        assert "lateral 80 µm = 0.80 λ" in axes.get_xlabel()
        (ellipse,) = axes.patches
        assert (ellipse.width, ellipse.height) == (80, 60)


def test_of_a_volume_both_planes_through_the_middle_are_drawn():
    drawn = panels(psf(kept(axes=3, bands=2)))
    assert len(drawn) == 4
    widths = [axes.patches[0].width for axes in drawn]
    assert widths == [80, 80, 90, 90]
    assert "elevation 90 µm" in drawn[-1].get_xlabel()


def test_a_width_that_is_not_known_is_said():
    nothing = np.array([[60.0, np.nan]])
    (axes,) = panels(psf(kept(bands=1, fwhm_um=nothing)))
    assert "lateral wider than shown" in axes.get_xlabel()
    assert not axes.patches


def test_of_many_depths_some_are_drawn_from_all_over():
    drawn = panels(psf(kept(bands=12)))
    assert len(drawn) == 5
    assert "1 mm" in drawn[0].get_title(loc="left") and "12 mm" in drawn[-1].get_title(loc="left")


def test_an_echo_for_all_depths_is_one():
    one = kept(bands=1)
    del one["bubbles"]
    assert panels(psf(one))[0].get_title(loc="left") == "all depths"
