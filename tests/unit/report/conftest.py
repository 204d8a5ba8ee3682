"""Stitched samples with known faults, as the stages leave them, for the tests of their report."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from vasculome.report import mosaic
from vasculome.stages.stitch_tables import edge_columns, vector_columns
from vasculome.stitching.place import place
from vasculome.stitching.register import Edge
from vasculome.storage.bundles import write_bundle
from vasculome.storage.tables import write_table

SPACING_UM = (4.0, 2.0, 2.0)
SHAPE = (40, 100, 120)
PITCH = (0, 90, 108)
STAGES = ("register", "place", "illuminate", "ingest_image")


@dataclass
class Stitched:
    """What went wrong, to be set before `write`; tiles are numbered row by row.

    ``moves_px`` are the true ways of the tiles from the stage's positions, (tiles, 3);
    ``false_edges`` map a pair to an error of its offset, ``rejected`` a pair to a reason.
    """

    rows: int
    columns: int
    moves_px: np.ndarray = None
    dark: tuple[int, ...] = ()
    missing: dict[int, int] = dataclasses.field(default_factory=dict)
    false_edges: dict[tuple[int, int], tuple] = dataclasses.field(default_factory=dict)
    rejected: dict[tuple[int, int], str] = dataclasses.field(default_factory=dict)
    noise_px: float = 0.05
    neighbours: bool = True

    def __post_init__(self):
        if self.moves_px is None:
            self.moves_px = np.random.default_rng(1).normal(size=(self.count, 3)) * [0.5, 2, 2]

    @property
    def count(self):
        return self.rows * self.columns

    def name(self, tile):
        return "tile_{:03d}_{:03d}".format(*divmod(tile, self.columns))

    def pair(self, i, j):
        return f"{self.name(i)} – {self.name(j)}"

    def pairs(self):
        if not self.neighbours:
            return []
        grid = np.arange(self.count).reshape(self.rows, self.columns)
        right = zip(grid[:, :-1].ravel(), grid[:, 1:].ravel(), strict=True)
        below = zip(grid[:-1].ravel(), grid[1:].ravel(), strict=True)
        return sorted((int(i), int(j)) for i, j in [*right, *below])

    def edges(self, nominal):
        rng = np.random.default_rng(2)
        return [self._edge(i, j, nominal[j] - nominal[i], rng) for i, j in self.pairs()]

    def _edge(self, i, j, nominal, rng):
        gone = [k for k in (i, j) if k in self.dark]
        reason = f"tile {gone[0]} is blank in the overlap" if gone else self.rejected.get((i, j))
        true = nominal + self.moves_px[j] - self.moves_px[i]
        found = true + rng.normal(size=3) * self.noise_px + self.false_edges.get((i, j), (0, 0, 0))
        offset = nominal if reason else found
        return Edge(
            i,
            j,
            tuple(offset),
            tuple(nominal),
            ncc=0.0 if reason else 0.9,
            peak_height=0.0 if gone else 20.0,
            peak_sharpness=1.0 if gone else 2.5,
            agreement=np.inf if reason else 0.1,
            sigma=(np.inf,) * 3 if reason else (0.05,) * 3,
            slabs_agreeing=0 if reason else 9,
            slabs_usable=0 if reason else 9,
            accepted=not reason,
            reason=reason or "",
        )

    def write(self, folder: Path) -> Path:
        """Write all files of stitching under ``folder`` and return it."""
        index = np.stack(np.divmod(np.arange(self.count), self.columns), axis=1)
        nominal = np.concatenate([np.zeros((self.count, 1)), index], axis=1) * PITCH
        edges = self.edges(nominal)
        placed = place(edges, nominal, allow_stage_positions=True)
        state = np.where(placed.parts > 0, "stage", "placed")
        state[list(self.dark)] = "dark"
        missing = np.zeros(self.count, np.int32)
        for tile, planes in self.missing.items():
            missing[tile] = planes
        shapes = np.tile(np.array(SHAPE), (self.count, 1))
        write_table(
            folder / mosaic.TILES,
            {
                "tile": np.array([self.name(k) for k in range(self.count)]),
                **vector_columns("nominal", nominal),
                # The volume begins at its first tile, wherever the stage would have it.
                **vector_columns("start", placed.starts - placed.starts.min(0)),
                **vector_columns("shape", shapes),
                "part": placed.parts.astype(np.int32),
                "state": state,
                "stage_outlier": np.isin(np.arange(self.count), placed.stage_outliers),
                "missing_planes": missing,
            },
        )
        write_table(
            folder / mosaic.EDGES,
            {
                **edge_columns(edges),
                "used": placed.used,
                "outlier": np.isin(np.arange(len(edges)), placed.outliers),
                **vector_columns("residual", placed.residuals),
            },
        )
        known = np.flatnonzero(np.isfinite(placed.residuals[:, 0]))[:2]
        rng = np.random.default_rng(3)
        crops = {"edge": known.astype(np.int32), "worst": np.arange(len(known)) == 0}
        for k in range(len(known)):
            piece = rng.integers(100, 900, (30, 90)).astype(np.uint16)
            crops |= {f"first_{k}": piece, f"second_{k}": np.roll(piece, k, axis=1)}
        write_bundle(folder / mosaic.CROPS, crops)
        self._write_light(folder, rng)
        for stage in STAGES:
            path = folder / "manifests" / f"{stage}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"stage": stage, "summary": {"tiles": self.count}}))
        return folder

    def _write_light(self, folder, rng):
        y, x = (np.linspace(-1, 1, n) for n in SHAPE[1:])
        flat = 1 - 0.3 * (y[:, None] ** 2 + x**2) / 2
        flat = (flat / flat.mean()).astype(np.float32)
        write_bundle(folder / mosaic.SHADING, {"flat": flat, "dark": np.array(101.5)})
        names = np.array([self.name(k) for k in range(self.count)])
        gain = np.exp(rng.normal(size=self.count) * 0.05)
        write_table(folder / mosaic.GAINS, {"tile": names, "gain": gain})
        # A plane that no file holds reads as zeros: it is blank too.
        blank = np.repeat(list(self.missing), list(self.missing.values())).astype(np.int32)
        planes = {"tile": blank, "plane": np.arange(len(blank), dtype=np.int32)}
        write_table(folder / mosaic.BLANK_PLANES, planes)


@pytest.fixture
def faulty():
    """30 tiles in 5 rows: every kind of fault, each in a place of its own."""
    moves = np.random.default_rng(1).normal(size=(30, 3)) * [0.5, 2, 2]
    moves[20] += [0, 40, -3]
    corner = ((23, 29), (28, 29))
    return Stitched(
        5,
        6,
        moves,
        dark=(1, 15),
        missing={2: 2, 26: 1},
        false_edges={(7, 8): (0.0, 6.0, -6.0), (18, 24): (0.0, -4.0, 0.0)},
        rejected=dict.fromkeys(corner, "nothing in common (peak 5.1 below 7)"),
    )


@pytest.fixture
def stitched():
    """The class itself, to make other samples of."""
    return Stitched
