"""Faults of the machine, of settings that fit no data, and of results that were tampered with."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_project import (
    BRAIN,
    CONFIG,
    MOSAIC,
    MOUSE,
    Project,
    check_line,
    copy_of,
    told_by,
    told_by_snakemake,
    write_planes,
)

from vasculome.storage.ledger import Lease, lease_path

VOLUME = np.random.default_rng(0).integers(0, 1000, (12, 40, 48)).astype(np.uint16)
NOISE = np.random.default_rng(0).normal(size=(2, 30, 16, 20))
NEW_BRAIN = {**BRAIN, "sample": "new", "path": "raw/new"}
NEW_MOUSE = {**MOUSE, "sample": "new", "path": "raw/new.npy"}


@pytest.fixture
def spare(finished, tmp_path) -> Project:
    """A copy of the finished project that may be damaged."""
    return copy_of(finished, tmp_path / "run")


def _add_planes(project: Project) -> None:
    write_planes(project.folder / "raw/new", VOLUME)
    project.write_samples(BRAIN, MOSAIC, MOUSE, NEW_BRAIN)


def _add_frames(project: Project) -> None:
    np.save(project.folder / "raw/new.npy", (NOISE[0] + 1j * NOISE[1]).astype(np.complex64))
    project.write_samples(BRAIN, MOSAIC, MOUSE, NEW_MOUSE)


# The machine


def test_memory_limit(project):
    project.write_config({"compute": {"scheduler": "inline", "memory_limit_gb": 0.1}})
    told = told_by(project.run_stage("enhance", "brain"))
    check_line(told, "config: compute.memory_limit_gb", "enhance of brain may need", "0.1 GB")
    told = told_by_snakemake(project.run())
    check_line(told, "ingest_image of brain may need", "use fewer workers")


def test_no_scheduler_answers(project):
    address = "tcp://127.0.0.1:9"
    project.write_config({"compute": {"scheduler": "address", "address": address}})
    told = told_by(project.run_stage("normalize", "brain"))
    check_line(told, f"compute.address: {address}", "no Dask scheduler answers", "start one")


@pytest.mark.parametrize("stage", ["ingest_image", "ingest_iq"])
def test_full_disk(project, stage):
    add = {"ingest_image": _add_planes, "ingest_iq": _add_frames}[stage]
    add(project)
    ended = project.run_stage(stage, "new", file_limit=16384)
    check_line(told_by(ended), "results/new/i", "cannot be written", "size limit", "free space")
    written = [path for path in project.folder.glob("results/new/**/*") if path.is_file()]
    assert not [p for p in written if "manifests" in p.parts or "c" in p.parts or ".tmp" in p.name]


def test_carries_on_once_there_is_space(project):
    _add_frames(project)
    assert project.run_stage("ingest_iq", "new", file_limit=16384).code == 1
    assert project.run_stage("ingest_iq", "new").code == 0


@pytest.fixture
def public(finished) -> Iterator[Project]:
    """A copy in a folder that is open to everybody, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        project = copy_of(finished, Path(folder))
        project.folder.chmod(0o777)
        (project.folder / "results").chmod(0o777)
        yield project


def test_writing_is_forbidden(public):
    (public.folder / "forbidden").mkdir(mode=0o555)
    public.write_config({"results": "forbidden/results"})
    told = told_by(public.run_stage("ingest_image", "brain", as_nobody=True))
    check_line(told, "forbidden: writing is not permitted", "set 'results'")


def test_reading_is_forbidden(public):
    before = public.results()
    plane = public.folder / "raw/brain/plane_000.tif"
    plane.chmod(0)
    told = told_by(public.run_stage("ingest_image", "brain", as_nobody=True))
    plane.chmod(0o644)
    check_line(told, "plane_000.tif", "Permission denied")
    assert public.results() == before


def test_results_folder_holds_something_else(project):
    _add_planes(project)
    store = project.folder / "results/new/image.ome.zarr"
    store.mkdir(parents=True)
    (store / "notes.txt").write_text("do not lose this")
    told = told_by(project.run_stage("ingest_image", "new"))
    check_line(told, "image.ome.zarr", "holds something else", "move it away")
    assert (store / "notes.txt").read_text() == "do not lose this"


@pytest.mark.parametrize("name", ["image.ome.zarr", "manifests/ingest_image.json"])
def test_another_run_is_at_work(project, name):
    with Lease(project.folder / "results/brain" / name):
        told = told_by(project.run_stage("ingest_image", "brain"))
    check_line(told, name, f"process {os.getpid()}", "wait for it to finish")


def test_another_machine_is_at_work(project):
    lease = lease_path(project.folder / "results/brain/image.ome.zarr")
    holder = {"host": "elsewhere", "pid": 1, "started": 0.0, "token": "0"}
    lease.write_text(json.dumps(holder))
    told = told_by(project.run_stage("ingest_image", "brain"))
    lease.unlink()
    check_line(told, "image.ome.zarr", "process 1 on elsewhere", "wait for it to finish")


# Settings that fit no data


def _changed(part: str, **settings: float) -> dict[str, dict[str, dict[str, float]]]:
    ultrasound = {**CONFIG["ultrasound"]}
    return {"ultrasound": {**ultrasound, part: {**ultrasound.get(part, {}), **settings}}}


def test_acquisition_shorter_than_the_filter(project):
    _add_frames(project)
    project.write_config(_changed("clutter", keep_from=50))
    told = told_by_snakemake(project.run())
    check_line(told, "ultrasound.clutter", "a block of 30 frames", "lower keep_from")


def _others(project: Project, *own: str) -> dict[str, str]:
    """Return checksums of all results but those of the stores `own`, which were to be redone."""
    return {name: c for name, c in project.results().items() if not name.startswith(own)}


def test_nothing_is_found(spare):
    own = "mouse/detections", "mouse/manifests/localize.json"
    own += "mouse/calibration", "mouse/manifests/calibrate.json"
    before = _others(spare, *own)
    spare.write_config(_changed("localize", threshold_snr=1e6))
    done = spare.run("all_localize")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    log = (spare.folder / "results/logs/mouse/localize.log").read_text()
    (line,) = [line for line in log.splitlines() if " ERROR " in line]
    check_line(line, "sample mouse", "no microbubble was found", "lower ultrasound.localize")
    assert done.stderr.count(line) == 1
    assert _others(spare, *own) == before


def test_nothing_is_tracked(spare):
    own = "mouse/tracks", "mouse/manifests/track.json"
    before = _others(spare, *own)
    spare.write_config(_changed("track", min_length_frames=1000))
    told = told_by(spare.run_stage("track", "mouse"))
    check_line(told, "sample mouse", "ultrasound.track.min_length_frames", "lower it")
    assert _others(spare, *own) == before


# Results that were tampered with


def _any_shard(store: Path) -> Path:
    return sorted(path for path in store.glob("0/c/**/*") if path.is_file())[0]


def lost_shard(sample: Path) -> Path:
    shard = _any_shard(sample / "image.ome.zarr")
    shard.unlink()
    return shard


def cut_shard(sample: Path) -> Path:
    shard = _any_shard(sample / "image.ome.zarr")
    shard.write_bytes(shard.read_bytes()[:-100])
    return shard


def overwritten_shard(sample: Path) -> Path:
    shard = _any_shard(sample / "image.ome.zarr")
    shard.write_bytes(bytes(shard.stat().st_size))
    return sample / "image.ome.zarr"


def lost_store(sample: Path) -> Path:
    shutil.rmtree(sample / "image.ome.zarr")
    return sample / "image.ome.zarr"


def lost_store_and_ledger(sample: Path) -> Path:
    (sample / "image.ome.zarr.ledger.jsonl").unlink()
    return lost_store(sample)


def damaged_metadata(sample: Path) -> Path:
    file = sample / "image.ome.zarr/0/zarr.json"
    file.write_text(file.read_text()[:50])
    return file


def metadata_of_something_else(sample: Path) -> Path:
    file = sample / "image.ome.zarr/zarr.json"
    file.write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    return file.parent


def cut_manifest(sample: Path) -> Path:
    file = sample / "manifests/normalize.json"
    file.write_text(file.read_text()[:50])
    return file


def manifest_of_something_else(sample: Path) -> Path:
    file = sample / "manifests/normalize.json"
    file.write_text("[1, 2]")
    return file


def manifest_without_content(sample: Path) -> Path:
    file = sample / "manifests/normalize.json"
    file.write_text('{"stage": "normalize", "summary": {"low": 0}}')
    return file


def lost_manifest(sample: Path) -> Path:
    file = sample / "manifests/normalize.json"
    file.unlink()
    return file


TAMPERED: list[Callable[[Path], Path]] = [
    lost_shard,
    cut_shard,
    overwritten_shard,
    lost_store,
    lost_store_and_ledger,
    damaged_metadata,
    metadata_of_something_else,
    cut_manifest,
    manifest_of_something_else,
    manifest_without_content,
    lost_manifest,
]


@pytest.mark.parametrize("damage", TAMPERED, ids=lambda d: d.__name__)
def test_input_of_enhancement(spare, damage):
    fault = damage(spare.folder / "results/brain").relative_to(spare.folder)
    # Under other settings there is something to do, for which the input must be read.
    spare.write_config({"microscopy": {"segment": {"scales_um": [3.0]}}})
    own = "brain/candidates.ome.zarr"
    before = _others(spare, own)
    check_line(told_by(spare.run_stage("enhance", "brain")), str(fault))
    assert _others(spare, own) == before


def lost_part(sample: Path) -> Path:
    part = sample / "detections/part-000001.parquet"
    part.unlink()
    return part


def overwritten_part(sample: Path) -> Path:
    part = sample / "detections/part-000001.parquet"
    part.write_bytes(b"x" * part.stat().st_size)
    return part


def lost_metadata_of_iq(sample: Path) -> Path:
    (sample / "iq.zarr/zarr.json").unlink()
    return sample / "iq.zarr"


@pytest.mark.parametrize(
    "damage", [lost_part, overwritten_part, lost_metadata_of_iq], ids=lambda d: d.__name__
)
def test_input_of_tracking(spare, damage):
    fault = damage(spare.folder / "results/mouse").relative_to(spare.folder)
    spare.write_config(_changed("track", min_length_frames=4))
    own = "mouse/tracks"
    before = _others(spare, own)
    check_line(told_by(spare.run_stage("track", "mouse")), str(fault))
    assert _others(spare, own) == before


def lost_map(sample: Path) -> Path:
    store = sample / "maps/density.ome.zarr"
    shutil.rmtree(store)
    return store


def overwritten_map(sample: Path) -> Path:
    shard = _any_shard(sample / "maps/density.ome.zarr")
    shard.write_bytes(bytes(shard.stat().st_size))
    return sample / "maps/density.ome.zarr"


@pytest.mark.parametrize("damage", [lost_map, overwritten_map], ids=lambda d: d.__name__)
def test_input_of_the_report(spare, damage):
    fault = damage(spare.folder / "results/mouse").relative_to(spare.folder)
    before = spare.results()
    check_line(told_by(spare.run_stage("sample_report", "mouse")), str(fault))
    assert spare.results() == before
