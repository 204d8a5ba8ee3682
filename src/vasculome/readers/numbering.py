"""Numbers in file names: which of them counts the files, and which files are missing."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vasculome.errors import UserError

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Numbering:
    """Files of one series by rising number.

    Attributes
    ----------
    names
        File names.
    numbers
        The number in each name that counts the files, strictly rising.
    field
        Which number of a name that is, from 0.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    field: int

    def name_of(self, number: int) -> str:
        """Return the name that the file with ``number`` has or would have."""
        match = list(_DIGITS.finditer(self.names[0]))[self.field]
        head, tail = self.names[0][: match.start()], self.names[0][match.end() :]
        return f"{head}{number:0{len(match[0])}d}{tail}"


def number_names(names: Sequence[str], *, folder: Path, what: str) -> Numbering:
    """Return ``names`` by rising number.

    The names may differ in numbers only. One of these counts the files: it differs between any
    two. Where several do (a clock, a stage position), it is the one that rises most steadily.

    Parameters
    ----------
    names
        Names of files of one folder, one or more.
    folder
        Their folder, for messages.
    what
        What a file holds, for messages: ``"plane"``, ``"block"``.

    Raises
    ------
    UserError
        Names of several series, or names without a counting number.
    """
    one_series = f"keep one series of {what}s in the folder, or give a pattern that picks one"
    shapes = sorted({_DIGITS.sub("#", name) for name in names})
    if len(shapes) > 1:
        raise UserError(
            f"file names follow {len(shapes)} patterns, such as {shapes[0]} and {shapes[1]}",
            where=folder,
            fix=one_series,
        )
    fields = list(zip(*([int(d) for d in _DIGITS.findall(name)] for name in names), strict=True))
    counters = [i for i, numbers in enumerate(fields) if len(set(numbers)) == len(names)]
    if not counters:
        raise UserError(
            f"no number in the file names tells one {what} from every other",
            where=folder,
            fix=one_series,
        )
    # With one name all numbers count; the last one is the usual place of the plane.
    field = counters[-1] if len(names) == 1 else min(counters, key=lambda i: _unrest(fields[i]))
    numbers, ordered = zip(*sorted(zip(fields[field], names, strict=True)), strict=True)
    return Numbering(ordered, numbers, field)


def check_numbering(files: Sequence[Path], *, what: str) -> tuple[Path, ...]:
    """Return ``files`` by rising number, after proving from the names that none is missing.

    Parameters
    ----------
    files
        Files of one folder, named as `number_names` says; the number rises by the same step
        throughout (names may count micrometres instead of planes).
    what
        What a file holds, for messages: ``"plane"``, ``"block"``.

    Raises
    ------
    UserError
        As `number_names`, or a gap; it names the file.
    """
    if len(files) < 2:
        return tuple(files)
    folder = files[0].parent
    series = number_names([file.name for file in files], folder=folder, what=what)
    refuse_gaps(series, folder=folder, what=what)
    return tuple(folder / name for name in series.names)


def refuse_gaps(series: Numbering, *, folder: Path, what: str) -> None:
    """Raise UserError that names the first missing file of a series, if there is one."""
    step = min(_steps(series.numbers), default=1)
    for number, after in itertools.pairwise(series.numbers):
        if after - number != step:
            raise UserError(
                f"{what} {number + step} is missing: the numbers jump from {number} to {after}",
                where=folder / series.name_of(number + step),
                fix=f"restore the {what}, or renumber the files if none was lost",
            )


def count_steps(
    numbers: Sequence[int], *, start: int, step: float, folder: Path, what: str
) -> list[int]:
    """Return the place of each number in the series that rises by ``step`` from ``start``.

    Parameters
    ----------
    numbers
        Rising numbers from file names; where ``step`` is not whole, they are rounded ones.
    start, step
        The series.
    folder, what
        For messages.

    Raises
    ------
    UserError
        A number lies between two places of the series.
    """
    places = [round((number - start) / step) for number in numbers]
    slack = 0.0 if float(step).is_integer() else 1.0
    for number, place in zip(numbers, places, strict=True):
        if abs(start + place * step - number) > slack:
            raise UserError(
                f"{what} {number} does not fit numbers that rise by {step:g} from {start}",
                where=folder,
                fix=f"number the {what}s evenly",
            )
    return places


def _unrest(numbers: Sequence[int]) -> tuple[int, int]:
    steps = _steps(numbers)
    return len(set(steps)), min(steps)


def _steps(numbers: Sequence[int]) -> list[int]:
    ordered = sorted(numbers)
    return [b - a for a, b in itertools.pairwise(ordered)]
