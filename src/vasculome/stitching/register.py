"""Where neighbouring tiles truly lie: one sub-pixel offset a pair, with its quality."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vasculome.geometry import Box
from vasculome.stitching.bandpass import band_pass
from vasculome.stitching.coarse import CoarseMatch, match_coarsely
from vasculome.stitching.slabs import Slab, Tile, read_slabs
from vasculome.stitching.subpixel import Peak, refine
from vasculome.stitching.weighted_median import weighted_median

MIN_OVERLAP_PX = (1, 16, 16)
"""Voxels along (z, y, x) that two tiles must share to be a pair."""
_SIGMA = 1.0
_LIMIT = 15.0
_REACH = (2, 5, 5)
_VOTE_TOLERANCE_PX = 0.75
_SIGMA_FLOOR_PX = 0.02
_COARSE_SIGMA_PX = 4.0
_MIN_SHARPNESS = 1.15


@dataclass(frozen=True)
class Pair:
    """Two overlapping tiles, and the offset from the first's start to the second's by the stage."""

    i: int
    j: int
    tile_i: Tile
    tile_j: Tile
    nominal_offset: tuple[float, ...]


@dataclass(frozen=True)
class Edge:
    """What was found out about a pair of tiles; lengths in voxels, along (z, y, x).

    Attributes
    ----------
    i, j
        The tiles.
    offset
        From the start of tile i to that of tile j.
    nominal_offset
        The same by the stage.
    ncc
        Correlation coefficient of the fine structure at ``offset``: the median of the sub-slabs
        that agree, 0 if there is none.
    peak_height
        Height of the phase correlation's peak over its noise.
    peak_sharpness
        Its height over the next peak's.
    agreement
        How far the offsets of single sub-slabs are from ``offset``, root mean square.
    sigma
        Standard deviation of ``offset`` along each axis.
    slabs_agreeing, slabs_usable
        Sub-slabs whose offset agrees, of those that have one.
    accepted
        Whether the offset may be used.
    reason
        Why not; empty if it may.
    """

    i: int
    j: int
    offset: tuple[float, float, float]
    nominal_offset: tuple[float, float, float]
    ncc: float
    peak_height: float
    peak_sharpness: float
    agreement: float
    sigma: tuple[float, float, float]
    slabs_agreeing: int
    slabs_usable: int
    accepted: bool
    reason: str


def find_pairs(
    starts: NDArray[np.floating],
    shapes: Sequence[Sequence[int]],
    *,
    min_overlap: Sequence[int] = MIN_OVERLAP_PX,
) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of tiles that share at least ``min_overlap`` voxels an axis.

    Neighbours over faces and corners alike, in order; ``starts`` has shape (tiles, axes).
    """
    starts, extents = np.asarray(starts, float), np.asarray(shapes, int)
    if len(starts) < 2:
        return []
    tree = cKDTree(starts / extents.max(0))
    near = tree.query_pairs(1.0, p=np.inf, output_type="ndarray")
    low = np.maximum(starts[near[:, 0]], starts[near[:, 1]])
    high = np.minimum(*(starts[near[:, k]] + extents[near[:, k]] for k in (0, 1)))
    kept = near[(high - low >= min_overlap).all(1)]
    return sorted((int(min(pair)), int(max(pair))) for pair in kept)


def register(
    pairs: Iterable[Pair],
    *,
    search: Sequence[int] = (8, 32, 32),
    min_ncc: float = 0.3,
    min_peak_height: float = 7.0,
    threads: int = 1,
) -> list[Edge]:
    """Return the offset of every pair, in order; see `register_pair`."""

    def one(pair: Pair) -> Edge:
        return register_pair(pair, search=search, min_ncc=min_ncc, min_peak_height=min_peak_height)

    if threads == 1:
        return [one(pair) for pair in pairs]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, pairs))


def register_pair(
    pair: Pair,
    *,
    search: Sequence[int],
    min_ncc: float = 0.3,
    min_peak_height: float = 7.0,
) -> Edge:
    """Return the offset of two tiles and how far it can be trusted.

    Sub-slabs spread over the overlap are read, as little as that. Together they give the offset
    to about a voxel (`match_coarsely`); then each is asked on its own (`refine`), and those that
    agree with the median are averaged, each axis by what the slab knows of it: vessels along an
    axis say nothing on the offset along it.

    Parameters
    ----------
    pair
        Tiles (z, y, x) and their nominal offset.
    search
        Largest error of the nominal offset, in voxels along each axis.
    min_ncc
        Sub-slabs below this correlation coefficient have no vote.
    min_peak_height
        Peak of the phase correlation, in standard deviations of its noise, below which a pair is
        rejected. The highest of a million noisy lags is about 5.

    Raises
    ------
    ValueError
        If a tile does not have three axes.
    """
    if not len(pair.tile_i.shape) == len(pair.tile_j.shape) == len(pair.nominal_offset) == 3:
        raise ValueError("tiles and offsets must have three axes (z, y, x)")
    nominal = np.rint(pair.nominal_offset).astype(int)
    slabs = list(read_slabs(pair.tile_i, pair.tile_j, offset=nominal.tolist(), search=search))
    if not slabs:
        return _rejected(pair, "the tiles do not overlap")
    match = match_coarsely(slabs, offset=nominal.tolist(), search=search)
    fault = _coarse_fault(pair, match, search, min_peak_height)
    if fault:
        return _rejected(pair, fault, match)
    start = np.rint(match.offset).astype(int)
    found = [peak for slab in slabs if (peak := _refined(slab, start)) is not None]
    usable = [peak for peak in found if peak.found and peak.ncc >= min_ncc]
    if not usable:
        return _rejected(pair, _fine_fault(found, min_ncc), match)
    return _voted(pair, match, start, usable)


def _coarse_fault(
    pair: Pair, match: CoarseMatch, search: Sequence[int], min_peak_height: float
) -> str:
    """Return why a coarse match cannot be right, or an empty text."""
    blank = [
        f"tile {k} is blank"
        for k, any_texture in zip((pair.i, pair.j), match.textured.any(0), strict=True)
        if not any_texture
    ]
    if blank:
        return " and ".join(blank) + " in the overlap"
    if match.height < min_peak_height:
        return f"nothing in common (peak {match.height:.1f} below {min_peak_height:g})"
    if match.sharpness < _MIN_SHARPNESS:
        return f"ambiguous (the next peak is {1 / match.sharpness:.0%} as high)"
    beyond = np.abs(match.offset - pair.nominal_offset) > np.asarray(search) + 1
    if beyond.any():
        return f"at the limit of the search range along {'zyx'[int(np.argmax(beyond))]}"
    return ""


def _fine_fault(found: list[Peak], min_ncc: float) -> str:
    """Return why no sub-slab has an offset."""
    best = max((peak.ncc for peak in found), default=0.0)
    if best < min_ncc:
        return f"no sub-slab reaches NCC {min_ncc:g} (best {best:.2f})"
    return f"no sub-slab has a maximum of its NCC near the coarse offset (best {best:.2f})"


def _refined(slab: Slab, offset: NDArray[np.int_]) -> Peak | None:
    """Return a sub-slab's best match near ``offset``, relative to it; None if it shares nothing."""
    steps = [int(o) for o in offset]
    core = slab.core.intersect(slab.boxes[1].translate(steps))
    if core is None:
        return None
    boxes: tuple[Box, Box] = (core, core.translate([-o for o in steps]))
    a, b = (
        band_pass(values[box.relative_to(outer).slices], sigma=_SIGMA, limit=_LIMIT)
        for values, outer, box in zip(slab.values, slab.boxes, boxes, strict=True)
    )
    return refine(a, b, reach=_REACH)


def _voted(pair: Pair, match: CoarseMatch, start: NDArray[np.int_], usable: list[Peak]) -> Edge:
    """Return the edge on which most sub-slabs agree."""
    lags = np.array([peak.lag for peak in usable])
    known = np.array([np.diag(peak.information) for peak in usable])
    ncc = np.array([peak.ncc for peak in usable])
    middle = np.array([weighted_median(lags[:, k], known[:, k]) for k in range(3)])
    sigmas = 1 / np.sqrt(np.maximum(known, 1 / _COARSE_SIGMA_PX**2))
    agrees = (np.abs(lags - middle) <= _VOTE_TOLERANCE_PX + 3 * sigmas).all(1)
    votes = int(agrees.sum())
    # Where nothing is known of an axis the coarse match stands.
    weak = np.eye(3) / _COARSE_SIGMA_PX**2
    information, moment = weak.copy(), weak @ (match.offset - start)
    for peak in (peak for peak, ok in zip(usable, agrees, strict=True) if ok):
        information += peak.information
        moment += peak.information @ peak.lag
    mean = np.linalg.solve(information, moment)
    apart, worth = np.square(lags - mean)[agrees], known[agrees]
    scatter = np.sqrt((apart * worth).sum(0) / np.maximum(worth.sum(0), 1e-12))
    sigma = np.sqrt(np.diag(np.linalg.inv(information)))
    sigma = np.maximum(np.maximum(sigma, scatter / np.sqrt(max(votes, 1))), _SIGMA_FLOOR_PX)
    trusted = 2 * votes > len(usable)
    return Edge(
        pair.i,
        pair.j,
        _triple(start + mean),
        _triple(pair.nominal_offset),
        ncc=float(np.median(ncc[agrees])) if votes else float(ncc.max()),
        peak_height=match.height,
        peak_sharpness=match.sharpness,
        agreement=float(np.linalg.norm(scatter)) if votes else float("inf"),
        sigma=_triple(sigma),
        slabs_agreeing=votes,
        slabs_usable=len(usable),
        accepted=trusted,
        reason="" if trusted else f"sub-slabs disagree ({votes} of {len(usable)} agree)",
    )


def _rejected(pair: Pair, reason: str, match: CoarseMatch | None = None) -> Edge:
    """Return an edge that says why there is no offset."""
    return Edge(
        pair.i,
        pair.j,
        _triple(pair.nominal_offset),
        _triple(pair.nominal_offset),
        ncc=0.0,
        peak_height=match.height if match else 0.0,
        peak_sharpness=match.sharpness if match else 1.0,
        agreement=float("inf"),
        sigma=(float("inf"),) * 3,
        slabs_agreeing=0,
        slabs_usable=0,
        accepted=False,
        reason=reason,
    )


def _triple(values: Sequence[float] | NDArray[np.floating]) -> tuple[float, float, float]:
    z, y, x = (float(v) for v in values)
    return z, y, x
