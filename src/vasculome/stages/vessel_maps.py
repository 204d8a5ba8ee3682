"""Mask and skeleton → maps: vessel volume fraction, length density, mean radius."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig, VesselMapsConfig
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.job import Job, Outcome
from vasculome.stages.mask import MASK
from vasculome.stages.skeleton import POINTS
from vasculome.stages.volume import build_maps
from vasculome.storage.omezarr import Image, ImageSpec, open_image
from vasculome.storage.tables import Columns, part_path, read_table
from vasculome.vessels.density import (
    length_density_mm_per_mm3,
    mean_radius_um,
    volume_fraction,
)

_UNITS = {"vessel_fraction": "1", "length_density": "mm/mm³", "mean_radius": "µm"}
# A tile of a map covers far more mask voxels than a shard of it: it is made in pieces.
_SHARD = (32, 32, 32)
_PIECE = (8, 8, 8)
# Skeleton points a voxel of the mask, at the most: dense capillaries have a tenth of it.
_POINTS_PER_VOXEL = 0.01
_POINT_BYTES = 100


def settings(config: RunConfig) -> tuple[VesselMapsConfig]:
    """Return the settings that the output depends on."""
    return (config.microscopy.maps,)


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: a piece of the mask, or the points of a tile."""
    per_map_voxel = math.prod(_factor(job))
    piece = math.prod(_PIECE) * per_map_voxel * (1 + 8)
    points = math.prod(_SHARD) * per_map_voxel * _POINTS_PER_VOXEL * _POINT_BYTES
    return MemoryBound(int(piece + points), job.workers)


def run(job: Job) -> Outcome:
    """Write the maps ``vessel_fraction``, ``length_density`` and ``mean_radius``."""
    mask = open_image(job.folder / MASK)
    factor = _factor(job)
    spec = _map_spec(mask.spec, factor)
    with job.cluster() as cluster:
        built = build_maps(
            job,
            {
                name: dataclasses.replace(
                    spec,
                    name=name,
                    unit_attributes={"quantity": name.replace("_", " "), "unit": unit},
                )
                for name, unit in _UNITS.items()
            },
            functools.partial(_measure, mask=mask, factor=factor, folder=job.folder / POINTS),
            TileGrid(Box.of_shape(spec.shape), spec.shard, (0, 0, 0)),
            cluster=cluster,
        )
    return Outcome(
        built.content,
        {"map_shape_zyx": list(spec.shape), "map_voxel_um": list(spec.spacing_um)},
        built.stores,
    )


def _factor(job: Job) -> tuple[int, ...]:
    """Return the mask voxels along each edge of a map voxel."""
    return tuple(
        max(1, round(job.config.microscopy.maps.voxel_um / s)) for s in job.sample.spacing_um
    )


def _map_spec(mask: ImageSpec, factor: tuple[int, ...]) -> ImageSpec:
    axes = list(zip(factor, mask.spacing_um, mask.origin_um or (0.0, 0.0, 0.0), strict=True))
    return dataclasses.replace(
        mask,
        shape=tuple(math.ceil(n / f) for n, f in zip(mask.shape, factor, strict=True)),
        dtype="float32",
        spacing_um=tuple(f * s for f, s, _ in axes),
        origin_um=tuple(o + (f - 1) / 2 * s for f, s, o in axes),
        chunk=_SHARD,
        shard=_SHARD,
        reduce="mean",
    )


def _covered(core: Box, factor: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    """Return the mask voxels that the map voxels of ``core`` stand for."""
    return Box(
        tuple(a * f for a, f in zip(core.start, factor, strict=True)),
        tuple(min(b * f, n) for b, f, n in zip(core.stop, factor, shape, strict=True)),
    )


def _measure(
    tile: Tile, *, mask: Image, factor: tuple[int, ...], folder: Path
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """Return the three maps of one tile."""
    fraction = np.empty(tile.core.shape, np.float32)
    for piece in TileGrid(tile.core, _PIECE, (0, 0, 0)):
        vessel = mask.read(_covered(piece.core, factor, mask.spec.shape)) > 0
        part = volume_fraction(vessel, factor=factor)
        fraction[piece.core.relative_to(tile.core).slices] = part
    box = _covered(tile.core, factor, mask.spec.shape)
    points, along = _points_in(box, mask, folder)
    radius, length = along["radius_um"], along["length_um"]
    where = {"shape": box.shape, "factor": factor}
    density = length_density_mm_per_mm3(points, length, spacing_um=mask.spec.spacing_um, **where)
    mean_radius = mean_radius_um(points, radius, length, **where)
    maps = {"vessel_fraction": fraction, "length_density": density, "mean_radius": mean_radius}
    return maps, {}


def _points_in(box: Box, mask: Image, folder: Path) -> tuple[NDArray[np.int64], Columns]:
    """Return the voxels in ``box`` that lie on the skeleton, counted from its start."""
    grid = TileGrid(Box.of_shape(mask.spec.shape), mask.spec.shard, (0, 0, 0))
    first, last = grid.owner(box.start), grid.owner([n - 1 for n in box.stop])
    near = [range(a, b + 1) for a, b in zip(first.index, last.index, strict=True)]
    names = [*(f"{axis}_um" for axis in "zyx"), "radius_um", "length_um"]
    parts = [
        read_table(part_path(folder, grid.number(grid.tile(index))), names)
        for index in itertools.product(*near)
    ]
    table = {name: np.concatenate([part[name] for part in parts]) for name in names}
    position_um = np.stack([table[f"{axis}_um"] for axis in "zyx"], axis=1)
    origin_um = np.asarray(mask.spec.origin_um or (0.0, 0.0, 0.0))
    voxel = np.rint((position_um - origin_um) / mask.spec.spacing_um).astype(np.int64)
    inside = np.all((voxel >= box.start) & (voxel < box.stop), axis=1)
    return voxel[inside] - box.start, {name: table[name][inside] for name in names}
