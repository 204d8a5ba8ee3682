"""Bad configuration and bad sample sheets: one clear line before anything runs."""

from __future__ import annotations

import pytest
from tiny_project import (
    BRAIN,
    COLUMNS,
    MOSAIC,
    MOUSE,
    check_line,
    told_by,
    told_by_snakemake,
)

# What is changed in the configuration; the key, the fault and what to do, as they are told.
CONFIGS = {
    "unknown key": ({"treshold": 1}, "config: treshold", "unknown key"),
    "unknown key inside": (
        {"microscopy": {"maps": {"voxel_mm": 1.0}}},
        "config: microscopy.maps.voxel_mm",
        "unknown key",
    ),
    "wrong type": (
        {"microscopy": {"maps": {"voxel_um": "wide"}}},
        "config: microscopy.maps.voxel_um",
        "valid number",
        "'wide'",
    ),
    "unit in the value": (
        {"microscopy": {"maps": {"voxel_um": "50 um"}}},
        "config: microscopy.maps.voxel_um",
        "'50 um'",
    ),
    "a number where keys belong": (
        {"storage": 64},
        "config: storage",
        "64",
    ),
    "out of range": (
        {"microscopy": {"normalize": {"upper_percent": 150}}},
        "config: microscopy.normalize.upper_percent",
        "100",
        "150",
    ),
    "not finite": (
        {"ultrasound": {"track": {"max_speed_mm_s": float("inf")}}},
        "config: ultrasound.track.max_speed_mm_s",
        "finite",
    ),
    "unknown choice": (
        {"microscopy": {"segment": {"segmenter": "unet"}}},
        "config: microscopy.segment.segmenter",
        "'frangi', 'sato', 'student', 'student_seen' or 'teacher'",
    ),
    "no scales": (
        {"microscopy": {"segment": {"scales_um": []}}},
        "config: microscopy.segment.scales_um",
        "at least 1",
    ),
    "shards of broken chunks": (
        {"storage": {"chunk_zyx": [16, 16, 16], "shard_zyx": [32, 32, 40]}},
        "config: storage",
        "must be multiples of chunk_zyx",
    ),
    "thresholds in the wrong order": (
        {"microscopy": {"segment": {"low_threshold": 0.5, "high_threshold": 0.1}}},
        "config: microscopy.segment",
        "low_threshold must not exceed high_threshold",
    ),
    "keep_from beyond the block": (
        {"ultrasound": {"clutter": {"block_frames": 20, "keep_from": 30}}},
        "config: ultrasound.clutter",
        "keep_from is beyond block_frames",
    ),
    "no address": (
        {"compute": {"scheduler": "address"}},
        "config: compute",
        "'address' is needed",
    ),
    "no sample sheet": (
        {"samples": "nowhere.tsv"},
        "nowhere.tsv",
        "cannot read the sample sheet",
        "set 'samples' in the config",
    ),
    "sample sheet is a folder": ({"samples": "raw"}, "raw: ", "cannot read the sample sheet"),
    "sample sheet is no text": (
        {"samples": "raw/mouse.npy"},
        "raw/mouse.npy: ",
        "cannot read the sample sheet",
    ),
    "results is a file": (
        {"results": "raw/mouse.npy"},
        "raw/mouse.npy: is a file, not a folder",
        "set 'results'",
    ),
    "results is in a file": (
        {"results": "raw/mouse.npy/results"},
        "raw/mouse.npy: is a file, not a folder",
        "set 'results'",
    ),
}
THROUGH_SNAKEMAKE = ("unknown key inside", "results is in a file")

# Rows that follow the three of the finished project.
ROWS = {
    "duplicate sample": ({**BRAIN}, "line 5", "sample 'brain' is listed twice", "its own name"),
    "unknown modality": ({**BRAIN, "modality": "mri"}, "line 5", "modality", "'mri'"),
    "unknown format": ({**BRAIN, "format": "czi"}, "line 5", "format", "'czi'"),
    "format of the other modality": (
        {**BRAIN, "format": "iq"},
        "line 5",
        "format iq does not belong to modality microscopy",
    ),
    "unknown column": ({**BRAIN, "voxels": "2"}, "samples.tsv", "unknown column 'voxels'"),
    "unit in a cell": ({**BRAIN, "spacing_um": "4um,2um,2um"}, "line 5", "spacing_um", "'4um'"),
    "two spacings for a volume": (
        {**BRAIN, "spacing_um": "4,2"},
        "line 5",
        "spacing_um needs 3 numbers",
    ),
    "negative spacing": ({**BRAIN, "spacing_um": "4,-2,2"}, "line 5", "spacing_um", "'-2'"),
    "name that leaves the folder": (
        {**BRAIN, "sample": "../brain"},
        "line 5",
        "sample",
        "'../brain'",
    ),
    "no path": ({**BRAIN, "sample": "new", "path": ""}, "line 5", "path: is missing"),
    "no axes": ({**MOUSE, "sample": "new", "axes": ""}, "line 5", "axes must name each of t, x, z"),
    "axes named twice": ({**MOUSE, "sample": "new", "axes": "tzz"}, "line 5", "got 'tzz'"),
    "frame rate of a volume": (
        {**BRAIN, "sample": "new", "frame_rate_hz": "1000"},
        "line 5",
        "frame_rate_hz is for ultrasound samples",
    ),
    "frame rate is no number": (
        {**MOUSE, "sample": "new", "frame_rate_hz": "1 kHz"},
        "line 5",
        "frame_rate_hz",
        "'1 kHz'",
    ),
    "pose of too few numbers": (
        {**BRAIN, "sample": "new", "pose_mm": "1,2"},
        "line 5",
        "pose_mm needs as many numbers as spacing_um",
    ),
}
SHEETS = {
    "no samples": ("\t".join(COLUMNS), "samples.tsv: no samples", "one line a sample"),
    "empty": ("", "samples.tsv: no samples"),
    "separated by spaces": (
        "sample modality path format spacing_um\nbrain microscopy raw tiff_planes 4,2,2\n",
        "samples.tsv: unknown column",
    ),
    "no header": ("brain\tmicroscopy\traw/brain\ttiff_planes\t4,2,2\n" * 2, "unknown column"),
    "column missing": (
        "sample\tmodality\tpath\tformat\nbrain\tmicroscopy\traw/brain\ttiff_planes\n",
        "column 'spacing_um' is missing",
    ),
    "more cells than columns": (
        "sample\tmodality\tpath\tformat\tspacing_um\n"
        "brain\tmicroscopy\traw\tbrain\ttiff_planes\t4,2,2\n",
        "line 2",
        "6 cells under 5 columns",
        "single tabs",
    ),
}


@pytest.mark.parametrize("fault", CONFIGS)
def test_configuration(project, fault):
    changes, *told = CONFIGS[fault]
    project.write_config(changes)
    check_line(told_by(project.run_stage("ingest_image", "brain")), *told)


@pytest.mark.parametrize("fault", THROUGH_SNAKEMAKE)
def test_configuration_through_snakemake(project, fault):
    changes, *told = CONFIGS[fault]
    project.write_config(changes)
    check_line(told_by_snakemake(project.run()), *told)


@pytest.mark.parametrize("fault", ROWS)
def test_row_of_the_sample_sheet(project, fault):
    row, *told = ROWS[fault]
    project.write_samples(BRAIN, MOSAIC, MOUSE, row)
    check_line(told_by(project.run_stage("ingest_image", "brain")), "samples.tsv", *told)


@pytest.mark.parametrize("fault", SHEETS)
def test_sample_sheet(project, fault):
    text, *told = SHEETS[fault]
    (project.folder / "samples.tsv").write_text(text)
    check_line(told_by(project.run_stage("ingest_image", "brain")), "samples.tsv", *told)


def test_row_through_snakemake(project):
    row, *told = ROWS["duplicate sample"]
    project.write_samples(BRAIN, MOSAIC, MOUSE, row)
    check_line(told_by_snakemake(project.run("-n")), "samples.tsv", *told)
