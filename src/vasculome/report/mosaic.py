"""What stitching left behind for its report: tiles, pairs, light and pieces of overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.errors import UserError
from vasculome.geometry import Spacing
from vasculome.report.sources import read_manifest
from vasculome.storage.bundles import read_bundle
from vasculome.storage.tables import read_table

TILES, EDGES = "placement/tiles.parquet", "placement/edges.parquet"
CROPS = "placement/crops.npz"
GAINS, SHADING = "light/gains.parquet", "light/shading.npz"
BLANK_PLANES = "light/blank_planes.parquet"


@dataclass(frozen=True)
class Tiles:
    """All tiles of the sample, in voxels along (z, y, x).

    Attributes
    ----------
    names
        Names of the tiles.
    nominal_px, start_px
        First voxel of each tile by the stage and in the volume, shape (tiles, 3).
    shape_px
        Voxels of each tile, shape (tiles, 3).
    part
        Which tiles the pairs hold together; 0 is the largest part.
    state
        ``"placed"``, ``"stage"`` or ``"dark"``, for each tile.
    stage_outlier
        Whether the stage misreported the tile.
    missing_planes
        Planes of the tile that no file holds.
    """

    names: list[str]
    nominal_px: NDArray[np.float64]
    start_px: NDArray[np.float64]
    shape_px: NDArray[np.int_]
    part: NDArray[np.int_]
    state: NDArray[np.str_]
    stage_outlier: NDArray[np.bool_]
    missing_planes: NDArray[np.int_]

    @property
    def displacement_px(self) -> NDArray[np.float64]:
        """How far registration moved each tile from the stage's position, shape (tiles, 3).

        Relative to the median of the tiles: where a volume begins is a matter of choice.
        """
        moves = self.start_px - self.nominal_px
        placed = (self.state == "placed") & (self.part == 0)
        return moves - np.median(moves[placed if placed.any() else slice(None)], axis=0)

    @property
    def by_stage(self) -> NDArray[np.bool_]:
        """Which tiles with an image in them lie where the stage, not their overlaps, puts them."""
        return (self.state == "stage") | ((self.state == "placed") & (self.part > 0))


@dataclass(frozen=True)
class Edges:
    """All pairs of overlapping tiles; lengths in voxels, along (z, y, x).

    Attributes
    ----------
    ends
        Rows of the two tiles, shape (pairs, 2).
    correction_px
        Offset found by registration less that of the stage, shape (pairs, 3).
    ncc, peak_height, peak_sharpness, agreement_px
        Quality, as in `vasculome.stitching.register.Edge`.
    reason
        Why a pair was rejected.
    accepted, used, outlier
        Whether its offset can be trusted; whether it holds tiles in their places; whether it
        contradicts the others.
    residual_px
        Offset in the volume less that found, shape (pairs, 3); NaN where not accepted.
    """

    ends: NDArray[np.int_]
    correction_px: NDArray[np.float64]
    ncc: NDArray[np.float64]
    peak_height: NDArray[np.float64]
    peak_sharpness: NDArray[np.float64]
    agreement_px: NDArray[np.float64]
    reason: list[str]
    accepted: NDArray[np.bool_]
    used: NDArray[np.bool_]
    outlier: NDArray[np.bool_]
    residual_px: NDArray[np.float64]

    @property
    def misfit_px(self) -> NDArray[np.float64]:
        """Length of each pair's residual."""
        return np.linalg.norm(self.residual_px, axis=1)


@dataclass(frozen=True)
class Overlap:
    """One piece of an overlap as both tiles see it, (y, x), and the pair it belongs to."""

    edge: int
    worst: bool
    first: NDArray[np.generic]
    second: NDArray[np.generic]


@dataclass(frozen=True)
class Shading:
    """Flat field (y, x), with mean 1, and the grey level at no light."""

    flat: NDArray[np.float32]
    dark: float


@dataclass(frozen=True)
class Mosaic:
    """A stitched sample: what the report says and draws of it.

    Attributes
    ----------
    gain
        Brightness of each tile relative to the others, as it was taken out.
    shading
        Light over the camera's field, as it was taken out; None where it was not estimated.
    blank_planes
        Planes of each tile that have the same value throughout, missing ones included.
    light_fault
        Why the light was left as it is although its correction was asked for; empty if it was not.
    spacing_um
        Distance between voxels (z, y, x).
    """

    tiles: Tiles
    edges: Edges
    overlaps: list[Overlap]
    gain: NDArray[np.float64]
    shading: Shading | None
    blank_planes: NDArray[np.int_]
    light_fault: str
    spacing_um: Spacing


def read_mosaic(folder: Path, *, spacing_um: Sequence[float]) -> Mosaic:
    """Return what stitching found out about the sample whose results are in ``folder``.

    Raises
    ------
    UserError
        A file is missing or damaged, or they are not of one run. Only the flat field may be
        missing: its correction can be turned off.
    """
    tiles = _read_tiles(folder / TILES)
    edges = _read_edges(folder / EDGES)
    _check_rows(edges.ends, len(tiles.names), where=folder / EDGES)
    return Mosaic(
        tiles,
        edges,
        _read_overlaps(folder / CROPS, edges),
        _read_gains(folder / GAINS, tiles.names),
        _read_shading(folder / SHADING) if (folder / SHADING).exists() else None,
        _count_blank(folder / BLANK_PLANES, len(tiles.names)),
        _light_fault(folder),
        tuple(float(s) for s in spacing_um),
    )


def _read_tiles(path: Path) -> Tiles:
    names = [f"{what}_{axis}_px" for what in ("nominal", "start", "shape") for axis in "zyx"]
    table = read_table(path, ["tile", *names, "part", "state", "stage_outlier", "missing_planes"])
    return Tiles(
        table["tile"].tolist(),
        _triples(table, "nominal_{}_px"),
        _triples(table, "start_{}_px"),
        _triples(table, "shape_{}_px"),
        table["part"],
        table["state"].astype(str),
        table["stage_outlier"],
        table["missing_planes"],
    )


def _read_edges(path: Path) -> Edges:
    triples = ("offset", "nominal_offset", "residual")
    names = [f"{what}_{axis}_px" for what in triples for axis in "zyx"]
    qualities = ["ncc", "peak_height", "peak_sharpness", "agreement_px"]
    table = read_table(
        path, ["i", "j", *names, *qualities, "reason", "accepted", "used", "outlier"]
    )
    return Edges(
        np.stack([table["i"], table["j"]], axis=1),
        _triples(table, "offset_{}_px") - _triples(table, "nominal_offset_{}_px"),
        *(table[name] for name in qualities),
        table["reason"].tolist(),
        table["accepted"],
        table["used"],
        table["outlier"],
        _triples(table, "residual_{}_px"),
    )


def _triples(table: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    return np.stack([table[name.format(axis)] for axis in "zyx"], axis=1)


def _read_overlaps(path: Path, edges: Edges) -> list[Overlap]:
    bundle = _bundle(path, ["edge", "worst"])
    count = len(bundle["edge"])
    _bundle_has(bundle, [f"{side}_{k}" for k in range(count) for side in ("first", "second")], path)
    _check_rows(bundle["edge"], len(edges.ends), where=path)
    return [
        Overlap(
            int(bundle["edge"][k]),
            bool(bundle["worst"][k]),
            bundle[f"first_{k}"],
            bundle[f"second_{k}"],
        )
        for k in range(count)
    ]


def _read_gains(path: Path, names: list[str]) -> NDArray[np.float64]:
    table = read_table(path, ["tile", "gain"])
    if table["tile"].tolist() != names:
        raise _other_run(path, "does not list the tiles that were placed")
    return table["gain"]


def _count_blank(path: Path, count: int) -> NDArray[np.int_]:
    rows = read_table(path, ["tile"])["tile"]
    _check_rows(rows, count, where=path)
    return np.bincount(rows, minlength=count)


def _light_fault(folder: Path) -> str:
    manifest = read_manifest(folder, "illuminate") or {}
    return manifest.get("summary", {}).get("light_not_corrected") or ""


def _read_shading(path: Path) -> Shading:
    bundle = _bundle(path, ["flat", "dark"])
    return Shading(bundle["flat"], float(bundle["dark"]))


def _bundle(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    bundle = read_bundle(path)
    _bundle_has(bundle, names, path)
    return bundle


def _bundle_has(bundle: dict[str, NDArray[Any]], names: Sequence[str], path: Path) -> None:
    lacking = [name for name in names if name not in bundle]
    if lacking:
        raise UserError(
            f"has no array {lacking[0]!r}", where=path, fix="rerun the stage that made it"
        )


def _check_rows(rows: NDArray[np.int_], count: int, *, where: Path) -> None:
    """Raise UserError where a table points beyond another's rows."""
    if rows.size and not 0 <= rows.min() <= rows.max() < count:
        raise _other_run(where, f"points at row {rows.max()} of a table of {count}")


def _other_run(path: Path, what: str) -> UserError:
    fix = "rerun the stages place and illuminate: their files are of different runs"
    return UserError(what, where=path, fix=fix)
