"""A network in the place of a vesselness filter: probability of vessels, and candidates of it."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.device import pick_device
from vasculome.compute.memory import PROCESS_BYTES, TORCH_BYTES, MemoryBound
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.ingest_image import IMAGE, expected_shape
from vasculome.stages.job import Job, Outcome
from vasculome.stages.raw_tiles import mapped_tiles
from vasculome.stages.segment_weights import Segmenter, segmenter_bytes, segmenter_for
from vasculome.stages.volume import build_images, like
from vasculome.storage.omezarr import Image, open_image
from vasculome.storage.pyramid import fit_blocks

log = logging.getLogger(__name__)

PROBABILITY = "vessel_probability"
"""Name of the map, in 255ths."""

_MONAI_BYTES = 250_000_000
"""What a process takes for the library that the teacher is built with."""


def bound_of_network(job: Job) -> MemoryBound:
    """Return the memory bound: a tile with its windows, and what the network takes for a batch."""
    shape = expected_shape(job, mapped_tiles(job))
    segmenter = segmenter_of(job, shape)
    base = PROCESS_BYTES + TORCH_BYTES
    if segmenter.architecture == "teacher":
        base += _MONAI_BYTES
    return MemoryBound(segmenter_bytes(segmenter), job.workers, base_bytes=base)


def check_network(job: Job) -> None:
    """Raise UserError where the weights of the network are no good, or its windows are not."""
    segmenter_of(job, expected_shape(job, mapped_tiles(job)))


def segmenter_of(job: Job, shape: tuple[int, ...]) -> Segmenter:
    """Return how the configured network is used on a volume of this shape; raises UserError."""
    storage = job.config.storage
    chunk, shard = fit_blocks(shape, storage.chunk_zyx, storage.shard_zyx)
    return segmenter_for(
        job.config.microscopy.segment,
        shape=shape,
        chunk=chunk,
        shard=shard,
        spacing_um=job.sample.spacing_um,
        threads=job.config.compute.threads_per_worker,
        workers=job.workers,
    )


def run_network(job: Job, *, candidates: str, strong: int) -> Outcome:
    """Write the probability of vessels, and candidates: voxels above the threshold are ``strong``.

    Parameters
    ----------
    job
        Of the stage.
    candidates
        Name of the image of candidates.
    strong
        Its value for vessels.
    """
    image = open_image(job.folder / IMAGE)
    intensity = job.manifest("normalize")["summary"]
    segmenter = segmenter_of(job, image.spec.shape)
    pick_device(segmenter.device)
    if segmenter.spacing_as_trained is False:
        log.warning(
            "the network has not seen voxels of %s µm in training: look at the mask",
            " × ".join(f"{step:g}" for step in image.spec.spacing_um),
        )
    specs = {
        candidates: like(image.spec, dtype="uint8", quantity="vessel candidate: 2 strong"),
        f"{PROBABILITY}.ome.zarr": like(
            image.spec, dtype="uint8", quantity="probability of vessel, in 255ths"
        ),
    }
    grid = TileGrid(Box.of_shape(image.spec.shape), segmenter.block, (0, 0, 0))
    work = functools.partial(
        _segment,
        source=image,
        segmenter=segmenter,
        names=tuple(specs),
        strong=strong,
        low=intensity["low"],
        high=intensity["high"],
    )
    with job.cluster() as cluster:
        built = build_images(job, specs, work, grid, cluster=cluster)
    totals = built.totals("strong_voxels", "windows", "windows_of_background")
    return Outcome(
        built.content,
        {
            "network": segmenter.architecture,
            "threshold": segmenter.threshold,
            "spacing_as_trained": segmenter.spacing_as_trained,
            "weak_voxels": 0,
            **totals,
        },
        built.stores,
    )


def _segment(
    tile: Tile,
    *,
    source: Image,
    segmenter: Segmenter,
    names: tuple[str, str],
    strong: int,
    low: float,
    high: float,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Ask the network about one tile."""
    # They import torch and numba, which the workflow does without.
    from vasculome.models.window_sums import classify  # noqa: PLC0415
    from vasculome.stages.segment_network import tile_probability  # noqa: PLC0415

    vessel, parts_of_255 = (np.empty(tile.core.shape, np.uint8) for _ in names)
    voxels = 0

    def take(first: int, planes: NDArray[np.float32]) -> None:
        nonlocal voxels
        here = slice(first, first + len(planes))
        voxels += classify(
            planes,
            vessel[here],
            parts_of_255[here],
            threshold=segmenter.threshold,
            value=strong,
        )

    seen = tile_probability(source, tile.core, segmenter, take, low=low, high=high)
    record = {
        "strong_voxels": voxels,
        "windows": seen.windows,
        "windows_of_background": seen.skipped,
    }
    return dict(zip(names, (vessel, parts_of_255), strict=True)), record
