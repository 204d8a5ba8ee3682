"""A network segments in the real workflow; weights that are no good are told in one line."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from damaged_weights import WEIGHTS, missing, truncated
from tiny_project import (
    BRAIN,
    CONFIG,
    Project,
    check_line,
    told_by,
    told_by_snakemake,
    write_planes,
)

from vasculome.models.student import Student, StudentDesign
from vasculome.simulate.phantoms import microscope_phantom
from vasculome.storage.weights import write_weights

STORES = ("vessel_probability.ome.zarr", "candidates.ome.zarr", "mask.ome.zarr")


def _write_weights(folder: Path, *, seed: int) -> None:
    """Write random weights that see vessels in half of the volume."""
    torch.manual_seed(seed)
    network = Student(StudentDesign(widths=(2, 3), stem_stride=2))
    with torch.no_grad():
        network.head.weight.mul_(5)
        network.head.bias.zero_()
    card = {
        "name": "net",
        "architecture": "student",
        "arguments": asdict(network.design),
        "metrics": {"threshold": 0.5},
    }
    write_weights(folder / WEIGHTS, network.state_dict(), card)


def _configure(project: Project, **compute: object) -> None:
    segment = {"segmenter": WEIGHTS, "network": {"window": 32}, "min_object_um3": 100.0}
    microscopy = {**CONFIG["microscopy"], "segment": segment}
    project.write_config({"microscopy": microscopy, "compute": compute or CONFIG["compute"]})


@pytest.fixture(scope="module")
def segmented(tmp_path_factory) -> Project:
    """A project whose vessels a network has segmented."""
    project = Project(tmp_path_factory.mktemp("segmented"))
    volume, _ = microscope_phantom(seed=1, shape=(40, 96, 96), spacing_um=(4.0, 2.0, 2.0))
    write_planes(project.folder / "raw/brain", volume)
    _write_weights(project.folder, seed=0)
    _configure(project)
    project.write_samples(BRAIN)
    done = project.run("all_mask")
    assert done.returncode == 0, done.stderr[-4000:]
    return project


def _voxels(project: Project) -> dict[str, bytes]:
    folder = project.folder / "results/brain"
    paths = (path for store in STORES for path in sorted((folder / store).rglob("c/**/*")))
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


def _redone(project: Project) -> set[str]:
    plan = project.run("-n", "all_mask").stdout
    return set(re.findall(r"^(?:local)?rule (\w+):", plan, re.MULTILINE)) - {"all_mask"}


def test_a_network_segments(segmented):
    folder = segmented.folder / "results/brain"
    summary = json.loads((folder / "manifests/enhance.json").read_text())["summary"]
    assert summary["network"] == "student" and summary["strong_voxels"] > 1000
    told = json.loads((folder / "manifests/mask.json").read_text())["summary"]
    assert 0 < told["vessel_voxels"] <= summary["strong_voxels"]
    assert all((folder / store / "zarr.json").exists() for store in STORES)
    log = (segmented.folder / "results/logs/brain/enhance.log").read_text()
    assert "memory bound" in log


def test_other_weights_redo_what_comes_of_them(segmented):
    _configure(segmented)
    assert _redone(segmented) == set()
    try:
        _write_weights(segmented.folder, seed=1)
        assert _redone(segmented) == {"enhance", "mask"}
    finally:
        _write_weights(segmented.folder, seed=0)


def test_the_number_of_workers_changes_no_byte(segmented):
    before = _voxels(segmented)
    assert len(before) > 6
    manifest = segmented.folder / "results/brain/manifests/enhance.json"
    kept = manifest.read_bytes()
    _configure(segmented, scheduler="local", workers=2)
    for path in manifest.parents[1].glob("candidates*.jsonl"):
        path.unlink()
    for path in [manifest, *map(Path, before)]:
        if "mask.ome.zarr" not in str(path):
            path.unlink()
    ended = segmented.run_stage("enhance", "brain")
    _configure(segmented)
    assert ended.code == 0, ended.log
    assert _voxels(segmented) == before
    assert manifest.read_bytes() == kept


@pytest.mark.parametrize("damage", [missing, truncated])
def test_bad_weights_are_told(segmented, damage):
    before = segmented.results()
    try:
        told = damage(segmented.folder)
        check_line(told_by(segmented.run_stage("enhance", "brain")), *told)
    finally:
        _write_weights(segmented.folder, seed=0)
    assert segmented.results() == before


def test_bad_weights_are_told_before_anything_runs(segmented):
    try:
        told = truncated(segmented.folder)
        check_line(told_by_snakemake(segmented.run("-n")), *told)
    finally:
        _write_weights(segmented.folder, seed=0)
