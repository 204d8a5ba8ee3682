"""Sequence files, keys and clocks, against geometry worked out by hand."""

import numpy as np
import pytest
import yaml

from vasculome.errors import UserError
from vasculome.readers.sequence_file import read_sequence
from vasculome.ultrasound.transmit import DivergingWaves, PlaneWaves

LINEAR = {
    "axes": "set",
    "n_elements": 3,
    "pitch_um": 200,
    "sampling_frequency_hz": 20e6,
    "center_frequency_hz": 5e6,
    "bandwidth_hz": 3e6,
    "speed_of_sound_m_s": 1500,
    "start_time_s": 2e-6,
    "angles_deg": 0,
}
MATRIX = LINEAR | {
    "n_elements": [2, 3],
    "pitch_um": [500, 200],
    "fastest_axis": "x",
    "angles_deg": [[0, 0]],
}


@pytest.fixture
def read(tmp_path):
    def _read(known=LINEAR, **changes):
        path = tmp_path / "sequence.yaml"
        content = {k: v for k, v in (known | changes).items() if v is not None}
        path.write_text(yaml.safe_dump(content))
        return read_sequence(path)

    return _read


def test_linear_array(read):
    found = read().sequence
    np.testing.assert_allclose(found.elements_um, [[0, -200], [0, 0], [0, 200]])
    np.testing.assert_allclose(found.wave_values, [[1, 0]])
    np.testing.assert_allclose(found.start_time_s, [2e-6])
    assert (found.wave, found.n_transmits, found.n_elements, found.ndim) == ("plane", 1, 3, 2)
    assert found.element_width_um is None


def test_numbers_may_be_written_without_a_point(tmp_path):
    path = tmp_path / "sequence.yaml"
    path.write_text(
        "axes: set\nn_elements: 3\npitch_um: 2e2\nsampling_frequency_hz: 20e6\n"
        "center_frequency_hz: 5e6\nbandwidth_hz: 3e6\nspeed_of_sound_m_s: 1500\n"
        "start_time_s: 2e-6\nangles_deg: [0]\n"
    )
    assert read_sequence(path).sequence.sampling_frequency_hz == 20e6


@pytest.mark.parametrize(
    ("fastest", "second"), [("x", [0.0, -250.0, 0.0]), ("y", [0.0, 250.0, -200.0])]
)
def test_matrix_array(read, fastest, second):
    found = read(MATRIX, fastest_axis=fastest).sequence
    assert found.elements_um.shape == (6, 3)
    np.testing.assert_allclose(found.elements_um[0], [0, -250, -200])
    np.testing.assert_allclose(found.elements_um[1], second)
    np.testing.assert_allclose(found.elements_um.mean(0), 0, atol=1e-12)


def test_listed_elements_and_those_of_a_table(read, tmp_path):
    rows = [[0.0, -5.0, 7.0], [1.0, 6.0, 8.0]]
    (tmp_path / "probe.csv").write_text("x_um,y_um,z_um\n7,-5,0\n8,6,1\n")
    for given in (rows, "probe.csv"):
        found = read(
            MATRIX, n_elements=None, pitch_um=None, fastest_axis=None, element_positions_um=given
        )
        np.testing.assert_array_equal(found.sequence.elements_um, rows)


def test_directions_in_3d(read):
    angles = [[90 - 1e-6, 0], [0, 30], [-20, 0]]
    found = read(MATRIX, axes="seat", angles_deg=angles, time_zero="origin")
    half = np.sqrt(3) / 2
    np.testing.assert_allclose(
        found.sequence.wave_values[:2], [[0, 0, 1], [half, 0.5, 0]], atol=1e-7
    )
    np.testing.assert_allclose(
        found.sequence.wave_values[2], [np.cos(np.deg2rad(20)), 0, -np.sin(np.deg2rad(20))]
    )


def test_clock_of_the_first_element(read):
    # At 30 degrees the first of elements at -200, 0 and 200 µm fires 200 sin(30) / c before the
    # wave passes the origin: it is at 0 when the first element has fired for 66.7 ns.
    late_s = 200e-6 * 0.5 / 1500
    for angle in (30, -30):
        origin = read(angles_deg=[angle], time_zero="origin").sequence.start_time_s
        fires = read(angles_deg=[angle], time_zero="first_element").sequence.start_time_s
        np.testing.assert_allclose(origin, [2e-6])
        np.testing.assert_allclose(fires, [2e-6 - late_s])


def test_clock_of_a_diverging_wave(read):
    # The middle element, nearest to a source right behind it, fires as the wave passes the origin.
    found = read(angles_deg=None, virtual_sources_um=[[-1000, 0]]).sequence
    np.testing.assert_allclose(found.start_time_s, [2e-6])
    assert found.wave == "diverging"
    # From a source behind the left element the wave passes there first.
    late_s = (np.hypot(1000, 200) - 1000) * 1e-6 / 1500
    found = read(
        angles_deg=None, virtual_sources_um=[[-1000, -200]], time_zero="first_element"
    ).sequence
    np.testing.assert_allclose(found.start_time_s, [2e-6 - late_s])


def test_delays_have_their_own_clock(read):
    delays = [[0.0, 1e-7, np.nan], [1e-7, 0.0, 0.0]]
    found = read(angles_deg=None, transmit_delays_s=delays, axes="seat", start_time_s=[1e-6, 2e-6])
    np.testing.assert_array_equal(found.sequence.wave_values, delays)
    np.testing.assert_array_equal(found.sequence.start_time_s, [1e-6, 2e-6])


def test_layout(read):
    assert read().samples_per_transmit is None
    two = {"angles_deg": [-1, 1], "time_zero": "origin"}
    assert read(**two, samples_per_transmit=512).samples_per_transmit == 512
    assert read(**two, axes="seat").axes == "seat"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pitch": 300}, "unknown key 'pitch'"),
        ({"bandwidth_hz": None}, "has no bandwidth_hz"),
        ({"speed_of_sound_m_s": "fast"}, "speed_of_sound_m_s is 'fast'"),
        ({"speed_of_sound_m_s": -1540}, "speed_of_sound_m_s is -1540"),
        ({"sampling_frequency_hz": [1e6, 2e6]}, "give one positive number"),
        ({"center_frequency_hz": float("inf")}, "center_frequency_hz is 'inf'"),
        ({"n_elements": None}, "has pitch_um .*give n_elements and pitch_um"),
        ({"pitch_um": None}, "has n_elements "),
        ({"n_elements": 2.5}, "make no array"),
        ({"n_elements": [2, 3]}, "make no array"),
        ({"n_elements": [2, 3], "pitch_um": [1, 1]}, "fastest_axis is None"),
        ({"fastest_axis": "y"}, "fastest_axis is 'y'"),
        ({"element_positions_um": [[0, 0]]}, "element_positions_um and n_elements and pitch_um"),
        ({"angles_deg": None}, "has no transmits"),
        ({"virtual_sources_um": [[-1, 0]]}, "angles_deg and virtual_sources_um"),
        ({"angles_deg": [90]}, "reach 90 degrees"),
        ({"angles_deg": [[0, 0]]}, "angles_deg has shape"),
        ({"angles_deg": []}, "angles_deg has shape"),
        ({"angles_deg": None, "virtual_sources_um": [[5, 0]]}, "in front of the probe"),
        ({"angles_deg": None, "transmit_delays_s": [[0, 0]]}, "transmit_delays_s has shape"),
        (
            {"angles_deg": None, "transmit_delays_s": [[float("nan")] * 3]},
            "a transmit without elements",
        ),
        (
            {"angles_deg": None, "transmit_delays_s": [[0, 0, 0]], "time_zero": "origin"},
            "time_zero does nothing",
        ),
        ({"angles_deg": [5]}, "does not tell the clock"),
        ({"angles_deg": [5], "time_zero": "start"}, "time_zero is 'start'"),
        ({"start_time_s": [0, 0]}, "start_time_s has 2 values for 1 transmits"),
        ({"axes": "zxt"}, "axes is 'zxt'"),
        ({"axes": None}, "axes is None"),
        ({"axes": "seat", "samples_per_transmit": 5}, "samples_per_transmit does nothing"),
        ({"angles_deg": [0, 0]}, "where the 2 transmits are"),
        ({"samples_per_transmit": 5.5}, "samples_per_transmit is 5.5"),
        ({"center_frequency_hz": 5}, "center_frequency_hz is 5 .*in Hz, not MHz"),
        ({"bandwidth_hz": 3}, "bandwidth_hz is 3 .*in Hz, not MHz"),
        ({"start_time_s": 4.0}, "start_time_s is 4 .*in seconds"),
        ({"start_time_s": True}, "start_time_s is 'True'"),
        ({"start_time_s": [True]}, r"start_time_s is '\[True\]'"),
        ({"element_width_um": 0.18}, "elements 0.18 µm wide do not fit a wavelength of 300 µm"),
        ({"pitch_um": 0.3}, "do not fit a wavelength .*in micrometres"),
        ({"speed_of_sound_m_s": 1.54}, "speed_of_sound_m_s is 1.54 .*in m/s"),
    ],
)
def test_keys_that_make_no_sense(read, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as error:
        read(**changes)
    assert error.value.where == str(tmp_path / "sequence.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "waves",
    [{"angles_deg": [-9]}, {"angles_deg": None, "virtual_sources_um": [[-900, 250]]}],
    ids=str,
)
def test_first_element_fires_as_the_waves_of_the_beamformer_pass_it(read, waves):
    origin = read(**waves, time_zero="origin").sequence
    fires = read(**waves, time_zero="first_element").sequence
    kind = PlaneWaves if origin.wave == "plane" else DivergingWaves
    passes_s = kind(origin.wave_values).arrival_s(origin.elements_um, speed_of_sound_m_s=1500)
    np.testing.assert_allclose(fires.start_time_s - origin.start_time_s, passes_s.min(axis=1))


@pytest.mark.parametrize(
    "text", ["", "- 1\n- 2\n", "axes: [", "axes: !!python/object:os.system {}"]
)
def test_files_that_are_no_sequence(tmp_path, text):
    path = tmp_path / "sequence.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"holds no keys|is not YAML"):
        read_sequence(path)


def test_no_file_and_no_table(read, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_sequence(tmp_path / "none.yaml")
    listed = {"n_elements": None, "pitch_um": None, "element_positions_um": "probe.csv"}
    with pytest.raises(UserError, match="does not exist"):
        read(**listed)
    for text in ("", "x_um,z_um\n", "x_um\n1\n", "x_um,z_um\n1,two\n"):
        (tmp_path / "probe.csv").write_text(text)
        with pytest.raises(UserError, match="no table of element positions"):
            read(**listed)
