"""Clutter filter and localization, block by block: IQ → detections and power Doppler."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.device import pick_device
from vasculome.compute.memory import PROCESS_BYTES, TORCH_BYTES, MemoryBound
from vasculome.config import ClutterConfig, LocalizeConfig, RunConfig, UltrasoundConfig
from vasculome.errors import UserError
from vasculome.geometry import Tile, TileGrid
from vasculome.stages.bubbles import bright_bubbles, correlated_bubbles
from vasculome.stages.calibration import cut_of, filtered_and_correlated, psf_of
from vasculome.stages.clutter_filter import Cut, filter_bytes, filtered_block, frame_blocks
from vasculome.stages.ingest_iq import IQ, acquisition, open_raw
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.stages.network_weights import Finder, finder_for, network_bytes, weights_digest
from vasculome.storage.arrays import ShardedArray, open_array
from vasculome.storage.bundles import write_bundle
from vasculome.storage.tables import part_path, write_table
from vasculome.ultrasound.columns import Table, axis_names
from vasculome.ultrasound.fusion import centred_patches, unit_patches
from vasculome.ultrasound.localize import positions_um
from vasculome.ultrasound.psf import DepthPsf

DETECTIONS = "detections"
POWER_SUFFIX = ".power.npz"
IMAGES_SUFFIX = ".images.npz"
_TABLE_BYTES = 500
"""Measured, at the most: peak and columns of a bubble; its patch takes 4 to 5 bytes a voxel."""

_FILTERED_BYTES = 8 + 4
"""A voxel without tissue, and its magnitude."""

_THRESHOLDS = {"magnitude": "threshold_snr", "correlation": "min_correlation"}
_NETWORK_THRESHOLD = "stulm.min_probability"


def settings(config: RunConfig) -> tuple[ClutterConfig, LocalizeConfig]:
    """Return the settings that the output depends on."""
    return config.ultrasound.clutter, config.ultrasound.localize


def raw_fingerprint(job: Job) -> str | None:
    """Return a digest of the weights; None where no network localizes."""
    how = job.config.ultrasound.localize
    if not how.is_learned:
        return None
    return weights_digest(how.stulm, n_dims=len(open_raw(job).shape) - 1)


def check(job: Job) -> None:
    """Raise UserError where the weights of a network are no good, or not for such a sample."""
    _finder_of(job)


def _finder_of(job: Job) -> Finder | None:
    """Return the network that localizes; None where none does."""
    how = job.config.ultrasound.localize
    if not how.is_learned:
        return None
    known = acquisition(job, open_raw(job))
    return finder_for(how.stulm, spacing_um=known.spacing_um, wavelength_um=known.wavelength_um)


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: a block as read, filtered, and its magnitude, with SVD copies.

    Correlation with the echo of a bubble makes one copy more; a network works on what the filter
    has given back.
    """
    raw = open_raw(job)
    shape, frame_rate_hz = raw.shape, acquisition(job, raw).frame_rate_hz
    chosen = job.config.ultrasound
    (frames,) = _blocks(job, shape[0]).core_shape
    block = (frames, *shape[1:])
    bubble = _bubble_bytes(chosen.localize, n_dims=len(shape) - 1)
    filtering = filter_bytes(block, chosen.clutter, frame_rate_hz=frame_rate_hz)
    finder = _finder_of(job)
    base = PROCESS_BYTES
    if finder is not None:
        base += TORCH_BYTES
        filtering = max(
            filtering, _FILTERED_BYTES * math.prod(block) + network_bytes(block, finder)
        )
    elif chosen.localize.detect_on == "correlation":
        filtering += 8 * math.prod(block)
    return MemoryBound(
        filtering + frames * chosen.localize.max_per_frame * bubble, job.workers, base_bytes=base
    )


def _blocks(job: Job, n_frames: int) -> TileGrid:
    return frame_blocks(
        n_frames, job.config.ultrasound.clutter, frames_per_run=job.sample.frames_per_run
    )


def _bubble_bytes(how: LocalizeConfig, *, n_dims: int) -> int:
    """Return the memory that each bubble takes while it is localized, its image included."""
    reach = (2 if how.localizer == "correlation_centroid" else 1) * how.half_width_px
    patch = (2 * reach + 1) ** n_dims
    return _TABLE_BYTES + 5 * patch + 2 * image_bytes(how, n_dims=n_dims)


def image_bytes(how: LocalizeConfig, *, n_dims: int) -> int:
    """Return the memory of the image of a bubble; 0 where none is kept."""
    reach = how.image_half_width_px
    return 0 if reach is None else int(4 * (2 * reach + 1) ** n_dims)


def run(job: Job) -> Outcome:
    """Write detections and power Doppler, one part file a block."""
    iq = open_array(job.folder / IQ)
    grid = _blocks(job, iq.shape[0])
    folder = job.folder / DETECTIONS
    chosen = job.config.ultrasound
    how = chosen.localize
    finder = _finder_of(job)
    if finder is not None:
        pick_device(finder.device)
    work = functools.partial(
        _localize,
        iq=iq,
        chosen=chosen,
        cut=cut_of(job),
        psf=psf_of(job) if how.needs_echo else None,
        finder=finder,
        folder=folder,
    )
    with job.cluster() as cluster:
        results = map_tiles(
            work,
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
        threshold = _NETWORK_THRESHOLD if how.is_learned else _THRESHOLDS[how.detect_on]
        raise UserError(
            "no microbubble was found in any block",
            where=f"sample {job.sample.sample}",
            fix=f"lower ultrasound.localize.{threshold} or ultrasound.clutter.keep_from",
        )
    return Outcome(
        content_of(results.values()),
        {
            "localizer": how.localizer,
            "blocks": len(grid),
            "detections": detections,
            "detections_per_frame": round(detections / iq.shape[0], 2),
            **_sites_seen(results.values(), iq.shape, finder),
        },
        (DETECTIONS,),
    )


def _sites_seen(
    results: Iterable[TileResult], shape: tuple[int, ...], finder: Finder | None
) -> dict[str, float | int]:
    """Return how many sites a network was given, and how it was given them."""
    if finder is None:
        return {}
    active = sum(result.record["active_sites"] for result in results)
    pixels = math.prod(shape) * math.prod(finder.factors)
    return {
        "active_sites": active,
        "active_sites_percent": round(100 * active / pixels, 2),
        "upsampled": list(finder.factors),
    }


def _localize(
    tile: Tile,
    *,
    iq: ShardedArray,
    chosen: UltrasoundConfig,
    cut: Cut | None,
    psf: DepthPsf | None,
    finder: Finder | None,
    folder: Path,
) -> TileResult:
    """Filter one block and write its detections and its mean power."""
    (start,) = tile.core.start
    how = chosen.localize
    record = {}
    if finder is not None and psf is not None:
        # It imports torch, which other localizers do without.
        from vasculome.stages.bubble_network import network_bubbles  # noqa: PLC0415

        filtered = filtered_block(iq, tile, chosen.clutter, cut)
        magnitude = np.abs(filtered)
        found, record["active_sites"] = network_bubbles(
            filtered, magnitude, psf, how, finder, first_frame=start
        )
        del filtered
    elif psf is None:
        magnitude = np.abs(filtered_block(iq, tile, chosen.clutter, cut))
        found = bright_bubbles(magnitude, how, first_frame=start)
    else:
        filtered, correlation = filtered_and_correlated(
            iq, tile, clutter=chosen.clutter, cut=cut, psf=psf
        )
        magnitude = np.abs(filtered)
        del filtered
        found = correlated_bubbles(np.abs(correlation), magnitude, how, first_frame=start)
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
    return TileResult(files=files, record={"detections": len(table["frame"]), **record})


def _images(
    magnitude: NDArray[np.float32], found: Table, *, first_frame: int, half_width: int
) -> NDArray[np.float32]:
    """Return the images of bubbles, centred on them, of norm 1: what pairing compares."""
    position_px = np.stack([found[axis] for axis in axis_names(magnitude.ndim - 1)], axis=1)
    frame = found["frame"] - first_frame
    return unit_patches(centred_patches(magnitude, frame, position_px, half_width=half_width))
