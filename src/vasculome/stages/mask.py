"""Candidates → mask: whole objects that hold a strong voxel and are large enough."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig, SegmentConfig
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.enhance import CANDIDATES
from vasculome.stages.ingest_image import expected_shape
from vasculome.stages.job import Job, Outcome
from vasculome.stages.raw_tiles import mapped_tiles
from vasculome.stages.volume import build_image, like, shard_voxels
from vasculome.storage.bundles import read_bundle, write_bundle
from vasculome.storage.omezarr import Image, open_image
from vasculome.vessels.components import TileSummary, join, keep, label_block, summarize

MASK = "mask.ome.zarr"
COMPONENTS = "components"


def settings(config: RunConfig) -> tuple[SegmentConfig]:
    """Return the settings that the output depends on."""
    return (config.microscopy.segment,)


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: candidates, labels and their work space, and the mask.

    The main process holds the faces of two layers of tiles while it joins them.
    """
    shard = job.config.storage.shard_zyx
    shape = expected_shape(job, mapped_tiles(job))
    layer = [math.ceil(n / s) for n, s in zip(shape[1:], shard[1:], strict=True)]
    faces = 2 * 4 * 2 * sum(math.prod(shard) // n for n in shard) * math.prod(layer)
    workers = MemoryBound(shard_voxels(job) * (1 + 1 + 4 * 3 + 1), job.workers)
    return dataclasses.replace(workers, main_bytes=faces)


def run(job: Job) -> Outcome:
    """Label tile by tile, join across tiles, and write ``mask.ome.zarr`` of what is kept."""
    candidates = open_image(job.folder / CANDIDATES)
    spec = candidates.spec
    grid = TileGrid(Box.of_shape(spec.shape), spec.shard, (0, 0, 0))
    folder = job.folder / COMPONENTS
    min_um3 = job.config.microscopy.segment.min_object_um3
    min_voxels = max(1, math.ceil(min_um3 / math.prod(spec.spacing_um)))
    with job.cluster() as cluster:
        map_tiles(
            functools.partial(_summarize, candidates=candidates, folder=folder),
            grid,
            total=len(grid),
            store=folder,
            digest=job.digest(),
            cluster=cluster,
            label=COMPONENTS,
            bytes_per_tile=math.prod(spec.shard),
        )
        table = join(_summaries(folder, grid), grid)
        kept = keep(table, min_voxels=min_voxels, need_strong=True)
        for tile in grid:
            write_bundle(_kept_path(folder, tile), {"kept": kept[tile.index]})
        built = build_image(
            job,
            MASK,
            like(spec, dtype="uint8", quantity="vessel"),
            functools.partial(_select, candidates=candidates, folder=folder),
            grid,
            cluster=cluster,
        )
    voxels = built.totals("voxels")["voxels"]
    wanted = (table.sizes >= min_voxels) & table.has_strong
    return Outcome(
        built.content,
        {
            "objects": int(np.count_nonzero(wanted[1:])),
            "objects_removed": int(np.count_nonzero(~wanted[1:])),
            "largest_object_voxels": int(table.sizes.max()),
            "vessel_voxels": voxels,
            "vessel_fraction_percent": round(100 * voxels / math.prod(spec.shape), 3),
        },
        (COMPONENTS, MASK),
    )


def _summarize(tile: Tile, *, candidates: Image, folder: Path) -> TileResult:
    """Label one tile and write what the others must know of it."""
    classes = candidates.read(tile.core)
    summary = summarize(label_block(classes > 0), classes, index=tile.index)
    faces = {
        f"face_{axis}_{end}": face
        for axis, ends in enumerate(summary.faces)
        for end, face in enumerate(ends)
    }
    path = folder / f"{tile.id}.npz"
    checksum = write_bundle(
        path, {"sizes": summary.sizes, "has_strong": summary.has_strong, **faces}
    )
    return TileResult({path.name: checksum})


def _summaries(folder: Path, grid: TileGrid) -> Iterator[TileSummary]:
    for tile in grid:
        parts = read_bundle(folder / f"{tile.id}.npz")
        faces = tuple((parts[f"face_{axis}_0"], parts[f"face_{axis}_1"]) for axis in range(3))
        yield TileSummary(tile.index, parts["sizes"], parts["has_strong"], faces)


def _kept_path(folder: Path, tile: Tile) -> Path:
    return folder / f"{tile.id}.kept.npz"


def _select(target: Image, tile: Tile, *, candidates: Image, folder: Path) -> TileResult:
    """Label one tile once more, and write the mask of the objects that are kept."""
    labels = label_block(candidates.read(tile.core) > 0)
    kept: NDArray[np.bool_] = read_bundle(_kept_path(folder, tile))["kept"]
    mask = kept[labels].astype(np.uint8)
    return TileResult(target.write(tile.core, mask), {"voxels": int(np.count_nonzero(mask))})
