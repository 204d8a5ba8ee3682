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
from vasculome.vessels.components import (
    Objects,
    TileSummary,
    join,
    keep,
    keep_in_tile,
    label_block,
    measure,
    summarize,
)

MASK = "mask.ome.zarr"
COMPONENTS = "components"

# Objects on a voxel of a tile's face: more than twice those of 1,000 vessels that cross a mm² of
# voxels of 2 um.
_CROSSINGS_PER_VOXEL = 0.01
_CROSSING_BYTES = 100


def settings(config: RunConfig) -> tuple[SegmentConfig]:
    """Return the settings that the output depends on."""
    return (config.microscopy.segment,)


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: candidates, labels and their work space, and the mask.

    The main process holds the faces of two layers of tiles while it joins them, and what crosses
    the faces of all tiles.
    """
    shard = job.config.storage.shard_zyx
    shape = expected_shape(job, mapped_tiles(job))
    tiles = [math.ceil(n / s) for n, s in zip(shape, shard, strict=True)]
    on_faces = 2 * sum(math.prod(shard) // n for n in shard)
    faces = 2 * 4 * on_faces * math.prod(tiles[1:])
    faces += int(_CROSSINGS_PER_VOXEL * on_faces * _CROSSING_BYTES) * math.prod(tiles)
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
        summarized = map_tiles(
            functools.partial(
                _summarize, candidates=candidates, folder=folder, min_voxels=min_voxels
            ),
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
            functools.partial(_select, candidates=candidates, folder=folder, min_voxels=min_voxels),
            grid,
            cluster=cluster,
        )
    voxels = built.totals("voxels")["voxels"]
    counts = [_count(table.objects, min_voxels), *(r.record for r in summarized.values())]
    return Outcome(
        built.content,
        {
            "objects": sum(count["objects"] for count in counts),
            "objects_removed": sum(count["objects_removed"] for count in counts),
            "largest_object_voxels": max(count["largest_object_voxels"] for count in counts),
            "vessel_voxels": voxels,
            "vessel_fraction_percent": round(100 * voxels / math.prod(spec.shape), 3),
        },
        (COMPONENTS, MASK),
    )


def _count(objects: Objects, min_voxels: int) -> dict[str, int]:
    wanted = objects.wanted(min_voxels=min_voxels, need_strong=True)
    return {
        "objects": int(np.count_nonzero(wanted[1:])),
        "objects_removed": int(np.count_nonzero(~wanted[1:])),
        "largest_object_voxels": int(objects.sizes.max()),
    }


def _summarize(tile: Tile, *, candidates: Image, folder: Path, min_voxels: int) -> TileResult:
    """Label one tile, write what the others must know of it, and count the rest of it."""
    classes = candidates.read(tile.core)
    labels = label_block(classes > 0)
    objects, on_face = measure(labels, classes)
    summary = summarize(labels, objects, on_face, index=tile.index)
    faces = {
        f"face_{axis}_{end}": face
        for axis, ends in enumerate(summary.faces)
        for end, face in enumerate(ends)
    }
    path = folder / f"{tile.id}.npz"
    of_objects = {"sizes": summary.objects.sizes, "has_strong": summary.objects.has_strong}
    checksum = write_bundle(path, {**of_objects, **faces})
    return TileResult({path.name: checksum}, _count(objects.take(~on_face), min_voxels))


def _summaries(folder: Path, grid: TileGrid) -> Iterator[TileSummary]:
    for tile in grid:
        parts = read_bundle(folder / f"{tile.id}.npz")
        faces = tuple((parts[f"face_{axis}_0"], parts[f"face_{axis}_1"]) for axis in range(3))
        yield TileSummary(tile.index, Objects(parts["sizes"], parts["has_strong"]), faces)


def _kept_path(folder: Path, tile: Tile) -> Path:
    return folder / f"{tile.id}.kept.npz"


def _select(
    target: Image, tile: Tile, *, candidates: Image, folder: Path, min_voxels: int
) -> TileResult:
    """Label one tile once more, and write the mask of the objects that are kept."""
    classes = candidates.read(tile.core)
    labels = label_block(classes > 0)
    kept_on_face: NDArray[np.bool_] = read_bundle(_kept_path(folder, tile))["kept"]
    kept = keep_in_tile(
        *measure(labels, classes), kept_on_face, min_voxels=min_voxels, need_strong=True
    )
    mask = kept[labels].astype(np.uint8)
    return TileResult(target.write(tile.core, mask), {"voxels": int(np.count_nonzero(mask))})
