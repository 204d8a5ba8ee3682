"""TeraStitcher's two-level folders of planes: ``Y/Y_X/Z.tif``, in tenths of a micrometre."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vasculome.errors import UserError
from vasculome.readers.files import natural_key
from vasculome.readers.name_pattern import NamePattern, find_series
from vasculome.readers.pattern_tiles import refuse_empty_tiles
from vasculome.readers.tile_files import open_series, plane_span
from vasculome.readers.tile_set import Tile

_COORDINATE = r"[-+]?\d+"

FOLDERS = NamePattern(
    "Y/Y_X/Y_X_Z.tif",
    (
        re.compile(rf"(?P<y_tenth_um>{_COORDINATE})"),
        re.compile(rf"(?P<y_tenth_um>{_COORDINATE})_(?P<x_tenth_um>{_COORDINATE})"),
    ),
    re.compile(r"(?:.*\D)?(?P<z>\d+)\.(?:tiff?|btf|tf2|tf8)", re.IGNORECASE),
    ("y_tenth_um", "x_tenth_um"),
    has_z=True,
    has_channel=False,
)


def open_terastitcher_folders(
    root: Path, *, spacing_um: Sequence[float], allow_missing_planes: bool
) -> list[Tile]:
    """Return the tiles in TeraStitcher's folders.

    Parameters
    ----------
    root
        Folder that holds ``Y/Y_X/Y_X_Z.tif`` or ``Y/Y_X/Z.tif``: Y, X and Z in tenths of a
        micrometre (Bria and Iannello 2012, doi:10.1186/1471-2105-13-316), or Z one by one. All
        tiles have planes at the same Z.
    spacing_um
        Voxel spacing (z, y, x).
    allow_missing_planes
        Whether missing planes are read as zeros, and folders without planes left out.

    Raises
    ------
    UserError
        No such folders, missing planes, or planes at another distance than ``spacing_um`` says.
    """
    files = find_series(root, FOLDERS)
    refuse_empty_tiles(files, where=root, allow_missing_planes=allow_missing_planes)
    span = plane_span(files.tiles, spacing_um=spacing_um[0], where=root)
    _check_step(span, spacing_um=spacing_um[0], where=root)
    keys = sorted(files.tiles, key=lambda key: [natural_key(text) for text in key])
    return [
        Tile(
            "_".join(key),
            (0.0, float(key[0]) / 10, float(key[1]) / 10),
            open_series(
                root, files.tiles[key], span=span, allow_missing_planes=allow_missing_planes
            ),
        )
        for key in keys
    ]


def _check_step(span: tuple[int, float, int], *, spacing_um: float, where: Path) -> None:
    _, step, count = span
    if count > 1 and step != 1 and abs(step - 10 * spacing_um) > 1:
        raise UserError(
            f"the names say that planes are {step / 10:g} µm apart where spacing_um says "
            f"{spacing_um:g}",
            where=where,
            fix="correct spacing_um (z,y,x) in the sample sheet, or use format tiff_pattern",
        )
