"""How good the maps are, from the data alone: resolution, saturation, gridding.

Resolution is that of two maps, of the tracks that begin in every other stretch of time: of every
other track would not do, since a bubble that is lost and found again makes several, on the same
path. Saturation is how the map fills up block by block; gridding is what is left of the voxels of
the frames in the localizations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig, UlmMapsConfig
from vasculome.geometry import Box, TileGrid
from vasculome.metrics.gridding import gridding_index_db
from vasculome.metrics.resolution import FourierCorrelation, fourier_correlation
from vasculome.metrics.saturation import Saturation, fit_saturation
from vasculome.stages.clutter_filter import frame_blocks
from vasculome.stages.ingest_iq import IQ
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.stages.localize import DETECTIONS
from vasculome.stages.track import TRACKS
from vasculome.stages.ulm_maps import map_spec
from vasculome.stages.whole import write_whole
from vasculome.storage.arrays import ShardedArray, open_array
from vasculome.storage.bundles import write_bundle
from vasculome.storage.omezarr import ImageSpec
from vasculome.storage.tables import iter_parts
from vasculome.ultrasound.columns import Table, positions
from vasculome.ultrasound.render import accumulate, empty_sums
from vasculome.ultrasound.smooth import track_bounds

QUALITY = "quality"
CURVES = "curves.npz"
_MAX_PIXELS = 8_000_000
"""Of larger maps the middle is judged: 2,800 pixels squared, 200 cubed."""

_PIXELS_PER_VOXEL = 10
_FEWEST_VOXELS = 6
"""Along an axis of the frames, for the index of gridding."""

_FEWEST_BLOCKS = 3
_FOURIER_BYTES = 100
"""A pixel: two spectra, frequencies, and products of them in double precision."""

_PART_BYTES = 200e6


def settings(config: RunConfig) -> tuple[UlmMapsConfig]:
    """Return the settings that the output depends on."""
    return (config.ultrasound.maps,)


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: the sums of two halves, then their counts and spectra."""
    halves = 2 * 8 * (3 + len(job.sample.spacing_um))
    return MemoryBound(int(_MAX_PIXELS * max(halves, 2 * 8 + _FOURIER_BYTES) + _PART_BYTES), 1)


def run(job: Job) -> Outcome:
    """Write the curves; the numbers are in the summary."""
    folder = job.folder / QUALITY
    result = write_whole(lambda: _judge(job, folder), store=folder, digest=job.digest())
    return Outcome(content_of([result]), result.record, (QUALITY,))


def _judge(job: Job, folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    iq = open_array(job.folder / IQ)
    spec = map_spec(job, iq)
    box = _middle(spec.shape, _MAX_PIXELS)
    grid = frame_blocks(
        iq.shape[0], job.config.ultrasound.clutter, frames_per_run=job.sample.frames_per_run
    )
    halves, filled = _fill(
        job.folder / TRACKS, box, spec, stretch_frames=stretch_frames(iq.shape[0], grid)
    )
    time_s = np.array([tile.core.stop[0] for tile in grid]) / iq.attributes["frame_rate_hz"]
    correlation = fourier_correlation(*halves, spacing_um=spec.spacing_um)
    saturation = fit_saturation(time_s, filled) if len(time_s) >= _FEWEST_BLOCKS else None
    checksum = write_bundle(folder / CURVES, _curves(correlation, time_s, filled))
    record = {
        **_resolution(correlation, wavelength_um=iq.attributes["wavelength_um"]),
        **_saturation(saturation, filled, seconds=float(time_s[-1])),
        "gridding_index_db": _gridding_db(iq, job.folder / DETECTIONS),
        "judged_percent": round(100 * box.size / math.prod(spec.shape), 2),
    }
    return {CURVES: checksum}, record


def stretch_frames(n_frames: int, grid: TileGrid) -> int:
    """Return how long the stretches of time are that belong to one half by turns.

    An even number of them, as long as blocks where there are enough: a track that goes on from one
    into the next counts for the first.
    """
    pairs = max(1, len(grid) // 2)
    return math.ceil(n_frames / (2 * pairs))


def _fill(
    tracks: Path, box: Box, spec: ImageSpec, *, stretch_frames: int
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]:
    """Return the passages of two halves, and the part that is filled after each block."""
    halves = empty_sums(box), empty_sums(box)
    origin_um = spec.origin_um or (0.0,) * box.ndim
    filled = []
    for part in iter_parts(tracks):
        bounds = track_bounds(part)
        first = np.repeat(part["frame"][bounds[:-1]], np.diff(bounds))
        for parity, sums in enumerate(halves):
            kept = first // stretch_frames % 2 == parity
            half = {name: column[kept] for name, column in part.items()}
            accumulate(sums, half, box=box, pixel_um=spec.spacing_um, origin_um=origin_um)
        crossed = (halves[0]["count"] > 0) | (halves[1]["count"] > 0)
        filled.append(np.count_nonzero(crossed) / box.size)
    return (halves[0]["count"], halves[1]["count"]), np.array(filled)


def _curves(
    correlation: FourierCorrelation, time_s: NDArray[np.float64], filled: NDArray[np.float64]
) -> Mapping[str, NDArray[Any]]:
    return {
        "frequency_per_um": correlation.frequency_per_um,
        "correlation": correlation.correlation,
        "threshold": correlation.threshold(),
        "time_s": time_s,
        "filled": filled,
    }


def _resolution(
    correlation: FourierCorrelation, *, wavelength_um: float
) -> dict[str, float | None]:
    length_um = correlation.resolution_um()
    if math.isinf(length_um):
        return {"resolution_um": None, "resolution_wavelengths": None}
    return {
        "resolution_um": round(length_um, 3),
        "resolution_wavelengths": round(length_um / wavelength_um, 4),
    }


def _saturation(
    fitted: Saturation | None, filled: NDArray[np.float64], *, seconds: float
) -> dict[str, float | None]:
    record: dict[str, float | None] = {
        "acquired_s": round(seconds, 3),
        "filled_percent": round(100 * float(filled[-1]), 3),
    }
    if fitted is None:
        return record | {"plateau_percent": None, "time_to_90_s": None}
    return record | {
        "plateau_percent": round(100 * fitted.plateau, 3),
        "time_to_90_s": round(fitted.time_to_90_s, 3),
    }


def _gridding_db(iq: ShardedArray, detections: Path) -> float | None:
    """Return the index of gridding of the localizations; None of frames too small to show it."""
    n_dims = len(iq.shape) - 1
    box = _middle(iq.shape[1:], _MAX_PIXELS // _PIXELS_PER_VOXEL**n_dims)
    if min(box.shape) < _FEWEST_VOXELS:
        return None
    counts = np.zeros(math.prod(n * _PIXELS_PER_VOXEL for n in box.shape), np.int64)
    for part in iter_parts(detections):
        counts += _count(part, iq, box)
    fine = counts.reshape([n * _PIXELS_PER_VOXEL for n in box.shape])
    return round(gridding_index_db(fine, pixels_per_voxel=_PIXELS_PER_VOXEL), 2)


def _count(detections: Table, iq: ShardedArray, box: Box) -> NDArray[np.int64]:
    """Count localizations on the fine grid of ``box``, flat."""
    place = (positions(detections) - iq.attributes["origin_um"]) / iq.attributes["spacing_um"]
    fine = np.floor((place + 0.5 - box.start) * _PIXELS_PER_VOXEL).astype(np.int64)
    shape = tuple(n * _PIXELS_PER_VOXEL for n in box.shape)
    inside = ((fine >= 0) & (fine < shape)).all(axis=1)
    flat = np.ravel_multi_index(tuple(fine[inside].T), shape)
    return np.bincount(flat, minlength=math.prod(shape))


def _middle(shape: tuple[int, ...], max_pixels: int) -> Box:
    """Return the middle of ``shape``, all of it where it is small enough."""
    part = min(1.0, (max_pixels / math.prod(shape)) ** (1 / len(shape)))
    size = [max(1, math.floor(n * part)) for n in shape]
    start = [(n - m) // 2 for n, m in zip(shape, size, strict=True)]
    return Box(tuple(start), tuple(a + m for a, m in zip(start, size, strict=True)))
