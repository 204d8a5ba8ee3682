"""TeraStitcher's XML projects."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from vasculome.errors import UserError
from vasculome.readers.files import FileList, entry_names, natural_key, unreadable
from vasculome.readers.joined_volume import JoinedVolume
from vasculome.readers.numbering import count_steps, number_names
from vasculome.readers.safe_xml import parse_xml
from vasculome.readers.tiff_volume import TIFF_SUFFIXES, absent, open_plane_files, open_stack
from vasculome.readers.tile_files import ONLY_CHANNEL, missing_planes
from vasculome.readers.tile_set import PositionUm, Tile, Volume
from vasculome.readers.voxel_spacing import check_spacing

PLANES, BLOCKS = "TiledXY|2Dseries", "TiledXY|3Dseries"
_FIX = "import the volume into TeraStitcher again, or use format tiff_pattern"


@dataclass(frozen=True)
class _Stack:
    """One tile as the project describes it, and the files found for it.

    ``places`` are the planes that the project says are there, ``names`` the files in natural
    order.
    """

    name: str
    folder: Path
    position_um: PositionUm
    places: tuple[int, ...]
    blocks: int
    names: tuple[str, ...]


def open_terastitcher_xml(
    path: Path, *, spacing_um: Sequence[float], allow_missing_planes: bool
) -> list[Tile]:
    """Return the tiles of a TeraStitcher project, such as ``xml_import.xml``.

    Tiles lie at ``ABS_V``, ``ABS_H``, ``ABS_D`` voxels: nominal in an imported project,
    registered in one that was placed. Stacks that the project says are empty are left out.

    Parameters
    ----------
    path
        The XML file. Where its ``stacks_dir`` does not exist here, stacks are looked for beside
        it, since projects are moved between computers.
    spacing_um
        Voxel spacing (z, y, x), which must agree with the project's.
    allow_missing_planes
        Whether planes outside of ``Z_RANGES``, and others without a file, are read as zeros.

    Raises
    ------
    UserError
        Not such a project, or stacks or planes are missing; it names them.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    root = parse_xml(content, where=path)
    kind = root.get("volume_format", PLANES)
    if root.tag != "TeraStitcher" or kind not in {PLANES, BLOCKS}:
        raise UserError(
            f"is {root.tag} with volume_format {kind}, not a TeraStitcher project of tiles",
            where=path,
            fix=f"use a project of {PLANES} or {BLOCKS}",
        )
    voxel = _child(root, "voxel_dims", where=path)
    # A negative size says that the stage runs against the image; ABS_* are the image's already.
    voxel_um = tuple(abs(_number(voxel, name, where=path)) for name in "DVH")
    check_spacing(voxel_um, spacing_um=spacing_um, where=path)
    count = int(_number(_child(root, "dimensions", where=path), "stack_slices", where=path))
    folder = _stacks_folder(root, path)
    stacks = [
        _stack(element, folder=folder, voxel_um=voxel_um, count=count, where=path)
        for element in _child(root, "STACKS", where=path).findall("Stack")
        if element.get("Z_RANGES") != ""
    ]
    if not stacks:
        raise UserError("lists no stacks", where=path, fix=_FIX)
    if kind == BLOCKS:
        volumes = [_blocks(stack, count=count) for stack in stacks]
    else:
        volumes = [
            _planes(stack, stacks, count=count, allow_missing_planes=allow_missing_planes)
            for stack in stacks
        ]
    return [
        Tile(stack.name, stack.position_um, {ONLY_CHANNEL: volume})
        for stack, volume in zip(stacks, volumes, strict=True)
    ]


def _stacks_folder(root: Element, path: Path) -> Path:
    """Return the folder that stacks are named from: the project's, or its own."""
    told = _child(root, "stacks_dir", where=path).get("value", "")
    folder = path.parent / told.replace("\\", "/")
    return folder if told and folder.is_dir() else path.parent


def _stack(
    element: Element, *, folder: Path, voxel_um: Sequence[float], count: int, where: Path
) -> _Stack:
    directory = element.get("DIR_NAME", "").replace("\\", "/").strip("/")
    cell = f"{element.get('ROW')}_{element.get('COL')}"
    name = directory or cell
    z_um, y_um, x_um = (
        _number(element, axis, where=where) * um
        for axis, um in zip(("ABS_D", "ABS_V", "ABS_H"), voxel_um, strict=True)
    )
    here = folder / directory
    if not here.is_dir():
        raise UserError(
            f"names stack {name}, which is not in {folder}",
            where=where,
            fix="correct stacks_dir in the project, or put the project beside its stacks",
        )
    regex = element.get("IMG_REGEX", "")
    try:
        fits = re.compile(regex)
    except re.error as error:
        raise UserError(
            f"has the bad IMG_REGEX {regex!r} ({error})", where=where, fix=_FIX
        ) from error
    names = [n for n in entry_names(here) if n.lower().endswith(TIFF_SUFFIXES) and fits.search(n)]
    if not names:
        raise UserError(
            f"holds no TIFF files that match {regex!r}",
            where=here,
            fix="restore them, or remove the stack from the project",
        )
    return _Stack(
        name,
        here,
        (z_um, y_um, x_um),
        _ranges(element.get("Z_RANGES", f"[0,{count})"), count=count, where=where),
        int(element.get("N_BLOCKS", "0")) if element.get("N_BLOCKS", "0").isdigit() else 0,
        tuple(sorted(names, key=natural_key)),
    )


def _ranges(text: str, *, count: int, where: Path) -> tuple[int, ...]:
    """Return the planes in ranges such as ``[0,9);[12,600)``."""
    places: list[int] = []
    for piece in text.split(";"):
        match = re.fullmatch(r"\s*\[\s*(\d+)\s*,\s*(\d+)\s*\)\s*", piece)
        if not match or not (places[-1] if places else -1) < int(match[1]) < int(match[2]) <= count:
            raise UserError(
                f"has Z_RANGES {text!r}, which are no rising ranges of {count} planes",
                where=where,
                fix=_FIX,
            )
        places.extend(range(int(match[1]), int(match[2])))
    return tuple(places)


def _planes(
    stack: _Stack, stacks: Sequence[_Stack], *, count: int, allow_missing_planes: bool
) -> Volume:
    names, places = stack.names, stack.places
    if len(names) > len(places):
        raise UserError(
            f"holds {len(names)} planes where the project says {len(places)}",
            where=stack.folder,
            fix="remove what does not belong to the stack, or import the volume again",
        )
    if len(names) < len(places):
        names, places = _places_by_number(stack, stacks)
    files = FileList.of(stack.folder, names)
    missing = absent(places, count)
    if missing and not allow_missing_planes:
        raise missing_planes(stack.folder, missing, like=files[0])
    return open_plane_files(files, missing=missing)


def _places_by_number(
    stack: _Stack, stacks: Sequence[_Stack]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return a stack's files and their planes, by the numbers of a stack that is whole."""
    whole = next((s for s in stacks if len(s.names) == len(s.places) > 1), None)
    if whole is None:
        raise UserError(
            f"holds {len(stack.names)} planes where the project says {len(stack.places)}, and no "
            "stack is whole to compare with",
            where=stack.folder,
            fix="restore the planes, or correct Z_RANGES in the project",
        )
    scale = number_names(whole.names, folder=whole.folder, what="plane").numbers
    step = (scale[-1] - scale[0]) / (whole.places[-1] - whole.places[0])
    own = number_names(stack.names, folder=stack.folder, what="plane")
    places = count_steps(
        own.numbers,
        start=round(scale[0] - whole.places[0] * step),
        step=step,
        folder=stack.folder,
        what="plane",
    )
    if not set(places) <= set(stack.places):
        raise UserError(
            "numbers its planes unlike the project's whole stacks, such as "
            f"{whole.folder / whole.names[0]}",
            where=stack.folder,
            fix="restore the planes, or correct Z_RANGES in the project",
        )
    return own.names, tuple(places)


def _blocks(stack: _Stack, *, count: int) -> Volume:
    parts = tuple(open_stack(stack.folder / name, channel=None) for name in stack.names)
    planes = sum(part.shape[0] for part in parts)
    if planes != count or (stack.blocks and stack.blocks != len(parts)):
        raise UserError(
            f"holds {planes} planes in {len(parts)} files where the project says {count} planes "
            f"in {stack.blocks or 'any number of'}",
            where=stack.folder,
            fix="restore the blocks, or import the volume again",
        )
    return parts[0] if len(parts) == 1 else JoinedVolume(parts)


def _child(root: Element, tag: str, *, where: Path) -> Element:
    found = root.find(tag)
    if found is None:
        raise UserError(f"has no element {tag}", where=where, fix=_FIX)
    return found


def _number(element: Element, name: str, *, where: Path) -> float:
    text = element.get(name, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"gives {element.tag} {name} as {text!r}", where=where, fix=_FIX)
    return value
