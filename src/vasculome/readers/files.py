"""The files of one input: their order, the gaps in their numbers, and their identity."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from vasculome.errors import UserError

_DIGITS = re.compile(r"\d+")


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Return a sort key by which ``plane2`` comes before ``plane10``."""
    pieces = re.split(r"(\d+)", name)
    return tuple(int(p) if i % 2 else p.lower() for i, p in enumerate(pieces)), name


def list_files(folder: Path, *, suffixes: Sequence[str], pattern: str | None) -> tuple[Path, ...]:
    """Return the files of ``folder`` in natural order.

    Parameters
    ----------
    folder
        An existing folder; hidden entries are passed over (``.DS_Store``, ``._plane.tif``).
    suffixes
        Endings that count, lower case, matched whatever the case.
    pattern
        Shell pattern that names must match besides, or None for all of them.

    Raises
    ------
    UserError
        No such folder, or no such file in it.
    """
    if not folder.is_dir():
        state = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(state, where=folder, fix="give the folder that holds the files")
    names = [
        entry.name
        for entry in folder.iterdir()
        if not entry.name.startswith(".")
        and entry.name.lower().endswith(tuple(suffixes))
        and (pattern is None or fnmatch(entry.name, pattern))
    ]
    if not names:
        wanted = f"match {pattern!r} and end" if pattern else "end"
        raise UserError(
            f"holds no files that {wanted} in {' or '.join(suffixes)}",
            where=folder,
            fix="check path and pattern in the sample sheet",
        )
    return tuple(folder / name for name in sorted(names, key=natural_key))


def check_numbering(files: Sequence[Path], *, what: str) -> tuple[Path, ...]:
    """Return ``files`` by rising number, after proving from the names that none is missing.

    The names may differ in numbers only. One of these counts the files: it differs between any
    two, and rises by the same step throughout (names may count micrometres instead of planes).

    Parameters
    ----------
    files
        Files of one folder.
    what
        What a file holds, for messages: ``"plane"``, ``"block"``.

    Raises
    ------
    UserError
        Names of several series, names without a counting number, or a gap; it names the file.
    """
    if len(files) < 2:
        return tuple(files)
    folder = files[0].parent
    one_series = f"keep one series of {what}s in the folder, or give a pattern that picks one"
    shapes = sorted({_DIGITS.sub("#", f.name) for f in files})
    if len(shapes) > 1:
        raise UserError(
            f"file names follow {len(shapes)} patterns, such as {shapes[0]} and {shapes[1]}",
            where=folder,
            fix=one_series,
        )
    fields = list(zip(*([int(d) for d in _DIGITS.findall(f.name)] for f in files), strict=True))
    counters = [i for i, numbers in enumerate(fields) if len(set(numbers)) == len(files)]
    if not counters:
        raise UserError(
            f"no number in the file names tells one {what} from every other",
            where=folder,
            fix=one_series,
        )
    # A clock or a stage position may differ between all files too: the counter is the steadiest.
    counter = min(counters, key=lambda i: (len(set(_steps(fields[i]))), min(_steps(fields[i]))))
    ordered = sorted(zip(fields[counter], files, strict=True))
    step = min(_steps(fields[counter]))
    for (number, file), (after, _) in itertools.pairwise(ordered):
        if after - number != step:
            raise UserError(
                f"{what} {number + step} is missing: the numbers jump from {number} to {after}",
                where=folder / _renumber(file.name, counter, number + step),
                fix=f"restore the {what}, or renumber the files if none was lost",
            )
    return tuple(file for _, file in ordered)


def fingerprint(files: Iterable[Path], *, detail: str = "") -> str:
    """Return a digest of names, sizes and modification times: the identity of an input.

    Pixels are not read, so that terabytes are identified at once.

    Parameters
    ----------
    files
        The files; a folder stands for all that it holds, at any depth.
    detail
        How the files are read where that changes the values (channel, variable, axes).
    """
    digest = hashlib.blake2b(detail.encode(), digest_size=16)
    for file in files:
        inside = sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]
        for path in inside:
            size, mtime_ns = file_state(path)
            name = path.relative_to(file.parent).as_posix()
            digest.update(f"\0{name}\0{size}\0{mtime_ns}".encode())
    return digest.hexdigest()


def file_state(path: Path) -> tuple[int, int]:
    """Return size in bytes and modification time in ns; raises UserError if it is not there."""
    try:
        stat = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return stat.st_size, stat.st_mtime_ns


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the error to raise for a file that the system does not let us read."""
    if isinstance(error, FileNotFoundError):
        return UserError("does not exist", where=path, fix="check the path, or restore the file")
    return UserError(
        f"cannot be read ({error.strerror})", where=path, fix="check its rights and its disk"
    )


def _steps(numbers: Sequence[int]) -> list[int]:
    ordered = sorted(numbers)
    return [b - a for a, b in itertools.pairwise(ordered)]


def _renumber(name: str, field: int, number: int) -> str:
    match = list(_DIGITS.finditer(name))[field]
    return f"{name[: match.start()]}{number:0{len(match[0])}d}{name[match.end() :]}"
