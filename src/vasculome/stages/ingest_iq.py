"""Raw IQ or RF of any vendor → one Zarr array (t, z, [y,] x) of complex64 with its metadata."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.memory import PROCESS_BYTES, TORCH_BYTES, MemoryBound
from vasculome.config import RunConfig
from vasculome.errors import UserError
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.readers.iq import RawIQ, open_iq
from vasculome.readers.iq_metadata import METADATA_NAMES, AcquisitionMeta, resolve_metadata
from vasculome.stages.digest import digest_of
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.stages.rf_images import RfImages, open_rf_images
from vasculome.storage.arrays import ShardedArray, create_array
from vasculome.storage.foreign import open_foreign

IQ = "iq.zarr"
_SHARD_BYTES = 64e6
_CHUNKS_PER_SHARD = 8


def settings(config: RunConfig) -> tuple[()]:
    """Return the settings that all samples' outputs depend on: none; RF tells its own."""
    return ()


def open_raw(job: Job) -> RawIQ | RfImages:
    """Open the sample's raw files; raises UserError for what is wrong with them."""
    sample = job.sample
    if sample.format == "rf":
        return open_rf_images(sample, job.config.ultrasound.beamform)
    return open_iq(
        Path(sample.path),
        axes=sample.axes or "",
        variable=sample.variable,
        open_zarr=open_foreign,
    )


def raw_fingerprint(job: Job) -> str:
    """Return the identity of the raw files, without reading their values.

    Of RF it tells how it is beamformed too, which means nothing to samples of IQ.
    """
    return open_raw(job).fingerprint()


def check(job: Job) -> None:
    """Raise UserError where the raw data is missing or not what the sample sheet says."""
    _check(job, open_raw(job))


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: a block as read and as encoded, and what the reader keeps."""
    raw = open_raw(job)
    block = _frames_per_shard(raw) * math.prod(raw.shape[1:]) * 8
    base = PROCESS_BYTES + (TORCH_BYTES if isinstance(raw, RfImages) else 0)
    return MemoryBound(3 * block + raw.resident_bytes, job.workers, base_bytes=base)


def run(job: Job) -> Outcome:
    """Write ``iq.zarr``."""
    raw = open_raw(job)
    _check(job, raw)
    frames = _frames_per_shard(raw)
    chunk = max(1, frames // _CHUNKS_PER_SHARD)
    metadata = dataclasses.asdict(acquisition(job, raw)) | {
        "origin_um": _origin_um(job, raw),
        "frames_per_run": job.sample.frames_per_run or raw.shape[0],
    }
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
            **_beamformed(raw),
        },
        (IQ,),
    )


def _check(job: Job, raw: RawIQ | RfImages) -> None:
    acquisition(job, raw)
    run = job.sample.frames_per_run
    if run is not None and raw.shape[0] % run:
        raise UserError(
            f"holds {raw.shape[0]} frames, which is no multiple of frames_per_run ({run})",
            where=Path(job.sample.path),
            fix="correct it, or leave it empty if there are no pauses",
        )
    if isinstance(raw, RfImages):
        raw.check()


def _origin_um(job: Job, raw: RawIQ | RfImages) -> tuple[float, ...]:
    """Return the position of voxel 0; that of RF is counted from the probe."""
    if isinstance(raw, RawIQ):
        return job.sample.origin_um
    return tuple(a + b for a, b in zip(job.sample.origin_um, raw.start_um, strict=True))


def _beamformed(raw: RawIQ | RfImages) -> dict[str, float | int]:
    """Return what was beamformed, and how; nothing for IQ."""
    if isinstance(raw, RawIQ):
        return {}
    depths = raw.grid_um[0]
    return {
        "transmits": raw.raw.shape[1],
        "elements": raw.raw.shape[2],
        "f_number": round(raw.f_number, 3),
        "first_depth_um": round(float(depths[0]), 2),
        "last_depth_um": round(float(depths[-1]), 2),
    }


def acquisition(job: Job, raw: RawIQ | RfImages) -> AcquisitionMeta:
    """Return frame rate, wavelength and spacing by files and sample sheet, which must agree."""
    given = {name: getattr(job.sample, name) for name in METADATA_NAMES}
    return resolve_metadata(
        raw.metadata, given, spatial_axes=len(raw.shape) - 1, where=Path(job.sample.path)
    )


def _frames_per_shard(raw: RawIQ | RfImages) -> int:
    per_frame = math.prod(raw.shape[1:]) * 8
    return int(min(raw.shape[0], max(1, _SHARD_BYTES // per_frame)))


def _copy(tile: Tile, *, raw: RawIQ | RfImages, array: ShardedArray) -> TileResult:
    """Read one block of frames and write its shard."""
    block = raw.read(tile.core.start[0], tile.core.stop[0])
    return TileResult(files=array.write(tile.core, block))
