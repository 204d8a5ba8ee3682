"""The clutter filter of a sample: its blocks of frames, where it cuts, and the filter itself."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.cluster import Cluster
from vasculome.config import ClutterConfig
from vasculome.errors import UserError
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.job import Job
from vasculome.storage.arrays import ShardedArray
from vasculome.storage.bundles import write_bundle
from vasculome.ultrasound.bandpass import bandpass
from vasculome.ultrasound.clutter import svd_filter
from vasculome.ultrasound.clutter_bounds import ClutterBounds, find_bounds

CLUTTER = "clutter"
BOUNDS = "bounds.npz"
_VECTORS_COMPARED = 200
_FEWEST_FRAMES = {"adaptive": 8, "bandpass": 16}
"""That singular vectors are judged by, and that are filtered both ways."""

_BANDPASS_BYTES = 200_000_000
"""Pieces in double precision, whatever the size of the frames."""


@dataclass(frozen=True)
class Cut:
    """The singular vectors that are kept, counted from 1; ``keep_to`` None is the last."""

    keep_from: int
    keep_to: int | None


def frame_blocks(n_frames: int, clutter: ClutterConfig) -> TileGrid:
    """Return blocks of frames of nearly equal length: a short last one could not be filtered.

    Raises
    ------
    UserError
        If a block has fewer frames than the filter needs.
    """
    blocks = max(1, round(n_frames / clutter.block_frames))
    length = math.ceil(n_frames / blocks)
    grid = TileGrid(Box.of_shape((n_frames,)), (length,), (0,))
    shortest = _shortest(n_frames, grid)
    least = _FEWEST_FRAMES["bandpass" if clutter.method == "bandpass" else "adaptive"]
    if clutter.method == "svd" and isinstance(clutter.keep_from, int):
        _check_reached(clutter.keep_from, shortest)
    elif shortest < least:
        raise UserError(
            f"a block of {shortest} frames is too short: the filter needs {least}",
            where="config: ultrasound.clutter",
            fix="change block_frames, or give keep_from a number",
        )
    return grid


def check_band(clutter: ClutterConfig, *, frame_rate_hz: float) -> None:
    """Raise UserError where the band is beyond what the frame rate can tell."""
    by_centroid = clutter.method == "svd" and clutter.keep_from == "centroid"
    highest_hz = clutter.band_hz[0] if by_centroid else clutter.band_hz[1]
    if (by_centroid or clutter.method == "bandpass") and highest_hz >= frame_rate_hz / 2:
        raise UserError(
            f"{highest_hz:g} Hz is not below half the frame rate of {frame_rate_hz:g} Hz",
            where="config: ultrasound.clutter.band_hz",
            fix="lower it, or choose method: svd with a number for keep_from",
        )


def filter_bytes(shape: tuple[int, ...], clutter: ClutterConfig) -> int:
    """Return the memory for a block of ``shape``: as read, filtered, its magnitude, and copies."""
    n_frames, n_voxels = shape[0], math.prod(shape[1:])
    filtering = n_frames * n_voxels * (8 + 8 + 8 + 4)
    if clutter.method == "bandpass":
        return filtering + _BANDPASS_BYTES
    compared = min(n_frames, _VECTORS_COMPARED) * n_voxels * (8 + 4 + 4)
    judging = n_frames * n_voxels * 8 + compared + 4 * 16 * n_frames**2
    return max(filtering, judging)


def find_cut(
    job: Job, iq: ShardedArray, grid: TileGrid, *, cluster: Cluster
) -> tuple[Cut | None, dict[str, Any]]:
    """Judge the singular vectors of the first block, keep the evidence, and say where to cut.

    All blocks are cut alike, so that none differs from its neighbours. Also where the
    configuration says where, the evidence is kept for the report.

    Returns
    -------
    The cut, and what to record of it; none for a filter that knows no singular vectors.

    Raises
    ------
    UserError
        If nothing would be kept.
    """
    clutter = job.config.ultrasound.clutter
    if clutter.method == "bandpass":
        return None, {}
    first = next(iter(grid))
    results = map_tiles(
        functools.partial(_judge, iq=iq, folder=job.folder / CLUTTER, clutter=clutter),
        [first],
        total=1,
        store=job.folder / CLUTTER,
        digest=job.digest(),
        cluster=cluster,
        label=CLUTTER,
    )
    (found,) = (result.record for result in results.values())
    cut = _cut(clutter, found, shortest=_shortest(iq.shape[0], grid))
    return cut, {"keep_from": cut.keep_from, "keep_to": cut.keep_to, **found}


def filter_block(
    block: NDArray[np.complex64], clutter: ClutterConfig, cut: Cut | None, *, frame_rate_hz: float
) -> NDArray[np.complex64]:
    """Return the block without tissue."""
    if cut is None:
        low_hz, high_hz = clutter.band_hz
        return bandpass(block, frame_rate_hz=frame_rate_hz, low_hz=low_hz, high_hz=high_hz)
    return svd_filter(
        block,
        keep_from=cut.keep_from,
        keep_to=None if cut.keep_to is None else min(cut.keep_to, len(block)),
        randomized=clutter.randomized,
    )


def read_block(iq: ShardedArray, tile: Tile) -> NDArray[np.complex64]:
    """Return the frames of a block."""
    (start,), (stop,) = tile.core.start, tile.core.stop
    return iq.read(Box((start,) + (0,) * (len(iq.shape) - 1), (stop, *iq.shape[1:])))


def _judge(tile: Tile, *, iq: ShardedArray, folder: Path, clutter: ClutterConfig) -> TileResult:
    bounds = find_bounds(
        read_block(iq, tile),
        frame_rate_hz=iq.attributes["frame_rate_hz"],
        tissue_below_hz=clutter.band_hz[0],
        compared=_VECTORS_COMPARED,
    )
    checksum = write_bundle(
        folder / BOUNDS,
        {
            "singular_values": bounds.singular_values,
            "centroid_hz": bounds.centroid_hz,
            "similarity": bounds.similarity.astype(np.float32),
            "noise_value": np.array(bounds.noise_value),
            "tissue_below_hz": np.array(clutter.band_hz[0]),
        },
    )
    return TileResult({BOUNDS: checksum}, _proposals(bounds))


def _proposals(bounds: ClutterBounds) -> dict[str, int | None]:
    return {
        "keep_from_centroid": bounds.keep_from_centroid,
        "keep_from_similarity": bounds.keep_from_similarity,
        "keep_to_similarity": bounds.keep_to_similarity,
        "keep_to_noise": bounds.keep_to_noise,
    }


def _cut(clutter: ClutterConfig, found: dict[str, Any], *, shortest: int) -> Cut:
    first, last = clutter.keep_from, clutter.keep_to
    if isinstance(first, str):
        if found[f"keep_from_{first}"] is None:
            raise UserError(
                f"no singular vector of the first block is faster than {clutter.band_hz[0]:g} Hz",
                where="config: ultrasound.clutter.keep_from",
                fix="lower band_hz, or give keep_from a number",
            )
        first = int(found[f"keep_from_{first}"])
    if isinstance(last, str):
        last = int(found[f"keep_to_{last}"])
    if last is not None and last < first:
        raise UserError(
            f"singular vectors {first} to {last} would be kept: none",
            where="config: ultrasound.clutter",
            fix="choose other ways for keep_from or keep_to; the report of numbers shows why",
        )
    _check_reached(first, shortest)
    return Cut(first, last)


def _shortest(n_frames: int, grid: TileGrid) -> int:
    """Return the length of the last block, which is the shortest."""
    (length,) = grid.core_shape
    return n_frames - length * (len(grid) - 1)


def _check_reached(keep_from: int, shortest: int) -> None:
    if shortest < keep_from:
        raise UserError(
            f"a block of {shortest} frames has no singular vector {keep_from}",
            where="config: ultrasound.clutter",
            fix="lower keep_from, or change block_frames",
        )
