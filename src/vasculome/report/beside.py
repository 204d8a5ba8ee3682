"""Samples of the same raw data beside each other: their maps on one scale, their numbers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Drawing

from vasculome.config import Sample, SliceStack
from vasculome.report.album import Album
from vasculome.report.figures import end_of_scale, ulm_density_on_scale
from vasculome.report.page import Section, Table
from vasculome.report.projections import Volume
from vasculome.report.sources import MAX_MAP_VOXELS, read_manifest, read_volume
from vasculome.report.words import heading, words

NUMBERS = (
    ("localize", "localizer"),
    ("localize", "detections_per_frame"),
    ("track", "tracks"),
    ("track", "median_length_frames"),
    ("track", "used_detections_percent"),
    ("ulm_quality", "resolution_um"),
    ("ulm_quality", "filled_percent"),
    ("ulm_quality", "plateau_percent"),
    ("ulm_quality", "time_to_90_s"),
    ("ulm_quality", "gridding_index_db"),
)
"""Stage and key, in the summary of its manifest, of what is compared."""

_OWN = {"sample", "path", "localizer", "volume", "elevation_mm", "pose_mm"}
"""Columns of the sample sheet in which rows of the same raw data may differ."""

_TEXT = (
    "The same raw data, processed in different ways; the colours of all maps end at the same "
    "density.\n"
    "Nothing here knows the truth: false microbubbles fill a map too, and make more tracks. Short "
    "tracks, and few detections used by any, are signs of them."
)


def same_raw(samples: Sequence[Sample | SliceStack]) -> list[list[Sample]]:
    """Return the ultrasound samples that share their raw data, those of each in a list."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        if isinstance(sample, Sample) and sample.modality == "ultrasound":
            told = sample.model_dump_json(exclude=_OWN)
            groups.setdefault(f"{Path(sample.path).resolve()} {told}", []).append(sample)
    return [group for group in groups.values() if len(group) > 1]


def beside(results: Path, names: Sequence[str]) -> tuple[Section, Album]:
    """Return the section on samples of the same raw data, and its pictures by sample.

    Parameters
    ----------
    results
        Folder of all results.
    names
        Of the samples.

    Raises
    ------
    UserError
        A result is there but cannot be read.
    """
    album = Album()
    paths = {name: results / name / "maps/density.ome.zarr" for name in names}
    shown = [path for path in paths.values() if path.exists()]
    # Maps are read anew to be drawn: together they could fill the memory.
    highest = max((end_of_scale(_read(path)) for path in shown), default=1.0)
    rows = []
    for name, path in paths.items():
        numbers = _numbers(results / name)
        localizer = words(numbers["localizer"])
        album.add(
            name,
            what=f"density map of {name}",
            needs=[path],
            draw=functools.partial(_draw, path, title=f"{name}: {localizer}", highest=highest),
            caption=f"{name}, localizer {localizer}: density of microbubbles, square-root "
            "compressed; volumes as maximum projections along each axis.",
            alt=f"Super-resolved map of microbubble density of {name}.",
        )
        rows.append([name, *(words(value) for value in numbers.values())])
    table = Table("Numbers of each", ["sample", *(heading(key) for _, key in NUMBERS)], rows)
    text = "\n".join([_TEXT, *album.missing])
    title = f"Side by side: {', '.join(names)}"
    return Section(title, text, list(album.figures.values()), [table]), album


def _numbers(folder: Path) -> dict[str, Any]:
    return {
        key: (read_manifest(folder, stage) or {}).get("summary", {}).get(key)
        for stage, key in NUMBERS
    }


def _draw(path: Path, *, title: str, highest: float) -> Drawing:
    return ulm_density_on_scale(_read(path), title=title, highest=highest)


def _read(path: Path) -> Volume:
    return read_volume(path, max_voxels=MAX_MAP_VOXELS)
