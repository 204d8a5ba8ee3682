"""The doctor names what is damaged, and sees to it that the next run redoes that and no more."""

from __future__ import annotations

import importlib.metadata
import json
import os

import pytest
import torch

from vasculome import doctor
from vasculome.app import main
from vasculome.stages.catalog import CATALOG
from vasculome.storage.lease import lease_path
from vasculome.storage.ledger import Ledger, TileResult
from vasculome.storage.shards import checksum, write_bytes_atomic
from vasculome.storage.weights import write_weights

STORES = {
    "register": ["offsets"],
    "place": ["placement"],
    "illuminate": ["levels", "light"],
    "ingest_image": ["image.ome.zarr"],
    "normalize": ["histogram"],
    "enhance": ["candidates.ome.zarr"],
    "mask": ["components", "mask.ome.zarr"],
    "skeleton": ["skeleton.ome.zarr"],
    "graph": ["graph_seams", "graph"],
    "vessel_maps": ["maps", "maps/radius.ome.zarr"],
    "ingest_iq": ["iq.zarr"],
    "calibrate": ["calibration"],
    "localize": ["detections"],
    "track": ["tracks"],
    "ulm_maps": ["maps", "maps/speed.ome.zarr"],
    "ulm_quality": ["quality"],
    "superresolve": ["correlation.zarr", "maps/vessel_probability.ome.zarr"],
}


STITCHED = {"register", "place", "illuminate"}


def _write(store, files):
    """Write a store of tiles of one file each, with its ledger."""
    ledger = Ledger(store, "digest")
    for number, name in enumerate(files):
        data = name.rpartition("/")[2].encode()
        write_bytes_atomic(store / name, data)
        ledger.record(f"0.{number}", TileResult({name: checksum(data)}))


@pytest.fixture
def results(tmp_path):
    """Results of two samples, as finished runs leave them, with files instead of shards."""
    for sample, modality in (("brain", "microscopy"), ("mouse", "ultrasound")):
        folder = tmp_path / "results" / sample
        for stage in (name for name, entry in CATALOG.items() if entry.modality == modality):
            for store in STORES[stage]:
                # The ledger of all maps tells of files of each map, which has one of its own.
                inside = STORES[stage][1].removeprefix("maps/") + "/" if store == "maps" else ""
                _write(folder / store, [f"{inside}part-{i}" for i in range(4)])
            write_bytes_atomic(
                folder / f"manifests/{stage}.json", json.dumps({"stores": STORES[stage]}).encode()
            )
    return tmp_path / "results"


def _manifests(folder):
    return {path.stem for path in (folder / "manifests").glob("*.json")}


def _tiles(store):
    return sorted(Ledger(store, "digest").done)


@pytest.mark.parametrize("sample", ["brain", "mouse"])
def test_a_whole_store_is_left_as_it_is(results, sample, capsys):
    before = {p: p.stat().st_mtime_ns for p in results.rglob("*")}
    assert main(["doctor", "--verify", str(results / sample)]) == 0
    assert capsys.readouterr().out == f"{results / sample}: every file is as it was written.\n"
    assert {p: p.stat().st_mtime_ns for p in results.rglob("*")} == before


def test_damage_is_named_and_its_tiles_are_forgotten(results, capsys):
    store = results / "brain/candidates.ome.zarr"
    (store / "part-1").write_bytes(b"PART-1")
    (store / "part-3").unlink()
    assert main(["doctor", "--verify", str(store)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"{store}/part-1: has changed", f"{store}/part-3: is missing"]
    assert "2 tiles" in said[2]
    assert _tiles(store) == ["0.0", "0.2"]
    # Asked again: nothing is left that is not to be redone.
    assert main(["doctor", "--verify", str(store)]) == 0


@pytest.mark.parametrize(
    ("store", "kept"),
    [
        ("offsets", set()),
        ("light", {"register", "place"}),
        ("image.ome.zarr", STITCHED),
        ("histogram", STITCHED | {"ingest_image"}),
        ("candidates.ome.zarr", STITCHED | {"ingest_image", "normalize"}),
        ("components", STITCHED | {"ingest_image", "normalize", "enhance"}),
        (
            "maps/radius.ome.zarr",
            STITCHED | {"ingest_image", "normalize", "enhance", "mask", "skeleton", "graph"},
        ),
    ],
)
def test_the_stage_and_all_after_it_are_run_again(results, store, kept):
    (results / "brain" / store / "part-0").unlink()
    others = _manifests(results / "mouse")
    assert main(["doctor", "--verify", str(results / "brain" / store)]) == 1
    assert _manifests(results / "brain") == kept
    assert _manifests(results / "mouse") == others


@pytest.mark.parametrize("path", ["maps", "maps/radius.ome.zarr", "maps/radius.ome.zarr/part-2"])
def test_a_map_is_verified_by_the_ledger_of_all_maps(results, path):
    maps = results / "brain/maps"
    ledger = Ledger(maps, "digest")
    ledger.void(["0.2"])
    # One file of the tile is as the map's own ledger tells, the other is not.
    data = (maps / "radius.ome.zarr/part-2").read_bytes()
    ledger.record("0.2", TileResult({"radius.ome.zarr/part-2": checksum(data + b"!")}))
    assert main(["doctor", "--verify", str(results / "brain" / path)]) == 1
    assert _tiles(maps) == ["0.0", "0.1", "0.3"]
    assert len(_tiles(maps / "radius.ome.zarr")) == 4


def test_a_relative_path_is_a_path(results, monkeypatch, capsys):
    monkeypatch.chdir(results / "mouse/manifests")
    (results / "mouse/tracks/part-2").unlink()
    assert main(["doctor", "--verify", "../tracks"]) == 1
    assert f"{results}/mouse/tracks/part-2: is missing\n" in capsys.readouterr().out
    assert _manifests(results / "mouse") == {"ingest_iq", "calibrate", "localize", "superresolve"}


@pytest.mark.parametrize(("path", "fault"), [("none", "does not exist"), (".", "no ledger")])
def test_a_wrong_path_is_one_line(tmp_path, path, fault, capsys):
    assert main(["doctor", "--verify", str(tmp_path / path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert fault in said


def test_a_store_that_a_run_holds_is_named_but_left_alone(results, capsys):
    store = results / "mouse/tracks"
    (store / "part-2").unlink()
    lease = lease_path(store)
    lease.write_text(json.dumps({"host": "node7", "pid": 1, "started": 0.0, "token": "t"}))
    manifests = _manifests(results / "mouse")
    assert main(["doctor", "--verify", str(store)]) == 2
    captured = capsys.readouterr()
    assert "part-2: is missing" in captured.out
    assert captured.err.count("\n") == 1
    assert "process 1 on node7" in captured.err
    os.utime(lease, (0, 0))
    assert _manifests(results / "mouse") == manifests
    assert len(_tiles(store)) == 4


def test_a_damaged_manifest_is_one_line(results, capsys):
    (results / "mouse/tracks/part-2").unlink()
    manifest = results / "mouse/manifests/localize.json"
    manifest.write_text("{")
    assert main(["doctor", "--verify", str(results / "mouse/tracks")]) == 2
    assert capsys.readouterr().err.startswith(f"vasculome: {manifest}: is no manifest")
    assert len(_tiles(results / "mouse/tracks")) == 4


def test_weights_that_ship_are_checked(capsys, monkeypatch, tmp_path):
    card = {"name": "w", "architecture": "bubble_net", "arguments": {}}
    for name in ("good", "bad"):
        write_weights(tmp_path / f"{name}.safetensors", {"a": torch.ones(3)}, card)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(bad.read_bytes()[:-1])
    paths = [tmp_path / f"{name}.safetensors" for name in ("bad", "good")]
    monkeypatch.setattr(doctor, "shipped_weights", lambda: paths)
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "weights good: bubble_net, " in told
    assert "weights bad: DAMAGED" in told and "1 weights are damaged" in told
    assert "The installation is whole" not in told


def test_the_installation_is_whole_here(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"numpy {importlib.metadata.version('numpy')}" in said
    assert "GPU: " in said
    assert "MISSING" not in said


def test_what_is_not_installed_is_named(monkeypatch, capsys):
    wanted = ["numpy>=2.1", "no-such-package>=1", 'pytest>=8; extra == "test"']
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: wanted)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "no-such-package: MISSING" in said
    assert "pytest" not in said
    assert said.endswith("1 packages are missing.\n")
