"""Levels of tiles and overlaps, back from the tables that `illuminate` writes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.stitching.levels import FieldSample, OverlapSample
from vasculome.storage.tables import part_path, read_table


def read_fields(levels: Path, parts: int) -> Iterator[FieldSample]:
    """Yield the levels of each tile from the table ``fields``."""
    for number in range(parts):
        table = read_table(part_path(levels / "fields", number))
        for rows in _runs(table["tile"]):
            places = np.stack([table["y"][rows], table["x"][rows]], 1).astype(float)
            yield FieldSample(places, table["level"][rows].astype(float))


def read_overlaps(levels: Path, parts: int) -> Iterator[OverlapSample]:
    """Yield the levels of each overlap from the table ``overlaps``."""
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
