import sys

import numpy as np
import pytest

from vasculome.errors import UserError
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import add_echoes
from vasculome.simulate.psf_pymust import LinearArray, MatrixArray, simulate_bank, simulate_echoes

LAMBDA = 98.56


def test_pymust_shows_resolution_side_lobes_and_the_bubble_where_it_is() -> None:
    pytest.importorskip("pymust")
    array = LinearArray(n_elements=64)
    bank = simulate_bank(array, depth_um=(2000.0, 3500.0))
    assert bank.echoes.shape == (2, 49, 49)
    for echo in np.abs(bank.echoes):
        assert np.unravel_index(echo.argmax(), echo.shape) == (24, 24)
        energy = echo**2 / (echo**2).sum()
        z, x = (np.indices(echo.shape) - 24) * np.array([1 / 8, 1 / 4])[:, None, None]
        # In wavelengths: the echo is where the scatterer is, and the same to both sides.
        assert abs((energy * z).sum()) < 0.01
        assert abs((energy * x).sum()) < 0.001
        # An aperture at f-number F is sinc(x / λF), 1.2 λF wide; elements hear the sides less.
        width = np.interp(-0.5, -echo[24, 24:], np.arange(25)) / 4 * 2
        assert 1.1 < width / array.f_number < 1.6
        side = echo[:, np.abs(x[0]) > 2].max()
        assert 0.03 < side < 0.217
    # Waves that come back at an angle turn the phase less than straight ones.
    assert 0.8 < bank.carrier_rad_um * array.wavelength_um / (4 * np.pi) < 1.0
    assert np.abs(bank.echoes[:, 0]).max() < 0.02


def test_stamps_agree_with_pymust_between_depths_and_pixels() -> None:
    pytest.importorskip("pymust")
    array = LinearArray(n_elements=64, angles_deg=(0.0,))
    pixel = LAMBDA / 2
    stamps = simulate_bank(array, depth_um=(3000.0, 4500.0)).stamps((pixel, pixel))
    depth = 3700.0
    bubble = BubbleTable(
        track=np.zeros(1, np.int64),
        frame=np.zeros(1, np.int64),
        position_um=np.array([[depth, 0.0]]),
        velocity_mm_s=np.zeros((1, 2)),
        amplitude=np.ones(1, np.float32),
    )
    z, x = depth + pixel * (np.arange(-5, 6) - 0.37), pixel * (np.arange(-10, 11) + 0.21)
    iq = np.zeros((1, 11, 21), np.complex64)
    add_echoes(
        iq,
        bubble,
        first_frame=0,
        spacing_um=stamps.spacing_um,
        psf=stamps,
        origin_um=(z[0], x[0]),
    )
    (truth,) = simulate_echoes(array, depth_um=[depth], offsets_um=(z - depth, x))
    truth /= simulate_echoes(array, depth_um=[depth], offsets_um=(np.zeros(1), np.zeros(1)))[0]
    reached = (np.abs(z - depth) < 2.2 * LAMBDA)[:, None] & (np.abs(x) < 4.4 * LAMBDA)
    # PyMUST itself interpolates channel data linearly, an error of a per cent of the peak.
    assert np.abs(iq[0] - truth)[reached].max() < 0.025
    assert np.linalg.norm((iq[0] - truth)[reached]) < 0.04 * np.linalg.norm(truth[reached])


def test_echoes_are_drawn_on_the_pixels_asked_and_widen_with_depth() -> None:
    pytest.importorskip("pymust")
    array = LinearArray(frequency_hz=15e6, n_elements=64, f_number=0.0, angles_deg=(0.0,))
    z, x = 50.0 * np.arange(-4, 5), 50.0 * np.arange(-8, 9)
    echoes = simulate_echoes(array, depth_um=(4000.0, 9000.0), offsets_um=(z, x))
    assert echoes.shape == (2, 9, 17)
    magnitude = np.abs(echoes)
    assert (magnitude == magnitude.max(axis=(1, 2), keepdims=True))[:, 4, 8].all()
    # The whole array is seen under a smaller angle from further away: wider along x.
    half = magnitude[:, 4, 9] / magnitude[:, 4, 8]
    assert half[1] > half[0] + 0.05
    # Two-way carrier, 4π dz/λ with λ = 102.7 µm, less what angles and bandwidth take away.
    turn = np.angle(echoes[1, 5, 8] * echoes[1, 4, 8].conj())
    assert turn == pytest.approx(4 * np.pi * 50 / 102.7 - 2 * np.pi, abs=0.3)


@pytest.mark.parametrize("angles", [(-2.0, 0.0, 2.0), (-1.0, 0.0, 2.0)])
def test_a_bank_is_the_echo_whether_or_not_its_sides_are_alike(angles) -> None:
    pytest.importorskip("pymust")
    array = LinearArray(n_elements=32, angles_deg=angles)
    assert array.is_symmetric == (sum(angles) == 0)
    bank = simulate_bank(array, depth_um=(2000.0,), reach_wavelengths=(1.0, 2.0))
    z, x = (s * np.arange(-6, 7) for s in bank.step_um)  # within what is not faded
    (echo,) = simulate_echoes(array, depth_um=(2000.0,), offsets_um=(z, x))
    kept = bank.echoes[0, 2:-2, 2:-2]
    np.testing.assert_allclose(kept, echo / echo[6, 6], atol=1e-3)
    assert not np.allclose(echo, echo[:, ::-1], atol=1e-3 * abs(echo[6, 6])) or array.is_symmetric


def test_pymust_simulates_a_matrix_array_too() -> None:
    pytest.importorskip("pymust")
    array = MatrixArray(n_elements=12, angles_deg=((2.0, 0.0), (0.0, 2.0)))
    bank = simulate_bank(array, depth_um=(3000.0,), reach_wavelengths=(1.5, 1.5))
    assert bank.echoes.shape == (1, 25, 13, 13)
    echo = np.abs(bank.echoes[0])
    assert np.unravel_index(echo.argmax(), echo.shape) == (12, 6, 6)
    # The array is square, and so are its waves: x and y are alike.
    np.testing.assert_allclose(echo, echo.swapaxes(1, 2), atol=0.02)
    assert (echo[12, 6] > 0.5).sum() / 4 == pytest.approx(1.5, abs=0.5)
    assert (echo[:, 6, 6] > 0.5).sum() / 8 == pytest.approx(1.1, abs=0.3)


def test_without_pymust_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymust", None)
    with pytest.raises(UserError, match="not installed"):
        simulate_bank(LinearArray(), depth_um=(2000.0,))
