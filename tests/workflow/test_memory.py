"""Memory: the peak of a stage stays under its bound, and does not grow with the volume."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiny_project import BRAIN, Project

STAGES = ("ingest_image", "normalize", "enhance", "mask")


def _peak_and_bound_mb(folder: Path, *, planes: int, stage: str) -> tuple[float, float]:
    project = Project(folder)
    (folder / "raw").mkdir(parents=True)
    volume = np.random.default_rng(0).integers(0, 900, (planes, 160, 160), np.uint16)
    # Tiles without anything in them are not stored, and must count as done all the same.
    volume[:, :64, :64] = 0
    tifffile.imwrite(folder / "raw/brain.tif", volume, photometric="minisblack")
    project.write_config({"storage": {"chunk_zyx": [32, 32, 32], "shard_zyx": [64, 64, 64]}})
    project.write_samples({**BRAIN, "path": "raw/brain.tif", "format": "tiff_stack"})
    for name in STAGES[: STAGES.index(stage) + 1]:
        ended = project.run_stage(name, "brain")
        assert ended.code == 0, ended.log
    peak = re.search(r"peak of the main process (\d+) MB", ended.log)
    bound = re.search(r"memory bound (\d+) MB", ended.log)
    assert peak and bound
    return float(peak[1]), float(bound[1])


@pytest.mark.parametrize("stage", STAGES)
def test_peak_stays_under_the_bound_whatever_the_volume(tmp_path, stage):
    small = _peak_and_bound_mb(tmp_path / "small", planes=64, stage=stage)
    large = _peak_and_bound_mb(tmp_path / "large", planes=384, stage=stage)
    assert small[0] <= small[1]
    assert large[0] <= large[1]
    # Volumes of 3 and 20 MB: holding one whole would show, several times over.
    assert large[0] <= 1.05 * small[0]
