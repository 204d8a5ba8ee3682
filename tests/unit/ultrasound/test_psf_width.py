import numpy as np
import pytest

from vasculome.ultrasound.psf import given_psf
from vasculome.ultrasound.psf_gaussian import axial_turn, gaussian_psf
from vasculome.ultrasound.psf_width import fwhm_px


@pytest.mark.parametrize("fwhm", [(2.0, 2.5), (3.1, 1.5), (2.0, 2.4, 3.0)])
@pytest.mark.parametrize("turn", [0.0, 1.3])
def test_a_gaussian_is_as_wide_as_asked_for(fwhm, turn):
    psf = gaussian_psf(fwhm_px=fwhm, half_width=4, turn_rad=turn)
    assert psf.echoes.shape == (1, *(9,) * len(fwhm))
    np.testing.assert_allclose(fwhm_px(psf), [fwhm], rtol=0.03)
    # By its definition, half a width from the middle it has fallen to a half.
    line = np.abs(psf.echoes[0][(slice(None), *(4,) * (len(fwhm) - 1))])
    np.testing.assert_allclose(line / line[4], 0.5 ** (np.arange(-4, 5) * 2 / fwhm[0]) ** 2, 1e-3)


def test_the_width_is_that_of_each_depth_and_axis():
    away = np.arange(-5, 6)
    lines = [np.maximum(0, 1 - np.abs(away) / n) for n in (2, 3, 4)]
    echoes = np.stack([np.outer(lines[0], lines[1]), np.outer(lines[0], lines[2])])
    found = fwhm_px(given_psf(echoes, depth_px=[3, 9]))
    # Triangles of base 2 n are n wide; a spline rounds their tips.
    np.testing.assert_allclose(found, [[2, 3], [2, 4]], rtol=0.05)


def test_an_echo_that_does_not_fall_to_a_half_has_no_width():
    width = fwhm_px(gaussian_psf(fwhm_px=(2.0, 7.0), half_width=2))
    assert width[0, 0] == pytest.approx(2, rel=0.03)
    assert np.isnan(width[0, 1])
    lopsided = np.exp(-0.5 * np.arange(-3, 4.0) ** 2)
    lopsided[4:] = 0.9
    assert np.isnan(fwhm_px(given_psf(np.outer(lopsided, np.ones(3))))).all()


@pytest.mark.parametrize("turn", [0.0, 0.8, -2.5])
def test_the_carrier_is_found_whatever_the_phases_of_the_bubbles(turn):
    rng = np.random.default_rng(0)
    echo = gaussian_psf(fwhm_px=(3.0, 3.0), half_width=4, turn_rad=turn).echoes[0]
    frames = 0.02 * rng.normal(size=(20, 30, 30, 2)).view(complex)[..., 0]
    for frame in frames:
        z, x = rng.integers(0, 21, 2)
        frame[z : z + 9, x : x + 9] += echo * np.exp(2j * np.pi * rng.random())
    assert axial_turn(frames) == pytest.approx(turn, abs=0.03)
