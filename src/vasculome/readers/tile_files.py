"""The volumes of one tile, one a channel, from its files."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from vasculome.errors import UserError
from vasculome.readers.files import FileList, natural_key
from vasculome.readers.joined_volume import JoinedVolume
from vasculome.readers.name_pattern import Found, SeriesFiles
from vasculome.readers.numbering import count_steps
from vasculome.readers.tiff_headers import count_channels, count_pages
from vasculome.readers.tiff_volume import absent, open_plane_files, open_planes, open_stack
from vasculome.readers.tile_set import Volume

ONLY_CHANNEL = "0"
"""Name of the channel where names and headers tell none."""


def open_tile(
    path: Path, *, pattern: str | None = None, allow_missing_planes: bool = False
) -> dict[str, Volume]:
    """Return the channels of a tile that is a folder of planes or a stack.

    Parameters
    ----------
    path
        The folder or the stack.
    pattern
        Shell pattern that picks the planes of a folder.
    allow_missing_planes
        Whether planes that are missing between others are read as zeros.

    Raises
    ------
    UserError
        As `open_planes` and `open_stack`.
    """
    if path.is_dir():
        planes = open_planes(path, pattern=pattern, allow_missing_planes=allow_missing_planes)
        return {ONLY_CHANNEL: planes}
    channels = count_channels(path)
    if channels == 1:
        return {ONLY_CHANNEL: open_stack(path, channel=None)}
    return {str(channel): open_stack(path, channel=channel) for channel in range(channels)}


def plane_span(found: Found, *, spacing_um: float, where: Path) -> tuple[int, float, int]:
    """Return first plane number, step and count of planes, over all tiles.

    Numbers that count micrometres or tenths of them may be rounded; ``spacing_um`` tells the
    exact step then.

    Raises
    ------
    UserError
        Numbers that do not rise evenly.
    """
    numbers = sorted({n for of in found.values() for series in of.values() for n in series.numbers})
    first, last = numbers[0], numbers[-1]
    step: float = min((b - a for a, b in itertools.pairwise(numbers)), default=1)
    if any((number - first) % step for number in numbers):
        for rounded in (10 * spacing_um, spacing_um):
            off = [abs((n - first + rounded / 2) % rounded - rounded / 2) for n in numbers]
            if rounded > 2 and max(off) <= 1:
                step = rounded
    places = count_steps(numbers, start=first, step=step, folder=where, what="plane")
    return first, step, places[-1] + 1 if last > first else 1


def open_series(
    root: Path,
    of: dict[str, SeriesFiles],
    *,
    span: tuple[int, float, int],
    allow_missing_planes: bool,
) -> dict[str, Volume]:
    """Return the volume of each channel of a tile from its numbered files.

    Parameters
    ----------
    root
        Where the paths start from.
    of
        Files by channel.
    span
        First number, step and count of planes.
    allow_missing_planes
        Whether missing planes are read as zeros.

    Raises
    ------
    UserError
        Two files of one number, or missing planes; it names the first.
    """
    channels = sorted(of, key=natural_key)
    volumes: dict[str, Volume] = {}
    for channel in channels:
        paths, numbers = _by_number(root, of[channel])
        files = _file_list(root, paths)
        if count_pages(files[0]) > 1:
            volumes[channel or ONLY_CHANNEL] = _open_blocks(files, numbers)
            continue
        first, step, count = span
        places = count_steps(numbers, start=first, step=step, folder=files.folder, what="plane")
        missing = absent(places, count)
        if missing and not allow_missing_planes:
            raise missing_planes(
                files.folder, [round(first + step * place) for place in missing], like=files[0]
            )
        volumes[channel or ONLY_CHANNEL] = open_plane_files(files, missing=missing)
    return volumes


def missing_planes(where: Path, numbers: Sequence[int], *, like: Path) -> UserError:
    """Return the error to raise for planes that other tiles have and this one has not."""
    more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
    return UserError(
        f"plane {numbers[0]}{more} is missing beside {like.name}",
        where=where,
        fix="restore it, or set allow_missing_planes to read it as zeros",
    )


def _by_number(root: Path, series: SeriesFiles) -> tuple[list[str], list[int]]:
    pairs = sorted(zip(series.numbers, series.paths, strict=True))
    for (a, path), (b, other) in itertools.pairwise(pairs):
        if a == b:
            raise UserError(
                f"has the same plane number as {Path(path).name}",
                where=root / other,
                fix="keep one file a plane, or make the pattern tell them apart",
            )
    return [path for _, path in pairs], [number for number, _ in pairs]


def _file_list(root: Path, paths: list[str]) -> FileList:
    """Return the list of files relative to the folder that holds them all, if there is one."""
    at = paths[0].rpartition("/")[0] + "/"
    if at != "/" and all(path.startswith(at) for path in paths):
        return FileList.of(root / at, [path[len(at) :] for path in paths])
    return FileList.of(root, paths)


def _open_blocks(files: FileList, numbers: list[int]) -> Volume:
    """Return the volume in stacks of consecutive planes, numbered by their first plane."""
    parts = tuple(open_stack(file, channel=None) for file in files)
    if len(parts) == 1:
        return parts[0]
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    for file, step, part in zip(files[1:], steps, parts, strict=False):
        # Blocks are numbered by planes, by micrometres, or one by one if they are equal.
        if step * parts[0].shape[0] != steps[0] * part.shape[0]:
            raise UserError(
                f"does not follow the block before it, of {part.shape[0]} planes",
                where=file,
                fix="restore the missing blocks",
            )
    return JoinedVolume(parts)
