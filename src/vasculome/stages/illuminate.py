"""Placed raw tiles → the light's shape over the field, each tile's brightness, blank planes."""

from __future__ import annotations

import functools
import itertools
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
from vasculome.stages.place import EDGES, PLACEMENT, TILES
from vasculome.stages.raw_tiles import LazyTile, mapped_tiles, raw_fingerprint_of, shapes_of
from vasculome.stages.stitch_tables import vectors
from vasculome.stages.whole import write_whole
from vasculome.stitching.blank import find_blank_planes
from vasculome.stitching.illumination import Shading, estimate_shading, solve_gains
from vasculome.stitching.levels import (
    FieldSample,
    OverlapSample,
    sample_field,
    sample_overlap,
)
from vasculome.stitching.register import find_pairs
from vasculome.storage.bundles import write_bundle
from vasculome.storage.tables import part_path, read_table, write_table

LEVELS = "levels"
LIGHT = "light"
GAINS = "gains.parquet"
BLANK_PLANES = "blank_planes.parquet"
SHADING = "shading.npz"
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
    lit = set(np.flatnonzero(placed["state"] != "dark").tolist())
    pairs = _pairs(job, tiles, placed) if chosen.flat_field or chosen.gains else []
    parts = math.ceil(len(tiles.names) / _TOGETHER) + math.ceil(len(pairs) / _TOGETHER)
    with job.cluster() as cluster:
        sampled = map_tiles(
            functools.partial(_sample, folder=levels),
            itertools.chain(_tile_parts(tiles), _pair_parts(tiles, placed, pairs)),
            total=parts,
            store=levels,
            digest=job.digest(),
            cluster=cluster,
            label="illuminate",
        )
    result = write_whole(
        functools.partial(_solve, tiles, lit, len(pairs), chosen, levels, light),
        store=light,
        digest=job.digest(),
    )
    return Outcome(content_of([*sampled.values(), result]), result.record, (LEVELS, LIGHT))


@dataclass(frozen=True)
class _TilePart:
    """Some tiles, whose fields are sampled."""

    number: int
    tiles: tuple[tuple[int, LazyTile], ...]

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


def _tile_parts(tiles: TileSet) -> Iterator[_TilePart]:
    for number, start in enumerate(range(0, len(tiles.names), _TOGETHER)):
        some = range(start, min(start + _TOGETHER, len(tiles.names)))
        yield _TilePart(number, tuple((k, LazyTile(tiles.volumes[k])) for k in some))


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
        fields = [(k, sample_field(tile)) for k, tile in part.tiles]
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
    lit: set[int],
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
    if pair_parts:
        shading = estimate_shading(
            _spread(_fields(levels, tile_parts, lit), len(lit)),
            _spread(_overlaps(levels, pair_parts), pairs),
            shapes_of(tiles)[:, 1:].max(0).tolist(),
            dark=chosen.dark_level,
        )
        if not chosen.flat_field:
            shading = Shading(np.ones_like(shading.flat), shading.dark)
        if chosen.gains:
            gains = solve_gains(_overlaps(levels, pair_parts), len(gains), shading=shading)
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


def _fields(levels: Path, parts: int, lit: set[int]) -> Iterator[FieldSample]:
    for number in range(parts):
        table = read_table(part_path(levels / "fields", number))
        for rows in _runs(table["tile"]):
            if int(table["tile"][rows][0]) not in lit:
                continue
            places = np.stack([table["y"][rows], table["x"][rows]], 1).astype(float)
            yield FieldSample(places, table["level"][rows].astype(float))


def _overlaps(levels: Path, parts: int) -> Iterator[OverlapSample]:
    for number in range(parts):
        table = read_table(part_path(levels / "overlaps", number))
        for rows in _runs(table["i"], table["j"]):
            yield OverlapSample(
                int(table["i"][rows][0]),
                int(table["j"][rows][0]),
                np.stack([table["y_i"][rows], table["x_i"][rows]], 1).astype(float),
                np.stack([table["y_j"][rows], table["x_j"][rows]], 1).astype(float),
                table["level_i"][rows].astype(float),
                table["level_j"][rows].astype(float),
            )


def _runs(*keys: NDArray[Any]) -> Iterator[slice]:
    """Yield the rows over which all keys stay the same."""
    changes = np.any([np.diff(key) != 0 for key in keys], axis=0)
    cuts = [0, *(np.flatnonzero(changes) + 1).tolist(), len(keys[0])]
    yield from (slice(a, b) for a, b in itertools.pairwise(cuts) if a < b)


def _spread(samples: Iterator[Any], count: int) -> list[Any]:
    """Return every so many of about ``count`` samples, that many voices at most."""
    return list(itertools.islice(samples, 0, None, math.ceil(count / _VOICES)))
