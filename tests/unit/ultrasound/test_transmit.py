"""Wavefronts against geometry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.ultrasound.transmit import DivergingWaves, FiredElements, PlaneWaves

SPEED_M_S = 1500.0
LINE = np.stack([np.zeros(401), (np.arange(401) - 200) * 25.0], axis=1)


def _plane(angle_deg):
    return np.array([[np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))]])


def test_a_straight_wave_takes_depth_over_speed():
    arrival = PlaneWaves(np.array([[1.0, 0.0, 0.0]])).arrival_s(
        np.array([[3000.0, 50.0, -70.0]]), speed_of_sound_m_s=SPEED_M_S
    )
    assert arrival[0, 0] == pytest.approx(2e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(-20, 20), st.floats(3000, 9000), st.floats(-300, 300))
def test_fired_elements_make_the_plane_wave_of_their_delays(angle_deg, z_um, x_um):
    waves = PlaneWaves(_plane(angle_deg))
    delays = waves.arrival_s(LINE, speed_of_sound_m_s=SPEED_M_S)
    point = np.array([[z_um, x_um]])
    expected = waves.arrival_s(point, speed_of_sound_m_s=SPEED_M_S)
    found = FiredElements(LINE, delays).arrival_s(point, speed_of_sound_m_s=SPEED_M_S)
    # The wavelet of the nearest element is late by at most (pitch / 2)² / 2 z over the speed.
    late_s = found - expected
    assert -1e-15 <= late_s.item() < 1.1 * 12.5**2 / (2 * z_um) / (SPEED_M_S * 1e6) + 1e-15


def test_fired_elements_make_the_diverging_wave_of_their_delays():
    waves = DivergingWaves(np.array([[-3000.0, 400.0]]))
    delays = waves.arrival_s(LINE, speed_of_sound_m_s=SPEED_M_S)
    points = np.array([[6000.0, 100.0], [9000.0, -500.0]])
    np.testing.assert_allclose(
        FiredElements(LINE, delays).arrival_s(points, speed_of_sound_m_s=SPEED_M_S),
        waves.arrival_s(points, speed_of_sound_m_s=SPEED_M_S),
        atol=1e-11,
    )


def test_a_far_source_makes_a_plane_wave():
    direction = _plane(9.0)
    points = np.random.default_rng(0).uniform(0, 9000, (20, 2))
    np.testing.assert_allclose(
        DivergingWaves(-1e9 * direction).arrival_s(points, speed_of_sound_m_s=SPEED_M_S),
        PlaneWaves(direction).arrival_s(points, speed_of_sound_m_s=SPEED_M_S),
        atol=2e-10,
    )


def test_silent_elements_send_nothing():
    delays = np.full((1, 401), np.nan)
    delays[0, 200] = 3e-6
    arrival = FiredElements(LINE, delays).arrival_s(
        np.array([[1500.0, 0.0]]), speed_of_sound_m_s=SPEED_M_S
    )
    assert arrival.item() == pytest.approx(4e-6)


def test_impossible_waves_are_refused():
    with pytest.raises(ValueError, match="unit"):
        PlaneWaves(np.array([[1.0, 1.0]]))
    with pytest.raises(ValueError, match="converging"):
        DivergingWaves(np.array([[100.0, 0.0]]))
    with pytest.raises(ValueError, match="fires no element"):
        FiredElements(LINE, np.full((1, 401), np.nan))
    with pytest.raises(ValueError, match="do not fit"):
        FiredElements(LINE, np.zeros((1, 7)))


@pytest.mark.parametrize("focus_um", [[20000.0, 0.0], [25000.0, 6000.0], [16000.0, 2000.0]])
def test_first_arrivals_behind_a_focus_are_ahead_of_the_wave(focus_um):
    focus = np.array(focus_um)
    to_focus_um = np.linalg.norm(LINE - focus, axis=1)
    waves = FiredElements(LINE, (-to_focus_um / (SPEED_M_S * 1e6))[None])
    for factor in (0.5, 0.9, 1.5, 3.0):
        # On the line from the middle of the probe through the focus the wave is its own clock.
        wave_um = np.linalg.norm(focus) * (factor - 1)
        first_s = waves.arrival_s(factor * focus[None], speed_of_sound_m_s=SPEED_M_S).item()
        ahead_um = wave_um - first_s * SPEED_M_S * 1e6
        found_um = waves.first_arrival_lead_um(
            factor * focus_um[0], speed_of_sound_m_s=SPEED_M_S
        ).item()
        assert found_um == pytest.approx(ahead_um if factor > 1 else 0, rel=0.15, abs=1)


@pytest.mark.parametrize("fired", [range(401), range(100, 108), [7]])
@pytest.mark.parametrize("angle_deg", [0, 15])
def test_straight_waves_of_a_clock_have_no_focus(angle_deg, fired):
    exact_s = PlaneWaves(_plane(angle_deg)).arrival_s(LINE, speed_of_sound_m_s=SPEED_M_S)
    delays_s = np.full((1, 401), np.nan)
    delays_s[:, fired] = (np.round(exact_s / 16e-9) * 16e-9)[:, fired]
    ahead_um = FiredElements(LINE, delays_s).first_arrival_lead_um(
        1e5, speed_of_sound_m_s=SPEED_M_S
    )
    assert ahead_um.item() < 12  # an eighth of a wavelength at 15 MHz


def test_a_cylindrical_focus_of_a_matrix_array_is_found():
    line = (np.arange(16) - 7.5) * 300.0
    elements = np.stack([a.ravel() for a in np.meshgrid([0.0], line, line, indexing="ij")], axis=1)
    delays_s = -np.hypot(9000.0, elements[:, 1]) / (SPEED_M_S * 1e6)
    waves = FiredElements(elements, np.stack([delays_s, -delays_s, 0 * delays_s]))
    ahead_um = waves.first_arrival_lead_um(18000.0, speed_of_sound_m_s=SPEED_M_S)
    first_s = waves.arrival_s(np.array([[18000.0, 0.0, 0.0]]), speed_of_sound_m_s=SPEED_M_S)[0]
    assert ahead_um[0] == pytest.approx(9000.0 - first_s.item() * SPEED_M_S * 1e6, rel=0.1)
    np.testing.assert_array_equal(ahead_um[1:], 0)
