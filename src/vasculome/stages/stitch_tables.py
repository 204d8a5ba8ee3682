"""Edges as columns of a table, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.stitching.register import Edge

Columns = dict[str, NDArray[Any]]
_VECTORS = ("offset", "nominal_offset", "sigma")
_LENGTHS = ("agreement",)
_TYPES = {"int": np.int32, "float": np.float64, "bool": np.bool_, "str": np.str_}


def vector_columns(name: str, values: NDArray[Any]) -> Columns:
    """Return lengths along z, y, x, shape (rows, 3), as three columns in voxels."""
    return {f"{name}_{axis}_px": values[:, k] for k, axis in enumerate("zyx")}


def vectors(table: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float64]:
    """Return three columns of lengths as one array (rows, 3)."""
    return np.stack([table[f"{name}_{axis}_px"] for axis in "zyx"], axis=1)


def edge_columns(edges: Sequence[Edge]) -> Columns:
    """Return a table of edges; `edges_of` is its inverse."""
    columns: Columns = {}
    for field in dataclasses.fields(Edge):
        values = [getattr(edge, field.name) for edge in edges]
        if field.name in _VECTORS:
            columns |= vector_columns(field.name, np.array(values, float).reshape(-1, 3))
        else:
            name = f"{field.name}_px" if field.name in _LENGTHS else field.name
            columns[name] = np.array(values, _TYPES[str(field.type)])
    return columns


def edges_of(table: Mapping[str, NDArray[Any]]) -> list[Edge]:
    """Return the edges of a table."""
    rows: dict[str, list[Any]] = {}
    for field in dataclasses.fields(Edge):
        if field.name in _VECTORS:
            rows[field.name] = [tuple(v) for v in vectors(table, field.name).tolist()]
        else:
            name = f"{field.name}_px" if field.name in _LENGTHS else field.name
            rows[field.name] = table[name].tolist()
    return [Edge(**dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True)]
