"""A network localizes in the real workflow; weights that are no good are told in one line."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from damaged_weights import WEIGHTS, missing, truncated
from tiny_project import CONFIG, MOUSE, Project, check_line, told_by, told_by_snakemake

from vasculome.models.bubble_net import BubbleNet, BubbleNetDesign
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.storage.tables import read_parts
from vasculome.storage.weights import card_path, write_weights


def _write_weights(folder: Path, *, seed: int, spacing: tuple[float, float] = (0.25, 0.6)) -> None:
    """Write random weights that see bubbles nearly everywhere."""
    torch.manual_seed(seed)
    network = BubbleNet(BubbleNetDesign(2, channels=(4, 6)))
    with torch.no_grad():
        network.out.linear.bias[0] = 2
    card = {
        "name": "net",
        "architecture": "bubble_net",
        "arguments": asdict(network.design),
        "spacing_wavelengths": spacing,
    }
    write_weights(folder / WEIGHTS, network.state_dict(), card)


def _configure(project: Project, **compute: object) -> None:
    localize = {"localizer": "stulm", "stulm": {"weights": WEIGHTS}}
    ultrasound = {**CONFIG["ultrasound"], "localize": localize}
    project.write_config({"ultrasound": ultrasound, "compute": compute or CONFIG["compute"]})


@pytest.fixture(scope="module")
def localized(tmp_path_factory) -> Project:
    """A project whose bubbles a network has localized."""
    project = Project(tmp_path_factory.mktemp("localized"))
    phantom = ultrasound_phantom(seed=1, n_frames=180, shape=(48, 48), mean_bubbles=8.0)
    (project.folder / "raw").mkdir()
    np.save(project.folder / "raw/mouse.npy", np.concatenate(list(phantom.blocks)))
    _write_weights(project.folder, seed=0)
    _configure(project)
    project.write_samples(MOUSE)
    done = project.run("all_track")
    assert done.returncode == 0, done.stderr[-4000:]
    return project


def _detections(project: Project) -> dict[str, bytes]:
    folder = project.folder / "results/mouse/detections"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part*"))}


def _redone(project: Project) -> set[str]:
    plan = project.run("-n", "all_track").stdout
    return set(re.findall(r"^(?:local)?rule (\w+):", plan, re.MULTILINE)) - {"all_track"}


def test_a_network_localizes(localized):
    folder = localized.folder / "results/mouse"
    found = read_parts(folder / "detections")
    summary = json.loads((folder / "manifests/localize.json").read_text())["summary"]
    assert summary["localizer"] == "stulm"
    assert summary["detections"] == len(found["frame"]) > 100
    assert 0 < summary["active_sites_percent"] < 50
    assert {"sigma_z_um", "sigma_x_um", "score"} <= set(found)
    assert json.loads((folder / "manifests/track.json").read_text())["summary"]["tracks"] > 0


def test_other_weights_redo_what_comes_of_them(localized):
    _configure(localized)
    assert _redone(localized) == set()
    try:
        _write_weights(localized.folder, seed=1)
        assert _redone(localized) == {"localize", "track"}
    finally:
        _write_weights(localized.folder, seed=0)


def test_the_number_of_workers_changes_no_byte(localized):
    before = _detections(localized)
    manifest = localized.folder / "results/mouse/manifests/localize.json"
    kept = manifest.read_bytes()
    _configure(localized, scheduler="local", workers=2)
    for path in [manifest, *manifest.parents[1].glob("detections*/*")]:
        path.unlink()
    for path in manifest.parents[1].glob("detections*.jsonl"):
        path.unlink()
    ended = localized.run_stage("localize", "mouse")
    _configure(localized)
    assert ended.code == 0, ended.log
    assert _detections(localized) == before
    assert manifest.read_bytes() == kept


def card_of_another_network(folder: Path) -> tuple[str, ...]:
    card = card_path(folder / WEIGHTS)
    card.write_text(card.read_text().replace('"bubble_net"', '"stulm"'))
    return "mine/net.json", "architecture", "'stulm'"


def trained_on_larger_pixels(folder: Path) -> tuple[str, ...]:
    _write_weights(folder, seed=0, spacing=(0.7, 0.9))
    return WEIGHTS, "pixels of 0.7 to 0.9 wavelengths", "0.5 × 0.5", "choose another localizer"


@pytest.mark.parametrize(
    "damage", [missing, truncated, card_of_another_network, trained_on_larger_pixels]
)
def test_bad_weights_are_told(localized, damage):
    before = localized.results()
    try:
        told = damage(localized.folder)
        check_line(told_by(localized.run_stage("localize", "mouse")), *told)
    finally:
        _write_weights(localized.folder, seed=0)
    assert localized.results() == before


def test_bad_weights_are_told_before_anything_runs(localized):
    try:
        told = truncated(localized.folder)
        check_line(told_by_snakemake(localized.run("-n")), *told)
    finally:
        _write_weights(localized.folder, seed=0)
