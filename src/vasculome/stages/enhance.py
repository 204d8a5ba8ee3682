"""Vesselness of a whole volume, sorted into background, weak and strong voxels.

A network takes the place of the vesselness filter where one is configured: `stages.segment`.
"""

from __future__ import annotations

import functools

import numpy as np

from vasculome.compute.blocks import TileResult
from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig, SegmentConfig
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.ingest_image import IMAGE
from vasculome.stages.job import Job, Outcome
from vasculome.stages.segment import bound_of_network, check_network, run_network
from vasculome.stages.segment_weights import segmenter_digest
from vasculome.stages.volume import build_image, like, shard_voxels
from vasculome.storage.omezarr import Image, open_image
from vasculome.vessels.enhance import STRONG, frangi, halo_voxels, hysteresis_classes, sato
from vasculome.vessels.normalize import rescale

CANDIDATES = "candidates.ome.zarr"
_FILTERS = {"frangi": frangi, "sato": sato}


def settings(config: RunConfig) -> tuple[SegmentConfig]:
    """Return the settings that the output depends on: the least size counts in the mask only."""
    return (config.microscopy.segment.model_copy(update={"min_object_um3": 0.0}),)


def raw_fingerprint(job: Job) -> str | None:
    """Return a digest of the weights; None where no network segments."""
    chosen = job.config.microscopy.segment
    return segmenter_digest(chosen) if chosen.is_learned else None


def check(job: Job) -> None:
    """Raise UserError where the weights of a network are no good, or its windows are not."""
    if job.config.microscopy.segment.is_learned:
        check_network(job)


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: a tile with its halo as read and normalized, and responses."""
    if job.config.microscopy.segment.is_learned:
        return bound_of_network(job)
    outer = shard_voxels(job, _halo(job))
    core = shard_voxels(job)
    # Raw and float32 outer tile; best and current response (float32) and classes of the core.
    return MemoryBound(outer * (4 + 4) + core * (4 + 4 + 2), job.workers)


def run(job: Job) -> Outcome:
    """Write ``candidates.ome.zarr``: 0 background, 1 weak, 2 strong.

    A network writes its probabilities beside it.
    """
    if job.config.microscopy.segment.is_learned:
        return run_network(job, candidates=CANDIDATES, strong=STRONG)
    image = open_image(job.folder / IMAGE)
    intensity = job.manifest("normalize")["summary"]
    with job.cluster() as cluster:
        built = build_image(
            job,
            CANDIDATES,
            like(image.spec, dtype="uint8", quantity="vessel candidate: 1 weak, 2 strong"),
            functools.partial(
                _enhance,
                source=image,
                chosen=job.config.microscopy.segment,
                low=intensity["low"],
                high=intensity["high"],
            ),
            TileGrid(Box.of_shape(image.spec.shape), image.spec.shard, _halo(job)),
            cluster=cluster,
        )
    return Outcome(built.content, built.totals("weak_voxels", "strong_voxels"), (CANDIDATES,))


def _halo(job: Job) -> tuple[int, ...]:
    return halo_voxels(
        scales_um=job.config.microscopy.segment.scales_um, spacing_um=job.sample.spacing_um
    )


def _enhance(
    target: Image,
    tile: Tile,
    *,
    source: Image,
    chosen: SegmentConfig,
    low: float,
    high: float,
) -> TileResult:
    """Filter one tile and write its classes."""
    normalized = rescale(source.read(tile.outer), low=low, high=high)
    vesselness = _FILTERS[chosen.segmenter](
        normalized,
        scales_um=chosen.scales_um,
        spacing_um=source.spec.spacing_um,
        core=tile.core_in_outer,
    )
    classes = hysteresis_classes(vesselness, low=chosen.low_threshold, high=chosen.high_threshold)
    weak, strong = (int(np.count_nonzero(classes == c)) for c in (1, 2))
    record = {"weak_voxels": weak, "strong_voxels": strong}
    return TileResult(files=target.write(tile.core, classes), record=record)
