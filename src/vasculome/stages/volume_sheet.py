"""The sheet of users' volumes, and what identifies it and its files; light, reads no voxels."""

from __future__ import annotations

from pathlib import Path

from vasculome.config import TrainingVolume, parse_volumes
from vasculome.errors import UserError
from vasculome.readers.files import fingerprint, unreadable


def read_sheet(sheet: Path) -> tuple[TrainingVolume, ...]:
    """Return the rows of a sheet of volumes; raises UserError for what is wrong with it."""
    try:
        text = sheet.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        fix = "save it as tab-separated text in UTF-8"
        raise UserError("is no text in UTF-8", where=sheet, fix=fix) from error
    except OSError as error:
        raise unreadable(sheet, error) from error
    return parse_volumes(text, where=str(sheet))


def sheet_identity(sheet: Path) -> str:
    """Return what identifies the rows and their files; training tells of those it cannot read."""
    try:
        rows = read_sheet(sheet)
        files = [Path(name) for row in rows for name in (row.image, row.label) if name is not None]
        return fingerprint(files, detail="\n".join(row.model_dump_json() for row in rows))
    except UserError:
        return "cannot be read"
