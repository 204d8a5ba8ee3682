import shutil

import pytest

from vasculome.errors import UserError
from vasculome.storage.ledger import Ledger, TileResult, ledger_path
from vasculome.storage.shards import ABSENT, checksum, write_bytes_atomic
from vasculome.storage.verify import Damage, verify, verify_all


def _tile(store, name, data):
    write_bytes_atomic(store / name, data)
    return TileResult({name: checksum(data)})


@pytest.fixture
def store(tmp_path):
    """An array of 13 shards, the last of them empty, and a table beside it."""
    store = tmp_path / "brain" / "s.zarr"
    ledger = Ledger(store, "d1")
    for i in range(12):
        ledger.record(f"0.{i}", _tile(store, f"c/{i}", b"x" * (i + 1)))
    ledger.record("0.12", TileResult({"c/12": ABSENT}))
    ledger.record("0.13", _tile(store, "../points/part-0.parquet", b"table"))
    (store / "zarr.json").write_text("{}")
    return store


@pytest.fixture
def maps(store):
    """A folder of two images whose ledger is the folder's, and one with a ledger of its own."""
    maps = store.with_name("maps")
    ledger = Ledger(maps, "d2")
    for name in ("density", "speed"):
        ledger.record(f"{name}.0", _tile(maps, f"{name}.ome.zarr/0/c/0/0", b"voxels"))
    Ledger(maps / "density.ome.zarr", "d2").record(
        "1.0", _tile(maps / "density.ome.zarr", "1/c/0/0", b"coarse")
    )
    for name in ("density", "speed"):
        image = maps / f"{name}.ome.zarr"
        for node in (image, image / "0", *([image / "1"] if name == "density" else [])):
            (node / "zarr.json").write_text("{}")
    return maps


def test_verify_tells_every_kind_of_damage(store):
    assert verify(store) == []
    (store / "c" / "1").unlink()
    (store / "c" / "2").write_bytes(b"xx")
    (store / "c" / "3").write_bytes(b"xxyx")
    (store / "c" / "11").write_bytes(b"x" * 13)
    (store / "c" / "12").write_bytes(b"new")
    (store / "zarr.json").write_text("{")
    assert verify(store) == [
        Damage("", store / "zarr.json", "its metadata is no JSON"),
        Damage("0.1", store / "c" / "1", "is missing"),
        Damage("0.2", store / "c" / "2", "is cut to 2 of 3 bytes"),
        Damage("0.3", store / "c" / "3", "has changed"),
        Damage("0.11", store / "c" / "11", "has changed"),
        Damage("0.12", store / "c" / "12", "exists where none was written"),
    ]


@pytest.mark.parametrize("line", [0, 3])
def test_a_damaged_ledger_is_a_damage(store, line):
    path = ledger_path(store)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = b"\xff garbage\n"
    path.write_bytes(b"".join(lines))
    assert verify(store) == [Damage("", path, "has damaged lines")]


@pytest.mark.parametrize("node", [".", "0", "1"])
def test_missing_metadata_is_a_damage(maps, node):
    image = maps / "density.ome.zarr"
    file = image / node / "zarr.json"
    file.unlink()
    found = {store: damages for store, damages in verify_all(image).items() if damages}
    tellers = {".": {maps, image}, "0": {maps}, "1": {image}}[node]
    assert found == {s: [Damage("", file, "its metadata is missing")] for s in tellers}


def test_verify_needs_a_ledger(tmp_path):
    with pytest.raises(UserError, match="no ledger"):
        verify(tmp_path / "none")


def test_every_store_that_tells_of_a_path_is_asked(store, maps, monkeypatch):
    image = maps / "density.ome.zarr"
    assert set(verify_all(maps)) == {maps, image}
    assert set(verify_all(image)) == {image, maps}
    assert set(verify_all(maps / "speed.ome.zarr")) == {maps}
    assert set(verify_all(store.with_name("points"))) == {store}
    assert set(verify_all(store / "c" / "7")) == {store}
    assert set(verify_all(store.parent)) == {store, maps, image}
    monkeypatch.chdir(store)
    assert set(verify_all(store / ".." / "maps" / "speed.ome.zarr")) == {maps}


def test_only_what_was_asked_for_is_checked(store, maps):
    (maps / "speed.ome.zarr/0/c/0/0").write_bytes(b"other!")
    (store / "c" / "3").unlink()
    assert not any(verify_all(maps / "density.ome.zarr").values())
    assert [d.tile for d in verify_all(maps / "speed.ome.zarr")[maps]] == ["speed.0"]
    assert verify_all(store.with_name("points")) == {store: []}
    assert [d.tile for d in verify_all(store)[store]] == ["0.3"]


def test_a_store_is_checked_with_its_files_elsewhere(store):
    points = store.with_name("points") / "part-0.parquet"
    points.write_bytes(b"other")
    assert verify_all(store)[store] == [Damage("0.13", points, "has changed")]


def test_a_store_that_is_gone_is_found_by_its_ledger(store):
    shutil.rmtree(store)
    assert len(verify_all(store)[store]) == 13


def test_a_path_of_nobody(store, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        verify_all(tmp_path / "none")
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="no ledger tells of it"):
        verify_all(tmp_path / "other")
