"""Several buffers of IQ in one MATLAB file, as a cell array."""

import h5py
import numpy as np
import pytest
import scipy.io

from vasculome.errors import UserError
from vasculome.readers.iq import open_iq
from vasculome.readers.mat5 import list_mat5

Z, X = 4, 3


def _iq(n_frames):
    rng = np.random.default_rng(n_frames)
    shape = (Z, X, n_frames)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def _cells(arrays):
    cells = np.empty((1, len(arrays)), object)
    for k, array in enumerate(arrays):
        cells[0, k] = array
    return cells


BUFFERS = [_iq(2), _iq(5), _iq(3)]
JOINED = np.concatenate(BUFFERS, axis=2).transpose(2, 0, 1)


@pytest.mark.parametrize("compress", [False, True])
def test_buffers_follow_each_other_in_time(tmp_path, compress):
    path = tmp_path / "session.mat"
    scipy.io.savemat(path, {"IQ": _cells(BUFFERS), "n": 3.0}, do_compression=compress)
    raw = open_iq(path, axes="zxt", variable="IQ{:}")
    assert raw.shape == (10, Z, X)
    np.testing.assert_array_equal(raw.read(0, 10), JOINED)
    np.testing.assert_array_equal(raw.read(1, 8), JOINED[1:8])
    # A cell is loaded with all others of its variable, and the memory of it is told.
    assert raw.resident_bytes >= JOINED.nbytes


def test_i_and_q_of_every_buffer(tmp_path):
    path = tmp_path / "session.mat"
    parts = {"I": [b.real for b in BUFFERS], "Q": [b.imag for b in BUFFERS]}
    scipy.io.savemat(path, {name: _cells(arrays) for name, arrays in parts.items()})
    raw = open_iq(path, axes="zxt", variable="I{:},Q{:}")
    np.testing.assert_array_equal(raw.read(0, 10), JOINED)
    parts["Q"] = parts["Q"][:2]
    scipy.io.savemat(path, {name: _cells(arrays) for name, arrays in parts.items()})
    with pytest.raises(UserError, match="differ in the number of cells"):
        open_iq(path, axes="zxt", variable="I{:},Q{:}")


def test_buffers_of_matlab_73_are_read_in_pieces(tmp_path):
    path = tmp_path / "session.mat"
    pair = np.dtype([("real", "f4"), ("imag", "f4")])
    with h5py.File(path, "w", userblock_size=512) as file:
        references = []
        for k, buffer in enumerate(BUFFERS):
            # Names in the file's bookkeeping do not follow the order of the cells.
            values = np.ascontiguousarray(buffer.T).view(pair)
            dataset = file.create_dataset(f"#refs#/{'cab'[k]}", data=values)
            dataset.attrs["MATLAB_class"] = np.bytes_("single")
            references.append(dataset.ref)
        table = np.array(references, h5py.ref_dtype).reshape(-1, 1)
        dataset = file.create_dataset("IQ", data=table, dtype=h5py.ref_dtype)
        dataset.attrs["MATLAB_class"] = np.bytes_("cell")
    raw = open_iq(path, axes="zxt", variable="IQ{:}")
    np.testing.assert_array_equal(raw.read(1, 8), JOINED[1:8])
    assert raw.resident_bytes == 0


@pytest.mark.parametrize("compress", [False, True])
def test_headers_of_cells_agree_with_what_scipy_loads(tmp_path, compress):
    path = tmp_path / "cells.mat"
    arrays = [_iq(300), np.zeros((3, 2), np.int16), np.empty((0, 0)), _cells([1.0, 2.0]), "text"]
    scipy.io.savemat(path, {"C": _cells(arrays), "after": 1.0}, do_compression=compress)
    found = {v.name: v for v in list_mat5(path)}
    assert list(found) == ["C", *(f"C{{{k}}}" for k in range(1, 6)), "after"]
    loaded = scipy.io.loadmat(path)["C"]
    assert found["C"].shape == loaded.shape
    for k in range(3):
        assert found[f"C{{{k + 1}}}"].shape == loaded[0, k].shape
    classes = [found[f"C{{{k}}}"].class_name for k in range(1, 6)]
    assert classes == ["single", "int16", "double", "cell", "char"]
    assert [found[f"C{{{k}}}"].is_complex for k in range(1, 6)] == [True] + 4 * [False]


@pytest.mark.parametrize("keep", [0.3, 0.97])
@pytest.mark.parametrize("compress", [False, True])
def test_truncated_buffers(tmp_path, compress, keep):
    path = tmp_path / "session.mat"
    scipy.io.savemat(path, {"IQ": _cells([_iq(400), _iq(300)])}, do_compression=compress)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError) as error:
        open_iq(path, axes="zxt", variable="IQ{:}").read(0, 700)
    assert error.value.where == str(path)
