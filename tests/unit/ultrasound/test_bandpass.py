import numpy as np
import pytest
from scipy.signal import butter, filtfilt, freqz_zpk, lfilter

from vasculome.ultrasound import bandpass as bandpass_module
from vasculome.ultrasound.bandpass import bandpass


def tones(frequencies_hz, n_frames, rate_hz):
    t = np.arange(n_frames) / rate_hz
    return np.exp(2j * np.pi * np.outer(t, frequencies_hz)).astype(np.complex64)[:, :, None]


@pytest.mark.parametrize("shape", [(120, 6, 7), (120, 3, 4, 5)])
@pytest.mark.parametrize("causal", [False, True])
def test_equals_the_transfer_function_form(shape, causal):
    rng = np.random.default_rng(0)
    iq = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    b, a = butter(2, [50, 249], btype="bandpass", fs=1000)
    expected = lfilter(b, a, iq, axis=0) if causal else filtfilt(b, a, iq, axis=0)
    filtered = bandpass(iq, frame_rate_hz=1000, causal=causal)
    assert filtered.dtype == np.complex64
    inner = slice(None) if causal else slice(30, 90)
    np.testing.assert_allclose(filtered[inner], expected[inner], atol=2e-3)


@pytest.mark.parametrize("causal", [False, True])
def test_tones_of_both_signs_pass_as_the_prototype_says(causal):
    rate, n = 500.0, 4000
    tone_hz = np.array([2.0, 10, 25, 60, 110, -60, -10, 180])
    z, p, k = butter(2, [25, 110], btype="bandpass", fs=rate, output="zpk")
    gain = np.abs(freqz_zpk(z, p, k, worN=np.abs(tone_hz), fs=rate)[1]) ** (1 if causal else 2)
    filtered = bandpass(
        tones(tone_hz, n, rate), frame_rate_hz=rate, low_hz=25, high_hz=110, causal=causal
    )
    middle = filtered[1000:3000, :, 0]
    np.testing.assert_allclose(np.abs(middle).mean(axis=0), gain, atol=2e-3)
    assert gain[2] == pytest.approx(0.5 if not causal else 0.5**0.5, abs=1e-6)  # at the edge
    if not causal:  # nothing is delayed
        turn = np.angle(middle[:, 3] / tones(tone_hz, n, rate)[1000:3000, 3, 0])
        assert np.abs(turn).max() < 1e-3


def test_pieces_make_no_difference(monkeypatch):
    rng = np.random.default_rng(1)
    iq = (rng.normal(size=(60, 9, 8)) + 0j).astype(np.complex64)
    whole = bandpass(iq, frame_rate_hz=1000)
    monkeypatch.setattr(bandpass_module, "_PIECE_SAMPLES", 60 * 7)
    assert bandpass(iq, frame_rate_hz=1000).tobytes() == whole.tobytes()


def test_nonsense_is_refused():
    iq = np.ones((60, 4, 4), np.complex64)
    for band in ({"low_hz": 0}, {"high_hz": 500}, {"low_hz": 260}, {"order": 0}):
        with pytest.raises(ValueError, match="band"):
            bandpass(iq, frame_rate_hz=1000, **band)
    with pytest.raises(ValueError, match="complex"):
        bandpass(np.ones((60, 4, 4)), frame_rate_hz=1000)
    with pytest.raises(ValueError, match="finite"):
        bandpass(iq * np.nan, frame_rate_hz=1000)
    with pytest.raises(ValueError, match="frames"):
        bandpass(iq[:6], frame_rate_hz=1000)
