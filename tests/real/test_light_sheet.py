"""Real planes of a cleared mouse brain through the whole microscopy chain, by Snakemake."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import tifffile
import yaml

ROOT = Path(__file__).parents[2]
SPACING_UM = (5.0, 2.0, 2.0)
FACTOR = (10, 25, 25)  # mask voxels along a map voxel of 50 µm


@pytest.fixture(scope="module")
def planes(data):
    files = sorted((data / "microscopy/planes").glob("signal_ch*.tif"))
    assert len(files) == 26
    return np.stack([tifffile.imread(file) for file in files])


@pytest.fixture(scope="module")
def brain(data, tmp_path_factory):
    """The sample's results, made by one `snakemake` command with a sheet of one line."""
    folder = tmp_path_factory.mktemp("light_sheet")
    config = {
        "samples": "samples.tsv",
        "results": "results",
        "compute": {"scheduler": "inline"},
        "storage": {"chunk_zyx": [16, 64, 64], "shard_zyx": [16, 512, 512]},
        "microscopy": {"skeleton": {"max_radius_um": 20.0}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    header = ("sample", "modality", "path", "format", "spacing_um")
    planes = (data / "microscopy/planes").resolve()
    row = ("brain", "microscopy", str(planes), "tiff_planes", "5,2,2")
    (folder / "samples.tsv").write_text("\n".join("\t".join(line) for line in (header, row)))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
            *("--directory", str(folder), "--configfile", str(folder / "config.yaml")),
            *("--cores", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "results/brain"


def volume_mm3(shape):
    """Return how much of the volume lies in each map voxel; the last ones are cut."""
    edges = [
        np.diff(np.append(np.arange(0, n, f), n)) * s / 1e3
        for n, f, s in zip(shape, FACTOR, SPACING_UM, strict=True)
    ]
    return edges[0][:, None, None] * edges[1][:, None] * edges[2]


def test_the_image_is_what_the_planes_are(brain, planes, read_level):
    np.testing.assert_array_equal(read_level(brain / "image.ome.zarr"), planes)


def test_the_first_coarse_level_is_the_mean_of_blocks(brain, planes, read_level):
    # Planes are 2.5 pixels apart: only y and x are halved. x ends in a block one pixel wide.
    padded = np.pad(planes.astype(float), ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
    means = np.nanmean(padded.reshape(26, 558, 2, 314, 2), axis=(2, 4))
    np.testing.assert_array_equal(read_level(brain / "image.ome.zarr", 1), np.floor(means + 0.5))


def test_maps_conserve_volume_and_length(brain, planes, read_level):
    mask = read_level(brain / "mask.ome.zarr") > 0
    assert 0.001 < mask.mean() < 0.2
    share = volume_mm3(planes.shape)
    fraction = read_level(brain / "maps/vessel_fraction.ome.zarr").astype(float)
    assert (fraction * share).sum() == pytest.approx(
        mask.sum() * np.prod(SPACING_UM) / 1e9, rel=1e-6
    )
    points = [
        pyarrow.parquet.read_table(part) for part in (brain / "skeleton_points").glob("*.parquet")
    ]
    length_mm = sum(part["length_um"].to_numpy().sum(dtype=float) for part in points) / 1e3
    assert length_mm > 10
    density = read_level(brain / "maps/length_density.ome.zarr").astype(float)
    assert (density * share).sum() == pytest.approx(length_mm, rel=1e-6)
    summary = json.loads((brain / "manifests/skeleton.json").read_text())["summary"]
    assert summary["length_mm"] == pytest.approx(length_mm, abs=1e-3)


def test_the_centre_line_lies_in_the_mask(brain, read_level):
    mask = read_level(brain / "mask.ome.zarr") > 0
    centre = read_level(brain / "skeleton.ome.zarr") > 0
    assert centre.any()
    assert not (centre & ~mask).any()
    assert 3 * centre.sum() < mask.sum()


def test_the_report_holds_its_pictures(brain):
    page = (brain / "report.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) >= 4
    for picture in pictures:
        content = base64.b64decode(picture, validate=True)
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000
    assert not re.search(r'(src|href)="(?!data:|#)', page)
