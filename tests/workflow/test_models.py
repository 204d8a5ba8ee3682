"""Networks are trained by the real workflow; a run that is killed ends with the same weights."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from tiny_project import ROOT

QUICK = ROOT / "config/models/quick.yaml"
BUBBLES = "results/models/quick_bubbles"
ENVIRONMENT = {**os.environ, "NO_COLOR": "1"}


def _snakemake(folder: Path, *options: str) -> list[str]:
    where = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    return [sys.executable, "-m", "snakemake", *options, *where, "--configfile", str(QUICK)]


def _finish(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=400, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


def _checksums(folder: Path) -> dict[str, str]:
    """Return a checksum of every result of the network of bubbles that tells of no times."""
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted((folder / BUBBLES).rglob("*"))
        if path.is_file() and path.name != "record.json" and "checkpoints" not in path.parts
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder in which nobody has disturbed the training; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    _finish(_snakemake(folder, "models"))
    return folder


def test_every_network_has_weights_a_card_and_a_record(trained):
    models = yaml.safe_load(QUICK.read_text())["models"]
    for name, settings in models.items():
        folder = trained / "results/models" / name
        card = json.loads((folder / f"{name}.json").read_text())
        manifest = json.loads((folder / "manifest.json").read_text())
        assert (folder / f"{name}.safetensors").exists()
        assert card["name"] == name and card["architecture"] == settings["network"]
        over_seeds = manifest["summary"]["metrics_over_seeds"]
        assert over_seeds["score"]["seeds"] == len(settings["seeds"])
        assert card["metrics_over_seeds"] == over_seeds
        chosen = folder / f"seed-{manifest['summary']['chosen_seed']}" / f"{name}.safetensors"
        assert filecmp.cmp(chosen, folder / f"{name}.safetensors", shallow=False)
        for seed in settings["seeds"]:
            record = json.loads((folder / f"seed-{seed}/record.json").read_text())
            assert record["curves"]["step"] == list(range(settings["steps"]))
            assert record["peak_bytes"] > 0
    seeds = [trained / BUBBLES / f"seed-{seed}/quick_bubbles.safetensors" for seed in (0, 1)]
    assert seeds[0].read_bytes() != seeds[1].read_bytes()
    page = (trained / "results/models/report.html").read_text()
    assert "quick_bubbles" in page and "quick_stulm" in page and "peak memory" in page
    words = re.sub(r"base64,[\w+/=]+", "", page)  # a picture may hold any letters
    assert "NaN" not in words and ">nan<" not in words


def test_what_is_trained_is_not_trained_again(trained):
    assert "Nothing to be done" in _finish(_snakemake(trained, "models", "--dry-run"))
    # Without samples the networks are all there is.
    assert "Nothing to be done" in _finish(_snakemake(trained, "--dry-run"))


def test_a_training_that_is_killed_goes_on_to_the_same_weights(trained, tmp_path):
    target = f"{BUBBLES}/manifest.json"
    run = subprocess.Popen(
        _snakemake(tmp_path, target),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 200
    while not (found := list(tmp_path.glob(f"{BUBBLES}/seed-*/checkpoints/*/*.safetensors"))):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    while [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(tmp_path)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    folder = found[0].parents[2]
    assert not (folder / "manifest.json").exists(), "the kill was meant to come in the middle"

    options = ["--directory", str(tmp_path), "--snakefile", str(ROOT / "Snakefile")]
    resume = [sys.executable, "-m", "vasculome.app", "resume", "--configfile", str(QUICK)]
    _finish([*resume, "--", target, *options, "--cores", "2"])
    log = tmp_path / "results/logs/models/quick_bubbles" / f"{folder.name}.log"
    assert "training goes on from step 6 of 12" in log.read_text()
    assert _checksums(tmp_path) == _checksums(trained)


def test_a_fault_in_the_configuration_ends_in_one_line(tmp_path):
    command = _snakemake(tmp_path, "models", "--dry-run")
    for changes, says in (
        ({"models": {"a": {"network": "stulm", "pruning": True}}}, "pruning needs intermediate"),
        ({"models": {"a": {"network": "stulm", "steps": 0}}}, "models.a.steps: Input should be"),
        ({}, "there are neither samples nor models"),
    ):
        path = tmp_path / "bad.yaml"
        path.write_text(yaml.safe_dump({"samples": None, **changes}))
        done = subprocess.run(
            [*command[:-1], str(path)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1 and done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("vasculome: config: ") and says in line
