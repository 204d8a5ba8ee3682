"""A network in the place of a vesselness filter: probability of vessels, and candidates of it."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.device import pick_device
from vasculome.compute.memory import PROCESS_BYTES, MemoryBound
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.ingest_image import IMAGE, expected_shape
from vasculome.stages.job import Job, Outcome
from vasculome.stages.raw_tiles import mapped_tiles
from vasculome.stages.rf_images import TORCH_BYTES
from vasculome.stages.segment_weights import Segmenter, segmenter_bytes, segmenter_for
from vasculome.stages.volume import build_images, like
from vasculome.storage.omezarr import Image, open_image

log = logging.getLogger(__name__)

PROBABILITY = "vessel_probability"
"""Name of the map, in 255ths."""

_MONAI_BYTES = 250_000_000
"""What a process takes for the library that the teacher is built with."""


def bound_of_network(job: Job) -> MemoryBound:
    """Return the memory bound: a tile with its windows, and what the network takes for a batch."""
    shape = expected_shape(job, mapped_tiles(job))
    segmenter = segmenter_of(job, shape)
    core = tuple(min(a, b) for a, b in zip(job.config.storage.shard_zyx, shape, strict=True))
    base = PROCESS_BYTES + TORCH_BYTES
    if segmenter.architecture == "teacher":
        base += _MONAI_BYTES
    return MemoryBound(segmenter_bytes(core, segmenter), job.workers, base_bytes=base)


def check_network(job: Job) -> None:
    """Raise UserError where the weights of the network are no good, or its windows are not."""
    segmenter_of(job, expected_shape(job, mapped_tiles(job)))


def segmenter_of(job: Job, shape: tuple[int, ...]) -> Segmenter:
    """Return how the configured network is used on a volume of this shape; raises UserError."""
    return segmenter_for(
        job.config.microscopy.segment,
        shape=shape,
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
    grid = TileGrid(Box.of_shape(image.spec.shape), image.spec.shard, (0, 0, 0))
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
    # It imports torch, which the workflow and the filters do without.
    from vasculome.stages.segment_network import tile_probability  # noqa: PLC0415

    part = tile_probability(source, tile.core, segmenter, low=low, high=high)
    # A threshold of 0 must not take what no window has seen anything in.
    vessel = (part.probability >= segmenter.threshold) & (part.probability > 0)
    scaled = 255 * part.probability
    parts_of_255 = np.rint(scaled, out=scaled).astype(np.uint8)
    record = {
        "strong_voxels": int(np.count_nonzero(vessel)),
        "windows": part.windows,
        "windows_of_background": part.skipped,
    }
    return dict(zip(names, (vessel * np.uint8(strong), parts_of_255), strict=True)), record
