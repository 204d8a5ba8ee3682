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
