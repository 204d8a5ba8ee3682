import numpy as np
import pytest

from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import PointSpread, add_echoes

LAMBDA = 98.56
PSF = PointSpread(
    wavelength_um=LAMBDA, axial_sigma_um=60.0, lateral_sigma_um=70.0, lateral_growth=0.01
)


def table(position_um: np.ndarray) -> BubbleTable:
    n = len(position_um)
    return BubbleTable(
        track=np.zeros(n, np.int64),
        frame=np.arange(n),
        position_um=position_um,
        velocity_mm_s=np.zeros_like(position_um),
        amplitude=np.full(n, 1.5, np.float32),
    )


@pytest.mark.parametrize("ndim", [2, 3])
def test_echoes_match_their_formula(ndim: int) -> None:
    shape, spacing, origin = (
        (40, 30, 36)[-ndim:],
        (20.0, 30.0, 40.0)[-ndim:],
        (7.0, -5.0, 3.0)[-ndim:],
    )
    position = np.array([310.0, 433.0, 705.0])[-ndim:]
    iq = np.zeros((1, *shape), np.complex64)
    add_echoes(
        iq, table(position[None]), first_frame=0, spacing_um=spacing, psf=PSF, origin_um=origin
    )
    away = np.moveaxis(np.indices(shape), 0, -1) * spacing + np.array(origin) - position
    sigma = np.full(ndim, 70.0 + 0.01 * position[0])
    sigma[0] = 60.0
    expected = 1.5 * np.exp(-0.5 * ((away / sigma) ** 2).sum(axis=-1))
    expected = expected * np.exp(4j * np.pi * away[..., 0] / LAMBDA)
    reach = (np.abs(away) <= 3 * sigma).all(axis=-1)
    np.testing.assert_allclose(iq[0][reach], expected[reach], atol=1e-5)
    assert np.abs(iq[0][~reach]).max() == 0


def test_axial_motion_turns_the_phase_as_doppler_does() -> None:
    depth = 500 + 5.0 * np.arange(20)
    iq = np.zeros((20, 30, 30), np.complex64)
    position = np.stack([depth, np.full(20, 600.0)], axis=1)
    add_echoes(iq, table(position), first_frame=0, spacing_um=(40.0, 40.0), psf=PSF)
    turn = np.angle(iq[1:, 13, 15] * np.conj(iq[:-1, 13, 15]))
    np.testing.assert_allclose(turn, -4 * np.pi * 5.0 / LAMBDA, atol=1e-4)


def test_bubbles_beyond_the_frame_or_the_block_are_passed_over() -> None:
    iq = np.zeros((2, 20, 20), np.complex64)
    outside = np.tile([[-1e4, 5.0]], (5, 1))
    add_echoes(iq, table(outside), first_frame=1, spacing_um=(40.0, 40.0), psf=PSF)
    assert not iq.any()


def test_side_lobes_of_the_formula_are_those_of_a_sinc() -> None:
    aperture = LAMBDA  # wavelength times f-number
    psf = PointSpread(LAMBDA, 0.42 * LAMBDA, 0.51 * aperture, side_lobe=0.217)
    iq = np.zeros((1, 1, 401), np.complex64)
    centre = np.array([[0.0, 200.0 * LAMBDA / 20]])
    add_echoes(iq, table(centre), first_frame=0, spacing_um=(LAMBDA, LAMBDA / 20), psf=psf)
    x = (np.arange(401) - 200) / 20
    expected = 1.5 * np.sinc(x)  # the table's amplitude
    near = np.abs(x) < 1.9
    assert np.abs(iq[0, 0].real - expected)[near].max() < 0.15
    lobe = iq[0, 0].real[(x > 1) & (x < 2)]
    assert lobe.min() == pytest.approx(expected.min(), rel=0.1)
