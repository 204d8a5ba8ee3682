"""UFF files are written by the format's own Python package, and compared value by value."""

import h5py
import numpy as np
import pytest

from vasculome.errors import UserError
from vasculome.readers.iq import open_iq
from vasculome.readers.rf import open_rf

pyuff = pytest.importorskip("pyuff_ustb")

T, A, E, S = 4, 3, 6, 20
ANGLES = (-0.1, 0.0, 0.2)


def _rf(n_elements=E, n_waves=A, n_frames=T):
    """Return RF as the package sees it, [time, channel, wave, frame]."""
    rng = np.random.default_rng(2)
    return rng.normal(size=(S, n_elements, n_waves, n_frames)).astype(np.float32)


def _plane(azimuth, elevation=0.0, *, delay=0.0, kind=None, distance=np.inf):
    return pyuff.Wave(
        wavefront=pyuff.Wavefront.plane if kind is None else kind,
        source=pyuff.Point(distance=distance, azimuth=azimuth, elevation=elevation),
        origin=pyuff.Point(),
        apodization=pyuff.Apodization(),
        delay=delay,
    )


def _probe(n=E, pitch=3e-4):
    return pyuff.LinearArray(N=n, pitch=pitch, element_width=2.7e-4, origin=pyuff.Point())


def _pulse(fractional_bandwidth=0.6):
    return pyuff.Pulse(
        center_frequency=5e6,
        fractional_bandwidth=fractional_bandwidth,
        phase=0.0,
        waveform=np.zeros(3),
    )


def _write(path, data, *, at="channel_data", **changes):
    known = {
        "sampling_frequency": 20e6,
        "initial_time": 2e-6,
        "sound_speed": 1540.0,
        "modulation_frequency": 0.0,
        "probe": _probe(),
        "sequence": [_plane(angle, delay=1e-7 * n) for n, angle in enumerate(ANGLES)],
        "pulse": _pulse(),
        "data": data,
    }
    channel_data = pyuff.ChannelData(**(known | changes))
    channel_data.write(str(path), at, ignore_missing_compulsory_fields=True)
    return path


def test_rf_with_its_sequence(tmp_path):
    data = _rf()
    raw = open_rf(_write(tmp_path / "a.uff", data))
    assert raw.shape == (T, A, E, S)
    expected = data.transpose(3, 2, 1, 0)
    np.testing.assert_array_equal(raw.read(0, T), expected)
    np.testing.assert_array_equal(raw.read(1, 3), expected[1:3])
    of = raw.sequence
    assert (of.wave, of.ndim, of.is_baseband) == ("plane", 2, False)
    np.testing.assert_allclose(of.elements_um[:, 1], (np.arange(E) - 2.5) * 300, atol=1e-9)
    np.testing.assert_allclose(of.elements_um[:, 0], 0)
    np.testing.assert_allclose(of.wave_values, np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1))
    np.testing.assert_allclose(of.start_time_s, [2e-6, 2.1e-6, 2.2e-6])
    assert (of.sampling_frequency_hz, of.center_frequency_hz) == (20e6, 5e6)
    assert (of.bandwidth_hz, of.speed_of_sound_m_s) == (3e6, 1540.0)
    assert of.element_width_um == pytest.approx(270)


@pytest.mark.parametrize("n_frames", [1, 3])
def test_a_single_wave_is_not_in_a_list(tmp_path, n_frames):
    data = _rf(n_waves=1, n_frames=n_frames)
    # As MATLAB, the writer is given no trailing axes of length 1.
    given = data if n_frames > 1 else data[..., 0, 0]
    raw = open_rf(_write(tmp_path / "a.uff", given, sequence=_plane(0.3)))
    assert raw.shape == (n_frames, 1, E, S)
    np.testing.assert_array_equal(raw.read(0, n_frames), data.transpose(3, 2, 1, 0))


def test_phase_of_baseband_data_is_counted_from_time_zero(tmp_path):
    # A carrier that is 1 at time 0 of each wave; UFF mixes down on the clock of the record, which
    # starts a delay later.
    delays, carrier_hz = 1e-7 * np.arange(A), 5e6
    written = np.broadcast_to(np.exp(2j * np.pi * carrier_hz * delays)[:, None], (S, E, A, T))
    path = _write(tmp_path / "a.uff", written.astype(np.complex64), modulation_frequency=carrier_hz)
    raw = open_rf(path)
    assert raw.sequence.is_baseband
    assert raw.sequence.center_frequency_hz == carrier_hz
    block = raw.read(0, T)
    assert block.dtype == np.complex64
    np.testing.assert_allclose(block, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("pulse", "bandwidth_hz"), [(_pulse(), 3e6), (_pulse(np.nan), None), (None, None)]
)
def test_bandwidth_of_baseband_data_is_that_of_the_pulse(tmp_path, pulse, bandwidth_hz):
    data = _rf() + 0j
    path = _write(tmp_path / "a.uff", data, modulation_frequency=5e6, pulse=pulse)
    assert open_rf(path).sequence.bandwidth_hz == bandwidth_hz


@pytest.mark.parametrize("kind", [None, pyuff.Wavefront.spherical])
def test_a_line_stays_a_line_whatever_sines_round_to(tmp_path, kind):
    # tan and arctan of a source in the plane give 1e-17 for 0.
    distance = np.inf if kind is None else -0.01
    waves = [_plane(a, 1e-17, kind=kind, distance=distance) for a in ANGLES]
    assert open_rf(_write(tmp_path / "a.uff", _rf(), sequence=waves)).sequence.ndim == 2
    waves[1] = _plane(0.0, 1e-3, kind=kind, distance=distance)
    assert open_rf(_write(tmp_path / "b.uff", _rf(), sequence=waves)).sequence.ndim == 3


def test_diverging_waves_of_a_matrix_array(tmp_path):
    probe = pyuff.MatrixArray(pitch_x=3e-4, pitch_y=3e-4, N_x=2, N_y=2, origin=pyuff.Point())
    source = pyuff.Point()
    source.xyz = (1e-3, -2e-3, -5e-3)
    wave = _plane(0.0)
    wave.wavefront, wave.source = pyuff.Wavefront.spherical, source
    path = _write(tmp_path / "a.uff", _rf(4, 1), probe=probe, sequence=wave)
    of = open_rf(path).sequence
    assert (of.wave, of.ndim) == ("diverging", 3)
    np.testing.assert_allclose(of.wave_values, [[-5000, -2000, 1000]], atol=1e-6)
    np.testing.assert_allclose(of.elements_um[1], [0, -150, 150], atol=1e-9)


def test_a_spherical_wave_from_infinity_is_plane(tmp_path):
    wave = _plane(0.1, 0.2, kind=pyuff.Wavefront.spherical)
    of = open_rf(_write(tmp_path / "a.uff", _rf(n_waves=1), sequence=wave)).sequence
    assert of.wave == "plane"
    expected = [np.cos(0.1) * np.cos(0.2), np.sin(0.2), np.sin(0.1) * np.cos(0.2)]
    np.testing.assert_allclose(of.wave_values, [expected])


def test_files_of_a_session_are_joined(tmp_path):
    data = _rf()
    for n in (9, 10):
        _write(tmp_path / f"block_{n}.uff", data)
    raw = open_rf(tmp_path)
    expected = data.transpose(3, 2, 1, 0)
    np.testing.assert_array_equal(raw.read(2, 6), np.concatenate([expected[2:], expected[:2]]))
    _write(tmp_path / "block_11.uff", data, sound_speed=1480.0)
    with pytest.raises(UserError, match="another speed_of_sound_m_s"):
        open_rf(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling_frequency": None}, "has no sampling_frequency"),
        ({"pulse": None}, "has no pulse"),
        ({"sequence": None}, "has no sequence"),
        ({"modulation_frequency": 5e6}, "is real, but its modulation_frequency"),
        ({"sequence": [_plane(0.0)] * 2}, "3 transmits along axis a, the sequence has 2"),
        ({"probe": _probe(7)}, "6 elements along axis e, the sequence has 7"),
        (
            {"sequence": _plane(0.0, kind=pyuff.Wavefront.spherical, distance=0.03)},
            "neither plane nor diverging",
        ),
        ({"sequence": _plane(0.0, kind=pyuff.Wavefront.photoacoustic)}, "neither plane"),
        ({"sound_speed": 0.0}, "speed_of_sound_m_s is 0"),
        ({"sampling_frequency": 20.0}, "sampling_frequency_hz is 20 .*in Hz"),
        ({"initial_time": 2.0}, "start_time_s is 2 .*in seconds"),
        ({"initial_time": np.nan}, "start_time_s: some values are not finite"),
        (
            {"sequence": [_plane(a) for a in (0.0, np.nan, 0.1)]},
            "waves: some values are not finite",
        ),
        ({"pulse": _pulse(0.0)}, "a fractional_bandwidth of 0"),
        ({"pulse": _pulse(np.nan)}, "a fractional_bandwidth of nan"),
        ({"pulse": _pulse(60.0)}, "a fractional_bandwidth of 60"),
        ({"probe": _probe(pitch=0.3)}, "do not fit a wavelength .*or metres in UFF"),
    ],
)
def test_files_that_cannot_be_beamformed(tmp_path, changes, message):
    path = _write(tmp_path / "a.uff", _rf(), **changes)
    with pytest.raises(UserError, match=message) as error:
        open_rf(path)
    assert error.value.where == str(path)
    assert "\n" not in str(error.value)


def test_what_else_is_in_the_file(tmp_path):
    path = _write(tmp_path / "a.uff", _rf())
    with pytest.raises(UserError, match=r"no complex array.*channel_data.*uff\.channel_data"):
        open_iq(path, axes="tzx")
    with pytest.raises(UserError, match="carries its own sequence"):
        open_rf(path, sequence_file=tmp_path / "sequence.yaml")
    with pytest.raises(UserError, match=r"no channel data 'other'; it has channel_data"):
        open_rf(path, variable="other")
    _write(path, _rf(), at="second")
    with pytest.raises(UserError, match="several channel data: channel_data, second"):
        open_rf(path)
    assert open_rf(path, variable="second").shape == (T, A, E, S)


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_truncated_files(tmp_path, keep):
    path = _write(tmp_path / "a.uff", _rf())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError) as error:
        open_rf(path)
    assert error.value.where == str(path)


Z_M, X_M = 0.01 + 1e-4 * np.arange(5), 2e-4 * np.arange(3) - 2e-4


def _images(n_frames=T):
    """Return images (t, z, x), and as UFF has them: [pixel, channel, wave, frame], z first."""
    rng = np.random.default_rng(4)
    images = (rng.normal(size=(n_frames, 5, 3)) + 1j * rng.normal(size=(n_frames, 5, 3))).astype(
        np.complex64
    )
    return images, images.transpose(2, 1, 0).reshape(15, 1, 1, n_frames)


def _write_images(path, data, **scan):
    axes = {"z_axis": Z_M, "x_axis": X_M} | scan
    beamformed = pyuff.BeamformedData(
        scan=pyuff.LinearScan(**axes),
        data=data,
        pulse=_pulse(),
    )
    beamformed.write(str(path), "b_data", ignore_missing_compulsory_fields=True)
    return path


@pytest.mark.parametrize("n_frames", [1, T])
@pytest.mark.parametrize("writer", ["Python", "MATLAB"])
def test_beamformed_data(tmp_path, writer, n_frames):
    images, pixels = _images(n_frames)
    # MATLAB's axes are reversed in the file; the Python package stores what it is given.
    given = pixels if writer == "Python" else pixels.T
    raw = open_iq(_write_images(tmp_path / "b.uff", given), axes="tzx")
    assert raw.shape == (n_frames, 5, 3)
    np.testing.assert_array_equal(raw.read(0, n_frames), images)
    np.testing.assert_array_equal(raw.read(n_frames - 1, n_frames), images[-1:])
    assert raw.metadata["spacing_um"] == pytest.approx((100.0, 200.0))
    assert raw.metadata["center_frequency_hz"] == (5e6,)


def test_beamformed_data_that_are_ambiguous(tmp_path):
    _, pixels = _images()
    path = _write_images(tmp_path / "a.uff", pixels)
    with pytest.raises(UserError, match="axes are 'zxt', but"):
        open_iq(path, axes="zxt")
    with pytest.raises(UserError, match=r"has no uff\.channel_data; it has b_data"):
        open_rf(path)
    _, pixels = _images(15)
    with pytest.raises(UserError, match=r"of shape \(15, 1, 1, 15\) for 15 pixels"):
        open_iq(_write_images(tmp_path / "b.uff", pixels), axes="tzx")
    with pytest.raises(UserError, match=r"of shape \(15, 2, 1, 4\)"):
        open_iq(_write_images(tmp_path / "c.uff", np.repeat(_images()[1], 2, 1)), axes="tzx")
    with pytest.raises(UserError, match="uneven steps"):
        open_iq(_write_images(tmp_path / "d.uff", _images()[1], z_axis=Z_M**2), axes="tzx")


def test_beamformed_data_on_another_scan(tmp_path):
    path = _write_images(tmp_path / "a.uff", _images()[1])
    with h5py.File(path, "r+") as file:
        file["b_data/scan"].attrs["class"] = "uff.sector_scan"
    with pytest.raises(UserError, match=r"on a uff\.sector_scan"):
        open_iq(path, axes="tzx")
