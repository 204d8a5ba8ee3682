"""Memory: the peak of a stage stays under its bound, and does not grow with the volume."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiny_project import BRAIN, CONFIG, Project

from vasculome.storage.raw_files import write_tiff_tiles

STAGES = ("ingest_image", "normalize", "enhance", "mask")
STITCHING = ("register", "place", "illuminate", "ingest_image")


def _write_stack(folder: Path, planes: int) -> dict[str, str]:
    volume = np.random.default_rng(0).integers(0, 900, (planes, 160, 160), np.uint16)
    # Tiles without anything in them are not stored, and must count as done all the same.
    volume[:, :64, :64] = 0
    tifffile.imwrite(folder / "brain.tif", volume, photometric="minisblack")
    return {**BRAIN, "path": "raw/brain.tif", "format": "tiff_stack"}


def _write_tiles(folder: Path, columns: int) -> dict[str, str]:
    """Write two rows of tiles of 64×128×128, a quarter of them shared."""
    rng = np.random.default_rng(0)
    volume = rng.integers(300, 900, (64, 224, 96 * columns + 32), np.uint16)
    starts = [(0, y, x) for y in (0, 96) for x in range(0, 96 * columns, 96)]
    tiles = [volume[:, y : y + 128, x : x + 128] for _, y, x in starts]
    write_tiff_tiles(folder / "brain", tiles, np.multiply(starts, (4.0, 2.0, 2.0)).tolist())
    return {**BRAIN, "format": "tiff_tiles"}


def _peaks_and_bounds_mb(
    folder: Path, write: Callable[[Path, int], dict[str, str]], size: int, stages: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return peak and bound of each of ``stages``."""
    project = Project(folder)
    (folder / "raw").mkdir(parents=True)
    project.write_samples(write(folder / "raw", size))
    config = {"storage": {"chunk_zyx": [32, 32, 32], "shard_zyx": [64, 64, 64]}}
    project.write_config(config | {"microscopy": {**CONFIG["microscopy"], "slab_mb": 1}})
    found = {}
    for name in stages:
        ended = project.run_stage(name, "brain")
        assert ended.code == 0, ended.log
        peak = re.search(r"peak of the main process (\d+) MB", ended.log)
        bound = re.search(r"memory bound (\d+) MB", ended.log)
        assert peak and bound
        found[name] = float(peak[1]), float(bound[1])
    return found


# Volumes of 3 and 20 MB, tiles of 8 and 50: holding all at once would show, several times over.
@pytest.mark.parametrize(
    ("write", "sizes", "stages"),
    [(_write_stack, (64, 384), STAGES), (_write_tiles, (2, 12), STITCHING)],
    ids=["stack", "tiles"],
)
def test_peaks_stay_under_the_bounds_whatever_the_volume(tmp_path, write, sizes, stages):
    small, large = (
        _peaks_and_bounds_mb(tmp_path / str(size), write, size, stages) for size in sizes
    )
    for stage in stages:
        assert small[stage][0] <= small[stage][1]
        assert large[stage][0] <= large[stage][1]
        # The main process of illuminate holds samples of as many as 256 tiles.
        if stage != "illuminate":
            assert large[stage][0] <= 1.05 * small[stage][0], stage
