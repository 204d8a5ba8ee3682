"""Clutter filter and localization, block by block: IQ → detections and power Doppler."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.memory import MemoryBound
from vasculome.config import ClutterConfig, LocalizeConfig, RunConfig, UltrasoundConfig
from vasculome.errors import UserError
from vasculome.geometry import Tile
from vasculome.stages.clutter_filter import (
    CLUTTER,
    Cut,
    check_band,
    filter_block,
    filter_bytes,
    find_cut,
    frame_blocks,
    read_block,
)
from vasculome.stages.ingest_iq import IQ, acquisition, open_raw
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.storage.arrays import ShardedArray, open_array
from vasculome.storage.bundles import write_bundle
from vasculome.storage.tables import part_path, write_table
from vasculome.ultrasound.columns import Table, axis_names
from vasculome.ultrasound.detect import find_peaks, noise_level
from vasculome.ultrasound.fusion import centred_patches, unit_patches
from vasculome.ultrasound.localize import LOCALIZERS, passing, positions_um

DETECTIONS = "detections"
POWER_SUFFIX = ".power.npz"
IMAGES_SUFFIX = ".images.npz"


def settings(config: RunConfig) -> tuple[ClutterConfig, LocalizeConfig]:
    """Return the settings that the output depends on."""
    return config.ultrasound.clutter, config.ultrasound.localize


def check(job: Job) -> None:
    """Raise UserError where the filter does not fit the frame rate."""
    check_band(
        job.config.ultrasound.clutter, frame_rate_hz=acquisition(job, open_raw(job)).frame_rate_hz
    )


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: a block as read, filtered, and its magnitude, with SVD copies."""
    shape = open_raw(job).shape
    chosen = job.config.ultrasound
    (frames,) = frame_blocks(shape[0], chosen.clutter).core_shape
    images = 2 * image_bytes(chosen.localize, n_dims=len(shape) - 1)
    return MemoryBound(
        filter_bytes((frames, *shape[1:]), chosen.clutter)
        + frames * chosen.localize.max_per_frame * images,
        job.workers,
    )


def image_bytes(how: LocalizeConfig, *, n_dims: int) -> int:
    """Return the memory of the image of a bubble; 0 where none is kept."""
    reach = how.image_half_width_px
    return 0 if reach is None else int(4 * (2 * reach + 1) ** n_dims)


def run(job: Job) -> Outcome:
    """Write detections and power Doppler, one part file a block."""
    iq = open_array(job.folder / IQ)
    grid = frame_blocks(iq.shape[0], job.config.ultrasound.clutter)
    folder = job.folder / DETECTIONS
    with job.cluster() as cluster:
        cut, cut_summary = find_cut(job, iq, grid, cluster=cluster)
        results = map_tiles(
            functools.partial(
                _localize, iq=iq, chosen=job.config.ultrasound, cut=cut, folder=folder
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
            **cut_summary,
        },
        (DETECTIONS,) if cut is None else (CLUTTER, DETECTIONS),
    )


def _localize(
    tile: Tile, *, iq: ShardedArray, chosen: UltrasoundConfig, cut: Cut | None, folder: Path
) -> TileResult:
    """Filter one block and write its detections and its mean power."""
    (start,) = tile.core.start
    filtered = filter_block(
        read_block(iq, tile),
        chosen.clutter,
        cut,
        frame_rate_hz=iq.attributes["frame_rate_hz"],
    )
    magnitude = np.abs(filtered)
    del filtered
    how = chosen.localize
    peaks = find_peaks(
        magnitude,
        threshold=how.threshold_snr * noise_level(magnitude),
        half_width=how.half_width_px,
        max_per_frame=how.max_per_frame,
    )
    found = passing(
        LOCALIZERS[how.localizer](
            magnitude, peaks, half_width=how.half_width_px, first_frame=start
        ),
        max_maxima=how.max_maxima,
        max_shift_px=how.max_shift_px,
    )
    table = positions_um(
        found, spacing_um=iq.attributes["spacing_um"], origin_um=iq.attributes["origin_um"]
    )
    path = part_path(folder, tile.index[0])
    files = {path.name: write_table(path, table)}
    power = path.with_suffix(POWER_SUFFIX)
    mean = np.mean(magnitude**2, axis=0)
    files[power.name] = write_bundle(power, {"power": mean, "frames": np.array(len(magnitude))})
    if how.image_half_width_px is not None:
        images = path.with_suffix(IMAGES_SUFFIX)
        unit = _images(magnitude, found, first_frame=start, half_width=how.image_half_width_px)
        files[images.name] = write_bundle(images, {"patch": unit})
    return TileResult(files=files, record={"detections": len(table["frame"])})


def _images(
    magnitude: NDArray[np.float32], found: Table, *, first_frame: int, half_width: int
) -> NDArray[np.float32]:
    """Return the images of bubbles, centred on them, of norm 1: what pairing compares."""
    position_px = np.stack([found[axis] for axis in axis_names(magnitude.ndim - 1)], axis=1)
    frame = found["frame"] - first_frame
    return unit_patches(centred_patches(magnitude, frame, position_px, half_width=half_width))
