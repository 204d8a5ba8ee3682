"""The plan of a terabyte, without a byte of data."""

import math
import subprocess
import sys

import numpy as np
import pytest

from vasculome.app import main
from vasculome.config import RunConfig, Sample
from vasculome.stages import ingest_image
from vasculome.stages.job import Job
from vasculome.stages.stitch_plan import plan_stitching

GRID = Sample(
    sample="plan",
    modality="microscopy",
    path=".",
    format="tiff_grid",
    spacing_um=(4.0, 2.0, 2.0),
    grid=(20, 20),
    order="raster-rows",
    overlap_percent=(10.0, 10.0),
)
TILE = (2000, 2048, 2048)


def test_four_hundred_tiles():
    config = RunConfig()
    plan = plan_stitching(config, GRID, tile_shape=TILE, dtype="uint16", threads=2)
    assert plan.tiles == 400
    # Right, below, and both diagonals.
    assert plan.pairs == 2 * 20 * 19 + 2 * 19 * 19
    assert plan.raw_gb == pytest.approx(400 * 2000 * 2048**2 * 2 / 1e9)
    # 19 steps of nine tenths of a tile and a tile, and the stage's error on either side.
    assert plan.shape == (2000 + 2 * 10, *(2 * (round(19 * 0.9 * 2048 + 2048 + 2 * 30),)))
    assert plan.shards == 8 * 146 * 146
    # A slab holds up to 256 MB, and there are copies of it.
    assert 256 < plan.bounds["ingest_image"].bytes_per_worker / 1e6 < 4 * 4 * 512
    assert plan.hours > 1


def test_memory_of_fusion_does_not_grow_with_the_volume():
    bounds = [
        plan_stitching(
            RunConfig(),
            GRID.model_copy(update={"grid": (n, n)}),
            tile_shape=(planes, 2048, 2048),
            dtype="uint16",
            threads=2,
        ).bounds["ingest_image"]
        for n, planes in ((8, 500), (20, 2000))
    ]
    assert bounds[1].total_bytes <= 1.1 * bounds[0].total_bytes


@pytest.mark.parametrize(("slab_mb", "shards"), [(100, 2), (200, 5), (256, 7), (1000, 28)])
def test_the_bound_of_fusion_holds_whatever_volume_the_tiles_make(slab_mb, shards):
    config = RunConfig(microscopy={"slab_mb": slab_mb})
    sample = GRID.model_copy(update={"grid": (4, 4)})
    bound = plan_stitching(
        config, sample, tile_shape=(500, 1024, 1024), dtype="uint16", threads=2
    ).bounds["ingest_image"]
    job = Job("ingest_image", config, sample, 2)
    # Where tiles are placed decides how wide the volume is.
    largest = max(
        math.prod(ingest_image.slabs(job, (500, y, x), np.dtype("u2")).core_shape) * 2
        for y in range(256, 5000, 256)
        for x in range(256, 5000, 256)
    )
    assert largest == shards * 2 * math.prod(config.storage.shard_zyx)
    # Of four tiles over one another a chunk's planes are read.
    read = 4 * (config.storage.chunk_zyx[0] + 1) / config.storage.shard_zyx[0]
    assert (3 + read) * largest <= bound.bytes_per_worker < 2 * (3 + read) * largest


def test_the_time_to_look_for_blank_planes_counts():
    def hours(planes, height):
        config = RunConfig()
        shape = (planes, height, 2048)
        return plan_stitching(config, GRID, tile_shape=shape, dtype="uint8", threads=2).hours

    # As many voxels and pairs in sixteen times the planes.
    assert hours(16000, 128) - hours(1000, 2048) > 400 * 15000 * 0.0005 / 2 / 3600


def test_planning_takes_little_memory():
    # Not ru_maxrss: in a new process it begins with that of this one.
    code = (
        "import sys; from vasculome.app import main; "
        "from vasculome.compute.device import peak_rss_bytes; main(sys.argv[1:]); "
        "print(peak_rss_bytes())"
    )
    options = "plan --grid 20x20 --voxels 2000x2048x2048 --spacing-um 4,2,2 --cores 16"
    done = subprocess.run(
        [sys.executable, "-c", code, *options.split()], capture_output=True, text=True, check=True
    )
    *told, peak_bytes = done.stdout.splitlines()
    assert int(peak_bytes) < 500e6
    assert any(line.startswith("raw data      400 tiles, 6,710.9 GB") for line in told)
    assert any(line.startswith("ingest_image  ") for line in told)


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--voxels", "2048x2048", "--voxels"),
        ("--voxels", "0x9x9", "--voxels"),
        ("--grid", "20", "grid"),
        ("--spacing-um", "4,2", "spacing_um"),
        ("--overlap-percent", "100", "overlap_percent"),
    ],
)
def test_bad_options_are_named(capsys, option, value, told):
    options = {"--grid": "2x2", "--voxels": "9x9x9", "--spacing-um": "4,2,2", option: value}
    assert main(["plan", *(part for pair in options.items() for part in pair)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
