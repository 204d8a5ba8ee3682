"""Tracks → super-resolved maps of density, speed, its error, velocity and direction; Doppler."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult
from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig, UlmMapsConfig
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.digest import digest_of
from vasculome.stages.ingest_iq import IQ, open_raw
from vasculome.stages.job import Job, Outcome
from vasculome.stages.localize import DETECTIONS, POWER_SUFFIX
from vasculome.stages.track import TRACKS
from vasculome.stages.volume import MAPS, build_image, build_maps
from vasculome.storage.arrays import ShardedArray, open_array
from vasculome.storage.bundles import read_bundle
from vasculome.storage.omezarr import Image, ImageSpec
from vasculome.storage.tables import ROWS_AT_ONCE, iter_groups
from vasculome.ultrasound.render import accumulate, empty_sums, maps

_AXES = {2: ("z", "x"), 3: ("z", "y", "x")}
_SHARD = {2: (1024, 1024), 3: (128, 128, 128)}
_CHUNK = {2: (256, 256), 3: (64, 64, 64)}
_POINT_BYTES = 700
"""Of a point of a track in 3-D, measured: columns as read, places and velocities, and copies."""
_PIXEL_BYTES = 40
"""Of the power: the sum, one block as read and weighed, and the mean."""


def settings(config: RunConfig) -> tuple[UlmMapsConfig]:
    """Return the settings that the output depends on."""
    return (config.ultrasound.maps,)


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: sums and maps of a tile, and some tracks; or power Doppler."""
    shape = open_raw(job).shape
    ndim = len(shape) - 1
    voxels = math.prod(_SHARD[ndim])
    sums, drawn = 3 + ndim, 4 + ndim
    tracks = _POINT_BYTES * (ROWS_AT_ONCE + job.config.ultrasound.track.max_length_frames)
    tile = voxels * (8 * sums + 8 * 3 + 4 * drawn) + tracks
    return MemoryBound(max(tile, _PIXEL_BYTES * math.prod(shape[1:])), job.workers)


def run(job: Job) -> Outcome:
    """Write the maps of tracks, and ``power_doppler`` on the pixels of the IQ."""
    iq = open_array(job.folder / IQ)
    spec = map_spec(job, iq)
    axes = spec.axes
    specs = {name: _named(spec, name, unit) for name, (_, unit) in _maps_of(axes).items()}
    frame = dataclasses.replace(
        _named(spec, "power_doppler", "counts²"),
        shape=iq.shape[1:],
        spacing_um=tuple(iq.attributes["spacing_um"]),
        origin_um=tuple(iq.attributes["origin_um"]),
        shard=iq.shape[1:],
        reduce="mean",
    )
    with job.cluster() as cluster:
        built = build_maps(
            job,
            specs,
            functools.partial(_render, folder=job.folder / TRACKS, spec=spec),
            TileGrid(Box.of_shape(spec.shape), spec.shard, (0,) * len(axes)),
            cluster=cluster,
        )
        power = build_image(
            job,
            f"{MAPS}/power_doppler.ome.zarr",
            frame,
            functools.partial(_write_power, folder=job.folder / DETECTIONS),
            TileGrid(Box.of_shape(frame.shape), frame.shard, (0,) * len(axes)),
            cluster=cluster,
        )
    crossed = built.totals("crossed")["crossed"]
    return Outcome(
        digest_of([built.content, power.content]),
        {
            "map_shape": list(spec.shape),
            "pixel_um": round(spec.spacing_um[0], 4),
            "origin_um": [round(start, 4) for start in spec.origin_um or ()],
            "saturation_percent": round(100 * crossed / math.prod(spec.shape), 3),
        },
        (*built.stores, *power.stores),
    )


def map_spec(job: Job, iq: ShardedArray) -> ImageSpec:
    """Return the grid of the maps: it covers all pixels of the IQ."""
    meta = iq.attributes
    axes = _AXES[len(iq.shape) - 1]
    pixel_um = meta["wavelength_um"] / job.config.ultrasound.maps.pixels_per_wavelength
    spacing_um, origin_um = meta["spacing_um"], meta["origin_um"]
    # The map begins where the first pixel of the IQ begins, and covers the last one.
    corner = [o - s / 2 + pixel_um / 2 for o, s in zip(origin_um, spacing_um, strict=True)]
    extent = zip(iq.shape[1:], spacing_um, strict=True)
    return ImageSpec(
        # Rounded first: 102 * 49.28 / 9.856 comes out above 510, which would add an empty pixel.
        shape=tuple(math.ceil(round(n * s / pixel_um, 6)) for n, s in extent),
        dtype="float32",
        axes=axes,
        spacing_um=(pixel_um,) * len(axes),
        origin_um=tuple(corner),
        chunk=_CHUNK[len(axes)],
        shard=_SHARD[len(axes)],
        reduce="nearest",
        name=job.sample.sample,
    )


def _maps_of(axes: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Return name → (name in `vasculome.ultrasound.render.maps`, unit) of the maps."""
    flow = {f"velocity_{axis}": (f"v{axis}_mm_s", "mm/s") for axis in axes}
    # A direction is one angle in 2-D only; in 3-D the components tell it.
    angle = {"direction": ("direction_rad", "rad")} if len(axes) == 2 else {}
    return {
        "density": ("density", "tracks"),
        "speed": ("speed_mm_s", "mm/s"),
        "speed_error": ("speed_error_mm_s", "mm/s"),
        **flow,
        **angle,
    }


def _named(spec: ImageSpec, name: str, unit: str) -> ImageSpec:
    return dataclasses.replace(
        spec,
        name=name,
        reduce="max" if name == "density" else spec.reduce,
        unit_attributes={"quantity": name.replace("_", " "), "unit": unit},
    )


def _render(
    tile: Tile, *, folder: Path, spec: ImageSpec
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """Draw all tracks that cross one tile of the map."""
    sums = empty_sums(tile.core)
    origin_um = spec.origin_um or (0.0,) * len(spec.shape)
    places = [f"{axis}_um" for axis in spec.axes]
    columns = ["track", "frame", *places, *(f"v{axis}_mm_s" for axis in spec.axes)]
    # A voxel more on each side, for what rounding may do to points at the very edge.
    edges = zip(tile.core.start, tile.core.stop, spec.spacing_um, origin_um, strict=True)
    reach = [(o + (a - 1.5) * size, o + (b + 0.5) * size) for a, b, size, o in edges]
    within = dict(zip(places, reach, strict=True))
    for tracks in iter_groups(folder, columns, group="track", within=within):
        accumulate(sums, tracks, box=tile.core, pixel_um=spec.spacing_um, origin_um=origin_um)
    drawn = maps(sums)
    crossed = int(np.count_nonzero(drawn["density"]))
    return {name: drawn[key] for name, (key, _) in _maps_of(spec.axes).items()}, {
        "crossed": crossed
    }


def _write_power(target: Image, tile: Tile, *, folder: Path) -> TileResult:
    """Write the mean power of the filtered frames over all blocks."""
    total, frames = np.zeros(tile.core.shape), 0
    for path in sorted(folder.glob(f"*{POWER_SUFFIX}")):
        block = read_bundle(path)
        total += block["power"].astype(np.float64) * int(block["frames"])
        frames += int(block["frames"])
    return TileResult(target.write(tile.core, (total / frames).astype(np.float32)))
