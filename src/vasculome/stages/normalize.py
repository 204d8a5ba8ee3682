"""Intensity range of a whole volume, from the histograms of its tiles."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.memory import MemoryBound
from vasculome.config import NormalizeConfig, RunConfig
from vasculome.errors import UserError
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.ingest_image import IMAGE
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.storage.omezarr import Image, open_image
from vasculome.storage.tables import part_path, read_table, write_table
from vasculome.vessels.normalize import Histogram, intensity_histogram, intensity_range

HISTOGRAM = "histogram"


def settings(config: RunConfig) -> tuple[NormalizeConfig]:
    """Return the settings that the output depends on."""
    return (config.microscopy.normalize,)


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: a tile, and one plane of bin numbers."""
    z, y, x = job.config.storage.shard_zyx
    return MemoryBound(z * y * x * 4 + y * x * 16, job.workers)


def run(job: Job) -> Outcome:
    """Count intensities tile by tile, and find the range; the manifest's summary holds it."""
    image = open_image(job.folder / IMAGE)
    grid = TileGrid(Box.of_shape(image.spec.shape), image.spec.shard, (0, 0, 0))
    span = job.manifest("ingest_image")["summary"]["intensity_span"]
    folder = job.folder / HISTOGRAM
    with job.cluster() as cluster:
        results = map_tiles(
            functools.partial(_count, image=image, grid=grid, span=span, folder=folder),
            grid,
            total=len(grid),
            store=folder,
            digest=job.digest(),
            cluster=cluster,
            label="normalize",
            bytes_per_tile=math.prod(image.spec.shard) * np.dtype(image.spec.dtype).itemsize,
        )
    empty = intensity_histogram(np.empty((0, 1, 1), image.spec.dtype), float_range=span)
    parts = (_read_part(part_path(folder, number), empty) for number in range(len(grid)))
    counts = functools.reduce(Histogram.__add__, parts, empty)
    chosen = job.config.microscopy.normalize
    low, high = intensity_range(
        counts, lower_percent=chosen.lower_percent, upper_percent=chosen.upper_percent
    )
    constant = np.count_nonzero(counts.counts) == 1
    if low == high and not constant:
        raise UserError(
            f"{chosen.lower_percent:g} and {chosen.upper_percent:g} % of the voxels both end at "
            f"the intensity {low:g}, of those that reach from {span[0]:g} to {span[1]:g}: nothing "
            "would be left of the others",
            where=job.folder / IMAGE,
            fix="set microscopy.normalize.upper_percent higher, up to 100, or lower_percent to 0; "
            "where a few voxels are far brighter than all others, lower them before import",
        )
    return Outcome(
        content_of(results.values()),
        {"low": low, "high": high, "constant": bool(constant)},
        (HISTOGRAM,),
    )


def _count(
    tile: Tile, *, image: Image, grid: TileGrid, span: tuple[float, float], folder: Path
) -> TileResult:
    """Write the histogram of one tile, without its empty bins."""
    counts = intensity_histogram(image.read(tile.core), float_range=span).counts
    (bins,) = np.nonzero(counts)
    path = part_path(folder, grid.number(tile))
    checksum = write_table(path, {"bin": bins, "voxels": counts[bins]})
    return TileResult(files={path.name: checksum}, record={})


def _read_part(path: Path, empty: Histogram) -> Histogram:
    part = read_table(path)
    counts = np.zeros_like(empty.counts)
    counts[part["bin"]] = part["voxels"]
    return Histogram(counts, empty.low, empty.high)
