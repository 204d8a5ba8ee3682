"""Clutter filter and localization, block by block: IQ → detections and power Doppler."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.memory import MemoryBound
from vasculome.config import ClutterConfig, LocalizeConfig, RunConfig, Sample, UltrasoundConfig
from vasculome.errors import UserError
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.ingest_iq import IQ, open_raw
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.storage.arrays import ShardedArray, open_array
from vasculome.storage.bundles import write_bundle
from vasculome.storage.tables import part_path, write_table
from vasculome.ultrasound.clutter import singular_values, svd_filter
from vasculome.ultrasound.detect import find_peaks, noise_level
from vasculome.ultrasound.localize import positions_um, radial_symmetry, weighted_centroid

DETECTIONS = "detections"
POWER_SUFFIX = ".power.npz"
_LOCALIZERS = {"radial_symmetry": radial_symmetry, "weighted_centroid": weighted_centroid}


def settings(config: RunConfig) -> tuple[ClutterConfig, LocalizeConfig]:
    """Return the settings that the output depends on."""
    return config.ultrasound.clutter, config.ultrasound.localize


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: a block as read, filtered, and its magnitude, with SVD copies."""
    shape = open_raw(job).shape
    (frames,) = frame_blocks(shape[0], job.config.ultrasound.clutter).core_shape
    return MemoryBound(frames * math.prod(shape[1:]) * (8 + 8 + 8 + 4), job.workers)


def run(job: Job) -> Outcome:
    """Write detections and power Doppler, one part file a block."""
    iq = open_array(job.folder / IQ)
    grid = frame_blocks(iq.shape[0], job.config.ultrasound.clutter)
    folder = job.folder / DETECTIONS
    with job.cluster() as cluster:
        results = map_tiles(
            functools.partial(
                _localize,
                iq=iq,
                chosen=job.config.ultrasound,
                sample=job.sample,
                folder=folder,
            ),
            grid,
            total=len(grid),
            store=folder,
            digest=job.digest(),
            cluster=cluster,
            label="localize",
            bytes_per_tile=math.prod(grid.core_shape + iq.shape[1:]) * 8,
        )
    detections = sum(r.record["detections"] for r in results.values())
    if detections == 0:
        raise UserError(
            "no microbubble was found in any block",
            where=f"sample {job.sample.sample}",
            fix="lower ultrasound.localize.threshold_snr or ultrasound.clutter.keep_from",
        )
    return Outcome(
        content_of(results.values()),
        {
            "blocks": len(grid),
            "detections": detections,
            "detections_per_frame": round(detections / iq.shape[0], 2),
            "keep_from": job.config.ultrasound.clutter.keep_from,
            "singular_values": next(iter(results.values())).record["singular_values"],
        },
        (DETECTIONS,),
    )


def frame_blocks(n_frames: int, clutter: ClutterConfig) -> TileGrid:
    """Return blocks of frames of nearly equal length: a short last one could not be filtered.

    Raises
    ------
    UserError
        If a block has fewer frames than singular vectors are removed.
    """
    blocks = max(1, round(n_frames / clutter.block_frames))
    length = math.ceil(n_frames / blocks)
    grid = TileGrid(Box.of_shape((n_frames,)), (length,), (0,))
    shortest = n_frames - length * (len(grid) - 1)
    if shortest < clutter.keep_from:
        raise UserError(
            f"a block of {shortest} frames has no singular vector {clutter.keep_from}",
            where="config: ultrasound.clutter",
            fix="lower keep_from, or change block_frames",
        )
    return grid


def _localize(
    tile: Tile, *, iq: ShardedArray, chosen: UltrasoundConfig, sample: Sample, folder: Path
) -> TileResult:
    """Filter one block and write its detections and its mean power."""
    (start,), (stop,) = tile.core.start, tile.core.stop
    block = iq.read(Box((start,) + (0,) * (len(iq.shape) - 1), (stop, *iq.shape[1:])))
    keep_to = chosen.clutter.keep_to
    filtered = svd_filter(
        block,
        keep_from=chosen.clutter.keep_from,
        keep_to=None if keep_to is None else min(keep_to, len(block)),
    )
    record: dict[str, Any] = {}
    if start == 0:
        # One block shows where tissue ends; the report draws it.
        record["singular_values"] = [float(f"{v:.4g}") for v in singular_values(block)]
    del block
    magnitude = np.abs(filtered)
    del filtered
    how = chosen.localize
    peaks = find_peaks(
        magnitude,
        threshold=how.threshold_snr * noise_level(magnitude),
        half_width=how.half_width_px,
        max_per_frame=how.max_per_frame,
    )
    found = _LOCALIZERS[how.localizer](
        magnitude, peaks, half_width=how.half_width_px, first_frame=start
    )
    table = positions_um(found, spacing_um=sample.spacing_um, origin_um=sample.origin_um)
    path = part_path(folder, tile.index[0])
    files = {path.name: write_table(path, table)}
    power = path.with_suffix(POWER_SUFFIX)
    mean = np.mean(magnitude**2, axis=0)
    files[power.name] = write_bundle(power, {"power": mean, "frames": np.array(len(magnitude))})
    return TileResult(files=files, record={**record, "detections": len(table["frame"])})
