"""RF is written by scipy, h5py, NumPy and zarr, and compared value by value."""

import os

import h5py
import numpy as np
import pytest
import scipy.io
import yaml
import zarr

from vasculome.errors import UserError
from vasculome.readers.iq import open_iq
from vasculome.readers.rf import open_rf

T, A, E, S = 6, 2, 5, 9
LENGTH = {"t": T, "a": A, "e": E, "s": S}
SEQUENCE = {
    "axes": "seat",
    "n_elements": E,
    "pitch_um": 300,
    "sampling_frequency_hz": 20e6,
    "center_frequency_hz": 5e6,
    "bandwidth_hz": 3e6,
    "speed_of_sound_m_s": 1540,
    "start_time_s": 1e-6,
    "angles_deg": [-4, 4],
    "time_zero": "origin",
}


def open_zarr(path):
    return zarr.open_array(path, mode="r")


def _rf(seed=3):
    return np.random.default_rng(seed).integers(-999, 999, (T, A, E, S), dtype=np.int16)


def _as_stored(rf, axes):
    return rf.transpose(["taes".index(c) for c in axes])


def _sequence(tmp_path, **changes):
    path = tmp_path / "sequence.yaml"
    content = {k: v for k, v in (SEQUENCE | changes).items() if v is not None}
    path.write_text(yaml.safe_dump(content))
    return path


def _save_cells_73(path, name, cells):
    """Write a cell array as MATLAB's save -v7.3 does: references to reversed arrays."""
    with h5py.File(path, "w", userblock_size=512) as file:
        references = []
        for k, cell in enumerate(cells):
            dataset = file.create_dataset(f"#refs#/{'abc'[k]}", data=np.asarray(cell).T)
            dataset.attrs["MATLAB_class"] = np.bytes_(str(np.asarray(cell).dtype))
            references.append(dataset.ref)
        table = np.array(references, h5py.ref_dtype).reshape(-1, 1)
        dataset = file.create_dataset(name, data=table, dtype=h5py.ref_dtype)
        dataset.attrs["MATLAB_class"] = np.bytes_("cell")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def _save_cells_5(path, name, cells, *, compress=True):
    whole = np.empty((1, len(cells)), object)
    for k, cell in enumerate(cells):
        whole[0, k] = cell
    scipy.io.savemat(path, {name: whole, "after": np.arange(3.0)}, do_compression=compress)


SAVERS = {
    "rf.npy": np.save,
    "rf.npz": lambda path, rf: np.savez(path, RF=rf),
    "rf.mat": lambda path, rf: scipy.io.savemat(path, {"RF": rf, "n": 3.0}),
    "rf.h5": lambda path, rf: h5py.File(path, "w").create_dataset("scan/RF", data=rf).file.close(),
    "rf.zarr": lambda path, rf: zarr.create_array(path, data=np.ascontiguousarray(rf)),
}


@pytest.mark.parametrize("axes", ["seat", "taes", "esta", "tsae"])
@pytest.mark.parametrize("name", SAVERS)
def test_every_format_gives_frames_transmits_elements_samples(tmp_path, name, axes, handed_over):
    rf = _rf()
    SAVERS[name](tmp_path / name, _as_stored(rf, axes))
    raw = open_rf(
        tmp_path / name, sequence_file=_sequence(tmp_path, axes=axes), open_zarr=open_zarr
    )
    assert raw.shape == (T, A, E, S)
    for t0, t1 in ((0, T), (2, 5), (5, 6)):
        block = raw.read(t0, t1)
        assert block.dtype == np.int16
        np.testing.assert_array_equal(block, rf[t0:t1])
    copy = handed_over(raw)
    np.testing.assert_array_equal(copy.read(1, 3), rf[1:3])


@pytest.mark.parametrize("unused_rows", [0, 4])
def test_transmits_that_follow_each_other_are_split(tmp_path, unused_rows):
    rf = _rf()
    # As Verasonics stores it: [rows, channels, frames], the transmits one below the other.
    rows = rf.transpose(1, 3, 2, 0).reshape(A * S, E, T)
    rows = np.concatenate([rows, np.full((unused_rows, E, T), 777, np.int16)])
    np.save(tmp_path / "rf.npy", rows)
    sequence = _sequence(tmp_path, axes="set", samples_per_transmit=S)
    raw = open_rf(tmp_path / "rf.npy", sequence_file=sequence)
    assert raw.shape == (T, A, E, S)
    np.testing.assert_array_equal(raw.read(1, 4), rf[1:4])


@pytest.mark.parametrize(
    "save",
    [_save_cells_73, _save_cells_5, lambda *a: _save_cells_5(*a, compress=False)],
    ids=["v7.3", "v7", "v6"],
)
def test_buffers_in_a_cell_array_are_joined(tmp_path, save):
    rf = _rf()
    buffers = [_as_stored(rf[:3], "seat"), _as_stored(rf[3:4], "seat"), _as_stored(rf[4:], "seat")]
    (tmp_path / "session").mkdir()
    for number in (9, 10):
        save(tmp_path / f"session/buffers_{number}.mat", "RcvData", buffers)
    raw = open_rf(tmp_path / "session", sequence_file=_sequence(tmp_path), variable="RcvData{:}")
    assert raw.shape[0] == 2 * T
    np.testing.assert_array_equal(raw.read(0, 2 * T), np.concatenate([rf, rf]))
    np.testing.assert_array_equal(raw.read(2, 8), np.concatenate([rf[2:], rf[:2]]))
    one = open_rf(tmp_path / "session", sequence_file=_sequence(tmp_path), variable="RcvData{3}")
    np.testing.assert_array_equal(one.read(0, 2), rf[4:])
    with pytest.raises(UserError, match=r"several real arrays: RcvData\{1\}"):
        open_rf(tmp_path / "session", sequence_file=_sequence(tmp_path))


@pytest.mark.parametrize("save", [_save_cells_73, _save_cells_5])
def test_cell_arrays_that_are_no_buffers(tmp_path, save):
    path = tmp_path / "rf.mat"
    sequence = _sequence(tmp_path)
    save(path, "RcvData", [_as_stored(_rf(), "seat"), _as_stored(_rf(), "seat")[:-1]])
    with pytest.raises(UserError, match="has frames of"):
        open_rf(path, sequence_file=sequence, variable="RcvData{:}")
    with pytest.raises(UserError, match=r"no cells other\{:\}"):
        open_rf(path, sequence_file=sequence, variable="other{:}")
    with pytest.raises(UserError, match=r"no variable 'RcvData\{3\}'"):
        open_rf(path, sequence_file=sequence, variable="RcvData{3}")
    with pytest.raises(UserError, match="is cell; RF must be real"):
        open_rf(path, sequence_file=sequence, variable="RcvData")


def test_a_missing_file_of_the_session_is_named(tmp_path):
    (tmp_path / "session").mkdir()
    for number in (1, 2, 4):
        np.save(tmp_path / f"session/rf_{number}.npy", _rf())
    with pytest.raises(UserError, match="block 3 is missing"):
        open_rf(tmp_path / "session", sequence_file=_sequence(tmp_path, axes="taes"))


def test_fingerprint_follows_files_and_sequence(tmp_path):
    np.save(tmp_path / "rf.npy", _rf())
    sequence = _sequence(tmp_path, axes="taes")
    before = open_rf(tmp_path / "rf.npy", sequence_file=sequence).fingerprint()
    assert before == open_rf(tmp_path / "rf.npy", sequence_file=sequence).fingerprint()
    sequence = _sequence(tmp_path, axes="taes", speed_of_sound_m_s=1480)
    os.utime(sequence, ns=(1, 1))
    changed = open_rf(tmp_path / "rf.npy", sequence_file=sequence).fingerprint()
    assert changed != before
    os.utime(tmp_path / "rf.npy", ns=(1, 1))
    assert open_rf(tmp_path / "rf.npy", sequence_file=sequence).fingerprint() != changed


def test_metadata_tell_the_wavelength(tmp_path):
    np.save(tmp_path / "rf.npy", _rf())
    raw = open_rf(tmp_path / "rf.npy", sequence_file=_sequence(tmp_path, axes="taes"))
    assert raw.metadata == {"center_frequency_hz": (5e6,), "speed_of_sound_m_s": (1540.0,)}


@pytest.mark.parametrize(
    ("array", "changes", "message"),
    [
        (_rf(), {"n_elements": 4}, "5 elements along axis e, the sequence has 4"),
        (_rf(), {"angles_deg": [0, 1, 2]}, "2 transmits along axis a, the sequence has 3"),
        (_rf()[0], {}, "no real array with the 4 axes taes"),
        (_rf() * 1j, {}, "no real array with the 4 axes taes"),
        (_rf()[:0], {}, "is empty"),
        (_rf()[:, 0], {"axes": "tes", "samples_per_transmit": 8}, "need 16"),
    ],
)
def test_what_does_not_fit_the_sequence(tmp_path, array, changes, message):
    np.save(tmp_path / "rf.npy", array)
    sequence = _sequence(tmp_path, **({"axes": "taes"} | changes))
    with pytest.raises(UserError, match=message) as error:
        open_rf(tmp_path / "rf.npy", sequence_file=sequence)
    assert error.value.where == str(tmp_path / "rf.npy")
    assert "\n" not in str(error.value)


def test_complex_variable_is_no_rf(tmp_path):
    np.save(tmp_path / "rf.npy", _rf() * 1j)
    with pytest.raises(UserError, match="is complex; RF must be real"):
        open_rf(tmp_path / "rf.npy", sequence_file=_sequence(tmp_path, axes="taes"), variable="")


def test_rf_without_sequence_file(tmp_path):
    np.save(tmp_path / "rf.npy", _rf())
    with pytest.raises(UserError, match="does not tell probe and sequence"):
        open_rf(tmp_path / "rf.npy")


def test_files_of_two_types_are_refused(tmp_path):
    (tmp_path / "session").mkdir()
    np.save(tmp_path / "session/rf_1.npy", _rf())
    np.save(tmp_path / "session/rf_2.npy", (_rf() / 1000).astype(np.float32))
    says = r"rf_2\.npy: the array holds float32 where rf_1\.npy holds int16"
    with pytest.raises(UserError, match=says):
        open_rf(tmp_path / "session", sequence_file=_sequence(tmp_path, axes="taes"))


def test_iq_files_of_two_types_are_refused(tmp_path):
    iq = np.ones((T, 4, 3))
    np.save(tmp_path / "iq_1.npy", iq.astype(np.complex64))
    np.save(tmp_path / "iq_2.npy", iq.astype(np.complex128))
    with pytest.raises(UserError, match=r"iq_2\.npy: .* complex128 where iq_1\.npy .* complex64"):
        open_iq(tmp_path, axes="tzx")


def test_a_class_of_matlab_that_is_stored_by_its_values(tmp_path):
    # MATLAB writes doubles that are small whole numbers as bytes, and reads doubles again.
    (tmp_path / "session").mkdir()
    low, high = np.abs(_rf() % 100).astype(np.float64), 1e4 + _rf().astype(np.float64)
    scipy.io.savemat(tmp_path / "session/rf_2.mat", {"RF": _as_stored(high, "seat")})
    path = tmp_path / "session/rf_1.mat"
    scipy.io.savemat(path, {"RF": _as_stored(low, "seat").astype(np.uint8)})
    content = bytearray(path.read_bytes())
    class_at = 128 + 8 + 8  # after the header, the tag of the matrix and that of its flags
    assert content[class_at] == 9  # uint8; 6 is double
    content[class_at] = 6
    path.write_bytes(content)
    assert scipy.io.whosmat(path)[0][2] == "double"
    assert scipy.io.loadmat(path)["RF"].dtype == np.uint8
    raw = open_rf(tmp_path / "session", sequence_file=_sequence(tmp_path))
    np.testing.assert_array_equal(raw.read(0, 2 * T), np.concatenate([low, high]))


def test_fingerprint_follows_the_table_of_elements(tmp_path):
    np.save(tmp_path / "rf.npy", _rf())
    sequence = _sequence(
        tmp_path, axes="taes", n_elements=None, pitch_um=None, element_positions_um="probe.csv"
    )
    identities = set()
    for pitch_um in (200, 300):
        rows = [f"0,{n * pitch_um}" for n in range(E)]
        (tmp_path / "probe.csv").write_text("\n".join(["z_um,x_um", *rows]))
        identities.add(open_rf(tmp_path / "rf.npy", sequence_file=sequence).fingerprint())
    assert len(identities) == 2
    (tmp_path / "probe.csv").write_text("z_um,x_um\n0,nan\n")
    with pytest.raises(UserError, match=r"probe\.csv: is no table"):
        open_rf(tmp_path / "rf.npy", sequence_file=sequence)


def test_values_that_are_not_finite(tmp_path):
    rf = _rf().astype(np.float32)
    rf[4, 1, 2, 3] = np.nan
    np.save(tmp_path / "rf.npy", rf)
    raw = open_rf(tmp_path / "rf.npy", sequence_file=_sequence(tmp_path, axes="taes"))
    raw.read(0, 4)
    with pytest.raises(UserError, match="frame 4 holds"):
        raw.read(2, 6)


def test_frames_beyond_the_acquisition_are_a_programming_error(tmp_path):
    np.save(tmp_path / "rf.npy", _rf())
    raw = open_rf(tmp_path / "rf.npy", sequence_file=_sequence(tmp_path, axes="taes"))
    for t0, t1 in ((0, T + 1), (3, 3), (-1, 2)):
        with pytest.raises(ValueError, match="frames"):
            raw.read(t0, t1)
