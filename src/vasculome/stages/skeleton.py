"""Mask → centre lines: a skeleton volume, and a table of its points with radius and length."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vasculome.compute.blocks import TileResult
from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig, SkeletonConfig
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.job import Job, Outcome
from vasculome.stages.mask import MASK
from vasculome.stages.volume import build_image, like, shard_voxels
from vasculome.storage.omezarr import Image, open_image
from vasculome.storage.tables import part_path, write_table
from vasculome.vessels.centerline import (
    LENGTH_HALO_VOXELS,
    length_per_voxel_um,
    radius_um,
    skeleton_points,
)
from vasculome.vessels.skeleton import halo_voxels, thin

SKELETON = "skeleton.ome.zarr"
POINTS = "skeleton_points"
RADIUS_BIN_UM = 0.25

log = logging.getLogger(__name__)


def settings(config: RunConfig) -> tuple[SkeletonConfig]:
    """Return the settings that the output depends on."""
    return (config.microscopy.skeleton,)


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: mask, skeleton and dilated mask with halo, and point lists.

    A voxel of the mask costs its place in the list of those alive (8 bytes, twice while a layer
    is peeled); the bound holds for tiles of which a third is vessel.
    """
    outer = shard_voxels(job, _halo(job))
    inner = shard_voxels(job, (LENGTH_HALO_VOXELS,) * 3)
    return MemoryBound(outer * (5 + 16 // 3) + inner * 16, job.workers)


def run(job: Job) -> Outcome:
    """Write ``skeleton.ome.zarr`` and the parts of ``skeleton_points``."""
    mask = open_image(job.folder / MASK)
    grid = TileGrid(Box.of_shape(mask.spec.shape), mask.spec.shard, _halo(job))
    with job.cluster() as cluster:
        built = build_image(
            job,
            SKELETON,
            like(mask.spec, dtype="uint8", quantity="vessel centre line"),
            functools.partial(
                _thin,
                mask=mask,
                grid=grid,
                folder=job.folder / POINTS,
                max_radius_um=job.config.microscopy.skeleton.max_radius_um,
            ),
            grid,
            cluster=cluster,
        )
    totals = built.totals("points", "length_um", "unfinished")
    if totals["unfinished"]:
        log.warning(
            "%d tiles hold vessels wider than microscopy.skeleton.max_radius_um: "
            "their centre lines are not thin there; raise it and run again",
            totals["unfinished"],
        )
    volume_mm3 = math.prod(mask.spec.shape) * math.prod(mask.spec.spacing_um) / 1e9
    return Outcome(
        built.content,
        {
            "length_mm": round(totals["length_um"] / 1e3, 3),
            "length_density_mm_mm3": round(totals["length_um"] / 1e3 / volume_mm3, 3),
            "median_radius_um": _median_radius_um(
                [r.record["length_um_by_radius"] for r in built.results.values()]
            ),
            "points": totals["points"],
            "tiles_wider_than_max_radius": totals["unfinished"],
        },
        (SKELETON,),
    )


def _iterations(max_radius_um: float, spacing_um: Sequence[float]) -> int:
    """Return the layers to peel: a cylinder of r voxels needs at most 1.25 r + 2."""
    return math.ceil(1.25 * max_radius_um / min(spacing_um)) + 2


def _halo(job: Job) -> tuple[int, ...]:
    reach_um, spacing_um = job.config.microscopy.skeleton.max_radius_um, job.sample.spacing_um
    thinning = halo_voxels(iterations=_iterations(reach_um, spacing_um))
    radius = [math.ceil(reach_um / s) + 1 for s in spacing_um]
    return tuple(max(t + LENGTH_HALO_VOXELS, r) for t, r in zip(thinning, radius, strict=True))


def _thin(
    target: Image, tile: Tile, *, mask: Image, grid: TileGrid, folder: Path, max_radius_um: float
) -> TileResult:
    """Thin one tile; write its part of the skeleton and the table of its points."""
    spacing_um = mask.spec.spacing_um
    vessel = mask.read(tile.outer) > 0
    centre, stable = thin(
        vessel,
        spacing_um=spacing_um,
        iterations=_iterations(max_radius_um, spacing_um),
        origin=tile.outer.start,
    )
    near = tile.core.grow((LENGTH_HALO_VOXELS,) * 3, tile.outer)
    length = length_per_voxel_um(
        centre[near.relative_to(tile.outer).slices], spacing_um=spacing_um
    )[tile.core.relative_to(near).slices]
    core = centre[tile.core_in_outer]
    inside = skeleton_points(core)
    radius = radius_um(
        vessel,
        inside + [s.start for s in tile.core_in_outer],
        spacing_um=spacing_um,
        maximum_um=max_radius_um,
    )
    along_um = length[tuple(inside.T)]
    origin_um = np.asarray(mask.spec.origin_um or (0.0, 0.0, 0.0))
    position_um = (inside + tile.core.start) * np.asarray(spacing_um) + origin_um
    path = part_path(folder, grid.number(tile))
    checksum = write_table(
        path,
        {
            **{f"{a}_um": position_um[:, i].astype(np.float32) for i, a in enumerate("zyx")},
            "radius_um": radius,
            "length_um": along_um,
        },
    )
    files = target.write(tile.core, core.astype(np.uint8))
    files[f"../{folder.name}/{path.name}"] = checksum
    bins = np.minimum(radius / RADIUS_BIN_UM, max_radius_um / RADIUS_BIN_UM).astype(int)
    by_radius = np.bincount(bins, weights=along_um.astype(np.float64))
    return TileResult(
        files=files,
        record={
            "points": len(inside),
            "length_um": float(along_um.sum(dtype=np.float64)),
            "length_um_by_radius": [round(float(v), 3) for v in by_radius],
            "unfinished": int(not stable),
        },
    )


def _median_radius_um(length_um_by_radius: list[list[float]]) -> float | None:
    """Return the radius that half of the vessels' length does not exceed, to a bin."""
    bins = max(map(len, length_um_by_radius))
    total = np.sum([np.pad(v, (0, bins - len(v))) for v in length_um_by_radius], axis=0)
    if not total.sum():
        return None
    middle = int(np.searchsorted(np.cumsum(total), total.sum() / 2))
    return RADIUS_BIN_UM * (middle + 0.5)
