"""Bubbles that drift for any number of frames, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from vasculome.simulate.bubbles import BubbleSizes, BubbleTable, Rows, amplitudes, draw_echoes, rank

SEGMENT_FRAMES = 500
"""Frames whose newcomers are drawn together; what is drawn must not depend on the block."""


@dataclass
class Swarm:
    """Bubbles on their way; a kind of flow adds what else it must know of each.

    Attributes
    ----------
    name
        Int64 (bubbles,): tells them apart.
    frame
        Int64: the next in which each appears.
    left_s
        Float64: the time that it moves until then.
    stop
        Float64: the frame before which its lifetime ends.
    gone
        Bool: it has left.
    """

    name: NDArray[np.int64]
    frame: NDArray[np.int64]
    left_s: NDArray[np.float64]
    stop: NDArray[np.float64]
    gone: NDArray[np.bool_]

    def first_rows(self, stop: int) -> NDArray[np.int64]:
        """Return where each bubble's rows begin if all appear up to a frame, and their number."""
        n_rows = np.maximum(np.minimum(self.stop, stop) - self.frame, 0).astype(np.int64)
        return np.concatenate([[0], np.cumsum(n_rows)])

    def alive(self, frame: int) -> Self:
        """Return those that are still there in a frame."""
        kept = ~self.gone & (self.stop > frame)
        return type(self)(**{f.name: getattr(self, f.name)[kept] for f in fields(self)})

    def joined_by(self, other: Self) -> Self:
        """Return both swarms in one."""
        return type(self)(
            **{
                f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)])
                for f in fields(self)
            }
        )


_Kind = TypeVar("_Kind", bound=Swarm)


class Drift(Protocol[_Kind]):
    """A kind of flow."""

    def newcomers(self, first: int, stop: int, rng: np.random.Generator) -> _Kind:
        """Return the bubbles born from one frame to another; with frame 0 those already there."""

    def advance(self, swarm: _Kind, stop: int, rng: np.random.Generator) -> Rows:
        """Let bubbles drift up to a frame, in place; return their rows before it."""


def drift_blocks(
    drift: Drift[_Kind], *, n_frames: int, block_frames: int, sizes: BubbleSizes, seed: int
) -> Iterator[BubbleTable]:
    """Yield the rows of blocks of frames; the same rows whatever the block."""
    return _in_blocks(
        _numbered(_segments(drift, n_frames, seed), sizes, seed),
        n_frames=n_frames,
        block_frames=block_frames,
    )


def _segments(drift: Drift[_Kind], n_frames: int, seed: int) -> Iterator[Rows]:
    swarm = None
    for number, first in enumerate(range(0, n_frames, SEGMENT_FRAMES)):
        stop = first + SEGMENT_FRAMES
        rng = _random(seed, number, 0)
        born = drift.newcomers(first, stop, rng)
        swarm = born if swarm is None else swarm.joined_by(born)
        yield drift.advance(swarm, stop, rng)
        swarm = swarm.alive(stop)


def _numbered(segments: Iterable[Rows], sizes: BubbleSizes, seed: int) -> Iterator[BubbleTable]:
    """Yield a table for each segment, tracks and amplitudes carried from one to the next."""
    known = known_track = np.empty(0, np.int64)
    known_echoes = np.empty((3, 0))
    n_tracks = 0
    for number, rows in enumerate(segments):
        order = np.lexsort((rows.bubble, rows.frame))
        names, first, inverse = np.unique(
            rows.bubble[order], return_index=True, return_inverse=True
        )
        fresh, still = np.isin(names, known, invert=True), np.isin(known, names)
        n_fresh = int(fresh.sum())
        track, echoes = np.empty(len(names), np.int64), np.empty((3, len(names)))
        track[~fresh], echoes[:, ~fresh] = known_track[still], known_echoes[:, still]
        track[fresh] = n_tracks + rank(first[fresh])
        echoes[:, fresh] = draw_echoes(n_fresh, sizes, _random(seed, number, 1))
        frame = rows.frame[order]
        yield BubbleTable(
            track=track[inverse],
            frame=frame,
            position_um=rows.position_um[order],
            velocity_mm_s=rows.velocity_mm_s[order],
            amplitude=amplitudes(echoes[:, inverse], frame),
        )
        # Who was in no frame of this segment will not come back.
        known, known_track, known_echoes = names, track, echoes
        n_tracks += n_fresh


def _in_blocks(
    segments: Iterator[BubbleTable], *, n_frames: int, block_frames: int
) -> Iterator[BubbleTable]:
    """Cut tables of ``SEGMENT_FRAMES`` frames each anew."""
    ready: list[BubbleTable] = []
    n_ready = 0
    for first in range(0, n_frames, block_frames):
        stop = min(first + block_frames, n_frames)
        while n_ready < stop:
            ready.append(next(segments))
            n_ready += SEGMENT_FRAMES
        whole = _joined(ready)
        yield whole.between(first, stop)
        ready = [whole.between(stop, n_ready)]


def _random(seed: int, segment: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(segment, purpose)))


def _joined(tables: list[BubbleTable]) -> BubbleTable:
    columns = [vars(table) for table in tables]
    return BubbleTable(**{name: np.concatenate([c[name] for c in columns]) for name in columns[0]})
