"""The page of one sample: pictures, numbers, parameters, time and memory, from its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vasculome import __version__
from vasculome.report.album import Album, write_figures
from vasculome.report.flow_pictures import flow_album, slices_album
from vasculome.report.network_pictures import add_vessels
from vasculome.report.page import KeyNumber, Section, Table, render_page
from vasculome.report.sources import read_benchmark, read_manifest
from vasculome.report.stitching_pictures import stitching
from vasculome.report.vessel_pictures import vessel_album
from vasculome.report.words import MISSING, flatten_keys, heading, number, words
from vasculome.storage.shards import write_bytes_atomic

_ALBUMS = {"microscopy": vessel_album, "ultrasound": flow_album, "slices": slices_album}
_KINDS = {"slices": "Volume of ultrasound slices"}
_CHARTS = (
    "radius_histogram",
    "speed_histogram",
    "track_length_histogram",
    "resolution",
    "saturation",
    "clutter",
    "psf",
)
_WORDS = ("sample", "modality", "localizer")
"""What the table of the cohort tells of a sample that is no number for the head of its page."""

_MB_PER_MIB = 1.048576


def write_sample_report(
    sample_dir: Path,
    *,
    sample: Mapping[str, Any],
    stages: Sequence[str],
    parameters: Mapping[str, Any],
    benchmarks_dir: Path,
    out: Path,
) -> None:
    """Write the self-contained page of one sample, and its pictures under ``figures/``.

    Parameters
    ----------
    sample_dir
        The sample's folder of results.
    sample
        Its row of the sample sheet, with ``sample`` and ``modality``.
    stages
        The stages that it has, in their order.
    parameters
        The settings it was made with, nested as in the configuration.
    benchmarks_dir
        Folder of the sample's benchmark files, one ``<stage>.tsv`` a stage.
    out
        The HTML file; it appears complete or not at all.

    Raises
    ------
    UserError
        A result is there but cannot be read, or a file cannot be written.
    """
    album = _ALBUMS[sample["modality"]](sample_dir)
    if "superresolve" in stages:
        add_vessels(album, sample_dir)
    write_figures(album, sample_dir / "figures")
    summaries = _summaries(sample_dir, stages)
    sections = _picture_sections(album)
    if all(summaries.get(stage) is not None for stage in ("place", "illuminate")):
        section, stitching_album = stitching(sample_dir, spacing_um=sample["spacing_um"])
        write_figures(stitching_album, sample_dir / "figures")
        sections.append(section)
    if summaries.get("join_slices") is not None:
        sections.append(_slices_section(summaries["join_slices"]))
    sections += [
        _results_section(summaries),
        _cost_section(benchmarks_dir, stages),
        _settings_section(sample, parameters),
    ]
    page = render_page(
        str(sample["sample"]),
        _KINDS.get(sample["modality"], f"{str(sample['modality']).capitalize()} sample"),
        sections,
        f"Made by vasculome {__version__}.",
        key_numbers=[
            KeyNumber(heading(key), words(value))
            for key, value in sample_summary(sample_dir, sample=sample).items()
            if key not in _WORDS
        ],
    )
    write_bytes_atomic(out, page.encode())


KEY_NUMBERS: dict[str, tuple[tuple[str, str], ...]] = {
    "microscopy": (
        ("mask", "vessel_fraction_percent"),
        ("mask", "objects"),
        ("skeleton", "length_mm"),
        ("skeleton", "length_density_mm_mm3"),
        ("skeleton", "median_radius_um"),
        ("graph", "branch_points_per_mm3"),
        ("graph", "mean_edge_length_um"),
    ),
    "ultrasound": (
        ("localize", "localizer"),
        ("localize", "detections"),
        ("localize", "detections_per_frame"),
        ("track", "tracks"),
        ("track", "median_length_frames"),
        ("track", "median_speed_mm_s"),
        ("ulm_quality", "resolution_um"),
        ("ulm_quality", "time_to_90_s"),
    ),
    "slices": (
        ("join_slices", "slices"),
        ("join_slices", "planes"),
        ("join_slices", "plane_spacing_um"),
        ("join_slices", "saturation_percent"),
    ),
}
"""Stage and key, in the summary of its manifest, of the numbers that stand for a sample."""


def sample_summary(sample_dir: Path, *, sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return the key numbers of a sample for the cohort's table; None where one is missing.

    Raises
    ------
    UserError
        A manifest is damaged.
    """
    keys = KEY_NUMBERS[sample["modality"]]
    summaries = _summaries(sample_dir, [stage for stage, _ in keys])
    numbers = {key: (summaries[stage] or {}).get(key) for stage, key in keys}
    return {"sample": sample["sample"], "modality": sample["modality"], **numbers}


def _summaries(folder: Path, stages: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    manifests = {stage: read_manifest(folder, stage) for stage in stages}
    return {stage: m if m is None else m["summary"] for stage, m in manifests.items()}


def _picture_sections(album: Album) -> list[Section]:
    pictures = [figure for name, figure in album.figures.items() if name not in _CHARTS]
    charts = [figure for name, figure in album.figures.items() if name in _CHARTS]
    return [
        Section("Maps", "\n".join(album.missing), pictures),
        Section("Charts", "" if charts else "There is nothing to draw.", charts),
    ]


def _slices_section(summary: Mapping[str, Any]) -> Section:
    """Tell where each slice lies; what they show is told on their own pages."""
    slices: Sequence[Mapping[str, Any]] = summary["slice_table"]
    return Section(
        "Slices",
        "Each plane of the volume is that of the nearest slice.",
        tables=[
            Table(
                "Slices of the volume, from the lowest elevation",
                [heading(key) for key in slices[0]],
                [[words(value) for value in row.values()] for row in slices],
            )
        ],
    )


def _results_section(summaries: Mapping[str, Mapping[str, Any] | None]) -> Section:
    missing = [stage for stage, summary in summaries.items() if summary is None]
    rows = [
        (stage, heading(key), words(value))
        for stage, summary in summaries.items()
        for key, value in flatten_keys(summary or {}).items()
        if not _is_long(value)
    ]
    return Section(
        "Numbers",
        "\n".join(f"Stage {stage} has not been run: it left no manifest." for stage in missing),
        tables=[Table("What each stage found", ("stage", "quantity", "value"), rows)],
    )


def _is_long(value: Any) -> bool:
    """Tell whether a value is a curve or a table rather than a number for a table."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return len(value) > 6 or any(isinstance(item, Mapping) for item in value)


def _cost_section(folder: Path, stages: Sequence[str]) -> Section:
    costs = {stage: read_benchmark(folder, stage) for stage in stages}
    rows = [
        (
            stage,
            _cell(cost, "s"),
            _cell(cost, "cpu_time"),
            _cell(cost, "max_rss", factor=_MB_PER_MIB, digits=0),
        )
        for stage, cost in costs.items()
        if cost is not None
    ]
    measured = [cost for cost in costs.values() if cost is not None]
    if measured:
        rows.append(
            (
                "all",
                number(round(sum(c.get("s", 0.0) for c in measured), 1)),
                number(round(sum(c.get("cpu_time", 0.0) for c in measured), 1)),
                number(round(max(c.get("max_rss", 0.0) for c in measured) * _MB_PER_MIB)),
            )
        )
    missing = [stage for stage, cost in costs.items() if cost is None]
    return Section(
        "Time and memory",
        "\n".join(f"Stage {stage} was not measured: it has no benchmark." for stage in missing),
        tables=[
            Table(
                "As measured by Snakemake; memory is the highest of all processes together",
                ("stage", "time (s)", "processor time (s)", "peak memory (MB)"),
                rows,
            )
        ],
    )


def _cell(cost: Mapping[str, float], column: str, *, factor: float = 1.0, digits: int = 1) -> str:
    if column not in cost:
        return MISSING
    value = round(cost[column] * factor, digits)
    return number(value if digits else int(value))


def _settings_section(sample: Mapping[str, Any], parameters: Mapping[str, Any]) -> Section:
    def rows(content: Mapping[str, Any]) -> list[tuple[str, str]]:
        return [(key, words(value)) for key, value in flatten_keys(content).items()]

    tables = [Table("The sample, from the sample sheet", ("column", "value"), rows(sample))]
    if parameters:
        tables.append(Table("Parameters of the run", ("key", "value"), rows(parameters)))
    return Section("Settings", tables=tables)
