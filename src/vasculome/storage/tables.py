"""Parquet tables: columns of numbers in, the same bytes out, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vasculome.errors import UserError
from vasculome.storage.shards import checksum, write_bytes_atomic

Columns = dict[str, npt.NDArray[Any]]
Filters = Sequence[tuple[str, str, Any]]
"""Conditions that all hold, e.g. ``[("frame", ">=", 100), ("frame", "<", 200)]``."""


def write_table(
    path: Path, columns: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> str:
    """Write a table atomically and return its checksum; the same input gives the same bytes.

    Parameters
    ----------
    path
        Parquet file.
    columns
        Name → 1-D array, all of one length, in this order. Names carry units (``x_um``).
    metadata
        Free text kept in the file, see :func:`read_metadata`.

    Raises
    ------
    ValueError
        A column is not 1-D, or lengths differ.
    UserError
        As `vasculome.storage.shards.write_bytes_atomic`.
    """
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    if any(values.ndim != 1 for values in arrays.values()):
        raise ValueError(f"columns must be 1-D: { {k: v.shape for k, v in arrays.items()} }")
    if len({len(values) for values in arrays.values()}) > 1:
        raise ValueError(f"columns differ in length: { {k: len(v) for k, v in arrays.items()} }")
    table = pa.table({name: pa.array(values) for name, values in arrays.items()})
    encoded_metadata = {k.encode(): v.encode() for k, v in sorted((metadata or {}).items())}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(encoded_metadata or None),
        sink,
        compression="zstd",
        use_dictionary=False,
        store_schema=True,
    )
    data = sink.getvalue().to_pybytes()
    write_bytes_atomic(path, data)
    return checksum(data)


def read_table(
    path: Path, columns: Sequence[str] | None = None, filters: Filters | None = None
) -> Columns:
    """Return the columns of a table.

    Parameters
    ----------
    path
        Parquet file.
    columns
        Which, and in which order; all by default.
    filters
        Rows to keep; only what may hold them is read.

    Raises
    ------
    UserError
        The file is missing or damaged, or lacks a column.
    """
    schema = _schema(path)
    names = list(schema.names if columns is None else columns)
    missing = [
        n for n in [*names, *(name for name, _, _ in filters or [])] if n not in schema.names
    ]
    if missing:
        raise UserError(
            f"has no column {missing[0]!r}, only {', '.join(schema.names)}",
            where=path,
            fix="rerun the stage that made it",
        )
    try:
        table = pq.read_table(
            path, columns=names, filters=list(filters) if filters else None, partitioning=None
        )
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from error
    return {name: table.column(name).to_numpy() for name in names}


def read_metadata(path: Path) -> dict[str, str]:
    """Return the free text of a table; raises as :func:`read_table`."""
    metadata = _schema(path).metadata or {}
    return {k.decode(): v.decode() for k, v in metadata.items() if k != b"ARROW:schema"}


def part_path(folder: Path, index: int) -> Path:
    """Return the path of one part of a table that is a folder of parts."""
    return Path(folder) / f"part-{index:06d}.parquet"


def iter_parts(
    folder: Path, columns: Sequence[str] | None = None, filters: Filters | None = None
) -> Iterator[Columns]:
    """Yield the parts of a table one after another, in order; raises as :func:`read_table`."""
    parts = sorted(Path(folder).glob("part-*.parquet"), key=lambda p: (len(p.name), p.name))
    if not parts:
        raise UserError(
            "holds no parts of a table", where=folder, fix="run the stage that makes it"
        )
    for part in parts:
        yield read_table(part, columns, filters)


def read_parts(
    folder: Path, columns: Sequence[str] | None = None, filters: Filters | None = None
) -> Columns:
    """Return all parts of a table, in order, as one; raises as :func:`read_table`."""
    parts = list(iter_parts(folder, columns, filters))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except FileNotFoundError:
        raise UserError("does not exist", where=path, fix="run the stage that makes it") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot be read as Parquet: {error}", where=path, fix="rerun the stage that made it"
    )
