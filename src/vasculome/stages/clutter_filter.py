"""The clutter filter of a sample: its blocks of frames, where it cuts, and the filter itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasculome.config import ClutterConfig
from vasculome.errors import UserError
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.storage.arrays import ShardedArray
from vasculome.ultrasound.bandpass import bandpass
from vasculome.ultrasound.clutter import svd_filter
from vasculome.ultrasound.clutter_bounds import ClutterBounds, find_bounds

_VECTORS_COMPARED = 200
_FEWEST_FRAMES = {"svd": 8, "bandpass": 16}
"""That singular vectors are judged by, and that are filtered both ways."""

_PERIODS_TO_SETTLE = 3
"""Of the band's lower edge; after them what the filter makes of its first frame is below 1 %."""

_BANDPASS_BYTES = 200_000_000
"""Pieces in double precision, whatever the size of the frames."""


@dataclass(frozen=True)
class Cut:
    """The singular vectors that are kept, counted from 1; ``keep_to`` None is the last."""

    keep_from: int
    keep_to: int | None


def frame_blocks(
    n_frames: int, clutter: ClutterConfig, *, frames_per_run: int | None = None
) -> TileGrid:
    """Return blocks of frames of nearly equal length: a short last one could not be filtered.

    Where there are pauses in the recording, after every ``frames_per_run`` frames, no block spans
    one: all have the length that divides a run and is nearest to the one asked for.

    Raises
    ------
    UserError
        If a block has fewer frames than the filter needs.
    """
    if frames_per_run is None or frames_per_run == n_frames:
        length = math.ceil(n_frames / max(1, round(n_frames / clutter.block_frames)))
    else:
        length = _nearest_divisor(frames_per_run, clutter.block_frames)
    grid = TileGrid(Box.of_shape((n_frames,)), (length,), (0,))
    shortest = shortest_block(n_frames, grid)
    least = _FEWEST_FRAMES[clutter.method]
    if clutter.method == "svd" and isinstance(clutter.keep_from, int):
        _check_reached(clutter.keep_from, shortest)
    if shortest < least:
        raise UserError(
            f"a block of {shortest} frames is too short: the filter needs {least}",
            where="config: ultrasound.clutter",
            fix="change block_frames",
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


def filter_bytes(shape: tuple[int, ...], clutter: ClutterConfig, *, frame_rate_hz: float) -> int:
    """Return the memory for a block of ``shape``: as read, filtered, its magnitude, and copies."""
    n_frames, n_voxels = shape[0], math.prod(shape[1:])
    if clutter.method == "bandpass":
        n_frames += 2 * _halo_frames(clutter, frame_rate_hz)
        return n_frames * n_voxels * (8 + 8 + 8 + 4) + _BANDPASS_BYTES
    return n_frames * n_voxels * (8 + 8 + 8 + 4) + 4 * 16 * n_frames**2


def judge_bytes(shape: tuple[int, ...], clutter: ClutterConfig) -> int:
    """Return the memory for :func:`judge` on a block of ``shape``."""
    if clutter.method == "bandpass":
        return 0
    n_frames, n_voxels = shape[0], math.prod(shape[1:])
    compared = min(n_frames, _VECTORS_COMPARED) * n_voxels * (8 + 4 + 4)
    return n_frames * n_voxels * 8 + compared + 4 * 16 * n_frames**2


def judge(
    block: NDArray[np.complex64], clutter: ClutterConfig, *, frame_rate_hz: float
) -> ClutterBounds:
    """Judge the singular vectors of a block."""
    return find_bounds(
        block,
        frame_rate_hz=frame_rate_hz,
        tissue_below_hz=clutter.band_hz[0],
        compared=_VECTORS_COMPARED,
    )


def choose_cut(clutter: ClutterConfig, bounds: ClutterBounds, *, shortest: int) -> Cut:
    """Return the cut that is configured, by the evidence where it is left to that.

    All blocks are cut alike, so that none differs from its neighbours; ``shortest`` is the length
    of the shortest.

    Raises
    ------
    UserError
        If nothing would be kept.
    """
    first, last = clutter.keep_from, clutter.keep_to
    if isinstance(first, str):
        proposed = {
            "centroid": bounds.keep_from_centroid,
            "similarity": bounds.keep_from_similarity,
        }[first]
        if proposed is None:
            raise UserError(
                f"no singular vector of the first block is faster than {clutter.band_hz[0]:g} Hz",
                where="config: ultrasound.clutter.keep_from",
                fix="lower band_hz, or give keep_from a number",
            )
        first = proposed
    if isinstance(last, str):
        last = {"similarity": bounds.keep_to_similarity, "noise": bounds.keep_to_noise}[last]
        # Blood that reaches the last vector compared may go on beyond it.
        if clutter.keep_to == "similarity" and last == _VECTORS_COMPARED:
            last = None
    if last is not None and last < first:
        raise UserError(
            f"singular vectors {first} to {last} would be kept: none",
            where="config: ultrasound.clutter",
            fix="choose other ways for keep_from or keep_to; the report of numbers shows why",
        )
    _check_reached(first, shortest)
    return Cut(first, last)


def filtered_block(
    iq: ShardedArray, tile: Tile, clutter: ClutterConfig, cut: Cut | None
) -> NDArray[np.complex64]:
    """Return a block of frames without tissue.

    The band-pass needs some periods of its lower edge to settle. It is given frames before and
    after the block, and where there are none, at the ends of a run, the first and last period are
    0: what it makes of them looks like bubbles.
    """
    if cut is not None:
        block = read_block(iq, tile)
        return svd_filter(
            block,
            keep_from=cut.keep_from,
            keep_to=None if cut.keep_to is None else min(cut.keep_to, len(block)),
            randomized=clutter.randomized,
            overwrite=True,
        )
    frame_rate_hz = iq.attributes["frame_rate_hz"]
    (low_hz, high_hz), halo = clutter.band_hz, _halo_frames(clutter, frame_rate_hz)
    (start,), (stop,) = tile.core.start, tile.core.stop
    run = iq.attributes["frames_per_run"]
    begin = start // run * run
    end = min(begin + run, iq.shape[0])
    low, high = max(begin, start - halo), min(end, stop + halo)
    wide = Tile(tile.index, Box((low,), (high,)), Box((low,), (high,)))
    filtered = bandpass(
        read_block(iq, wide), frame_rate_hz=frame_rate_hz, low_hz=low_hz, high_hz=high_hz
    )
    period = math.ceil(frame_rate_hz / low_hz)
    filtered[: max(0, begin + period - low)] = 0
    filtered[max(0, end - period - low) :] = 0
    return filtered[start - low : stop - low]


def _halo_frames(clutter: ClutterConfig, frame_rate_hz: float) -> int:
    return math.ceil(_PERIODS_TO_SETTLE * frame_rate_hz / clutter.band_hz[0])


def read_block(iq: ShardedArray, tile: Tile) -> NDArray[np.complex64]:
    """Return the frames of a block."""
    (start,), (stop,) = tile.core.start, tile.core.stop
    return iq.read(Box((start,) + (0,) * (len(iq.shape) - 1), (stop, *iq.shape[1:])))


def shortest_block(n_frames: int, grid: TileGrid) -> int:
    """Return the length of the shortest block of frames, which is the last."""
    (length,) = grid.core_shape
    return n_frames - length * (len(grid) - 1)


def _nearest_divisor(n_frames: int, wanted: int) -> int:
    divisors = [d for d in range(1, n_frames + 1) if n_frames % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d / wanted)))


def _check_reached(keep_from: int, shortest: int) -> None:
    if shortest < keep_from:
        raise UserError(
            f"a block of {shortest} frames has no singular vector {keep_from}",
            where="config: ultrasound.clutter",
            fix="lower keep_from, or change block_frames",
        )
