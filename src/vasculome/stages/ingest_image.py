"""Raw microscopy files → one OME-Zarr: read lazily, blended where tiles overlap."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult
from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig, StorageConfig
from vasculome.errors import UserError
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.readers.tiff_tiles import RawVolume, TileSet, open_volume
from vasculome.stages.job import Job, Outcome
from vasculome.stages.volume import build_image
from vasculome.stitching.fuse import fuse
from vasculome.storage.omezarr import Image, ImageSpec

IMAGE = "image.ome.zarr"


def settings(config: RunConfig) -> tuple[StorageConfig]:
    """Return the settings that the output depends on."""
    return (config.storage,)


def open_raw(job: Job) -> RawVolume | TileSet:
    """Open the sample's raw files; raises UserError for what is wrong with them."""
    return open_volume(Path(job.sample.path), format=job.sample.format, channel=job.sample.channel)


def raw_shape(job: Job) -> tuple[int, ...]:
    """Return the shape (z, y, x) of the sample's volume, from the headers of its files."""
    return _placed(job, open_raw(job))[1]


def raw_fingerprint(job: Job) -> str:
    """Return the identity of the raw files, without reading pixels."""
    return open_raw(job).fingerprint()


def check(job: Job) -> None:
    """Raise UserError where the raw data is missing or not what the sample sheet says."""
    _placed(job, open_raw(job))


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: raw slab, blending sums, and the encoded shards."""
    raw = open_raw(job)
    blended = isinstance(raw, TileSet)
    voxels = Box.of_shape(_slab_shape(job, _placed(job, raw)[1], raw.dtype)).size
    # Blending holds sum and weight (float32) beside the tile; pyramid and encoder hold copies.
    per_voxel = np.dtype(raw.dtype).itemsize * 4 + (12 if blended else 0)
    return MemoryBound(voxels * per_voxel, job.workers)


def run(job: Job) -> Outcome:
    """Write ``image.ome.zarr``."""
    raw = open_raw(job)
    volumes, shape = _placed(job, raw)
    spec = ImageSpec(
        shape=shape,
        dtype=str(np.dtype(raw.dtype)),
        axes=("z", "y", "x"),
        spacing_um=job.sample.spacing_um,
        origin_um=job.sample.origin_um,
        chunk=job.config.storage.chunk_zyx,
        shard=job.config.storage.shard_zyx,
        reduce="mean",
        name=job.sample.sample,
        unit_attributes={"quantity": "intensity", "unit": "counts"},
    )
    with job.cluster() as cluster:
        built = build_image(
            job,
            IMAGE,
            spec,
            functools.partial(_copy, volumes=volumes),
            TileGrid(Box.of_shape(shape), _slab_shape(job, shape, raw.dtype), (0, 0, 0)),
            cluster=cluster,
        )
    records = [result.record for result in built.results.values()]
    return Outcome(
        built.content,
        {
            "shape_zyx": list(shape),
            "dtype": spec.dtype,
            "raw_files": len(raw.files),
            "tiles_blended": len(volumes),
            "intensity_span": [
                min(record["min"] for record in records),
                max(record["max"] for record in records),
            ],
            "megabytes": round(math.prod(shape) * np.dtype(raw.dtype).itemsize / 1e6, 1),
        },
        (IMAGE,),
    )


def _copy(
    image: Image, tile: Tile, *, volumes: list[tuple[RawVolume, tuple[int, ...]]]
) -> TileResult:
    """Read one slab from the raw files and write its shards."""
    if len(volumes) == 1:
        slab = volumes[0][0].read(tile.core)
    else:
        tiles = [_Lazy(volume) for volume, _ in volumes]
        starts = [at for _, at in volumes]
        slab = fuse(tiles, starts, tile.core, dtype=volumes[0][0].dtype)
    record = {"min": float(slab.min()), "max": float(slab.max())}
    return TileResult(files=image.write(tile.core, slab), record=record)


@dataclass(frozen=True)
class _Lazy:
    """A raw volume as something to slice, so that only what is fused is read."""

    volume: RawVolume

    @property
    def shape(self) -> tuple[int, ...]:
        return self.volume.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.volume.dtype

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        return self.volume.read(Box(tuple(s.start for s in index), tuple(s.stop for s in index)))


def _placed(
    job: Job, raw: RawVolume | TileSet
) -> tuple[list[tuple[RawVolume, tuple[int, ...]]], tuple[int, ...]]:
    """Return each volume with the voxel of its corner, and the shape that holds them all."""
    if isinstance(raw, RawVolume):
        return [(raw, (0, 0, 0))], raw.shape
    positions_um = np.asarray(raw.positions_um, float)
    voxels = np.rint((positions_um - positions_um.min(0)) / job.sample.spacing_um).astype(int)
    stops = voxels + [volume.shape for volume in raw.volumes]
    shape = tuple(int(n) for n in stops.max(0))
    if np.prod(shape, dtype=float) > 10 * sum(float(np.prod(v.shape)) for v in raw.volumes):
        raise UserError(
            f"the tiles cover less than a tenth of the volume {shape} that holds them",
            where=job.sample.path,
            fix="check the positions in tiles.tsv and spacing_um: both are in micrometres",
        )
    return [
        (v, tuple(int(n) for n in at)) for v, at in zip(raw.volumes, voxels, strict=True)
    ], shape


def _slab_shape(job: Job, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Return as many whole shards along x, then y, as ``slab_mb`` holds.

    A compressed plane is decoded by rows: wide slabs decode each row once.
    """
    z, y, x = job.config.storage.shard_zyx
    budget = job.config.microscopy.slab_mb * 1e6 / np.dtype(dtype).itemsize
    along_x = min(-(-shape[2] // x), max(1, int(budget // (z * y * x))))
    along_y = min(-(-shape[1] // y), max(1, int(budget // (z * y * x * along_x))))
    return z, y * along_y, x * along_x
