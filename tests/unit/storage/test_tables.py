import numpy as np
import pytest

from vasculome.errors import UserError
from vasculome.storage.shards import checksum
from vasculome.storage.tables import (
    iter_parts,
    part_path,
    read_metadata,
    read_parts,
    read_table,
    write_table,
)


def _columns(n=50, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "frame": np.arange(n),
        "z_um": rng.normal(size=n),
        "score": rng.normal(size=n).astype("float32"),
        "kept": rng.random(n) > 0.5,
        "name": np.array([f"n{i}" for i in range(n)]),
    }


def test_round_trip_keeps_values_types_and_order(tmp_path):
    columns = _columns()
    told = write_table(tmp_path / "t.parquet", columns, {"spacing_um": "5,2,2"})
    assert told == checksum((tmp_path / "t.parquet").read_bytes())
    back = read_table(tmp_path / "t.parquet")
    assert list(back) == list(columns)
    for name in ("frame", "z_um", "score", "kept"):
        assert back[name].dtype == columns[name].dtype
    for name, values in columns.items():
        np.testing.assert_array_equal(back[name], values)
    assert read_metadata(tmp_path / "t.parquet") == {"spacing_um": "5,2,2"}


def test_equal_input_gives_equal_bytes(tmp_path):
    first = write_table(tmp_path / "a", _columns(), {"a": "1", "b": "2"})
    again = write_table(tmp_path / "b", _columns(), {"b": "2", "a": "1"})
    assert first == again


def test_columns_and_filters(tmp_path):
    write_table(tmp_path / "t", _columns())
    filters = [("frame", ">=", 10), ("frame", "<", 20)]
    back = read_table(tmp_path / "t", ["score", "frame"], filters)
    assert list(back) == ["score", "frame"]
    np.testing.assert_array_equal(back["frame"], np.arange(10, 20))


def test_an_empty_table_keeps_its_types(tmp_path):
    write_table(tmp_path / "t", {"frame": np.empty(0, "int32"), "z_um": np.empty(0)})
    back = read_table(tmp_path / "t")
    assert back["frame"].dtype == np.int32
    assert back["z_um"].shape == (0,)


def test_parts_come_in_order(tmp_path):
    for index in (11, 2, 1_000_000, 999_999):
        write_table(part_path(tmp_path / "d", index), {"i": np.full(2, index)})
    assert [p["i"][0] for p in iter_parts(tmp_path / "d")] == [2, 11, 999_999, 1_000_000]
    read = read_parts(tmp_path / "d", ["i"])["i"]
    np.testing.assert_array_equal(read, np.repeat([2, 11, 999_999, 1_000_000], 2))


def test_faults_are_told(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_table(tmp_path / "none")
    with pytest.raises(UserError, match="no parts"):
        list(iter_parts(tmp_path))
    write_table(tmp_path / "t", _columns())
    with pytest.raises(UserError, match="no column 'y_um'"):
        read_table(tmp_path / "t", ["frame", "y_um"])
    data = (tmp_path / "t").read_bytes()
    for name, bad in {"cut": data[:-20], "text": b"frame,z\n", "empty": b""}.items():
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(UserError, match="Parquet"):
            read_table(tmp_path / name)
    body_damaged = data[:8] + b"\xff" * 400 + data[408:]
    (tmp_path / "body").write_bytes(body_damaged)
    with pytest.raises(UserError, match="Parquet"):
        read_table(tmp_path / "body")


def test_columns_must_agree(tmp_path):
    with pytest.raises(ValueError, match="length"):
        write_table(tmp_path / "t", {"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(ValueError, match="1-D"):
        write_table(tmp_path / "t", {"a": np.zeros((2, 2))})
