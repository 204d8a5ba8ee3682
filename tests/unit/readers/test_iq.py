"""IQ is written by scipy, h5py, NumPy and zarr, and compared value by value."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.errors import UserError
from vasculome.readers.iq import open_iq

T, Z, Y, X = 7, 4, 3, 5
LENGTH = {"t": T, "z": Z, "y": Y, "x": X}


def open_zarr(path):
    return zarr.open_array(path, mode="r")


def _iq(axes="tzx", *, frames=T, dtype="complex64"):
    """Return the values in the order t, z, y, x, whatever the file's axes."""
    rng = np.random.default_rng(11)
    shape = [frames if c == "t" else LENGTH[c] for c in "tzyx" if c in axes]
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)


def _as_stored(iq, axes):
    """Return the array as the user of that order of axes sees it."""
    ours = [c for c in "tzyx" if c in axes]
    return iq.transpose([ours.index(c) for c in axes])


def _save_mat73(path, arrays, metadata=None):
    """Write what MATLAB's save -v7.3 writes: axes reversed, complex as (real, imag)."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            values = np.asarray(array).T
            if np.iscomplexobj(values):
                part = values.real.dtype
                pairs = np.empty(values.shape, [("real", part), ("imag", part)])
                pairs["real"], pairs["imag"] = values.real, values.imag
                values = pairs
            kind = "single" if values.dtype.itemsize in (4, 8) else "double"
            file.create_dataset(name, data=values).attrs["MATLAB_class"] = np.bytes_(kind)
        for name, value in (metadata or {}).items():
            data = np.atleast_2d(np.asarray(value, float)).T
            file.create_dataset(name, data=data).attrs["MATLAB_class"] = np.bytes_("double")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(header)


def _save_h5(path, arrays, metadata=None):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(f"acquisition/{name}", data=array)
        for name, value in (metadata or {}).items():
            file["acquisition"].attrs[name] = value


def _save_npz(path, arrays, metadata=None):
    np.savez_compressed(path, **arrays, **(metadata or {}))


def _save_mat5(path, arrays, metadata=None, *, compress=True):
    scipy.io.savemat(path, arrays | (metadata or {}), do_compression=compress)


def _save_zarr(path, arrays, metadata=None):
    group = zarr.open_group(path, mode="w", attributes=metadata)
    for name, array in arrays.items():
        group.create_array(name, data=np.ascontiguousarray(array), chunks=(2,) * array.ndim)


SAVERS = {
    "v7.mat": _save_mat5,
    "v6.mat": lambda path, *rest: _save_mat5(path, *rest, compress=False),
    "v73.mat": _save_mat73,
    "iq.h5": _save_h5,
    "iq.npz": _save_npz,
    "iq.zarr": _save_zarr,
}


def _variable(path):
    return "acquisition/IQ" if path.suffix == ".h5" else "IQ"


@pytest.fixture(params=list(SAVERS))
def saver(request, tmp_path):
    """Return a path and the function that writes arrays there."""
    return tmp_path / request.param, SAVERS[request.param]


@pytest.mark.parametrize("axes", ["tzx", "zxt", "xzt", "zyxt", "tzyx", "xyzt"])
def test_every_format_gives_t_z_y_x(saver, axes):
    path, save = saver
    iq = _iq(axes)
    save(path, {"IQ": _as_stored(iq, axes)})
    raw = open_iq(path, axes=axes, open_zarr=open_zarr)
    assert raw.shape == iq.shape
    assert raw.series.blocks[0].variables == (_variable(path),)
    for t0, t1 in ((0, T), (2, 5), (6, 7)):
        block = raw.read(t0, t1)
        assert block.dtype == np.complex64
        assert block.flags.c_contiguous
        np.testing.assert_array_equal(block, iq[t0:t1])


@pytest.mark.parametrize("axes", ["tzx", "xtz", "zyxt"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_mapped(tmp_path, axes, order):
    iq = _iq(axes, dtype="complex128")
    np.save(tmp_path / "iq.npy", np.asarray(_as_stored(iq, axes), order=order))
    raw = open_iq(tmp_path / "iq.npy", axes=axes)
    assert raw.resident_bytes == 0
    np.testing.assert_array_equal(raw.read(3, 6), iq[3:6].astype("complex64"))


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_of_both_versions_as_plain_array(tmp_path, version):
    iq = _iq()
    array = zarr.create_array(
        tmp_path / "iq",
        data=iq,
        chunks=(2, 4, 5),
        zarr_format=version,
        attributes={"spacing_um": [50, 60]},
    )
    assert array.metadata.zarr_format == version
    raw = open_iq(tmp_path / "iq", axes="tzx", open_zarr=open_zarr)
    np.testing.assert_array_equal(raw.read(1, 4), iq[1:4])
    assert raw.metadata == {"spacing_um": (50.0, 60.0)}


def test_zarr_without_opener_is_a_programming_error(tmp_path):
    zarr.create_array(tmp_path / "iq", data=_iq())
    with pytest.raises(ValueError, match="open_zarr"):
        open_iq(tmp_path / "iq", axes="tzx")


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_i_and_q_as_two_real_variables(saver, dtype):
    path, save = saver
    rng = np.random.default_rng(1)
    i, q = (rng.integers(-99, 99, (Z, X, T)).astype(dtype) for _ in "iq")
    save(path, {"I": i, "Q": q})
    prefix = "acquisition/" if path.suffix == ".h5" else ""
    raw = open_iq(path, axes="zxt", variable=f"{prefix}I, {prefix}Q", open_zarr=open_zarr)
    np.testing.assert_array_equal(raw.read(2, 6), (i + 1j * q).transpose(2, 0, 1)[2:6])


def test_integer_pairs_in_hdf5(tmp_path):
    pairs = np.zeros((T, Z, X), [("real", "i2"), ("imag", "i2")])
    pairs["real"], pairs["imag"] = 3, np.arange(X)
    with h5py.File(tmp_path / "iq.h5", "w") as file:
        file["iq"] = pairs
    block = open_iq(tmp_path / "iq.h5", axes="tzx").read(0, 1)
    np.testing.assert_array_equal(block[0, 0], 3 + 1j * np.arange(X))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_a_folder_of_blocks_is_one_acquisition(tmp_path_factory, lengths, data):
    folder = tmp_path_factory.mktemp("blocks")
    iq = _iq(frames=sum(lengths))
    ends = np.cumsum(lengths)
    for n, (end, length) in enumerate(zip(ends, lengths, strict=True), start=8):
        # scipy, as MATLAB, gives a single frame two axes only.
        block = np.squeeze(iq[end - length : end].transpose(1, 2, 0))
        scipy.io.savemat(folder / f"IQ_{n}.mat", {"IQ": block})
    t0 = data.draw(st.integers(0, len(iq) - 1))
    t1 = data.draw(st.integers(t0 + 1, len(iq)))
    raw = open_iq(folder, axes="zxt", variable="IQ")
    assert [block.n_frames for block in raw.series.blocks] == lengths
    np.testing.assert_array_equal(raw.read(t0, t1), iq[t0:t1])


def test_raw_iq_goes_to_workers(saver, handed_over):
    path, save = saver
    save(path, {"IQ": _iq()})
    raw = open_iq(path, axes="tzx", open_zarr=open_zarr)
    copy = handed_over(raw)
    np.testing.assert_array_equal(copy.read(0, T), _iq())


def test_fingerprint_follows_the_file_and_how_it_is_read(saver):
    path, save = saver
    save(path, {"IQ": _iq()[:, :, :4]})
    before = open_iq(path, axes="tzx", open_zarr=open_zarr).fingerprint()
    assert before == open_iq(path, axes="tzx", open_zarr=open_zarr).fingerprint()
    assert before != open_iq(path, axes="txz", open_zarr=open_zarr).fingerprint()
    inside = next(p for p in [path, *path.rglob("*")] if p.is_file())
    os.utime(inside, ns=(1, 1))
    assert before != open_iq(path, axes="tzx", open_zarr=open_zarr).fingerprint()


def test_metadata_is_found_in_the_file(saver):
    path, save = saver
    metadata = {"frame_rate_hz": 1000.0, "wavelength_um": 98.56, "spacing_um": [49.28, 98.56]}
    save(path, {"IQ": _iq()}, metadata)
    raw = open_iq(path, axes="tzx", open_zarr=open_zarr)
    assert raw.metadata == {
        "frame_rate_hz": (1000.0,),
        "wavelength_um": (98.56,),
        "spacing_um": (49.28, 98.56),
    }


def test_blocks_that_contradict_each_other(tmp_path):
    for n, rate_hz in enumerate((1000.0, 800.0)):
        np.savez(tmp_path / f"b{n}.npz", IQ=_iq(), frame_rate_hz=rate_hz)
    with pytest.raises(UserError, match="frame_rate_hz is 1000, but 800"):
        open_iq(tmp_path, axes="tzx")


def test_whole_arrays_in_memory_are_told(saver):
    path, save = saver
    save(path, {"IQ": _iq()})
    resident = open_iq(path, axes="tzx", open_zarr=open_zarr).resident_bytes
    whole = path.suffix == ".npz" or path.name in ("v6.mat", "v7.mat")
    assert (resident >= _iq().nbytes) == whole


def test_reads_do_not_depend_on_what_was_read_before(tmp_path):
    path = tmp_path / "iq.npz"
    np.savez(path, IQ=_iq())
    raw = open_iq(path, axes="tzx")
    raw.read(0, T)
    np.savez(path, IQ=_iq() * 2)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(raw.read(0, T), _iq() * 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, complex(0, np.nan)])
def test_values_that_are_not_finite_name_file_and_frame(tmp_path, value):
    iq = _iq()
    np.save(tmp_path / "b1.npy", iq)
    iq[4, 1, 2] = value
    np.save(tmp_path / "b2.npy", iq)
    raw = open_iq(tmp_path, axes="tzx")
    raw.read(0, T + 4)
    with pytest.raises(UserError, match="frame 4 holds") as error:
        raw.read(T - 2, 2 * T)
    assert error.value.where == str(tmp_path / "b2.npy")


def test_frames_beyond_the_acquisition_are_a_programming_error(tmp_path):
    np.save(tmp_path / "iq.npy", _iq())
    raw = open_iq(tmp_path / "iq.npy", axes="tzx")
    for t0, t1 in ((0, T + 1), (3, 3), (-1, 2)):
        with pytest.raises(ValueError, match="frames"):
            raw.read(t0, t1)


@pytest.mark.parametrize("axes", ["", "tz", "tzz", "tzxy ", "cztx", "tyx"])
def test_axes_that_make_no_sense(tmp_path, axes):
    np.save(tmp_path / "iq.npy", _iq())
    with pytest.raises(UserError, match="axes are"):
        open_iq(tmp_path / "iq.npy", axes=axes)


@pytest.mark.parametrize(
    ("arrays", "variable", "message"),
    [
        ({"IQ": np.ones((3, 4, 5))}, None, "IQ must be complex"),
        ({"IQ": np.ones((3, 4, 5))}, "IQ", "IQ must be complex"),
        ({"a": _iq(), "b": _iq()}, None, "several complex arrays: .*a .*b"),
        ({"a": _iq()}, "IQ", "has no variable 'IQ'; it has .*a "),
        ({"a": _iq(), "b": _iq()}, "a,b,c", "variable is"),
        ({"a": _iq(), "b": _iq()}, "a,b", "I and Q must be real"),
        ({"a": np.ones((3, 4, 5)), "b": np.ones((3, 4, 6))}, "a,b", "differ in shape"),
        ({"IQ": _iq("tzyx")}, None, "no complex array with the 3 axes"),
        ({"IQ": _iq("tzyx")}, "IQ", "has 4 axes, not the 3"),
        ({"other": np.arange(3.0)}, None, "no complex array"),
    ],
)
def test_arrays_that_cannot_be_iq(saver, arrays, variable, message):
    path, save = saver
    save(path, arrays)
    if path.suffix == ".h5" and variable:
        variable = ",".join(f"acquisition/{v}" for v in variable.split(","))
        message = message.replace("variable '", "variable 'acquisition/")
    with pytest.raises(UserError, match=message) as error:
        open_iq(path, axes="tzx", variable=variable, open_zarr=open_zarr)
    assert error.value.where == str(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["v7.mat", "iq.h5", "iq.npz", "iq.npy"])
def test_empty_array(tmp_path, name):
    path = tmp_path / name
    empty = _iq()[:0]
    if name == "iq.npy":
        np.save(path, empty)
    else:
        SAVERS[name](path, {"IQ": empty})
    with pytest.raises(UserError, match=r"is empty|no complex array"):
        open_iq(path, axes="tzx")


def test_empty_variable_of_matlab_73(tmp_path):
    path = tmp_path / "iq.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        dataset = file.create_dataset("IQ", data=np.zeros(2, "u8"))
        dataset.attrs["MATLAB_class"] = np.bytes_("double")
        dataset.attrs["MATLAB_empty"] = 1
    with pytest.raises(UserError, match="IQ is empty"):
        open_iq(path, axes="tzx", variable="IQ")


@pytest.mark.parametrize("value", [{"a": 1}, np.array([1, "x"], object), "text", True])
def test_matlab_variables_that_are_no_numbers(tmp_path, value):
    scipy.io.savemat(tmp_path / "iq.mat", {"IQ": value})
    with pytest.raises(UserError, match=r"IQ is (of type (struct|cell|char|logical)|real)"):
        open_iq(tmp_path / "iq.mat", axes="tzx", variable="IQ")


def test_pickled_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    bomb = np.array([Bomb()], object)
    np.save(tmp_path / "iq.npy", bomb, allow_pickle=True)
    np.savez(tmp_path / "iq.npz", IQ=bomb, allow_pickle=True)
    for name in ("iq.npy", "iq.npz"):
        with pytest.raises(UserError):
            open_iq(tmp_path / name, axes="tzx")
        with pytest.raises(UserError):
            open_iq(tmp_path / name, axes="tzx", variable="IQ")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("keep", [0, 3, 120, 0.5, 0.97])
@pytest.mark.parametrize("name", ["v7.mat", "v6.mat", "v73.mat", "iq.h5", "iq.npz", "iq.npy"])
def test_truncated_files(tmp_path, name, keep):
    path = tmp_path / name
    iq = _iq(frames=400)
    if name == "iq.npy":
        np.save(path, iq)
    else:
        SAVERS[name](path, {"IQ": iq})
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else keep])
    with pytest.raises(UserError) as error:
        open_iq(path, axes="tzx").read(0, 400)
    assert error.value.where == str(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["iq.mat", "iq.h5", "iq.npz", "iq.npy", "iq.txt"])
def test_text_under_another_name(tmp_path, name):
    (tmp_path / name).write_text("frames, and then more frames " * 50)
    with pytest.raises(UserError, match=r"is not a|damaged|no known format"):
        open_iq(tmp_path / name, axes="tzx")


def test_no_file_and_no_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_iq(tmp_path / "iq.mat", axes="tzx")
    with pytest.raises(UserError, match="holds no files"):
        open_iq(tmp_path, axes="tzx")


def test_missing_block_is_named(tmp_path):
    for n in (1, 2, 4):
        np.save(tmp_path / f"iq_{n:02d}.npy", _iq())
    with pytest.raises(UserError, match="block 3 is missing") as error:
        open_iq(tmp_path, axes="tzx")
    assert error.value.where == str(tmp_path / "iq_03.npy")


def test_blocks_of_different_shape_or_kind(tmp_path):
    np.save(tmp_path / "iq_1.npy", _iq())
    np.save(tmp_path / "iq_2.npy", _iq()[:, :, :-1])
    with pytest.raises(UserError, match="frames of") as error:
        open_iq(tmp_path, axes="tzx")
    assert error.value.where == str(tmp_path / "iq_2.npy")
    (tmp_path / "iq_2.npy").unlink()
    np.savez(tmp_path / "iq_2.npz", IQ=_iq())
    with pytest.raises(UserError, match=r"patterns|another format"):
        open_iq(tmp_path, axes="tzx")


def test_a_file_that_shrinks_is_noticed(saver):
    path, save = saver
    save(path, {"IQ": _iq()})
    raw = open_iq(path, axes="tzx", open_zarr=open_zarr)
    save(path, {"IQ": _iq()[:4]})
    with pytest.raises(UserError, match=r"changed|damaged"):
        raw.read(0, T)
