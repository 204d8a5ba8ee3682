"""Raw IQ of any vendor → one Zarr array (t, z, [y,] x) of complex64 with its metadata."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.readers.iq import RawIQ, open_iq
from vasculome.readers.iq_metadata import METADATA_NAMES, AcquisitionMeta, resolve_metadata
from vasculome.stages.digest import digest_of
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.storage.arrays import ShardedArray, create_array
from vasculome.storage.foreign import open_foreign

IQ = "iq.zarr"
_SHARD_BYTES = 64e6
_CHUNKS_PER_SHARD = 8


def settings(config: RunConfig) -> tuple[()]:
    """Return the settings that the output depends on: none."""
    return ()


def open_raw(job: Job) -> RawIQ:
    """Open the sample's raw files; raises UserError for what is wrong with them."""
    sample = job.sample
    return open_iq(
        Path(sample.path),
        axes=sample.axes or "",
        variable=sample.variable,
        open_zarr=open_foreign,
    )


def raw_fingerprint(job: Job) -> str:
    """Return the identity of the raw files, without reading their values."""
    return open_raw(job).fingerprint()


def check(job: Job) -> None:
    """Raise UserError where the raw data is missing or not what the sample sheet says."""
    _metadata(job, open_raw(job))


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: a block as read and as encoded, and what the reader keeps."""
    raw = open_raw(job)
    block = _frames_per_shard(raw) * math.prod(raw.shape[1:]) * 8
    return MemoryBound(3 * block + raw.resident_bytes, job.workers)


def run(job: Job) -> Outcome:
    """Write ``iq.zarr``."""
    raw = open_raw(job)
    frames = _frames_per_shard(raw)
    chunk = max(1, frames // _CHUNKS_PER_SHARD)
    metadata = dataclasses.asdict(_metadata(job, raw)) | {"origin_um": job.sample.origin_um}
    shard = (chunk * (frames // chunk), *raw.shape[1:])
    array = create_array(
        job.folder / IQ,
        shape=raw.shape,
        dtype="complex64",
        chunk=(chunk, *raw.shape[1:]),
        shard=shard,
        attributes=metadata,
        axes=("t", "z", "x") if len(raw.shape) == 3 else ("t", "z", "y", "x"),
    )
    grid = TileGrid(Box.of_shape(raw.shape), shard, (0,) * len(shard))
    with job.cluster() as cluster:
        results = map_tiles(
            functools.partial(_copy, raw=raw, array=array),
            grid,
            total=len(grid),
            store=array.path,
            digest=job.digest(),
            cluster=cluster,
            label="ingest_iq",
            bytes_per_tile=math.prod(shard) * 8,
        )
    return Outcome(
        # Later stages read the metadata too: another frame rate makes other tracks.
        digest_of([content_of(results.values()), array.metadata]),
        {
            "shape": list(raw.shape),
            "raw_files": len(raw.files),
            "frame_rate_hz": metadata["frame_rate_hz"],
            "wavelength_um": metadata["wavelength_um"],
            "megabytes": round(math.prod(raw.shape) * 8 / 1e6, 1),
        },
        (IQ,),
    )


def _metadata(job: Job, raw: RawIQ) -> AcquisitionMeta:
    given = {name: getattr(job.sample, name) for name in METADATA_NAMES}
    return resolve_metadata(
        raw.metadata, given, spatial_axes=len(raw.shape) - 1, where=Path(job.sample.path)
    )


def _frames_per_shard(raw: RawIQ) -> int:
    per_frame = math.prod(raw.shape[1:]) * 8
    return int(min(raw.shape[0], max(1, _SHARD_BYTES // per_frame)))


def _copy(tile: Tile, *, raw: RawIQ, array: ShardedArray) -> TileResult:
    """Read one block of frames and write its shard."""
    block = raw.read(tile.core.start[0], tile.core.stop[0])
    return TileResult(files=array.write(tile.core, block))
