import itertools
import json

import pytest

from vasculome.errors import UserError
from vasculome.storage.ledger import (
    Lease,
    Ledger,
    TileResult,
    ledger_path,
    missing_file,
    void_tiles,
)
from vasculome.storage.shards import ABSENT, checksum, write_bytes_atomic


def _tile(store, name, data, **record):
    write_bytes_atomic(store / name, data)
    return TileResult({name: checksum(data)}, record)


@pytest.fixture
def store(tmp_path):
    store = tmp_path / "s.zarr"
    ledger = Ledger(store, "d1")
    for i in range(12):
        ledger.record(f"0.{i}", _tile(store, f"c/{i}", b"x" * (i + 1), count=i))
    ledger.record("0.12", TileResult({"c/12": ABSENT}))
    return store


def test_entries_survive(store):
    again = Ledger(store, "d1")
    assert list(again.done) == [f"0.{i}" for i in range(13)]
    assert again.done["0.3"] == TileResult({"c/3": checksum(b"xxxx")}, {"count": 3})


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_ignored_and_repaired(store, cut):
    path = ledger_path(store)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Ledger(store, "d1")
    assert list(again.done) == [f"0.{i}" for i in range(12)]
    again.record("0.12", TileResult({"c/12": ABSENT}))
    assert all(json.loads(line) for line in path.read_text().splitlines())
    assert len(Ledger(store, "d1").done) == 13


def test_a_torn_header_voids_everything(store):
    path = ledger_path(store)
    path.write_bytes(b'{"dig' + path.read_bytes()[12:])
    assert Ledger(store, "d1").done == {}


def test_a_damaged_line_costs_its_tile_only(store, caplog):
    path = ledger_path(store)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = b"\xff garbage\n"
    path.write_bytes(b"".join(lines))
    assert sorted({f"0.{i}" for i in range(13)} - set(Ledger(store, "d1").done)) == ["0.3"]
    assert "line 5" in caplog.text


def test_another_digest_voids_entries_and_removes_their_files(store):
    (store / "mine.txt").write_text("not recorded")
    assert Ledger(store, "d2").done == {}
    assert [p.name for p in store.rglob("*") if p.is_file()] == ["mine.txt"]
    assert Ledger(store, "d1").done == {}


def test_content_does_not_depend_on_order_but_on_everything_else(tmp_path):
    entries = {f"{i}": TileResult({f"c/{i}": f"{i:08x}-4"}, {"n": i}) for i in range(4)}
    contents = set()
    for n, order in enumerate(itertools.permutations(entries)):
        ledger = Ledger(tmp_path / f"s{n}", "d")
        for tile_id in order:
            ledger.record(tile_id, entries[tile_id])
        contents.add(ledger.content())
        ledger.settle()
    assert len(contents) == 1
    assert len({p.read_bytes() for p in tmp_path.glob("*.jsonl")}) == 1
    ledger.record("3", TileResult({"c/3": "00000003-4"}, {"n": 5}))
    assert ledger.content() not in contents


def test_void_tiles_are_redone(store):
    void_tiles(store, ["0.3", "0.5", "nonsense"])
    assert {"0.3", "0.5"}.isdisjoint(Ledger(store, "d1").done)
    assert len(Ledger(store, "d1").done) == 11


def test_a_held_store_is_not_touched(store, monkeypatch):
    def refuse(self):
        raise UserError("held", where=self.path, fix="wait")

    monkeypatch.setattr(Lease, "_take", refuse)
    before = ledger_path(store).read_bytes()
    with pytest.raises(UserError, match="held"):
        void_tiles(store, ["0.3"])
    assert ledger_path(store).read_bytes() == before


def test_missing_or_cut_files_are_seen_without_reading(store):
    (store / "c" / "1").unlink()
    (store / "c" / "2").write_bytes(b"xx")
    (store / "c" / "12").write_bytes(b"new")
    for _ in range(2):
        ledger = Ledger(store, "d1")
        unproven = [
            tile_id for tile_id in map("0.{}".format, range(13)) if not ledger.proves(tile_id)
        ]
        assert unproven == ["0.1", "0.2", "0.12"]
    assert not ledger.proves("never heard of")


def test_a_tile_of_nothing_but_zeros_is_proved_by_the_absence_of_its_file(store):
    ledger = Ledger(store, "digest")
    ledger.record("0.0", TileResult({"c/9/9": ABSENT}))
    assert Ledger(store, "digest").proves("0.0")
    assert missing_file(store) is None
    write_bytes_atomic(store / "c/9/9", b"stale")
    assert missing_file(store) == store / "c/9/9"
    assert not Ledger(store, "digest").proves("0.0")
