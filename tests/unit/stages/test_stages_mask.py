"""The mask of candidates on disk: the same objects whatever the shards, told as they are."""

import numpy as np
import pytest
from scipy import ndimage

from vasculome.config import RunConfig, Sample
from vasculome.geometry import Box, TileGrid
from vasculome.stages import mask
from vasculome.stages.enhance import CANDIDATES
from vasculome.stages.job import Job
from vasculome.storage.omezarr import ImageSpec, create_image, open_image
from vasculome.vessels.enhance import STRONG, WEAK

SHAPE, SPACING_UM, MIN_VOXELS = (24, 32, 40), (4.0, 2.0, 2.0), 5


def _candidates():
    noise = ndimage.gaussian_filter(np.random.default_rng(2).random(SHAPE), 1)
    return WEAK * (noise > np.quantile(noise, 0.92)).astype(np.uint8) + (STRONG - WEAK) * (
        noise > np.quantile(noise, 0.96)
    ).astype(np.uint8)


def _run(folder, classes, shard):
    config = RunConfig(
        results=str(folder / "results"),
        compute={"scheduler": "inline"},
        storage={"chunk_zyx": (8, 8, 8), "shard_zyx": shard},
        microscopy={"segment": {"min_object_um3": MIN_VOXELS * 16.0}},
    )
    sample = Sample(
        sample="brain",
        modality="microscopy",
        path=str(folder / "raw"),
        format="tiff_planes",
        spacing_um=SPACING_UM,
    )
    job = Job("mask", config, sample)
    spec = ImageSpec(
        name="candidates",
        axes=("z", "y", "x"),
        shape=SHAPE,
        dtype="uint8",
        spacing_um=SPACING_UM,
        origin_um=(0.0, 0.0, 0.0),
        chunk=(8, 8, 8),
        shard=shard,
        reduce="max",
    )
    image = create_image(job.folder / CANDIDATES, spec)
    for tile in TileGrid(Box.of_shape(SHAPE), shard, (0, 0, 0)):
        image.write(tile.core, classes[tile.core.slices])
    path = job.manifest_path("enhance")
    path.parent.mkdir(parents=True)
    path.write_text('{"content": "content", "summary": {}, "stores": []}')
    outcome = mask.run(job)
    return open_image(job.folder / mask.MASK).read(Box.of_shape(SHAPE)) > 0, outcome.summary


@pytest.mark.parametrize("shard", [(24, 32, 40), (8, 16, 8), (8, 8, 8)])
def test_objects_are_those_of_the_whole(tmp_path, shard):
    classes = _candidates()
    found, summary = _run(tmp_path, classes, shard)
    labels, count = ndimage.label(classes > 0, np.ones((3, 3, 3)))
    index = np.arange(1, count + 1)
    sizes = ndimage.sum_labels(classes > 0, labels, index)
    strong = ndimage.maximum(classes, labels, index) == STRONG
    kept = np.concatenate([[False], strong & (sizes >= MIN_VOXELS)])
    assert 10 < kept.sum() < count - 10
    np.testing.assert_array_equal(found, kept[labels])
    assert summary["objects"] == kept.sum()
    assert summary["objects_removed"] == count - kept.sum()
    assert summary["largest_object_voxels"] == sizes.max()
