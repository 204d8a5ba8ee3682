"""The one error a user may cause: what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class UserError(Exception):
    """A fault in what the user gave us, told in one line and shown without a traceback.

    Parameters
    ----------
    what
        What is wrong, in plain words, with the value that was found.
    where
        The file, folder, key or table cell at fault.
    fix
        What the user can do about it.
    """

    def __init__(self, what: str, *, where: str | Path, fix: str) -> None:
        self.what = what
        self.where = str(where)
        self.fix = fix
        super().__init__(what, str(where), fix)

    def __str__(self) -> str:
        return " ".join(f"{self.where}: {self.what} ({self.fix})".split())

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel from workers to the main process; keyword arguments need help.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def some_of(names: Sequence[str], *, most: int = 5) -> str:
    """Return a list of names in words, of which no more than ``most`` are named."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def _rebuild(kind: type[UserError], what: str, where: str, fix: str) -> UserError:
    return kind(what, where=where, fix=fix)
