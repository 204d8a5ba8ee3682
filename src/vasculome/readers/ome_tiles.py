"""OME-TIFF tiles that know where the stage was."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vasculome.errors import UserError
from vasculome.readers.files import FileList, entry_names, natural_key, unreadable
from vasculome.readers.joined_volume import JoinedVolume
from vasculome.readers.ome_xml import OmeImage, Plane, metadata_file, parse_ome_xml
from vasculome.readers.tiff_headers import first_description
from vasculome.readers.tiff_volume import (
    TIFF_SUFFIXES,
    RawVolume,
    absent,
    open_pages,
    open_plane_files,
)
from vasculome.readers.tile_set import PositionUm, Tile, Volume
from vasculome.readers.voxel_spacing import check_spacing

COMPANION_SUFFIX = ".companion.ome"


def open_ome_tiles(
    path: Path, *, spacing_um: Sequence[float], allow_missing_planes: bool
) -> list[Tile]:
    """Return the tiles of OME-TIFF files: one a file, several in one, or a set of many files.

    Parameters
    ----------
    path
        A folder of OME-TIFFs, one OME-TIFF, or a ``.companion.ome`` file. The position of a
        tile is that of its first plane (``PositionX``…), or its ``StageLabel``.
    spacing_um
        Voxel spacing (z, y, x), which must agree with the files' own, if they tell it.
    allow_missing_planes
        Whether planes that the description names and no file holds are read as zeros.

    Raises
    ------
    UserError
        No description, no positions, missing files or planes, or another spacing.
    """
    described = list(_images(path))
    names = _names(described)
    tiles = []
    for name, (source, image) in zip(names, described, strict=True):
        check_spacing(image.spacing_um, spacing_um=spacing_um, where=source)
        if image.position_um is None:
            raise UserError(
                f"holds no stage position for tile {name}",
                where=source,
                fix="use format tiff_pattern or tiff_grid, or give positions in tiles.tsv",
            )
        volumes: dict[str, Volume] = {}
        for channel, planes in zip(image.channels, image.planes, strict=True):
            files, missing = _present(source, planes)
            if missing and not allow_missing_planes:
                raise UserError(
                    f"plane {missing[0]} of tile {name} is in no file"
                    + (f", and {len(missing) - 1} more" if len(missing) > 1 else ""),
                    where=source,
                    fix="restore it, or set allow_missing_planes to read it as zeros",
                )
            volumes[channel] = _volume(files, missing, image, where=source)
        tiles.append(Tile(name, image.position_um, volumes))
    _check_apart(tiles, where=path)
    return tiles


def _images(path: Path) -> list[tuple[Path, OmeImage]]:
    """Return all images, each with the file that describes it."""
    if path.is_file():
        return _described(path)
    files = [
        path / name
        for name in sorted(entry_names(path), key=natural_key)
        if name.lower().endswith(TIFF_SUFFIXES)
    ]
    if not files:
        raise UserError("holds no TIFF files", where=path, fix="check the path in the sample sheet")
    found: list[tuple[Path, OmeImage]] = []
    told: set[Path] = set()
    for file in files:
        # The description of a set stands in each of its files: it is read once.
        if file in told:
            continue
        for source, image in _described(file):
            found.append((source, image))
            told.update(
                source.parent / plane[0] if plane[0] else source
                for planes in image.planes
                for plane in planes
                if plane
            )
    return found


def _described(file: Path) -> list[tuple[Path, OmeImage]]:
    content = _xml_of(file)
    companion = metadata_file(content, where=file)
    if companion is not None:
        file = file.parent / Path(companion).name
        content = _xml_of(file)
    images = parse_ome_xml(content, where=file)
    if not images:
        raise UserError("describes no image", where=file, fix="export it again")
    return [(file, image) for image in images]


def _xml_of(file: Path) -> bytes:
    if file.name.lower().endswith(COMPANION_SUFFIX):
        try:
            return file.read_bytes()
        except OSError as error:
            raise unreadable(file, error) from error
    text = first_description(file)
    if "<OME" not in text and ":OME" not in text:
        raise UserError(
            "holds no OME-XML",
            where=file,
            fix="export the tiles as OME-TIFF, or use format tiff_pattern or tiff_tiles",
        )
    return text.encode()


def _names(described: Sequence[tuple[Path, OmeImage]]) -> list[str]:
    """Return the shortest names that tell the tiles apart: of files, of images, or both."""
    files = [source.name for source, _ in described]
    images = [image.name for _, image in described]
    both = [f"{source.name} {image.id}" for source, image in described]
    for names in (files, images):
        if all(names) and max(Counter(names).values()) == 1:
            return names
    return both


def _present(
    source: Path, planes: Sequence[Plane | None]
) -> tuple[list[tuple[Path, int]], tuple[int, ...]]:
    """Return file and page of each plane that is there, and which planes are not."""
    there: dict[Path, bool] = {}
    files, places = [], []
    for z, plane in enumerate(planes):
        if plane is None:
            continue
        file = source.parent / Path(plane[0]).name if plane[0] else source
        if file not in there:
            there[file] = file.is_file()
        if there[file]:
            files.append((file, plane[1]))
            places.append(z)
    return files, absent(places, len(planes))


def _volume(
    files: Sequence[tuple[Path, int]], missing: tuple[int, ...], image: OmeImage, *, where: Path
) -> Volume:
    if not files:
        raise UserError(
            f"describes image {image.id or image.name}, of which no file is there",
            where=where,
            fix="restore the files of the set",
        )
    runs = [
        (file, [page for _, page in pages])
        for file, pages in itertools.groupby(files, key=lambda plane: plane[0])
    ]
    volume: RawVolume | JoinedVolume
    if len(runs) == len(files) and not any(pages[0] for _, pages in runs) and len(files) > 1:
        folder = runs[0][0].parent
        volume = open_plane_files(
            FileList.of(folder, [file.name for file, _ in runs]), missing=missing
        )
    elif missing:
        raise UserError(
            f"lacks {len(missing)} planes of image {image.id or image.name}, of which others "
            "share a file",
            where=where,
            fix="copy or export the tile again",
        )
    else:
        parts = tuple(open_pages(file, pages=_compact(pages)) for file, pages in runs)
        volume = parts[0] if len(parts) == 1 else JoinedVolume(parts)
    if volume.shape != image.shape:
        raise UserError(
            f"holds planes of {volume.shape[1]}×{volume.shape[2]} pixels where its description "
            f"says {image.shape[1]}×{image.shape[2]}",
            where=volume.files[0],
            fix="export it again",
        )
    return volume


def _compact(pages: list[int]) -> range | tuple[int, ...]:
    """Return the pages as a range if they rise evenly, which most do."""
    step = pages[1] - pages[0] if len(pages) > 1 else 1
    even = range(pages[0], pages[-1] + 1, step) if step > 0 else ()
    return even if list(even) == pages else tuple(pages)


def _check_apart(tiles: Sequence[Tile], *, where: Path) -> None:
    seen: dict[PositionUm, str] = {}
    for tile in tiles:
        other = seen.setdefault(tile.position_um, tile.name)
        if other != tile.name:
            raise UserError(
                f"gives tiles {other} and {tile.name} one position {tile.position_um} µm",
                where=where,
                fix="the stage's position was not recorded: use format tiff_grid or tiff_pattern",
            )
