"""A small volume on disk, and the stages that segment it."""

from __future__ import annotations

import tifffile

from vasculome.config import RunConfig, Sample
from vasculome.geometry import Box
from vasculome.stages.job import Job, execute
from vasculome.storage.omezarr import open_image

SPACING_UM = (4.0, 2.0, 2.0)
WINDOW = {"window": 24, "overlap": 0.25, "background_contrast": 0}


def write_planes(folder, volume):
    """Write a TIFF file for each plane; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for z, plane in enumerate(volume):
        tifffile.imwrite(folder / f"plane_{z:03d}.tif", plane, photometric="minisblack")
    return folder


def job_of(
    raw, results, weights, *, shard=(32, 32, 32), spacing_um=SPACING_UM, normalize=None, **network
):
    """Return a job that segments the planes in ``raw`` with a network."""
    config = RunConfig(
        results=str(results),
        compute={"scheduler": "inline"},
        storage={"chunk_zyx": (8, 16, 16), "shard_zyx": shard},
        microscopy={
            "normalize": normalize or {},
            "segment": {
                "segmenter": str(weights),
                "network": {**WINDOW, **network},
                "min_object_um3": 0,
            },
            "skeleton": {"max_radius_um": 12.0},
        },
    )
    sample = Sample(
        sample="brain",
        modality="microscopy",
        path=str(raw),
        format="tiff_planes",
        spacing_um=spacing_um,
    )
    return Job("enhance", config, sample)


def run(job, *stages):
    """Execute stages of a job; return the summary of the last."""
    for stage in stages:
        outcome = execute(Job(stage, job.config, job.sample))
    return outcome.summary


def voxels(job, name):
    """Return all of an image."""
    image = open_image(job.folder / name)
    return image.read(Box.of_shape(image.spec.shape))


def prepared(raw, folder, weights, **settings):
    """Return a job whose volume is ingested and normalized."""
    job = job_of(raw, folder, weights, **settings)
    run(job, "ingest_image", "normalize")
    return job
