"""Samples of the same raw data beside each other in the report of the cohort."""

import json
from pathlib import Path

import numpy as np
import pytest

from vasculome.config import Sample, SliceStack, parse_samples
from vasculome.geometry import Box
from vasculome.report import panels
from vasculome.report.beside import NUMBERS, beside, same_raw
from vasculome.report.cohort import write_cohort_report
from vasculome.storage.bundles import write_bundle
from vasculome.storage.omezarr import ImageSpec, create_image

ROOT = Path(__file__).parents[3]
CURVES = {
    "frequency_per_um": np.array([0.0, 0.05, 0.1]),
    "correlation": np.array([1.0, 0.5, 0.0]),
    "threshold": np.array([0.5, 0.5, 0.5]),
    "time_s": np.array([1.0, 2.0]),
    "filled": np.array([0.1, 0.15]),
}


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


def test_numbers_stand_in_one_table(tmp_path):
    density = np.ones((40, 40))
    _result(tmp_path, "a", density, localizer="radial_symmetry", tracks=12, resolution_um=14.25)
    _result(tmp_path, "b", density, localizer="stulm", tracks=34, filled_percent=1.5)
    section, _ = beside(tmp_path, ["a", "b"])
    assert section.title == "Side by side: a, b"
    (table,) = section.tables
    assert table.header == ["quantity", "a: radial_symmetry", "b: stulm"]
    told = {name: values for name, *values in table.rows}
    assert len(told) == len(NUMBERS) - 1
    assert told["tracks"] == ["12", "34"]
    assert told["resolution (µm)"] == ["14.25", "–"]
    assert told["filled (%)"] == ["–", "1.5"]
    assert table.numeric[1:] == [True, True]


def test_a_map_that_is_missing_is_said_in_words(tmp_path):
    _result(tmp_path, "a", np.ones((40, 40)))
    section, album = beside(tmp_path, ["a", "b"])
    assert list(album.figures) == ["a_maps"]
    assert "No density map of b: density.ome.zarr is not among the results." in section.text
    assert "detail" not in section.text
    assert {row[2] for row in section.tables[0].rows} == {"–"}


def test_why_there_is_no_detail_is_said_in_words(tmp_path):
    for name, shape in [("a", (40, 40)), ("same", (40, 40)), ("larger", (50, 50))]:
        _result(tmp_path, name, np.ones(shape))
    assert (
        "No detail of the maps: the maps are the same." in beside(tmp_path, ["a", "same"])[0].text
    )
    other, album = beside(tmp_path, ["a", "larger"])
    assert "No detail of the maps: the maps have different pixels." in other.text
    assert "white" not in album.figures["a_maps"].caption


def test_all_pictures_are_there(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        _result(tmp_path, name, rng.poisson(1.0, (40, 40)), resolution_um=20.0)
        write_bundle(tmp_path / name / "quality/curves.npz", CURVES)
    for names in ("ab", "abc"):
        section, album = beside(tmp_path, names)
        assert list(album.figures) == ["a_maps", "a_detail", "a_quality"]
        assert album.missing == []
        assert ("white" in section.figures[0].caption) == (len(names) == 2)


def test_the_page_of_the_cohort_holds_them(tmp_path):
    _result(tmp_path, "a", np.ones((40, 40)))
    _result(tmp_path, "b", np.eye(40))
    summaries = [{"sample": name, "modality": "ultrasound"} for name in ("a", "b")]
    table, page = tmp_path / "cohort/summary.tsv", tmp_path / "cohort/report.html"
    write_cohort_report(summaries, table, page, side_by_side=[beside(tmp_path, ["a", "b"])])
    html = page.read_text("utf-8")
    assert '<section id="side-by-side-a-b"' in html
    assert html.count("<img ") == 2
    figures = {path.name for path in (tmp_path / "cohort/figures").iterdir()}
    assert figures == {"a_maps.png", "a_detail.png"}
