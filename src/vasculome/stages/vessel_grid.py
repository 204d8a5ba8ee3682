"""How a field is cut for the network that maps vessels: patches, movies, fine pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from vasculome.geometry import Box, TileGrid
from vasculome.stages.vessel_weights import UPSCALING
from vasculome.storage.omezarr import ImageSpec

AXES = {2: ("z", "x"), 3: ("z", "y", "x")}

PATCH_PX = {2: 64, 3: 24}
"""Edge of the core of a patch, in pixels of the network; a multiple of 4, since it halves twice."""

HALO_PX = 12
"""Pixels all round that the network sees besides; a multiple of 4 as well.

It changes 0.1 % of the vessels' fine pixels that a trained network finds in 2-D in patches of 64,
and 0.3 % in 3-D patches of 24 were it the same there. 8 pixels: 0.7 and 2.6 %; none: 18 and 70 %
(benchmarks/superresolve_halo.py).
"""

_CHUNK = {2: 256, 3: 64}


def network_shape(shape: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    """Return the pixels of the network in a frame of ``shape``, from its first to its last."""
    return tuple(f * (n - 1) + 1 for n, f in zip(shape, factors, strict=True))


def fine_spec(
    shape: tuple[int, ...],
    *,
    spacing_um: Sequence[float],
    origin_um: Sequence[float],
    factors: Sequence[int],
    name: str,
) -> ImageSpec:
    """Return the grid of the map: 8 pixels for each of the network, whose middle they share.

    A shard is a patch.

    Parameters
    ----------
    shape, spacing_um, origin_um
        Of the frames, (z, [y,] x).
    factors
        Pixels of the network for each of theirs.
    name
        Of the map, of probabilities.
    """
    n_dims = len(shape)
    pixels_um = [s / f for s, f in zip(spacing_um, factors, strict=True)]
    to_first = (1 - 1 / UPSCALING) / 2
    return ImageSpec(
        shape=tuple(UPSCALING * n for n in network_shape(shape, factors)),
        dtype="float32",
        axes=AXES[n_dims],
        spacing_um=tuple(size / UPSCALING for size in pixels_um),
        origin_um=tuple(o - to_first * size for o, size in zip(origin_um, pixels_um, strict=True)),
        chunk=(_CHUNK[n_dims],) * n_dims,
        shard=(UPSCALING * PATCH_PX[n_dims],) * n_dims,
        reduce="max",
        name=name,
        unit_attributes={"quantity": "probability of a vessel, highest of all movies", "unit": "1"},
    )


def seen_for(fine: Box, field: Sequence[int]) -> tuple[Box, tuple[slice, ...]]:
    """Return the pixels that the network sees for fine pixels, and where these are in its answer.

    Parameters
    ----------
    fine
        Fine pixels of a patch.
    field
        Pixels of the network in a frame.
    """
    core = Box(tuple(a // UPSCALING for a in fine.start), tuple(b // UPSCALING for b in fine.stop))
    outer = core.grow((HALO_PX,) * core.ndim, Box.of_shape(field))
    return outer, fine.translate(tuple(-UPSCALING * a for a in outer.start)).slices


def widest_seen(field: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the most pixels that the network sees at once, and the most fine ones of a patch."""
    patch = PATCH_PX[len(field)]
    seen = tuple(min(n, patch + 2 * HALO_PX) for n in field)
    return seen, tuple(UPSCALING * min(n, patch) for n in field)


def movies_of(blocks: TileGrid, n_frames: int) -> Iterator[tuple[int, int]]:
    """Yield first frame and end of each movie: blocks, or parts of them of nearly equal length.

    Parameters
    ----------
    blocks
        Of frames.
    n_frames
        Of a movie, at the most.
    """
    for block in blocks:
        (start,), (stop,) = block.core.start, block.core.stop
        count = math.ceil((stop - start) / n_frames)
        ends = [start + i * (stop - start) // count for i in range(count + 1)]
        yield from itertools.pairwise(ends)
