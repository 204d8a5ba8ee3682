"""Runs that are killed and files that are damaged: the next run ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
import yaml
from scipy import ndimage

from vasculome.app import main
from vasculome.config import parse_config, parse_samples
from vasculome.errors import UserError
from vasculome.simulate.phantoms import mosaic_phantom, ultrasound_phantom
from vasculome.stages.job import Job, execute
from vasculome.storage.raw_files import write_tiff_tiles

ROOT = Path(__file__).parents[2]
WORKERS = 2
KILLS = 5
TILES = 50
FRAMES, BLOCKS = 480, 24
SLABS = 16

CONFIG = {
    "samples": "samples.tsv",
    "results": "results",
    "storage": {"chunk_zyx": [16, 16, 16], "shard_zyx": [32, 32, 32]},
    # So low that every tile has candidates and so writes a shard, which can be watched.
    "microscopy": {"slab_mb": 1, "segment": {"scales_um": [2.0, 4.0, 8.0], "low_threshold": 1e-6}},
    "ultrasound": {
        "clutter": {"block_frames": FRAMES // BLOCKS, "keep_from": 3},
        "track": {"min_length_frames": 3},
    },
}
BRAIN = {
    "sample": "brain",
    "modality": "microscopy",
    "path": "raw/brain.tif",
    "format": "tiff_stack",
    "spacing_um": "4,2,2",
}
MOSAIC = {
    "sample": "mosaic",
    "modality": "microscopy",
    "path": "raw/mosaic",
    "format": "tiff_tiles",
    "spacing_um": "4,2,2",
}
MOUSE = {
    "sample": "mouse",
    "modality": "ultrasound",
    "path": "raw/mouse.npy",
    "format": "iq",
    "spacing_um": "49.28,49.28",
    "axes": "tzx",
    "frame_rate_hz": "1000",
    "wavelength_um": "98.56",
}


@dataclass(frozen=True)
class Run:
    """A folder with one sample, run to ``target`` by the real Snakefile."""

    folder: Path
    sample: dict[str, str]
    target: str

    @property
    def results(self) -> Path:
        return self.folder / "results" / self.sample["sample"]

    def write(self, scheduler: str) -> None:
        compute = {"scheduler": scheduler, "workers": WORKERS}
        content = {**CONFIG, "compute": compute}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(content))
        rows = (self.sample.keys(), self.sample.values())
        (self.folder / "samples.tsv").write_text("\n".join("\t".join(row) for row in rows))

    def copy(self, folder: Path, scheduler: str = "local") -> Run:
        shutil.copytree(self.folder, folder)
        copied = Run(folder, self.sample, self.target)
        copied.write(scheduler)
        return copied

    def snakemake(self, *options: str) -> list[str]:
        config = str(self.folder / "config.yaml")
        return [*_python("snakemake"), *options, *self._where(), "--configfile", config]

    def resume(self, *options: str) -> list[str]:
        """Return what follows ``vasculome``, to carry on from any folder."""
        config = str(self.folder / "config.yaml")
        return ["resume", *options, "--configfile", config, "--", self.target, *self._where()]

    def checksums(self) -> dict[str, str]:
        """Return a checksum of every result that holds no times; there must be no other file."""
        return {
            str(path.relative_to(self.results)): hashlib.blake2b(path.read_bytes()).hexdigest()
            for path in sorted(self.results.rglob("*"))
            if path.is_file()
        }

    def processes(self) -> list[psutil.Process]:
        """Return the processes that work in the folder."""
        return [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(self.folder)]

    def wait_until_alone(self) -> None:
        deadline = time.monotonic() + 60
        while alive := self.processes():
            assert time.monotonic() < deadline, f"still alive: {alive}"
            time.sleep(0.05)

    def _where(self) -> list[str]:
        snakefile = str(ROOT / "Snakefile")
        return ["--snakefile", snakefile, "--directory", str(self.folder), "--cores", "2"]


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _finish(command: list[str]) -> str:
    """Run a command to its good end, and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def _recorded(store: Path) -> int:
    """Return how many tiles the ledger of a store holds."""
    ledger = store.with_name(f"{store.name}.ledger.jsonl")
    return max(0, ledger.read_bytes().count(b"\n") - 1) if ledger.exists() else 0


def _start(command: list[str], store: Path, *, until: int) -> subprocess.Popen[bytes]:
    """Start a run in a process group of its own, and return when so many tiles are recorded."""
    run = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 180
    while _recorded(store) < until:
        if run.poll() is not None or time.monotonic() > deadline:
            os.killpg(run.pid, signal.SIGKILL)
            raise AssertionError(f"no {until} tiles of {store}: {run.stderr.read()[-2000:]!r}")
        time.sleep(0.002)
    return run


def _kill_all(run: subprocess.Popen[bytes]) -> None:
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()


def _kill_snakemake_only(run: subprocess.Popen[bytes]) -> None:
    """Kill the one process that is Snakemake, be it ``run`` itself or started by it."""
    started = psutil.Process(run.pid)
    family = [started, *started.children()]
    (snakemake,) = (p for p in family if p.cmdline()[1:3] == ["-m", "snakemake"])
    snakemake.kill()
    run.wait()


def _stamps(files: Iterator[Path]) -> dict[Path, tuple[int, int]]:
    """Return what is new with every file that is written again."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def _shards(store: Path) -> dict[Path, tuple[int, int]]:
    return _stamps(store.glob("0/c/*/*/*"))


def _proven(store: Path) -> set[Path]:
    """Return the shards that the ledger tells of; a line that is being written is left out."""
    lines = store.with_name(f"{store.name}.ledger.jsonl").read_bytes().split(b"\n")[1:-1]
    return {store / name for line in lines for name in json.loads(line)["files"] if name[0] == "0"}


def _written_again(before: dict[Path, tuple[int, int]], after: dict[Path, tuple[int, int]]) -> set:
    return {path for path, stamp in before.items() if after.get(path) != stamp}


def _from_before(run: Run, stage: str) -> int:
    """Return how many tiles a stage's log says that an earlier run has done."""
    log = run.folder / f"results/logs/{run.results.name}/{stage}.log"
    return int(re.search(r"\((\d+) from before\)", log.read_text())[1])


@pytest.fixture(scope="module")
def brain(tmp_path_factory) -> Run:
    """A volume that is ingested and normalized, so that enhancement comes next."""
    run = Run(tmp_path_factory.mktemp("brain"), BRAIN, "all_mask")
    noise = np.random.default_rng(1).normal(size=(64, 160, 160))
    smooth = ndimage.gaussian_filter(noise, (1.0, 2.0, 2.0))
    (run.folder / "raw").mkdir()
    volume = np.round(2000 + 5000 * smooth / smooth.std()).clip(0).astype(np.uint16)
    tifffile.imwrite(run.folder / "raw/brain.tif", volume, photometric="minisblack")
    run.write("inline")
    _finish(run.snakemake("all_normalize"))
    return run


@pytest.fixture(scope="module")
def mouse(tmp_path_factory) -> Run:
    """An acquisition that is ingested, so that localization comes next."""
    run = Run(tmp_path_factory.mktemp("mouse"), MOUSE, "all_track")
    phantom = ultrasound_phantom(seed=1, n_frames=FRAMES, shape=(48, 48), mean_bubbles=20.0)
    (run.folder / "raw").mkdir()
    np.save(run.folder / "raw/mouse.npy", np.concatenate(list(phantom.blocks)))
    run.write("inline")
    _finish(run.snakemake("all_ingest_iq"))
    return run


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory) -> Run:
    """Tiles that are not yet registered."""
    run = Run(tmp_path_factory.mktemp("mosaic"), MOSAIC, "all_ingest_image")
    phantom = mosaic_phantom(
        seed=3, counts=(3, 3), tile_shape=(96, 96, 96), overlap=(30, 30), jitter=(1.0, 2.0, 2.0)
    )
    positions_um = phantom.nominal_starts * (4.0, 2.0, 2.0)
    write_tiff_tiles(run.folder / "raw/mosaic", phantom.tiles, positions_um.tolist())
    run.write("inline")
    return run


@pytest.fixture(scope="module")
def whole_brain(brain, tmp_path_factory) -> Run:
    """The run that nobody disturbs, without workers; not to be changed."""
    whole = brain.copy(tmp_path_factory.mktemp("whole") / "brain", scheduler="inline")
    _finish(whole.snakemake(whole.target))
    assert len(_shards(whole.results / "candidates.ome.zarr")) == TILES
    return whole


@pytest.fixture(scope="module")
def whole_mouse(mouse, tmp_path_factory) -> Run:
    """As ``whole_brain``."""
    whole = mouse.copy(tmp_path_factory.mktemp("whole") / "mouse", scheduler="inline")
    _finish(whole.snakemake(whole.target))
    return whole


def test_a_run_killed_five_times_ends_with_the_same_bytes(brain, whole_brain, tmp_path):
    run = brain.copy(tmp_path / "run")
    store = run.results / "candidates.ome.zarr"
    moments = random.Random(1)
    command = run.snakemake(run.target)
    shards: dict[Path, tuple[int, int]] = {}
    proven: set[Path] = set()
    for number in range(KILLS):
        # So early that what follows the last moment cannot end the stage before the kill.
        part = (TILES - 15) // KILLS
        started = _start(command, store, until=number * part + moments.randint(1, part - 2))
        if number < KILLS - 1:
            _kill_all(started)
            run.wait_until_alone()
        else:
            # Its stage lives on, and is left to finish what it has begun.
            _kill_snakemake_only(started)
        before, shards = shards, _shards(store)
        again = _written_again(before, shards)
        assert not again & proven, "what is recorded is done"
        assert len(again) <= WORKERS
        proven = _proven(store)
        assert len(proven) < TILES, "the kill was meant to come in the middle of the stage"
        print(
            f"kill {number + 1}: {len(proven)} of {TILES} tiles recorded, {len(again)} done twice"
        )
        command = [*_python("vasculome.app"), *run.resume()]

    printed = _finish(command)
    assert re.search(rf"waiting for process \d+, which works on {run.results}/", printed)
    # The orphan itself may have been at shards that an earlier kill had left without a record.
    again = _written_again(shards, _shards(store))
    assert not again & proven, "an orphan's work is not lost"
    assert len(again) <= WORKERS
    assert _from_before(run, "enhance") == TILES
    assert run.checksums() == whole_brain.checksums()
    run.wait_until_alone()


def test_a_live_run_is_left_alone_and_an_orphan_ended_on_demand(
    brain, whole_brain, tmp_path, capfd, monkeypatch
):
    run = brain.copy(tmp_path / "run")
    store = run.results / "candidates.ome.zarr"
    live = _start(run.snakemake(run.target), store, until=3)
    lease = store.with_name(f"{store.name}.lease.json")
    stage = psutil.Process(json.loads(lease.read_text())["pid"])
    # It rests, so that it cannot come to its end before all has been tried.
    stage.suspend()

    assert main(run.resume()) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert f"a run is going on (snakemake is process {live.pid})" in said

    monkeypatch.chdir(run.folder)
    with pytest.raises(UserError, match=f"process {stage.pid} .* is working on"):
        execute(_job(run, "enhance"))
    assert main(["doctor", "--verify", str(store)]) == 0

    _kill_snakemake_only(live)
    shards, recorded = _shards(store), _recorded(store)
    assert recorded < TILES
    monkeypatch.chdir(tmp_path)
    assert main(run.resume("--end-orphans")) == 0
    assert f"ending process {stage.pid}, which works on {run.results}/" in capfd.readouterr().out
    assert not stage.is_running()
    assert len(_written_again(shards, _shards(store))) <= WORKERS
    assert recorded <= _from_before(run, "enhance") <= recorded + WORKERS
    assert run.checksums() == whole_brain.checksums()
    run.wait_until_alone()


def test_damaged_shards_are_named_and_redone(whole_brain, tmp_path, capsys):
    run = whole_brain.copy(tmp_path / "run")
    store = run.results / "candidates.ome.zarr"
    before = _shards(store)
    flipped, cut, gone = damaged = random.Random(3).sample(sorted(before), 3)
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-7])
    gone.unlink()
    metadata = run.results / "mask.ome.zarr/1/zarr.json"
    metadata.write_text(metadata.read_text()[:-9])

    assert main(["doctor", "--verify", str(store)]) == 1
    said = capsys.readouterr().out
    for shard, fault in ((flipped, "has changed"), (cut, "is cut to"), (gone, "is missing")):
        assert f"{shard}: {fault}" in said
    assert said.count("/0/c/") == len(damaged)
    assert main(["doctor", "--verify", str(run.results)]) == 1
    assert capsys.readouterr().out.startswith(f"{metadata}: its metadata is no JSON\n")

    _finish(run.snakemake(run.target))
    assert run.checksums() == whole_brain.checksums()
    assert _written_again(before, _shards(store)) == set(damaged)
    assert _from_before(run, "enhance") == TILES - len(damaged)
    assert main(["doctor", "--verify", str(run.folder / "results")]) == 0


def test_localization_and_tracking_carry_on_to_the_same_bytes(mouse, whole_mouse, tmp_path):
    run = mouse.copy(tmp_path / "run")
    moments = random.Random(4)
    command = run.snakemake(run.target)
    for store in (run.results / "detections", run.results / "tracks"):
        killed = _start(command, store, until=moments.randint(1, BLOCKS // 2))
        _kill_all(killed)
        run.wait_until_alone()
        recorded = _recorded(store)
        assert recorded < BLOCKS, "the kill was meant to come in the middle of the stage"
        parts = _stamps(store.glob("part-*.parquet"))
        command = [*_python("vasculome.app"), *run.resume()]
        print(f"killed with {recorded} of {BLOCKS} blocks in {store.name}")
    _finish(command)
    again = _written_again(parts, _stamps(store.glob("part-*.parquet")))
    assert len(again) <= 1, "a scan has one worker"
    assert _from_before(run, "track") >= recorded - 1
    assert run.checksums() == whole_mouse.checksums()
    run.wait_until_alone()


def test_stitching_carries_on_to_the_same_bytes(mosaic, tmp_path):
    whole = mosaic.copy(tmp_path / "whole", scheduler="inline")
    _finish(whole.snakemake(whole.target))
    run = mosaic.copy(tmp_path / "run")
    store = run.results / "image.ome.zarr"
    command = run.snakemake(run.target)
    for place, until in ((run.results / "offsets", 1), (store, 4)):
        killed = _start(command, place, until=until)
        _kill_all(killed)
        run.wait_until_alone()
        command = [*_python("vasculome.app"), *run.resume()]
    shards, recorded = _shards(store), _recorded(store)
    assert recorded < SLABS, "the kill was meant to come in the middle of the stage"
    _finish(command)
    # A slab is a row of shards, and each worker was at one.
    assert len(_written_again(shards, _shards(store))) <= WORKERS * len(_shards(store)) / SLABS
    assert _from_before(run, "ingest_image") == recorded
    assert run.checksums() == whole.checksums()
    run.wait_until_alone()


def _job(run: Run, stage: str) -> Job:
    """Return the job that the workflow would run, in the folder of ``run``."""
    config = parse_config(yaml.safe_load((run.folder / "config.yaml").read_text()), where="config")
    (sample,) = parse_samples((run.folder / "samples.tsv").read_text(), where="samples")
    return Job(stage, config, sample, WORKERS)
