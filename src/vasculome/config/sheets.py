"""Tab-separated sheets: a header line, then one row an entry; ``#`` begins a comment line."""

from __future__ import annotations

import csv
import io

from pydantic import BaseModel

from vasculome.errors import UserError


def sheet_rows(
    text: str, *, model: type[BaseModel], what: str, where: str
) -> list[tuple[int, dict[str, str]]]:
    """Return the line number and the cells that are not empty of each row.

    Parameters
    ----------
    text
        The sheet.
    model
        Its fields are the columns.
    what
        The name of an entry, for errors.
    where
        The file.

    Raises
    ------
    UserError
        No rows, a column that is unknown, missing or there twice, or a row with too many cells.
    """
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]
    rows = list(csv.reader(io.StringIO("\n".join(line for _, line in lines)), delimiter="\t"))
    if len(rows) < 2:
        raise UserError(f"no {what}s", where=where, fix=f"add a header line and one line a {what}")
    header = [name.strip() for name in rows[0]]
    _check_header(header, model, where=where)
    entries = []
    for (number, _), row in zip(lines[1:], rows[1:], strict=True):
        if len(row) > len(header):
            raise UserError(
                f"{len(row)} cells under {len(header)} columns",
                where=f"{where}, line {number}",
                fix="separate cells by single tabs",
            )
        cells = {k: v.strip() for k, v in zip(header, row, strict=False) if v.strip()}
        entries.append((number, cells))
    return entries


def _check_header(header: list[str], model: type[BaseModel], *, where: str) -> None:
    known = list(model.model_fields)
    unknown = [name for name in header if name not in known]
    if unknown:
        raise UserError(
            f"unknown column {unknown[0]!r}", where=where, fix=f"columns are {', '.join(known)}"
        )
    if len(set(header)) != len(header):
        raise UserError("a column stands twice", where=where, fix="remove one of the two")
    missing = [n for n, f in model.model_fields.items() if f.is_required() and n not in header]
    if missing:
        raise UserError(
            f"column {missing[0]!r} is missing",
            where=where,
            fix="separate columns by tabs and see config/README.md",
        )
