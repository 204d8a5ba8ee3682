"""Overlapping raw tiles → the offset of every pair, with its quality."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.memory import MemoryBound
from vasculome.config import PairsConfig, PositionsConfig, RunConfig
from vasculome.readers.tile_set import TileSet
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.stages.raw_tiles import (
    LazyTile,
    check_positions,
    nominal_starts,
    raw_fingerprint_of,
    registered_tiles,
    shapes_of,
)
from vasculome.stages.stitch_tables import edge_columns
from vasculome.stitching.levels import overlap_levels
from vasculome.stitching.register import Pair, find_pairs, register_pair
from vasculome.stitching.slabs import pair_bytes
from vasculome.storage.tables import part_path, write_table

OFFSETS = "offsets"
_PAIRS_A_PART = 8


def settings(config: RunConfig) -> tuple[PairsConfig, PositionsConfig]:
    """Return the settings that the output depends on."""
    return config.microscopy.stitch.pairs, config.microscopy.stitch.positions


def raw_fingerprint(job: Job) -> str:
    """Return the identity of the raw files, without reading pixels."""
    return raw_fingerprint_of(job, registered_tiles(job))


def check(job: Job) -> None:
    """Raise UserError where the raw data is missing or not what the sample sheet says."""
    check_positions(job, registered_tiles(job))


def bound(job: Job) -> MemoryBound:
    """Return the memory bound, see `bound_for`."""
    return bound_for(job, registered_tiles(job))


def bound_for(job: Job, tiles: TileSet) -> MemoryBound:
    """Return the memory bound: the sub-slabs of the largest overlap, and their working copies."""
    starts, shapes = nominal_starts(tiles, job.sample.spacing_um), shapes_of(tiles)
    pairs = np.array(pairs_of(job, tiles), int).reshape(-1, 2)
    i, j = pairs.T
    offsets = np.rint(starts[j] - starts[i]).astype(int)
    # Of a regular grid there are four kinds of pairs.
    kinds = np.unique(np.stack([shapes[i], shapes[j], offsets], 1), axis=0)
    sizes = [
        pair_bytes(
            shape_i,
            shape_j,
            offset=offset,
            search=search_px(job),
            itemsize=tiles.dtype.itemsize,
        )
        for shape_i, shape_j, offset in kinds.tolist()
    ]
    return MemoryBound(max(sizes, default=0), job.workers)


def run(job: Job) -> Outcome:
    """Register all pairs, some of them a part of the table ``offsets``."""
    check(job)
    tiles = registered_tiles(job)
    pairs = pairs_of(job, tiles)
    folder = job.folder / OFFSETS
    parts = math.ceil(max(len(pairs), 1) / _PAIRS_A_PART)
    with job.cluster() as cluster:
        results = map_tiles(
            functools.partial(
                _register,
                search=search_px(job),
                min_ncc=job.config.microscopy.stitch.pairs.min_ncc,
                folder=folder,
            ),
            _parts(job, tiles, pairs, parts),
            total=parts,
            store=folder,
            digest=job.digest(),
            cluster=cluster,
            label="register",
        )
    accepted = sum(result.record["accepted"] for result in results.values())
    return Outcome(
        content_of(results.values()),
        {"tiles": len(tiles.names), "pairs": len(pairs), "accepted": accepted},
        (OFFSETS,),
    )


def search_px(job: Job) -> tuple[int, int, int]:
    """Return the largest error of the stage in voxels along z, y, x, at least 1."""
    search_um = job.config.microscopy.stitch.pairs.search_um
    z, y, x = (
        max(1, math.ceil(s / d)) for s, d in zip(search_um, job.sample.spacing_um, strict=True)
    )
    return z, y, x


def pairs_of(job: Job, tiles: TileSet) -> list[tuple[int, int]]:
    """Return the pairs of tiles that are registered: none where the stage is believed."""
    if job.config.microscopy.stitch.positions.source == "stage":
        return []
    return find_pairs(nominal_starts(tiles, job.sample.spacing_um), shapes_of(tiles))


@dataclass(frozen=True)
class _Part:
    """Some pairs of tiles, with nothing but the tiles that they are of."""

    number: int
    pairs: tuple[Pair, ...]

    @property
    def id(self) -> str:
        return str(self.number)


def _parts(job: Job, tiles: TileSet, pairs: list[tuple[int, int]], parts: int) -> Iterator[_Part]:
    starts = nominal_starts(tiles, job.sample.spacing_um)
    for number in range(parts):
        some = pairs[number * _PAIRS_A_PART : (number + 1) * _PAIRS_A_PART]
        yield _Part(
            number,
            tuple(
                Pair(
                    i,
                    j,
                    LazyTile(tiles.volumes[i]),
                    LazyTile(tiles.volumes[j]),
                    tuple((starts[j] - starts[i]).tolist()),
                )
                for i, j in some
            ),
        )


def _register(
    part: _Part, *, search: tuple[int, int, int], min_ncc: float, folder: Path
) -> TileResult:
    """Write the edges of some pairs, and how bright both tiles are where they overlap."""
    edges = [register_pair(pair, search=search, min_ncc=min_ncc) for pair in part.pairs]
    levels = [
        overlap_levels(pair.tile_i, pair.tile_j, edge.offset)
        for pair, edge in zip(part.pairs, edges, strict=True)
    ]
    columns = edge_columns(edges)
    for side in (0, 1):
        columns["level_" + "ij"[side]] = np.array([pair[side] for pair in levels], float)
    path = part_path(folder, part.number)
    return TileResult(
        files={path.name: write_table(path, columns)},
        record={"accepted": sum(edge.accepted for edge in edges)},
    )
