"""What stitching will take, before there are any data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy.typing as npt

from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig, Sample
from vasculome.readers.tile_plan import plan_tiles
from vasculome.stages import illuminate, ingest_image, place, register
from vasculome.stages.job import Job

_PAIR_S = 0.25
_PLANE_S = 0.001
_FUSED_MB_S = 60.0
"""Seconds a pair, seconds a raw plane that is looked at whether it is blank (25 times that where
it is compressed in one piece), and megabytes a second, on one core of 2025
(benchmarks/stitching.py)."""


@dataclass(frozen=True)
class StitchPlan:
    """How much there is to do, and what it takes.

    Attributes
    ----------
    tiles, pairs
        Raw tiles, and pairs of them that overlap.
    raw_gb, volume_gb
        Size of the raw data and of the volume, uncompressed, 10⁹ bytes.
    shape
        Voxels (z, y, x) of the volume, see `vasculome.stages.ingest_image.expected_shape`.
    shards, slabs
        Files of the finest level, and pieces of work that write them.
    bounds
        Memory of each stage.
    hours
        Estimated time; reading and writing must keep up.
    """

    tiles: int
    pairs: int
    raw_gb: float
    volume_gb: float
    shape: tuple[int, ...]
    shards: int
    slabs: int
    bounds: dict[str, MemoryBound]
    hours: float

    def lines(self) -> list[str]:
        """Return the plan in words."""
        z, y, x = self.shape
        return [
            f"raw data      {self.tiles} tiles, {self.raw_gb:,.1f} GB, {self.pairs} pairs overlap",
            f"volume        about {z} x {y} x {x} voxels, {self.volume_gb:,.1f} GB uncompressed",
            f"on disk       {self.shards} shards, written in {self.slabs} pieces",
            *(f"{stage:<14}{bound}" for stage, bound in self.bounds.items()),
            f"time          about {self.hours:.1f} h, if the disks keep up",
        ]


def plan_stitching(
    config: RunConfig,
    sample: Sample,
    *,
    tile_shape: tuple[int, int, int],
    dtype: npt.DTypeLike,
    threads: int,
) -> StitchPlan:
    """Return what the stitching of a regular grid of tiles takes.

    Parameters
    ----------
    config
        How it is to be done.
    sample
        Its grid, overlap and spacing; its path is not looked at.
    tile_shape, dtype
        Voxels (z, y, x) of a tile, and their type.
    threads
        Cores of the machine.
    """
    tiles = plan_tiles(
        grid=sample.grid or (1, 1),
        shape=tile_shape,
        dtype=dtype,
        spacing_um=sample.spacing_um,
        overlap_percent=sample.overlap_percent or (0.0, 0.0),
    )
    stages = {"register": register, "place": place, "illuminate": illuminate}
    stages["ingest_image"] = ingest_image
    job = Job("ingest_image", config, sample, threads)
    shape = ingest_image.expected_shape(job, tiles)
    pairs = len(register.pairs_of(job, tiles))
    volume_gb = math.prod(shape) * tiles.dtype.itemsize / 1e9
    planes = len(tiles.names) * tile_shape[0]
    seconds = pairs * _PAIR_S + planes * _PLANE_S + 1000 * volume_gb / _FUSED_MB_S
    return StitchPlan(
        tiles=len(tiles.names),
        pairs=pairs,
        raw_gb=len(tiles.names) * math.prod(tile_shape) * tiles.dtype.itemsize / 1e9,
        volume_gb=volume_gb,
        shape=shape,
        shards=math.prod(-(-n // s) for n, s in zip(shape, config.storage.shard_zyx, strict=True)),
        slabs=len(ingest_image.slabs(job, shape, tiles.dtype)),
        bounds={name: module.bound_for(job, tiles) for name, module in stages.items()},
        hours=seconds / job.workers / 3600,
    )
