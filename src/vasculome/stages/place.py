"""Offsets of pairs → the position of every tile, and how well the tiles then agree."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.memory import MemoryBound
from vasculome.config import PairsConfig, PositionsConfig, RunConfig
from vasculome.errors import UserError, some_of
from vasculome.readers.tile_set import TileSet
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.stages.raw_tiles import (
    LazyTile,
    mapped_tiles,
    nominal_starts,
    raw_fingerprint_of,
    registered_tiles,
    shapes_of,
)
from vasculome.stages.register import OFFSETS, pairs_of, search_px
from vasculome.stages.stitch_tables import edges_of, vector_columns
from vasculome.stages.whole import write_whole
from vasculome.stitching.crops import MAX_CROP_PX, crop_pair, worst_and_median
from vasculome.stitching.levels import dark_tiles
from vasculome.stitching.place import DisconnectedTilesError, Placement, place
from vasculome.stitching.register import Edge
from vasculome.storage.bundles import write_bundle
from vasculome.storage.tables import read_parts, write_table

log = logging.getLogger(__name__)

PLACEMENT = "placement"
TILES = "tiles.parquet"
EDGES = "edges.parquet"
CROPS = "crops.npz"
_BYTES_A_TILE = 10_000
_BYTES_A_PAIR = 5_000


def settings(config: RunConfig) -> tuple[PairsConfig, PositionsConfig]:
    """Return the settings that the output depends on."""
    return config.microscopy.stitch.pairs, config.microscopy.stitch.positions


def raw_fingerprint(job: Job) -> str:
    """Return the identity of the raw files: where the stage was, and which planes are missing."""
    return " ".join(raw_fingerprint_of(job, t) for t in (registered_tiles(job), mapped_tiles(job)))


def bound(job: Job) -> MemoryBound:
    """Return the memory bound, see `bound_for`."""
    return bound_for(job, registered_tiles(job))


def bound_for(job: Job, tiles: TileSet) -> MemoryBound:
    """Return the memory bound: the network of tiles, and crops of a few overlaps."""
    network = _BYTES_A_TILE * len(tiles.names) + _BYTES_A_PAIR * len(pairs_of(job, tiles))
    crops = 16 * 2 * MAX_CROP_PX**2 * tiles.dtype.itemsize
    return MemoryBound(network + crops, 1)


def run(job: Job) -> Outcome:
    """Write the tables ``tiles`` and ``edges`` and crops of overlaps into ``placement``."""
    folder = job.folder / PLACEMENT
    result = write_whole(functools.partial(_place, job, folder), store=folder, digest=job.digest())
    for state, what in (("stage", "placed by the stage"), ("dark", "dark and left out")):
        if names := result.record[f"{state}_tiles"]:
            log.warning("%s: %d tiles %s: %s", job.sample.sample, len(names), what, some_of(names))
    return Outcome(content_of([result]), result.record, (PLACEMENT,))


def _place(job: Job, folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    tiles = registered_tiles(job)
    table = read_parts(job.folder / OFFSETS)
    edges = edges_of(table)
    nominal = nominal_starts(tiles, job.sample.spacing_um)
    chosen = job.config.microscopy.stitch.positions
    by_pairs = chosen.source == "pairs"
    if by_pairs:
        dark = dark_tiles(
            np.stack([table["i"], table["j"]], 1),
            np.stack([table["level_i"], table["level_j"]], 1),
            table["accepted"],
            count=len(nominal),
        )
    else:
        dark = np.zeros(len(nominal), bool)
    try:
        placement = place(
            edges,
            nominal,
            # The search range is what the user thinks the stage's largest error is.
            stage_sigma=[n / 2 for n in search_px(job)],
            outlier_px=chosen.outlier_px,
            left_out=dark,
            allow_stage_positions=chosen.allow_stage_positions or not by_pairs,
        )
    except DisconnectedTilesError as error:
        strays = [tiles.names[k] for part in error.parts for k in part]
        raise _refuse(job, strays) from None
    # Whole voxels are copied, not interpolated: the stage knows no fractions.
    starts = placement.starts if by_pairs else np.rint(nominal)
    state = np.where(dark, "dark", np.where(placement.parts > 0, "stage", "placed"))
    if not by_pairs:
        state[:] = "stage"
    starts = starts - starts[~dark].min(0)
    files = {
        TILES: write_table(
            folder / TILES,
            {
                "tile": np.array(tiles.names, np.str_),
                **vector_columns("nominal", nominal),
                **vector_columns("start", starts),
                **vector_columns("shape", shapes_of(tiles)),
                "part": placement.parts.astype(np.int32),
                "state": state,
                "stage_outlier": np.isin(np.arange(len(nominal)), placement.stage_outliers),
                "missing_planes": _missing(mapped_tiles(job)),
            },
        ),
        EDGES: write_table(
            folder / EDGES,
            {
                **table,
                "used": placement.used,
                "outlier": np.isin(np.arange(len(edges)), placement.outliers),
                **vector_columns("residual", placement.residuals),
            },
        ),
        CROPS: write_bundle(folder / CROPS, _crops(tiles, edges, placement, starts)),
    }
    return files, _summary(tiles, edges, placement, state, nominal, starts)


def _summary(
    tiles: TileSet,
    edges: Sequence[Edge],
    placement: Placement,
    state: NDArray[np.str_],
    nominal: NDArray[np.float64],
    starts: NDArray[np.float64],
) -> dict[str, Any]:
    """Return what the report and the log tell of the positions."""
    size = np.linalg.norm(placement.residuals[placement.used], axis=1)
    moved = starts - nominal
    moved = np.linalg.norm(moved - np.median(moved, axis=0), axis=1)
    return {
        "tiles": len(tiles.names),
        "pairs_used": int(placement.used.sum()),
        "pairs_rejected": sum(not edge.accepted for edge in edges),
        "pairs_outlying": len(placement.outliers),
        "rms_residual_px": _rounded(np.sqrt(np.mean(size**2))) if len(size) else None,
        "largest_residual_px": _rounded(size.max()) if len(size) else None,
        "median_move_px": _rounded(np.median(moved)),
        "stage_tiles": [tiles.names[k] for k in np.flatnonzero(state == "stage")],
        "dark_tiles": [tiles.names[k] for k in np.flatnonzero(state == "dark")],
        "misreported_tiles": [tiles.names[k] for k in placement.stage_outliers],
    }


def _crops(
    tiles: TileSet, edges: Sequence[Edge], placement: Placement, starts: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """Return the same places as both tiles of some pairs show them, for the report."""
    rows, worst = worst_and_median(placement)
    crops: dict[str, NDArray[Any]] = {}
    kept = []
    for row, is_worst in zip(rows, worst, strict=True):
        i, j = edges[row].i, edges[row].j
        pair = crop_pair(
            LazyTile(tiles.volumes[i]), LazyTile(tiles.volumes[j]), starts[i], starts[j]
        )
        if pair is not None:
            crops[f"first_{len(kept)}"], crops[f"second_{len(kept)}"] = pair
            kept.append((row, is_worst))
    crops["edge"] = np.array([row for row, _ in kept], np.int32)
    crops["worst"] = np.array([is_worst for _, is_worst in kept], bool)
    return crops


def _missing(tiles: TileSet) -> NDArray[np.int32]:
    return np.array([len(volume.missing) for volume in tiles.volumes], np.int32)


def _refuse(job: Job, strays: Sequence[str]) -> UserError:
    return UserError(
        f"no pair joins {len(strays)} tiles to the rest: {some_of(strays)}",
        where=job.sample.path,
        fix="look at microscopy.stitch.pairs, or set microscopy.stitch.positions."
        "allow_stage_positions: true to place them by the stage",
    )


def _rounded(value: float) -> float:
    return round(float(value), 3)
