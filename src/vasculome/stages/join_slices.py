"""Maps of 2-D slices at known elevations → maps of the volume that they make together."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult
from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig, Sample, differing
from vasculome.errors import UserError
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.digest import digest_of
from vasculome.stages.ingest_iq import acquisition, open_raw
from vasculome.stages.job import Job, Outcome
from vasculome.stages.volume import MAPS, Built, build_image, map_path
from vasculome.storage.omezarr import Image, ImageSpec, open_image
from vasculome.ultrasound.slices import Planes, covering_axis, nearest_pixels, planes_of

_SUFFIX = ".ome.zarr"
_SHARD = (256, 32, 256)
_CHUNK = (64, 16, 64)
_MAPS_HELD = 4
"""Of the size of a tile: joined, read, picked, and encoded."""

_COUNTED = ("density", "power_doppler")
"""Maps that are 0 where no slice lies; of the others nothing is known there, as in the slices."""

_MAX_PLANES_PER_SLICE = 100


def settings(config: RunConfig) -> tuple[()]:
    """Return the settings that the output depends on: none."""
    return ()


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: one tile of one map, and what it is made from."""
    return MemoryBound(_MAPS_HELD * 4 * math.prod(_SHARD), job.workers)


def check(job: Job) -> None:
    """Raise UserError where slices do not go together, from the headers of their raw files."""
    _planes(job)
    wavelength_um = {row.sample: _acquired(job, row).wavelength_um for row in job.sample.slices}
    _refuse_differing(job, "wavelength_um", wavelength_um)


def run(job: Job) -> Outcome:
    """Write every map that the slices have."""
    planes = _planes(job)
    slices = _maps_of_slices(job)
    for images in slices.values():
        _refuse_other_pixels(job, images)
    with job.cluster() as cluster:
        built = {
            name: _build(job, name, images, planes, cluster) for name, images in slices.items()
        }
    spec = open_image(map_path(job.folder / MAPS, "density")).spec
    filled = built["density"].totals("filled")["filled"]
    return Outcome(
        digest_of({name: one.content for name, one in built.items()}),
        {
            "slices": len(job.sample.slices),
            "planes": len(planes.slice_of),
            "plane_spacing_um": planes.spacing_um,
            "map_shape": list(spec.shape),
            "pixel_um": round(spec.spacing_um[0], 4),
            "saturation_percent": round(100 * filled / math.prod(spec.shape), 3),
            "slice_table": _table(job, planes),
        },
        tuple(store for one in built.values() for store in one.stores),
    )


def _acquired(job: Job, row: Sample) -> Any:
    of_slice = Job("ingest_iq", job.config, row)
    return acquisition(of_slice, open_raw(of_slice))


def _refuse_differing(job: Job, name: str, values: dict[str, float]) -> None:
    pair = differing(values)
    if pair is not None:
        told = " and ".join(f"{values[row]:g} in {row!r}" for row in pair)
        raise UserError(
            f"{name} of the slices differs: {told}",
            where=f"{job.config.samples}, volume {job.sample.sample}",
            fix="put slices of one wavelength into a volume: their maps must have one pixel size",
        )


def _refuse_other_pixels(job: Job, images: Sequence[Image]) -> None:
    for axis, letter in enumerate("zx"):
        pixels_um = [image.spec.spacing_um[axis] for image in images]
        names = [row.sample for row in job.sample.slices]
        _refuse_differing(
            job, f"pixel size along {letter} (µm)", dict(zip(names, pixels_um, strict=True))
        )


def _planes(job: Job) -> Planes:
    """Return the planes of the volume; raises UserError where two slices are next to one."""
    at_um = job.sample.elevation_um
    closest = int(np.argmin(np.diff(at_um)))
    gap_um = at_um[closest + 1] - at_um[closest]
    most = _MAX_PLANES_PER_SLICE * len(at_um)
    if (at_um[-1] - at_um[0]) / gap_um > most:
        a, b = job.sample.slices[closest : closest + 2]
        raise UserError(
            f"elevation_mm of {a.sample!r} and {b.sample!r} differ by {gap_um:g} µm only: "
            f"the volume of {len(at_um)} slices would have more than {most} planes",
            where=f"{job.config.samples}, volume {job.sample.sample}",
            fix="correct the elevations, in mm, or leave one of the two slices out",
        )
    return planes_of(at_um)


def _maps_of_slices(job: Job) -> dict[str, list[Image]]:
    """Return the maps that all slices have: of each name one of each slice, in their order."""
    found: dict[str, list[Image]] = {}
    for source in job.inputs().values():
        for store in source.manifest(source.stage)["stores"]:
            if store.endswith(_SUFFIX):
                name = Path(store).name.removesuffix(_SUFFIX)
                found.setdefault(name, []).append(open_image(source.folder / store))
    return {name: images for name, images in found.items() if len(images) == len(job.inputs())}


def _build(job: Job, name: str, images: Sequence[Image], planes: Planes, cluster: Any) -> Built:
    """Write one map of the volume."""
    first = images[0].spec
    z, x = (
        covering_axis(
            [_origin_um(image)[axis] for image in images],
            [image.spec.spacing_um[axis] for image in images],
            [image.spec.shape[axis] for image in images],
        )
        for axis in (0, 1)
    )
    spec = ImageSpec(
        shape=(z[1], len(planes.slice_of), x[1]),
        dtype="float32",
        axes=("z", "y", "x"),
        spacing_um=(first.spacing_um[0], planes.spacing_um, first.spacing_um[1]),
        origin_um=(z[0], planes.origin_um, x[0]),
        chunk=_CHUNK,
        shard=_SHARD,
        reduce=first.reduce,
        name=name,
        unit_attributes=first.unit_attributes,
    )
    work = functools.partial(
        _join,
        images=images,
        slice_of=planes.slice_of,
        elsewhere=0.0 if name in _COUNTED else math.nan,
    )
    grid = TileGrid(Box.of_shape(spec.shape), spec.shard, (0, 0, 0))
    return build_image(job, f"{MAPS}/{name}{_SUFFIX}", spec, work, grid, cluster=cluster)


def _join(
    target: Image,
    tile: Tile,
    *,
    images: Sequence[Image],
    slice_of: NDArray[np.int64],
    elsewhere: float,
) -> TileResult:
    """Write one tile: each of its planes is a part of one slice."""
    z_um, _, x_um = (
        origin + step * np.arange(start, stop)
        for origin, step, start, stop in zip(
            _origin_um(target), target.spec.spacing_um, tile.core.start, tile.core.stop, strict=True
        )
    )
    voxels = np.full(tile.core.shape, elsewhere, np.float32)
    planes = slice_of[tile.core.start[1] : tile.core.stop[1]]
    for number in np.unique(planes):
        plane = _pick(images[number], z_um, x_um, elsewhere=elsewhere)
        voxels[:, planes == number] = plane[:, None]
    filled = int(np.count_nonzero(np.nan_to_num(voxels)))
    return TileResult(target.write(tile.core, voxels), {"filled": filled})


def _pick(
    image: Image, z_um: NDArray[np.float64], x_um: NDArray[np.float64], *, elsewhere: float
) -> NDArray[np.float32]:
    """Return the pixels of a slice nearest to each z and x."""
    z, x = (
        nearest_pixels(at_um, origin_um=origin, spacing_um=step, count=n)
        for at_um, origin, step, n in zip(
            (z_um, x_um), _origin_um(image), image.spec.spacing_um, image.spec.shape, strict=True
        )
    )
    plane = np.full((len(z), len(x)), elsewhere, np.float32)
    if (z >= 0).any() and (x >= 0).any():
        start = int(z[z >= 0].min()), int(x[x >= 0].min())
        read = image.read(Box(start, (int(z.max()) + 1, int(x.max()) + 1)))
        picked = read[np.ix_(z[z >= 0] - start[0], x[x >= 0] - start[1])]
        plane[np.ix_(z >= 0, x >= 0)] = picked
    return plane


def _origin_um(image: Image) -> tuple[float, ...]:
    return image.spec.origin_um or (0.0,) * len(image.spec.shape)


def _table(job: Job, planes: Planes) -> list[dict[str, Any]]:
    """Return what the report tells of each slice."""
    rows = []
    for number, (row, source) in enumerate(
        zip(job.sample.slices, job.inputs().values(), strict=True)
    ):
        summary = source.manifest(source.stage)["summary"]
        rows.append(
            {
                "sample": row.sample,
                "elevation_mm": row.elevation_mm,
                "planes": int(np.count_nonzero(planes.slice_of == number)),
                "map_shape": summary["map_shape"],
                "origin_um": summary["origin_um"],
                "saturation_percent": summary["saturation_percent"],
            }
        )
    return rows
