"""Samples of the same raw data beside each other in the report of the cohort."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vasculome.config import Sample, SliceStack, parse_samples
from vasculome.geometry import Box
from vasculome.report import panels
from vasculome.report.beside import NUMBERS, beside, same_raw
from vasculome.report.cohort import write_cohort_report
from vasculome.storage.omezarr import ImageSpec, create_image

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    monkeypatch.setattr(panels, "DPI", 50)


def _sample(name, path="raw/a.npy", **columns):
    row = {"modality": "ultrasound", "format": "iq", "spacing_um": (50.0, 50.0), "axes": "tzx"}
    return Sample(sample=name, path=path, **row | columns)


def _names(groups):
    return [[sample.sample for sample in group] for group in groups]


def test_samples_of_the_same_raw_data_are_found():
    slices = [_sample("f", "raw/c.npy", volume="v", elevation_mm=z) for z in (0.0, 1.0)]
    brain = {"modality": "microscopy", "format": "tiff_planes", "spacing_um": (5.0, 2.0, 2.0)}
    samples = [
        _sample("a"),
        _sample("alone", "raw/b.npy"),
        _sample("b", "./raw/../raw/a.npy", localizer="stulm", pose_mm=(1.0, 2.0)),
        # What it is taken for makes other raw data of the same file.
        _sample("wide", spacing_um=(60.0, 50.0)),
        _sample("fast", frame_rate_hz=2000.0),
        Sample(sample="m", path="raw/m", channel=0, axes=None, **brain),
        Sample(sample="n", path="raw/m", channel=0, axes=None, **brain),
        slices[0],
        SliceStack("v", tuple(slices)),
    ]
    assert _names(same_raw(samples)) == [["a", "b"]]
    assert _names(same_raw([*samples, _sample("c", "raw/b.npy")])) == [["a", "b"], ["alone", "c"]]


def test_the_demonstration_shows_a_network_beside_what_is_conventional():
    sheet = ROOT / "config/demo/samples.tsv"
    (group,) = same_raw(parse_samples(sheet.read_text(), where="demo"))
    assert [sample.localizer for sample in group] == [None, "stulm"]


def _result(results, name, density, **numbers):
    path = results / name / "maps/density.ome.zarr"
    values = density.astype(np.float32)
    spec = ImageSpec(
        shape=values.shape,
        dtype="float32",
        axes=("z", "x"),
        spacing_um=(5.0, 5.0),
        chunk=(16, 16),
        shard=(32, 32),
        reduce="mean",
        name="density",
    )
    image = create_image(path, spec)
    image.write(Box.of_shape(values.shape), values)
    image.finish_levels()
    for stage in {stage for stage, _ in NUMBERS}:
        summary = {key: numbers[key] for s, key in NUMBERS if s == stage and key in numbers}
        manifest = results / name / f"manifests/{stage}.json"
        manifest.parent.mkdir(exist_ok=True)
        manifest.write_text(json.dumps({"stage": stage, "summary": summary}))


def _brightness(figure):
    """Return the mean brightness of the map: left of the scale, beneath the title."""
    grey = np.asarray(Image.open(io.BytesIO(figure.png)).convert("L"), float)
    height, width = grey.shape
    return grey[int(0.15 * height) : int(0.85 * height), int(0.1 * width) : int(0.7 * width)].mean()


def test_maps_share_a_scale(tmp_path):
    few = np.random.default_rng(0).poisson(1.0, (40, 40))
    _result(tmp_path, "few", few)
    _result(tmp_path, "same", few)
    _result(tmp_path, "many", 9 * few)
    _, alike = beside(tmp_path, ["few", "same"])
    assert _brightness(alike.figures["few"]) == _brightness(alike.figures["same"])
    _, unlike = beside(tmp_path, ["few", "many"])
    _, alone = beside(tmp_path, ["many"])
    # Nine times the density, square-root compressed.
    assert _brightness(unlike.figures["few"]) < 0.6 * _brightness(alike.figures["few"])
    assert _brightness(unlike.figures["many"]) == _brightness(alone.figures["many"])


def test_numbers_stand_in_one_table(tmp_path):
    density = np.ones((40, 40))
    _result(tmp_path, "a", density, localizer="radial_symmetry", tracks=12, resolution_um=14.25)
    _result(tmp_path, "b", density, localizer="stulm", tracks=34, filled_percent=1.5)
    section, _ = beside(tmp_path, ["a", "b"])
    assert section.title == "Side by side: a, b"
    (table,) = section.tables
    by_heading = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [row["sample"] for row in by_heading] == ["a", "b"]
    assert [row["localizer"] for row in by_heading] == ["radial_symmetry", "stulm"]
    assert [row["tracks"] for row in by_heading] == ["12", "34"]
    assert [row["resolution (µm)"] for row in by_heading] == ["14.25", "–"]
    assert [row["filled (%)"] for row in by_heading] == ["–", "1.5"]
    assert [f.caption.split(":")[0] for f in section.figures] == [
        "a, localizer radial_symmetry",
        "b, localizer stulm",
    ]


def test_a_map_that_is_missing_is_said_in_words(tmp_path):
    _result(tmp_path, "a", np.ones((40, 40)))
    section, album = beside(tmp_path, ["a", "b"])
    assert list(album.figures) == ["a"]
    assert "No density map of b: density.ome.zarr is not among the results." in section.text
    assert section.tables[0].rows[1] == ["b", *["–"] * len(NUMBERS)]


def test_the_page_of_the_cohort_holds_them(tmp_path):
    for name in ("a", "b"):
        _result(tmp_path, name, np.ones((40, 40)))
    summaries = [{"sample": name, "modality": "ultrasound"} for name in ("a", "b")]
    table, page = tmp_path / "cohort/summary.tsv", tmp_path / "cohort/report.html"
    write_cohort_report(summaries, table, page, side_by_side=[beside(tmp_path, ["a", "b"])])
    html = page.read_text("utf-8")
    assert '<section id="side-by-side-a-b"' in html
    assert html.count("<img ") == 2
    assert {path.name for path in (tmp_path / "cohort/figures").iterdir()} == {"a.png", "b.png"}
