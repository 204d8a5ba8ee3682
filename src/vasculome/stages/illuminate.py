"""Placed raw tiles → the light's shape over the field, each tile's brightness, blank planes.

Blank planes are looked for whether light is corrected or not: fusion leaves them out.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.memory import MemoryBound
from vasculome.config import LightConfig, RunConfig
from vasculome.readers.tile_set import TileSet
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.stages.level_tables import read_fields, read_overlaps
from vasculome.stages.place import EDGES, PLACEMENT, TILES
from vasculome.stages.raw_tiles import LazyTile, mapped_tiles, raw_fingerprint_of, shapes_of
from vasculome.stages.stitch_tables import vectors
from vasculome.stages.whole import write_whole
from vasculome.stitching.blank import find_blank_planes
from vasculome.stitching.illumination import Shading, estimate_shading, solve_gains
from vasculome.stitching.levels import (
    OverlapSample,
    sample_field,
    sample_overlap,
    spread,
)
from vasculome.stitching.register import find_pairs
from vasculome.storage.bundles import write_bundle
from vasculome.storage.tables import part_path, read_table, write_table

log = logging.getLogger(__name__)

LEVELS = "levels"
LIGHT = "light"
GAINS = "gains.parquet"
BLANK_PLANES = "blank_planes.parquet"
SHADING = "shading.npz"
NO_OVERLAP = "no two tiles show the same sample where they overlap"
"""Why there is neither a flat field nor a gain, though they were asked for."""
_TOGETHER = 8
_VOICES = 256
"""Tiles and overlaps from which the flat field is found, spread over all of them."""
_BYTES_A_VOICE = 2_000_000


def settings(config: RunConfig) -> tuple[LightConfig]:
    """Return the settings that the output depends on."""
    return (config.microscopy.stitch.light,)


def raw_fingerprint(job: Job) -> str:
    """Return the identity of the raw files, without reading pixels."""
    return raw_fingerprint_of(job, mapped_tiles(job))


def bound(job: Job) -> MemoryBound:
    """Return the memory bound, see `bound_for`."""
    return bound_for(job, mapped_tiles(job))


def bound_for(job: Job, tiles: TileSet) -> MemoryBound:
    """Return the memory bound: planes of a tile; and samples of many tiles in the main process."""
    plane = int(shapes_of(tiles)[:, 1:].prod(1).max())
    voices = 2 * min(_VOICES, 4 * len(tiles.names)) * _BYTES_A_VOICE
    # The flat field is found as float64, with one column a term of the polynomial.
    return MemoryBound(
        plane * (2 * tiles.dtype.itemsize + 8), job.workers, main_bytes=voices + plane * 8 * 20
    )


def run(job: Job) -> Outcome:
    """Write levels of tiles and overlaps into ``levels``, what follows from them into ``light``."""
    tiles = mapped_tiles(job)
    placed = read_table(job.folder / PLACEMENT / TILES)
    levels, light = job.folder / LEVELS, job.folder / LIGHT
    chosen = job.config.microscopy.stitch.light
    lit = np.flatnonzero(placed["state"] != "dark").tolist()
    wanted = chosen.flat_field or chosen.gains
    pairs = _pairs(job, tiles, placed) if wanted else []
    if not chosen.gains:
        pairs = _voices(pairs)
    fields = frozenset(_voices(lit) if pairs else ())
    parts = math.ceil(len(tiles.names) / _TOGETHER) + math.ceil(len(pairs) / _TOGETHER)
    with job.cluster() as cluster:
        sampled = map_tiles(
            functools.partial(_sample, folder=levels),
            itertools.chain(_tile_parts(tiles, fields), _pair_parts(tiles, placed, pairs)),
            total=parts,
            store=levels,
            digest=job.digest(),
            cluster=cluster,
            label="illuminate",
        )
    result = write_whole(
        functools.partial(_solve, tiles, len(pairs), chosen, levels, light),
        store=light,
        digest=job.digest(),
    )
    if reason := result.record["light_not_corrected"]:
        log.warning("%s: light not corrected: %s", job.sample.sample, reason)
    return Outcome(content_of([*sampled.values(), result]), result.record, (LEVELS, LIGHT))


@dataclass(frozen=True)
class _TilePart:
    """Some tiles, whose blank planes are found; the fields of those in ``fields`` are sampled."""

    number: int
    tiles: tuple[tuple[int, LazyTile], ...]
    fields: frozenset[int]

    @property
    def id(self) -> str:
        return f"tiles-{self.number}"


@dataclass(frozen=True)
class _PairPart:
    """Some pairs of tiles with the offset between them, whose overlaps are sampled."""

    number: int
    pairs: tuple[tuple[int, int, LazyTile, LazyTile, tuple[float, ...]], ...]

    @property
    def id(self) -> str:
        return f"pairs-{self.number}"


def _pairs(job: Job, tiles: TileSet, placed: dict[str, NDArray[Any]]) -> list[tuple[int, int]]:
    """Return the pairs that show the same sample: those that were registered, if any were."""
    if job.config.microscopy.stitch.positions.source == "stage":
        return find_pairs(vectors(placed, "start"), shapes_of(tiles))
    edges = read_table(job.folder / PLACEMENT / EDGES, ["i", "j", "used"])
    return list(zip(*(edges[k][edges["used"]].tolist() for k in "ij"), strict=True))


def _voices(candidates: Sequence[Any]) -> list[Any]:
    """Return as many tiles or overlaps as are enough to know the light."""
    return [candidates[k] for k in spread(0, len(candidates), _VOICES)]


def _tile_parts(tiles: TileSet, fields: frozenset[int]) -> Iterator[_TilePart]:
    for number, start in enumerate(range(0, len(tiles.names), _TOGETHER)):
        some = range(start, min(start + _TOGETHER, len(tiles.names)))
        yield _TilePart(
            number,
            tuple((k, LazyTile(tiles.volumes[k])) for k in some),
            fields.intersection(some),
        )


def _pair_parts(
    tiles: TileSet, placed: dict[str, NDArray[Any]], pairs: Sequence[tuple[int, int]]
) -> Iterator[_PairPart]:
    starts = vectors(placed, "start")
    for number, start in enumerate(range(0, len(pairs), _TOGETHER)):
        yield _PairPart(
            number,
            tuple(
                (
                    i,
                    j,
                    LazyTile(tiles.volumes[i]),
                    LazyTile(tiles.volumes[j]),
                    tuple((starts[j] - starts[i]).tolist()),
                )
                for i, j in pairs[start : start + _TOGETHER]
            ),
        )


def _sample(part: _TilePart | _PairPart, *, folder: Path) -> TileResult:
    """Write the levels of some tiles or overlaps."""
    if isinstance(part, _TilePart):
        fields = [(k, sample_field(tile)) for k, tile in part.tiles if k in part.fields]
        blank = [(k, z) for k, tile in part.tiles for z in find_blank_planes(tile)]
        tables = {
            "fields": _columns(
                ("tile", "y", "x", "level"),
                [(np.full(len(f.levels), k), *f.places.T, f.levels) for k, f in fields],
            ),
            "blank_planes": _columns(("tile", "plane"), [np.array(blank).reshape(-1, 2).T]),
        }
    else:
        found = [sample_overlap(*pair) for pair in part.pairs]
        tables = {
            "overlaps": _columns(
                ("i", "j", "y_i", "x_i", "y_j", "x_j", "level_i", "level_j"),
                [
                    (
                        np.full(len(s.levels_i), s.i),
                        np.full(len(s.levels_i), s.j),
                        *s.field_i.T,
                        *s.field_j.T,
                        s.levels_i,
                        s.levels_j,
                    )
                    for s in found
                    if s is not None
                ],
            )
        }
    files = {}
    for name, table in tables.items():
        path = part_path(folder / name, part.number)
        files[f"{name}/{path.name}"] = write_table(path, table)
    return TileResult(files=files, record={})


def _columns(
    names: Sequence[str], rows: Sequence[Sequence[NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Return columns from pieces of all of them; whole numbers first, levels in float32."""
    whole = {"tile", "plane", "i", "j"}
    return {
        name: np.concatenate([np.empty(0), *(piece[k] for piece in rows)]).astype(
            np.int32 if name in whole else np.float32
        )
        for k, name in enumerate(names)
    }


def _solve(
    tiles: TileSet,
    pairs: int,
    chosen: LightConfig,
    levels: Path,
    folder: Path,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Write the flat field, the gains and the blank planes."""
    tile_parts = math.ceil(len(tiles.names) / _TOGETHER)
    pair_parts = math.ceil(pairs / _TOGETHER)
    shading, record = None, {"dark_level": None, "field_span_percent": None}
    gains = np.ones(len(tiles.names))
    record["light_not_corrected"] = None
    overlaps = _some_overlaps(levels, pair_parts, pairs)
    if not overlaps and (chosen.flat_field or chosen.gains):
        record["light_not_corrected"] = NO_OVERLAP
    if overlaps:
        shading = estimate_shading(
            list(read_fields(levels, tile_parts)),
            overlaps,
            shapes_of(tiles)[:, 1:].max(0).tolist(),
            dark=chosen.dark_level,
        )
        if not chosen.flat_field:
            shading = Shading(np.ones_like(shading.flat), shading.dark)
        if chosen.gains:
            gains = solve_gains(read_overlaps(levels, pair_parts), len(gains), shading=shading)
        record["dark_level"] = round(shading.dark, 2)
        flat = shading.flat
        record["field_span_percent"] = round(float(100 * (1 - flat.min() / flat.max())), 2)
    blank = [read_table(part_path(levels / "blank_planes", k)) for k in range(tile_parts)]
    planes = {name: np.concatenate([part[name] for part in blank]) for name in blank[0]}
    files = {
        GAINS: write_table(folder / GAINS, {"tile": np.array(tiles.names, np.str_), "gain": gains}),
        BLANK_PLANES: write_table(folder / BLANK_PLANES, planes),
    }
    if shading is not None:
        bundle = {"flat": shading.flat, "dark": np.array(shading.dark)}
        files[SHADING] = write_bundle(folder / SHADING, bundle)
    return files, {
        **record,
        "least_gain": round(float(gains.min()), 4),
        "greatest_gain": round(float(gains.max()), 4),
        "blank_planes": len(planes["tile"]),
    }


def _some_overlaps(levels: Path, parts: int, count: int) -> list[OverlapSample]:
    """Return every so many of about ``count`` overlaps, as many as are enough."""
    step = max(1, math.ceil(count / _VOICES))
    return list(itertools.islice(read_overlaps(levels, parts), 0, None, step))
