"""Metrics over folds, against what the networks say of whole volumes in one piece."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from vasculome.config import parse_config
from vasculome.models.student import Student, StudentDesign
from vasculome.stages.cross_validate import cross_validate, volume_metrics
from vasculome.stages.models import chosen_path
from vasculome.stages.training_volumes import read_given
from vasculome.stages.volume_sheet import roles_of
from vasculome.storage.weights import write_weights
from vasculome.training.volume_patches import GivenVolume

DESIGN = StudentDesign((2, 4))


def test_metrics_of_a_volume() -> None:
    truth = np.zeros((4, 4, 4), np.bool_)
    truth[:, 1, 1:3] = True
    said = np.where(truth, 0.9, 0.2).astype(np.float32)
    said[0, 3, 3] = 0.6
    found = volume_metrics(said, GivenVolume(said, truth, (2.0, 1.0, 1.0)), threshold=0.7)
    assert (found["dice"], found["cldice"], found["jaccard"], found["hd95_um"]) == (1, 1, 1, 0)
    assert found["dice_at_half"] == pytest.approx(2 * 8 / (8 + 9))
    assert found["accuracy"] == 1
    assert found["smd"] == pytest.approx(0, abs=1e-3)


def test_a_voxel_is_vessel_from_the_threshold_on_as_in_the_stage_that_segments() -> None:
    truth = np.zeros((4, 4, 4), np.bool_)
    truth[:, 1, 1:3] = True
    volume = GivenVolume(np.where(truth, 0.75, 0).astype(np.float32), truth, (2.0, 1.0, 1.0))
    for threshold in (0.75, 0.0):
        assert volume_metrics(volume.image, volume, threshold=threshold)["dice"] == 1


def test_skeletons_that_are_moved_are_as_far_apart_as_they_were_moved() -> None:
    truth = np.zeros((5, 9, 40), np.bool_)
    truth[2, 2, :] = True
    said = np.roll(truth, 3, axis=1).astype(np.float32)
    found = volume_metrics(said, GivenVolume(said, truth, (2.0, 1.0, 1.0)), threshold=0.5)
    expected = np.log(4) / np.log(1 + np.sqrt(4**2 + 8**2 + 39**2))
    assert found["smd"] == pytest.approx(expected, rel=0.02)
    nothing = volume_metrics(0 * said, GivenVolume(said, truth, (2.0, 1.0, 1.0)), threshold=0.5)
    assert nothing["smd"] == 1


def test_each_fold_is_tested_on_the_whole_of_what_it_holds_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["image\tlabel\tspacing_um"]
    for k in range(5):
        image = rng.integers(0, 4000, (16, 16, 16)).astype(np.uint16)
        tifffile.imwrite(tmp_path / f"v{k}.tif", image)
        tifffile.imwrite(tmp_path / f"m{k}.tif", (image > 3000).astype(np.uint8))
        lines.append(f"{tmp_path}/v{k}.tif\t{tmp_path}/m{k}.tif\t3,1.5,1.5")
    (tmp_path / "v.tsv").write_text("\n".join(lines))
    entry = {"network": "student", "volumes": str(tmp_path / "v.tsv"), "folds": 2}
    entry |= {"widths": [2, 4], "patch_voxels": 16, "device": "cpu", "threads": 1}
    config = {"samples": None, "results": str(tmp_path / "results"), "models": {"a": entry}}
    run = parse_config(config, where="")
    thresholds, expected = (0.45, 0.55), []
    for k, name in enumerate(run.folds["a"]):
        torch.manual_seed(k)
        network = Student(DESIGN).eval()
        card = {"name": name, "architecture": "student", "arguments": asdict(DESIGN)}
        card["metrics"] = {"threshold": thresholds[k]}
        write_weights(chosen_path(run.results, name), network.state_dict(), card)
        dices = []
        for row in roles_of(run.models[name]).held_out:
            volume = read_given(row, upper_percent=99.5)
            with torch.no_grad():
                logits = network(torch.from_numpy(volume.image)[None, None]).logits[0, 0]
            found = (torch.sigmoid(logits) >= thresholds[k]).numpy()
            both = (found & volume.mask).sum()
            dices.append(2 * both / (found.sum() + volume.mask.sum()))
        expected.append(statistics.fmean(dices))
    cross_validate(config=config, model="a")
    found = json.loads((tmp_path / "results/models/a/folds.json").read_text())
    assert sorted(len(fold["volumes"]) for fold in found["folds"]) == [2, 3]
    assert [fold["metrics"]["dice"] for fold in found["folds"]] == pytest.approx(expected)
    over = found["metrics_over_folds"]["dice"]
    assert over["mean"] == pytest.approx(np.mean(expected))
    assert over["sd"] == pytest.approx(np.std(expected, ddof=1))
    assert over["folds"] == 2
