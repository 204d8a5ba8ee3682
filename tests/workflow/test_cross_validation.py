"""The real workflow trains folds of tiny volumes, and tests them on what they never saw."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import numpy as np
import tifffile
import yaml
from tiny_project import ROOT

STUDENT = {
    "network": "student",
    "volumes": "volumes.tsv",
    "folds": 2,
    "rendered": 0,
    "widths": [2, 4],
    "patch_voxels": 8,
    "steps": 2,
    "validate_every": 2,
    "validation_patches": 2,
    "device": "cpu",
    "threads": 1,
}


def test_folds_are_gathered(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["image\tlabel\tspacing_um"]
    for k in range(3):
        mask = np.zeros((8, 16, 16), np.uint8)
        mask[:, 4 + k : 8 + k, 5:9] = 1
        image = (100 * mask + rng.integers(0, 50, mask.shape)).astype(np.uint16)
        tifffile.imwrite(tmp_path / f"v{k}.tif", image)
        tifffile.imwrite(tmp_path / f"m{k}.tif", mask)
        lines.append(f"v{k}.tif\tm{k}.tif\t3,1.5,1.5")
    (tmp_path / "volumes.tsv").write_text("\n".join(lines))
    config = {"samples": None, "models": {"mine": STUDENT}}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(config))
    where = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "--cores", "2"]
    command = [sys.executable, "-m", "snakemake", "folds", "models", *where]
    done = subprocess.run(
        [*command, "--configfile", str(tmp_path / "models.yaml")],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    found = json.loads((tmp_path / "results/models/mine/folds.json").read_text())
    assert [fold["model"] for fold in found["folds"]] == ["mine-fold-0", "mine-fold-1"]
    tested = [volume["image"] for fold in found["folds"] for volume in fold["volumes"]]
    assert sorted(tested) == ["v0.tif", "v1.tif", "v2.tif"]
    means = [
        statistics.fmean(volume["dice"] for volume in fold["volumes"]) for fold in found["folds"]
    ]
    over = found["metrics_over_folds"]["dice"]
    assert over["mean"] == sum(means) / 2
    assert np.isclose(over["sd"], abs(means[0] - means[1]) / np.sqrt(2))
    page = (tmp_path / "results/models/report.html").read_text()
    assert "Cross-validation" in page and "Held out and validated on: v" in page
