"""Detections → tracks, block after block with the open tracks carried over."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from vasculome.compute.blocks import TileResult, scan_blocks
from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig, TrackConfig
from vasculome.errors import UserError
from vasculome.geometry import Tile
from vasculome.stages.clutter_filter import frame_blocks
from vasculome.stages.ingest_iq import IQ, open_raw
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.stages.localize import DETECTIONS, IMAGES_SUFFIX, image_bytes
from vasculome.storage.arrays import open_array
from vasculome.storage.bundles import read_bundle
from vasculome.storage.tables import iter_parts, part_path, read_table, write_table
from vasculome.ultrasound.columns import Table
from vasculome.ultrasound.fusion import FusionWeights
from vasculome.ultrasound.kalman import ConstantVelocity
from vasculome.ultrasound.smooth import add_velocities, smooth, smooth_plainly
from vasculome.ultrasound.track import LinkRule, State, advance, end_all, start

TRACKS = "tracks"
SPEED_BIN_MM_S = 0.1
_DETECTION_BYTES = 500
"""Of a detection while tracks end: 320 measured in 2-D, 430 in 3-D; its image is there 5 times."""
_IMAGES = 5


def settings(config: RunConfig) -> tuple[TrackConfig]:
    """Return the settings that the output depends on."""
    return (config.ultrasound.track,)


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: the detections of a block, and those of the tracks still open."""
    shape = open_raw(job).shape
    chosen = job.config.ultrasound
    (frames,) = frame_blocks(
        shape[0], chosen.clutter, frames_per_run=job.sample.frames_per_run
    ).core_shape
    open_frames = chosen.track.max_length_frames + chosen.track.max_gap_frames + 1
    detections = min(frames + open_frames, shape[0]) * chosen.localize.max_per_frame
    images = image_bytes(chosen.localize, n_dims=len(shape) - 1) if _compares(chosen.track) else 0
    return MemoryBound(detections * (_DETECTION_BYTES + _IMAGES * images), 1)


def run(job: Job) -> Outcome:
    """Write tracks, one part file a block: the tracks that ended in it."""
    iq = open_array(job.folder / IQ)
    grid = frame_blocks(
        iq.shape[0], job.config.ultrasound.clutter, frames_per_run=job.sample.frames_per_run
    )
    chosen = job.config.ultrasound.track
    rule = link_rule(chosen, frame_rate_hz=iq.attributes["frame_rate_hz"])
    reach = job.config.ultrasound.localize.image_half_width_px
    n_dims = len(iq.shape) - 1
    patch_size = (2 * (reach or 0) + 1) ** n_dims if _compares(chosen) else 0
    folder = job.folder / TRACKS
    _, results = scan_blocks(
        functools.partial(
            _link,
            detections=job.folder / DETECTIONS,
            folder=folder,
            run_frames=iq.attributes["frames_per_run"],
            rule=rule,
            chosen=chosen,
        ),
        grid,
        total=len(grid),
        initial_state=start(n_dims, patch_size=patch_size),
        store=folder,
        digest=job.digest(),
        label="track",
    )
    return Outcome(content_of(results.values()), _summary(job, folder), (TRACKS,))


def link_rule(chosen: TrackConfig, *, frame_rate_hz: float) -> LinkRule:
    """Return the rule by which bubbles are linked with these settings."""
    kalman = chosen.kalman
    return LinkRule(
        frame_rate_hz=frame_rate_hz,
        max_speed_mm_s=chosen.max_speed_mm_s,
        max_gap_frames=chosen.max_gap_frames,
        min_length=chosen.min_length_frames,
        max_length=chosen.max_length_frames,
        weights=FusionWeights(**chosen.weights.model_dump()),
        motion=None if kalman is None else ConstantVelocity(**kalman.model_dump()),
    )


def _compares(chosen: TrackConfig) -> bool:
    """Tell whether links weigh what bubbles look like."""
    return chosen.weights.correlation > 0


def _link(
    state: State,
    tile: Tile,
    *,
    detections: Path,
    folder: Path,
    run_frames: int,
    rule: LinkRule,
    chosen: TrackConfig,
) -> tuple[State, TileResult]:
    """Carry the tracks through one block of frames, and write those that ended.

    All end where a run of frames does: what comes after the pause is another bubble.
    """
    number = tile.index[0]
    (stop,) = tile.core.stop
    part = part_path(detections, number)
    found = read_table(part)
    if _compares(chosen):
        found |= read_bundle(part.with_suffix(IMAGES_SUFFIX))
    state, ended = advance(state, found, stop_frame=stop, rule=rule)
    if stop % run_frames == 0:
        state, last = end_all(state, rule=rule)
        ended = {name: np.concatenate([ended[name], last[name]]) for name in ended}
    tracks = _smoothed(ended, chosen, frame_rate_hz=rule.frame_rate_hz)
    path = part_path(folder, number)
    return state, TileResult({path.name: write_table(path, tracks)})


def _smoothed(tracks: Table, chosen: TrackConfig, *, frame_rate_hz: float) -> Table:
    """Return smoothed tracks with velocities."""
    sigma = chosen.smooth_sigma_frames
    if chosen.smoothing == "gaussian":
        return add_velocities(
            smooth_plainly(tracks, sigma_frames=sigma), frame_rate_hz=frame_rate_hz
        )
    moving = add_velocities(tracks, frame_rate_hz=frame_rate_hz, sigma_frames=sigma)
    return smooth(moving, sigma_frames=sigma)


def _summary(job: Job, folder: Path) -> dict[str, float | int]:
    """Return counts and medians over all tracks, read part by part."""
    lengths: list[np.ndarray] = []
    speeds = np.zeros(0, np.int64)
    for part in iter_parts(folder):
        velocity = np.stack([v for name, v in part.items() if name.endswith("_mm_s")])
        bins = (np.linalg.norm(velocity, axis=0) / SPEED_BIN_MM_S).astype(np.int64)
        counted = np.bincount(bins, minlength=len(speeds))
        counted[: len(speeds)] += speeds
        speeds = counted
        lengths.append(np.unique(part["track"], return_counts=True)[1])
    length = np.concatenate(lengths)
    if not len(length):
        raise UserError(
            "no track is as long as ultrasound.track.min_length_frames",
            where=f"sample {job.sample.sample}",
            fix="lower it, or raise max_speed_mm_s or max_gap_frames",
        )
    middle = int(np.searchsorted(np.cumsum(speeds), speeds.sum() / 2))
    return {
        "tracks": len(length),
        "points": int(length.sum()),
        "median_length_frames": float(np.median(length)),
        "median_speed_mm_s": round(SPEED_BIN_MM_S * (middle + 0.5), 3),
        "used_detections_percent": round(
            100 * int(length.sum()) / job.manifest("localize")["summary"]["detections"], 1
        ),
    }
