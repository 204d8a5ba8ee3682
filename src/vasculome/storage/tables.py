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
ROWS_AT_ONCE = 2**17
"""Rows that are encoded together, and the fewest that can be read by themselves."""


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
        row_group_size=ROWS_AT_ONCE,
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
    _check_names(path, schema, [*names, *(name for name, _, _ in filters or [])])
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
    for part in _parts(folder):
        yield read_table(part, columns, filters)


def iter_groups(
    folder: Path,
    columns: Sequence[str],
    *,
    group: str,
    within: Mapping[str, tuple[float, float]],
) -> Iterator[Columns]:
    """Yield the rows of a table in order, a few at a time, and never some of a group alone.

    Parameters
    ----------
    folder
        Parts, none of which goes on with a group of another one.
    columns
        Which, ``group`` among them.
    group
        Column of which equal values stand together.
    within
        Column → range. A part that lies outside of it in some column as a whole is left out.

    Yields
    ------
    Columns of `ROWS_AT_ONCE` rows at most, and those of one group more.

    Raises
    ------
    UserError
        As :func:`read_table`.
    """
    for part in _parts(folder):
        _check_names(part, _schema(part), [*columns, *within])
        held: Columns = {}
        for read in _row_groups(part, columns, within):
            rows = _joined([held, read]) if held else read
            changes = np.flatnonzero(np.diff(rows[group]))
            cut = changes[-1] + 1 if len(changes) else 0
            if cut:
                yield {name: column[:cut] for name, column in rows.items()}
            held = {name: column[cut:] for name, column in rows.items()}
        if held and len(held[group]):
            yield held


def read_parts(
    folder: Path, columns: Sequence[str] | None = None, filters: Filters | None = None
) -> Columns:
    """Return all parts of a table, in order, as one; raises as :func:`read_table`."""
    return _joined(list(iter_parts(folder, columns, filters)))


def _joined(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _parts(folder: Path) -> list[Path]:
    parts = sorted(Path(folder).glob("part-*.parquet"), key=lambda p: (len(p.name), p.name))
    if not parts:
        raise UserError(
            "holds no parts of a table", where=folder, fix="run the stage that makes it"
        )
    return parts


def _row_groups(
    path: Path, columns: Sequence[str], within: Mapping[str, tuple[float, float]]
) -> Iterator[Columns]:
    """Yield the rows of a part as they are encoded together; none if all are outside."""
    try:
        with pq.ParquetFile(path) as file:
            if _is_outside(file.metadata, within):
                return
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns=list(columns))
                yield {name: table.column(name).to_numpy() for name in columns}
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from error


def _is_outside(metadata: pq.FileMetaData, within: Mapping[str, tuple[float, float]]) -> bool:
    """Tell by statistics alone whether all rows are out of the range of some column."""
    names = metadata.schema.names
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for name, (low, high) in within.items():
        told = [group.column(names.index(name)).statistics for group in groups]
        if all(s is not None and s.has_min_max for s in told) and (
            max((s.max for s in told), default=-np.inf) < low
            or min((s.min for s in told), default=np.inf) > high
        ):
            return True
    return False


def _check_names(path: Path, schema: pa.Schema, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in schema.names]
    if missing:
        raise UserError(
            f"has no column {missing[0]!r}, only {', '.join(schema.names)}",
            where=path,
            fix="rerun the stage that made it",
        )


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
