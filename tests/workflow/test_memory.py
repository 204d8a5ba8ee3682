"""Memory: the peak of a stage stays under its bound, and does not grow with the volume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vasculome.storage.raw_files import write_tiff_tiles

SPACING_UM = (4.0, 2.0, 2.0)
# Shards so large that a stage's data are far more than what a process takes for its own ends.
CONFIG = {
    "compute": {"scheduler": "inline"},
    "storage": {"chunk_zyx": [64, 64, 64], "shard_zyx": [128, 128, 128]},
    "microscopy": {"slab_mb": 32, "segment": {"scales_um": [2.0, 4.0]}},
}
_RUN = """
import json, sys
from vasculome.compute.device import peak_rss_bytes
from vasculome.config import RunConfig, Sample
from vasculome.stages.job import Job, execute

stage, config, sample, *folders = sys.argv[1:]
for folder in folders:
    run = RunConfig(**json.loads(config), results=folder + "/results")
    row = Sample(**json.loads(sample), path=folder + "/raw")
    job = Job(stage, run, row)
    bound = job.bound()
    execute(job)
    data = bound.bytes_per_worker + bound.main_bytes
    print(json.dumps([peak_rss_bytes(), bound.total_bytes, data]))
"""
_OVERHEAD = 16e6
"""Bytes by which what a library keeps for itself grows from the first volume to the last."""
_HELD = 0.4
"""Of what a volume is larger than another, above which memory grows with it."""


@dataclass(frozen=True)
class Seen:
    """Bytes that a process has taken at most until a volume was done, and those foretold."""

    peak: int
    bound: int
    data: int


def _write_stack(folder: Path, planes: int) -> int:
    """Write planes of 256×256 voxels, or for fewer than a shard has of 64×64."""
    side = 256 if planes >= 128 else 64
    volume = np.random.default_rng(0).integers(0, 900, (planes, side, side), np.uint16)
    # Tiles without anything in them are not stored, and must count as done all the same.
    volume[:, : side // 2, : side // 2] = 0
    folder.mkdir(parents=True)
    for z, plane in enumerate(volume):
        tifffile.imwrite(folder / f"{z:04d}.tif", plane, photometric="minisblack")
    return volume.nbytes


def _write_tiles(folder: Path, columns: int) -> int:
    """Write two rows of tiles of 128×256×256, or for one column four of 16×64×64.

    A quarter of each is shared with the next.
    """
    depth, side = (128, 256) if columns > 1 else (16, 64)
    columns = max(columns, 2)
    step = 3 * side // 4
    extent = (depth, side + step, step * columns + side - step)
    volume = np.random.default_rng(0).integers(300, 900, extent, np.uint16)
    starts = [(0, y, x) for y in (0, step) for x in range(0, step * columns, step)]
    tiles = [volume[:, y : y + side, x : x + side] for _, y, x in starts]
    write_tiff_tiles(folder, tiles, np.multiply(starts, SPACING_UM).tolist())
    return volume.nbytes


def _watch(stage: str, format: str, folders: Sequence[Path]) -> list[Seen]:
    """Run a stage on volumes of rising size, one after the other in one process."""
    sample = {"sample": "brain", "modality": "microscopy", "format": format}
    sample["spacing_um"] = SPACING_UM
    arguments = [stage, json.dumps(CONFIG), json.dumps(sample), *map(str, folders)]
    # With an arena a thread what glibc keeps of freed memory depends on which thread freed it.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return [Seen(*json.loads(line)) for line in done.stdout.splitlines()]


# The first volume is next to nothing: what a process takes after it, libraries, compiled code
# and all, is what it takes without data. The others have several slabs, and many.
@pytest.mark.parametrize(
    ("write", "format", "sizes", "stages"),
    [
        (
            _write_stack,
            "tiff_planes",
            (8, 256, 512),
            ("ingest_image", "normalize", "enhance", "mask"),
        ),
        (
            _write_tiles,
            "tiff_tiles",
            (1, 4, 8),
            ("register", "place", "illuminate", "ingest_image"),
        ),
    ],
    ids=["stack", "tiles"],
)
def test_peaks_stay_under_the_bounds_whatever_the_volume(
    tmp_path: Path,
    write: Callable[[Path, int], int],
    format: str,
    sizes: Sequence[int],
    stages: Sequence[str],
) -> None:
    folders = [tmp_path / str(size) for size in sizes]
    _, some, many = (
        write(folder / "raw", size) for folder, size in zip(folders, sizes, strict=True)
    )
    for stage in stages:
        empty, medium, large = _watch(stage, format, folders)
        for seen in (medium, large):
            assert seen.peak <= seen.bound, stage
            assert seen.peak - empty.peak <= seen.data + _OVERHEAD, stage
        # The main process of illuminate holds samples of as many as 256 tiles, and foretells it.
        if stage != "illuminate":
            assert large.data <= 1.01 * medium.data + 1e6, stage
            assert large.peak - medium.peak <= _HELD * (many - some), stage
