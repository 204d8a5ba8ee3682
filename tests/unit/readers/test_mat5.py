import numpy as np
import pytest
import scipy.io
import scipy.sparse

from vasculome.errors import UserError
from vasculome.readers.mat5 import list_mat5

VARIABLES = {
    "IQ": np.ones((3, 4, 5), "complex64"),
    "a_rather_long_name_of_31_letters": np.ones((2, 3)),
    "b": np.arange(6, dtype="i2").reshape(1, 2, 3),
    "z": np.array([[1 + 2j]]),
    "big": np.zeros((300, 70), "u1"),
    "flag": np.array([[True]]),
    "word": "text",
    "s": {"x": 1},
    "c": np.array([1, "x"], object),
    "sp": scipy.sparse.csc_array(np.eye(3)),
    "none": np.zeros((0, 3)),
}


@pytest.mark.parametrize("compress", [False, True])
def test_headers_agree_with_scipy(tmp_path, compress):
    path = tmp_path / "v.mat"
    scipy.io.savemat(path, VARIABLES, do_compression=compress, long_field_names=True)
    found = {v.name: v for v in list_mat5(path)}
    for name, shape, class_name in scipy.io.whosmat(path):
        # scipy counts strings, not letters.
        assert found[name].shape == shape or class_name == "char"
        assert found[name].class_name == class_name
        assert found[name].is_complex == np.iscomplexobj(VARIABLES[name])
    assert len([name for name in found if "{" not in name]) == len(VARIABLES)


@pytest.mark.parametrize("keep", [100, 130, 140, 0.3, 0.9])
def test_truncated(tmp_path, keep):
    path = tmp_path / "v.mat"
    scipy.io.savemat(path, {"IQ": np.random.default_rng(0).random((9, 9, 9))})
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(UserError, match="damaged or truncated"):
        list_mat5(path)


def test_random_damage_ends_in_a_list_or_one_clear_line(tmp_path):
    rng = np.random.default_rng(5)
    path = tmp_path / "v.mat"
    for compress in (False, True):
        scipy.io.savemat(path, VARIABLES, do_compression=compress)
        whole = path.read_bytes()
        for _ in range(150):
            content = bytearray(whole)
            for at in rng.integers(100, 600, 2):
                content[at] = rng.integers(0, 256)
            path.write_bytes(content)
            try:
                list_mat5(path)
            except UserError as error:
                assert "\n" not in str(error)
