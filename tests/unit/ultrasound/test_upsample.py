"""Frames on finer pixels, against functions that are known between the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from vasculome.ultrasound.correlate import correlation_map
from vasculome.ultrasound.psf import DepthPsf
from vasculome.ultrasound.psf_gaussian import gaussian_psf
from vasculome.ultrasound.upsample import echo_turn, upsample, upsample_psf


@pytest.mark.parametrize("shape", [(12, 9), (8, 7, 10)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_waves_are_known_between_pixels(shape, factor):
    rng = np.random.default_rng(0)
    factors = (factor, *[2] * (len(shape) - 1))

    def field(positions):
        """Some waves of up to half a cycle a pixel that repeat with the frame."""
        waves = np.random.default_rng(1)
        total = 0
        for _ in range(6):
            cycles = [int(waves.integers(-((n - 1) // 2), (n - 1) // 2 + 1)) for n in shape]
            phase = sum(
                2 * np.pi * k * p / n for k, p, n in zip(cycles, positions, shape, strict=True)
            )
            total = total + waves.normal() * np.exp(1j * phase)
        return total

    frame = field(np.indices(shape))
    frames = np.stack([frame, rng.normal() * frame])
    fine = upsample(frames, factors, turn_rad=(0.0,) * len(shape))
    places = np.meshgrid(
        *[np.arange(f * (n - 1) + 1) / f for f, n in zip(factors, shape, strict=True)],
        indexing="ij",
    )
    expected = field(places)
    assert fine.dtype == np.complex64 and fine.shape == (2, *expected.shape)
    np.testing.assert_allclose(fine[0], expected, atol=1e-5)
    # The pixels that were there are as they were.
    kept = fine[(slice(None), *(slice(None, None, f) for f in factors))]
    np.testing.assert_allclose(kept, frames, atol=1e-5)


def test_real_frames_stay_real():
    frames = np.random.default_rng(0).normal(size=(2, 8, 6))
    fine = upsample(frames, (2, 2), turn_rad=(0.0, 0.0))
    assert abs(fine.imag).max() < 1e-6
    np.testing.assert_allclose(fine[:, ::2, ::2].real, frames, atol=1e-5)


def _echo(position_px, sigma_px, turn, shape, step=1.0):
    """A Gaussian echo around a position, with the carrier ``turn`` radians a pixel in depth."""
    axes = np.meshgrid(*[np.arange(n) * step for n in shape], indexing="ij")
    away = [a - p for a, p in zip(axes, position_px, strict=True)]
    envelope = np.exp(-0.5 * sum((d / s) ** 2 for d, s in zip(away, sigma_px, strict=True)))
    return envelope * np.exp(1j * turn * away[0])


@pytest.mark.parametrize("turn", [0.0, 1.5, 3.0, -2.5])
def test_an_echo_keeps_its_shape_whatever_its_carrier(turn):
    """A carrier near half a cycle a pixel would be torn in two by zeros in the middle."""
    where, sigma = (15.3, 14.6), (1.1, 1.3)
    coarse = _echo(where, sigma, turn, (32, 32))
    fine = upsample(coarse[None], (2, 2), turn_rad=(turn, 0.0))[0]
    expected = _echo(where, sigma, turn, (63, 63), step=0.5)
    np.testing.assert_allclose(abs(fine), abs(expected), atol=3e-3)
    np.testing.assert_allclose(fine, expected, atol=3e-3)


def test_the_carrier_of_an_echo_is_found():
    psf = gaussian_psf(fwhm_px=(2.5, 2.0), half_width=3, turn_rad=2.9)
    assert echo_turn(psf) == pytest.approx((2.9, 0.0), abs=1e-5)


def test_the_fine_echo_fits_fine_frames():
    """Correlation of finer frames with the finer echo peaks where the bubble is, near 1."""
    turn, sigma = 2.0, (1.0, 1.1)
    fwhm = [s * 2.3548 for s in sigma]
    psf = gaussian_psf(fwhm_px=fwhm, half_width=2, turn_rad=turn)
    psf = DepthPsf(np.array([4.0, 20.0]), np.concatenate([psf.echoes, psf.echoes]))
    fine_psf = upsample_psf(psf, (2, 2))
    assert fine_psf.echoes.shape == (2, 9, 9)
    assert fine_psf.depth_px.tolist() == [8.0, 40.0]
    coarse = _echo((12.5, 15.0), sigma, turn, (26, 30))[None]
    fine = upsample(coarse, (2, 2), turn_rad=echo_turn(psf))
    seen = abs(correlation_map(fine, fine_psf))[0]
    assert np.unravel_index(seen.argmax(), seen.shape) == (25, 30)
    assert seen.max() > 0.995
    # On the coarse pixels there is no middle, and none that looks so much like an echo.
    assert abs(correlation_map(coarse.astype(np.complex64), psf)).max() < 0.97


@pytest.mark.parametrize("factors", [(2,), (2, 0), (1, 2, 2)])
def test_factors_must_fit(factors):
    with pytest.raises(ValueError, match="do not fit"):
        upsample(np.zeros((1, 4, 4)), factors, turn_rad=(0.0,) * len(factors))
