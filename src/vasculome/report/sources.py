"""What the report reads from a sample's folder: small views of large results."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.report.projections import Volume
from vasculome.storage.omezarr import Image, open_image

MAX_VOXELS = 64_000_000
"""Most voxels that are read for a picture."""

MAX_MAP_VOXELS = 16_000_000
"""Most voxels of a map: maps are floats, and a picture of flow needs several at a time."""


def picture_level(image: Image, *, max_voxels: int) -> int:
    """Return the finest level of the pyramid with at most ``max_voxels``, or the coarsest."""
    for number, shape in enumerate(image.levels):
        if math.prod(shape) <= max_voxels:
            return number
    return len(image.levels) - 1


def read_volume(path: Path, *, max_voxels: int) -> Volume:
    """Return a level of an OME-Zarr that is small enough for a picture, never the whole volume.

    Raises
    ------
    UserError
        The image is missing or damaged, or its coarsest level is too large to be drawn.
    """
    image = open_image(path)
    number = picture_level(image, max_voxels=max_voxels)
    shape = image.levels[number]
    if math.prod(shape) > max_voxels:
        raise UserError(
            f"the coarsest level {shape} is too large for a picture",
            where=path,
            fix="write the image with more pyramid levels",
        )
    values = image.read(Box.of_shape(shape), number)
    factors = image.spec.levels[number].factors
    spacing = tuple(s * f for s, f in zip(image.spec.spacing_um, factors, strict=True))
    return Volume(values, spacing)


def read_manifest(folder: Path, stage: str) -> dict[str, Any] | None:
    """Return the manifest that ``stage`` wrote, or None where the stage has not been run.

    Raises
    ------
    UserError
        The manifest is damaged.
    """
    path = folder / "manifests" / f"{stage}.json"
    if not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the manifest: {error}",
            where=path,
            fix=f"delete it and run snakemake again to redo {stage}",
        ) from None
    return manifest


def read_benchmark(folder: Path, stage: str) -> dict[str, float] | None:
    """Return time and memory of ``stage`` as Snakemake measured them, or None without a file.

    Returns
    -------
    Columns of the benchmark file whose value is a number, e.g. ``s`` and ``cpu_time`` in seconds
    and ``max_rss`` in MiB; of several repeats, the last.
    """
    path = folder / f"{stage}.tsv"
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return {key: float(cell) for key, cell in rows[-1].items() if _is_number(cell)} if rows else {}


def _is_number(cell: str | None) -> bool:
    try:
        return math.isfinite(float(cell or ""))
    except ValueError:
        return False
