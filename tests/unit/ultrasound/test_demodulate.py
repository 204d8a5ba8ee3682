"""IQ against signals whose envelope and phase are known."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.ultrasound.demodulate import demodulate, free_bandwidth_hz

START_S = np.array([7.3e-6, 1.1e-6])


def _times(n, sampling_hz):
    return START_S[:, None, None] + np.arange(n) / sampling_hz


def _pulse(t, center_hz, middle_s):
    """Return a pulse with a slow envelope, and its baseband: envelope and phase from time 0."""
    envelope = 900 * np.exp(-(((t - middle_s) * 4e5) ** 2))
    return envelope * np.cos(2 * np.pi * center_hz * t + 0.7), envelope * np.exp(0.7j)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(20e6, 5e6), (62.5e6, 15.625e6), (20e6 / 3, 5e6), (11e6, 7.8e6)]),
    st.sampled_from([1, 2]),
)
def test_envelope_and_phase_come_out(frequencies, decimation):
    sampling_hz, center_hz = frequencies
    n = 801 if sampling_hz > 50e6 else 301
    t = _times(n, sampling_hz)
    # The same moment in the record of both transmits, at 40 % of it.
    rf, baseband = _pulse(t, center_hz, START_S[:, None, None] + 0.4 * n / sampling_hz)
    iq = demodulate(
        rf[None],
        sampling_frequency_hz=sampling_hz,
        center_frequency_hz=center_hz,
        bandwidth_hz=2.4e6,
        start_time_s=START_S,
        decimation=decimation,
    )
    assert iq.dtype == np.complex64
    assert iq.shape == (1, 2, 1, -(-n // decimation))
    assert np.abs(iq[0] - baseband[..., ::decimation]).max() < 900 * 0.01


def test_integers_are_read_as_numbers():
    rf = np.random.default_rng(0).integers(-3000, 3000, (2, 2, 3, 90), dtype=np.int16)
    known = {
        "sampling_frequency_hz": 20e6,
        "center_frequency_hz": 5e6,
        "bandwidth_hz": 4e6,
        "start_time_s": START_S,
    }
    np.testing.assert_array_equal(demodulate(rf, **known), demodulate(rf.astype(float), **known))


def test_low_pass_is_six_db_down_at_half_the_band_and_sixty_beyond():
    sampling_hz, center_hz, band_hz = 20e6, 5e6, 2e6
    t = _times(2000, sampling_hz)

    def gain(offset_hz):
        iq = demodulate(
            np.cos(2 * np.pi * (center_hz + offset_hz) * t)[None],
            sampling_frequency_hz=sampling_hz,
            center_frequency_hz=center_hz,
            bandwidth_hz=band_hz,
            start_time_s=START_S,
        )
        return np.abs(iq[0, 0, 0, 1000])

    assert gain(0.0) == pytest.approx(1, abs=0.002)
    assert gain(0.45e6) == pytest.approx(1, abs=0.002)
    assert gain(1e6) == pytest.approx(0.5, abs=0.01)
    assert gain(-1.55e6) < 2e-3


def test_agrees_with_the_hilbert_transform():
    t = _times(600, 40e6)
    rf, _ = _pulse(t, 6e6, START_S[:, None, None] + 7e-6)
    iq = demodulate(
        rf[None],
        sampling_frequency_hz=40e6,
        center_frequency_hz=6e6,
        bandwidth_hz=5e6,
        start_time_s=START_S,
    )
    analytic = scipy.signal.hilbert(rf, axis=-1) * np.exp(-2j * np.pi * 6e6 * t)
    assert np.abs(iq[0] - analytic).max() < 900 * 0.01


@pytest.mark.parametrize(
    ("sampling_hz", "center_hz", "room_hz"),
    [(20e6, 5e6, 10e6), (20e6 / 3, 5e6, 10e6 / 3), (10e6, 5e6, 0.0), (40e6, 5e6, 10e6)],
)
def test_room_between_band_and_image(sampling_hz, center_hz, room_hz):
    free = free_bandwidth_hz(sampling_frequency_hz=sampling_hz, center_frequency_hz=center_hz)
    assert free == pytest.approx(room_hz, abs=1)


@pytest.mark.parametrize(
    "change",
    [
        {"sampling_frequency_hz": 10e6},
        {"bandwidth_hz": 12e6},
        {"bandwidth_hz": 0.0},
        {"decimation": 5},
        {"start_time_s": np.zeros(3)},
    ],
)
def test_what_folds_back_is_refused(change):
    known = {
        "sampling_frequency_hz": 20e6,
        "center_frequency_hz": 5e6,
        "bandwidth_hz": 4e6,
        "start_time_s": START_S,
    }
    with pytest.raises(ValueError, match=r"does not fit|must be real"):
        demodulate(np.zeros((1, 2, 1, 100)), **(known | change))
