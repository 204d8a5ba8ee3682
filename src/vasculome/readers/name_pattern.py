"""Regular file names: what ``tile_{row}_{col}/plane_{z}.tif`` stands for, and the files it fits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vasculome.errors import UserError
from vasculome.readers.files import entry_names

_NUMBER, _SIGNED, _TEXT = r"\d+", r"[-+]?\d+(?:\.\d+)?", r"[^/]+?"

FIELDS = {
    "row": _NUMBER,
    "col": _NUMBER,
    "tile": _NUMBER,
    "y_um": _SIGNED,
    "x_um": _SIGNED,
    "y_tenth_um": _SIGNED,
    "x_tenth_um": _SIGNED,
    "z": _NUMBER,
    "channel": _TEXT,
}
PLACES = (("row", "col"), ("tile",), ("y_um", "x_um"), ("y_tenth_um", "x_tenth_um"))


@dataclass(frozen=True)
class NamePattern:
    """A pattern of relative paths.

    Attributes
    ----------
    text
        As the user wrote it.
    folders, last
        What the name of each folder and of the file must match.
    place
        The fields that tell one tile from another, one of `PLACES`.
    has_z, has_channel
        Whether a file holds part of a tile's planes, and one channel.
    """

    text: str
    folders: tuple[re.Pattern[str], ...]
    last: re.Pattern[str]
    place: tuple[str, ...]
    has_z: bool
    has_channel: bool


@dataclass
class SeriesFiles:
    """Files of one channel of one tile: relative paths, and the plane number of each."""

    paths: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


Found = dict[tuple[str, ...], dict[str, SeriesFiles]]
"""Files by the texts of the tile's fields, then by the name of the channel."""


@dataclass
class FoundFiles:
    """Files that fit a pattern, and folders of tiles that hold none."""

    tiles: Found = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)


def parse_pattern(text: str) -> NamePattern:
    """Return the pattern that ``text`` describes.

    Fields stand in braces (`FIELDS`); ``*`` stands for any characters of a name; ``/`` parts
    folders from what is in them. A field that stands twice has the same text in both places.

    Raises
    ------
    UserError
        Unknown fields, or not exactly one way to place the tiles.
    """
    where = f"pattern {text}"
    segments = text.strip("/").split("/")
    compiled = [_segment(segment, where=where) for segment in segments]
    names = {name for segment in compiled for name in segment.groupindex}
    places = [place for place in PLACES if names.intersection(place)]
    if len(places) != 1 or not names.issuperset(places[0]):
        ways = ", ".join("".join(f"{{{name}}}" for name in place) for place in PLACES)
        raise UserError(
            "does not say where the tiles lie, or says it twice",
            where=where,
            fix=f"use one of {ways}",
        )
    return NamePattern(
        text,
        tuple(compiled[:-1]),
        compiled[-1],
        places[0],
        has_z="z" in names,
        has_channel="channel" in names,
    )


def find_series(root: Path, pattern: NamePattern) -> FoundFiles:
    """Return the files under ``root`` that fit ``pattern``; others are passed over.

    Each folder that may hold such files is listed once, and no file is looked at.

    Raises
    ------
    UserError
        No such folder, or nothing in it fits.
    """
    found = FoundFiles()
    for folder, known in _folders(root, "", pattern.folders, {}):
        fits = _match_files(root / folder, folder, known, pattern, found.tiles)
        if not fits and known.keys() >= set(pattern.place):
            found.empty.append(folder)
    if not found.tiles:
        raise UserError(
            f"holds nothing that fits the pattern {pattern.text}",
            where=root,
            fix=f"check the pattern{_example(root)}",
        )
    return found


def _segment(text: str, *, where: str) -> re.Pattern[str]:
    pieces, seen = [], set()
    for piece in re.split(r"(\{[^{}]*\}|\*)", text):
        name = piece[1:-1]
        if piece == "*":
            pieces.append(".*?")
        elif not piece.startswith("{"):
            pieces.append(re.escape(piece))
        elif name not in FIELDS:
            known = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise UserError(f"has unknown field {piece}", where=where, fix=f"fields are {known}")
        else:
            pieces.append(f"(?P={name})" if name in seen else f"(?P<{name}>{FIELDS[name]})")
            seen.add(name)
    return re.compile("".join(pieces))


def _folders(
    root: Path, at: str, patterns: tuple[re.Pattern[str], ...], known: dict[str, str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the folders under ``root`` that fit, and what their names say."""
    if not patterns:
        yield at, known
        return
    for name in sorted(entry_names(root / at)):
        match = patterns[0].fullmatch(name)
        if match and _agree(known, match.groupdict()) and (root / at / name).is_dir():
            here = known | match.groupdict()
            yield from _folders(root, f"{at}{name}/", patterns[1:], here)


def _match_files(
    folder: Path, at: str, known: dict[str, str], pattern: NamePattern, found: Found
) -> bool:
    """Add the files of one folder to ``found``, and tell whether there were any."""
    any_fits = False
    fits = pattern.last.fullmatch
    own = set(pattern.last.groupindex)
    shared = own.intersection(known)
    # A folder holds thousands of planes of mostly one tile: what its name says is looked up once.
    places_here = own.intersection(pattern.place)
    place = tuple(known.get(name, "") for name in pattern.place)
    for name in entry_names(folder):
        match = fits(name)
        if match is None:
            continue
        if shared and not _agree(known, match.groupdict()):
            continue
        if places_here:
            place = tuple(match[n] if n in own else known[n] for n in pattern.place)
        channel = match["channel"] if "channel" in own else known.get("channel", "")
        series = found.setdefault(place, {}).setdefault(channel, SeriesFiles())
        series.paths.append(at + name)
        if pattern.has_z:
            series.numbers.append(int(match["z"] if "z" in own else known["z"]))
        any_fits = True
    return any_fits


def _agree(known: dict[str, str], here: dict[str, str]) -> bool:
    return all(known.get(name, text) == text for name, text in here.items())


def _example(root: Path) -> str:
    """Return a path that is there, to compare the pattern with."""
    at, path = root, ""
    for _ in range(4):
        names = sorted(os.listdir(at)) if at.is_dir() else []  # noqa: PTH208
        shown = next((name for name in names if not name.startswith(".")), None)
        if shown is None:
            break
        at, path = at / shown, f"{path}/{shown}"
    return f"; the folder holds {path[1:]}" if path else ""
