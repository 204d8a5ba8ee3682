"""Samples of the same raw data beside each other: their maps on one scale, their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vasculome.config import Sample, SliceStack
from vasculome.report import flow_charts
from vasculome.report.album import Album
from vasculome.report.compared_maps import (
    FlatMap,
    cropped,
    flat_map,
    most_different,
    same_field,
    scale_of,
    side_by_side,
)
from vasculome.report.page import Section, Table
from vasculome.report.sources import MAX_MAP_VOXELS, read_manifest, read_volume
from vasculome.report.words import heading, words
from vasculome.storage.bundles import read_bundle

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
    "The same raw data, processed in different ways. Nothing here knows the truth: false "
    "microbubbles fill a map too, and make more tracks. Short tracks, and few detections used by "
    "any, are signs of them."
)
_OVER = " The last panel lays one map over the other: white where both are alike."


def same_raw(samples: Sequence[Sample | SliceStack]) -> list[list[Sample]]:
    """Return the ultrasound samples that share their raw data, those of each in a list."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        if isinstance(sample, Sample) and sample.modality == "ultrasound":
            told = sample.model_dump_json(exclude=_OWN)
            groups.setdefault(f"{Path(sample.path).resolve()} {told}", []).append(sample)
    return [group for group in groups.values() if len(group) > 1]


def beside(results: Path, names: Sequence[str]) -> tuple[Section, Album]:
    """Return the section on samples of the same raw data, and its pictures.

    Parameters
    ----------
    results
        Folder of all results.
    names
        Of the samples; the first begins the names of the pictures.

    Raises
    ------
    UserError
        A result is there but cannot be read.
    """
    summaries = {name: _numbers(results / name) for name in names}
    titles = {name: f"{name}: {words(summaries[name]['localizer'])}" for name in names}
    album = Album()
    maps = []
    for name in names:
        path = results / name / "maps/density.ome.zarr"
        if album.has([path], what=f"density map of {name}"):
            # Only its pictures are kept: volumes of all samples together could fill the memory.
            density = read_volume(path, max_voxels=MAX_MAP_VOXELS)
            maps.append(flat_map(density, name=name, title=titles[name]))
    _add_maps(album, maps, called=names[0])
    resolution_um = {name: numbers["resolution_um"] for name, numbers in summaries.items()}
    _add_curves(album, results, resolution_um)
    rows = [
        [heading(key), *(words(summaries[name][key]) for name in names)]
        for _, key in NUMBERS
        if key != "localizer"
    ]
    table = Table("Numbers of each", ["quantity", *titles.values()], rows)
    text = "\n".join([_TEXT, *album.missing])
    title = f"Side by side: {', '.join(names)}"
    return Section(title, text, list(album.figures.values()), [table]), album


def _add_maps(album: Album, maps: Sequence[FlatMap], *, called: str) -> None:
    if not maps:
        return
    scale = scale_of(maps)
    names = ", ".join(m.name for m in maps)
    alike = same_field(maps)
    window = most_different(maps, scale) if alike else None
    over = _OVER if alike and len(maps) == 2 else ""
    album.add(
        f"{called}_maps",
        what="maps side by side",
        needs=[],
        draw=lambda: side_by_side(maps, scale, window=window),
        caption="Density of microbubbles, square-root compressed, on one scale; volumes as maximum "
        "projections along each axis." + over,
        alt=f"Super-resolved maps of microbubble density of {names}, side by side.",
        detailed=True,
    )
    if len(maps) == 1:
        return
    if window is None:
        why = "the maps are the same" if alike else "the maps have different pixels"
        album.missing.append(f"No detail of the maps: {why}.")
        return
    parts = [cropped(m, window) for m in maps]
    album.add(
        f"{called}_detail",
        what="detail of the maps",
        needs=[],
        draw=lambda: side_by_side(parts, scale),
        caption="The part of the field, framed above, where the maps differ most." + over,
        alt=f"Detail of the maps of {names}, side by side.",
        detailed=True,
    )


def _add_curves(album: Album, results: Path, resolution_um: Mapping[str, float | None]) -> None:
    paths = {name: results / name / "quality/curves.npz" for name in resolution_um}
    album.add(
        f"{next(iter(paths))}_quality",
        what="curves of resolution and saturation",
        needs=list(paths.values()),
        draw=lambda: flow_charts.quality_of_all(
            {name: read_bundle(path) for name, path in paths.items()}, resolution_um=resolution_um
        ),
        caption="Resolution: where the correlation of two maps, of the tracks that begin in every "
        "other stretch of time, falls below the threshold. Saturation: part of the map that tracks "
        "have crossed, after each block of frames.",
        alt="Curves of resolution and of saturation of each sample.",
        detailed=True,
    )


def _numbers(folder: Path) -> dict[str, Any]:
    return {
        key: (read_manifest(folder, stage) or {}).get("summary", {}).get(key)
        for stage, key in NUMBERS
    }
