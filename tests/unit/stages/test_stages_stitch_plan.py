"""The plan of a terabyte, without a byte of data."""

import subprocess
import sys

import pytest

from vasculome.app import main
from vasculome.config import RunConfig, Sample
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
