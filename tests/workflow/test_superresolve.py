"""Vessels by a network in the real workflow: only where one is named, and shown in the report."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_project import CONFIG, MOUSE, Project, check_line, told_by_snakemake

from vasculome.geometry import Box
from vasculome.models.stulm import Stulm, StulmDesign
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.storage.omezarr import open_image
from vasculome.storage.weights import card_path, write_weights

WEIGHTS = "mine/net.safetensors"


def _write_weights(folder: Path, *, seed: int) -> None:
    """Write random weights that see vessels in about half of the places that they look at."""
    torch.manual_seed(seed)
    network = Stulm(StulmDesign(2))
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.fill_(0.02)
    card = {
        "name": "net",
        "architecture": "stulm",
        "arguments": asdict(network.design),
        "data": {"n_frames": 512},
        "settings": {"sparsify": "threshold", "threshold": 0.4},
        "spacing_wavelengths": [0.25, 0.5],
    }
    write_weights(folder / WEIGHTS, network.state_dict(), card)


def _configure(project: Project, network: str | None) -> None:
    superresolve = {"superresolve": {"network": network}}
    project.write_config({"ultrasound": {**CONFIG["ultrasound"], **superresolve}})


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> Project:
    """A project that has run to the end, map of vessels and all."""
    project = Project(tmp_path_factory.mktemp("mapped"))
    phantom = ultrasound_phantom(seed=1, n_frames=180, shape=(48, 48), mean_bubbles=8.0)
    (project.folder / "raw").mkdir()
    np.save(project.folder / "raw/mouse.npy", np.concatenate(list(phantom.blocks)))
    _write_weights(project.folder, seed=0)
    _configure(project, WEIGHTS)
    project.write_samples(MOUSE)
    done = project.run()
    assert done.returncode == 0, done.stderr[-4000:]
    return project


def _planned(project: Project, *targets: str) -> set[str]:
    done = project.run("-n", *targets)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^(?:local)?rule (\w+):", done.stdout, re.MULTILINE))


def test_vessels_are_mapped_beside_the_tracks(mapped):
    folder = mapped.folder / "results/mouse"
    summary = json.loads((folder / "manifests/superresolve.json").read_text())["summary"]
    maps = {
        name: open_image(folder / f"maps/{name}.ome.zarr")
        for name in ("density", "vessel_probability", "vessel_movies")
    }
    fine = maps["vessel_probability"].spec
    # 8 pixels for each of half a wavelength.
    assert fine.shape == maps["vessel_movies"].spec.shape == (384, 384)
    assert fine.spacing_um == pytest.approx((6.16, 6.16))
    probability = maps["vessel_probability"].read(Box.of_shape(fine.shape))
    found = 100 * (probability > 0.5).mean()
    assert summary["vessels_percent"] == pytest.approx(found, abs=0.001) and found > 1
    assert (folder / "figures/vessel_probability.png").stat().st_size > 10_000
    assert "vessels (%)" in (folder / "report.html").read_text()
    assert (mapped.folder / "results/logs/mouse/superresolve.log").read_text()


def test_nothing_is_done_twice_and_a_stage_that_is_not_wanted_is_left_out(mapped):
    assert _planned(mapped) == set()
    assert "superresolve" in _planned(mapped, "--forceall", "maps")
    _configure(mapped, None)
    try:
        assert _planned(mapped, "maps") == set()
        assert "superresolve" not in _planned(mapped, "--forceall")
    finally:
        _configure(mapped, WEIGHTS)


def test_other_weights_redo_what_comes_of_them(mapped):
    try:
        _write_weights(mapped.folder, seed=1)
        assert _planned(mapped) == {"superresolve", "sample_report", "cohort", "all"}
    finally:
        _write_weights(mapped.folder, seed=0)


def test_bad_weights_are_told_before_anything_runs(mapped):
    before = mapped.results()
    try:
        card_path(mapped.folder / WEIGHTS).unlink()
        told = told_by_snakemake(mapped.run("-n"))
    finally:
        _write_weights(mapped.folder, seed=0)
    check_line(told, "mine/net.json", "cannot be read")
    assert mapped.results() == before
