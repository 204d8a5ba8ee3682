import io
import re

import numpy as np
import pytest
from PIL import Image

from vasculome.errors import UserError
from vasculome.report import charts, mosaic, panels
from vasculome.report.flat_field import flat_field_figure
from vasculome.report.mosaic import Shading
from vasculome.report.sample import write_sample_report
from vasculome.report.stitching_pictures import stitching
from vasculome.storage.bundles import write_bundle
from vasculome.storage.tables import read_table, write_table

SPACING_UM = (4.0, 2.0, 2.0)
STAGES = ("register", "place", "illuminate", "ingest_image")
PICTURES = {"tile_displacements", "residuals", "overlaps", "flat_field", "tile_gains"}


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    for room in (panels, charts):
        monkeypatch.setattr(room, "DPI", 50)


def _report(folder, stages=STAGES):
    out = folder / "report.html"
    sample = {"sample": "m", "modality": "microscopy", "spacing_um": list(SPACING_UM)}
    write_sample_report(
        folder, sample=sample, stages=stages, parameters={}, benchmarks_dir=folder, out=out
    )
    return out.read_text("utf-8")


def _part(html):
    return html.split('<section id="stitching"')[1].split("</section>")[0]


def _pictures(folder):
    return {path.stem for path in (folder / "figures").glob("*.png")}


def test_the_page_names_every_faulty_tile_and_has_all_pictures(tmp_path, faulty):
    html = _report(faulty.write(tmp_path))
    part = _part(html)
    for tile in (1, 2, 15, 20, 26, 29):
        assert faulty.name(tile) in part
    assert _pictures(tmp_path) == PICTURES
    assert part.count("<img ") == len(PICTURES)
    for name in PICTURES:
        png = (tmp_path / "figures" / f"{name}.png").read_bytes()
        assert np.asarray(Image.open(io.BytesIO(png)).convert("L")).std() > 5
    assert html.count("<table>") == part.count("<table>") + 3
    for file in (mosaic.TILES, mosaic.EDGES):
        assert file in part


def test_tiles_placed_by_the_stage_are_marked_at_the_head_of_the_page_too(tmp_path, faulty):
    html = _report(faulty.write(tmp_path))
    head = html.split("<main>")[1].split("<section")[0]
    assert 'class="alert"' in head
    assert '<a href="#stitching">' in head
    assert "1 of 30 tiles placed by the stage alone." in head
    notes = re.findall(r'<p class="alert" role="note"><strong>(.*?)</strong>(.*?)</p>', _part(html))
    assert [sentence for sentence, _ in notes] == [
        "1 of 30 tiles placed by the stage alone.",
        "2 of 30 tiles left out as dark.",
    ]
    assert faulty.name(29) in notes[0][1]


def test_a_sound_mosaic_has_no_alert(tmp_path, stitched):
    html = _report(stitched(2, 2).write(tmp_path))
    assert 'class="alert"' not in html
    assert "Every tile has an image" in _part(html)
    assert _pictures(tmp_path) == PICTURES


def test_a_single_volume_has_no_such_part(tmp_path, stitched):
    folder = stitched(2, 2).write(tmp_path)
    html = _report(folder, stages=("ingest_image",))
    assert 'id="stitching"' not in html
    assert "tile_displacements" not in _pictures(folder)


def test_without_pairs_and_light_the_page_says_so(tmp_path, stitched):
    folder = stitched(2, 3, neighbours=False).write(tmp_path)
    (folder / mosaic.SHADING).unlink()
    table = read_table(folder / mosaic.GAINS)
    write_table(folder / mosaic.GAINS, table | {"gain": np.ones(6)})
    part = _part(_report(folder))
    assert f"No histogram of residuals: no pair in {mosaic.EDGES} was accepted." in part
    assert "No views of overlaps: no two tiles overlap." in part
    assert "No flat field: there is no light/shading.npz" in part
    assert "No map of the tiles&#39; brightness: no differences" in part
    assert _pictures(folder) == {"tile_displacements"}
    assert part.count("<table>") == 1


def test_an_even_flat_field_is_said_in_words(tmp_path, stitched):
    folder = stitched(2, 2).write(tmp_path)
    even = {"flat": np.ones((100, 120), np.float32), "dark": np.array(100.0)}
    write_bundle(folder / mosaic.SHADING, even)
    assert "No flat field: none was taken out of the tiles." in _part(_report(folder))


@pytest.mark.parametrize("name", [mosaic.TILES, mosaic.CROPS, mosaic.GAINS])
def test_a_damaged_file_ends_the_report_in_an_error_that_names_it(tmp_path, faulty, name):
    path = faulty.write(tmp_path) / name
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=path.name):
        _report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_same_results_give_the_same_bytes(tmp_path, faulty):
    faulty.write(tmp_path)
    assert _report(tmp_path) == _report(tmp_path)


def test_names_of_tiles_stay_text(tmp_path, stitched, monkeypatch):
    monkeypatch.setattr(stitched, "name", lambda _, tile: f"<img src=x>{tile}")
    html = _report(stitched(2, 3, dark=(1,)).write(tmp_path))
    assert "<img src=x>" not in html
    assert "&lt;img src=x&gt;1" in html


def test_thousands_of_tiles_have_few_rows_and_arrows(tmp_path, stitched):
    folder = stitched(45, 45, dark=tuple(range(30))).write(tmp_path)
    section, album = stitching(folder, spacing_um=SPACING_UM)
    assert set(album.figures) == PICTURES
    faults, pairs = section.tables
    assert len(pairs.rows) == 25
    assert sum(len(cell) for row in faults.rows for cell in row) < 2000


def test_the_flat_field_has_contours_of_its_values_at_their_places():
    flat = np.tile(np.linspace(0.8, 1.2, 800, dtype=np.float32), (600, 1))
    axes = flat_field_figure(Shading(flat, 100.0), spacing_um=(4.0, 2.0, 3.0)).axes[0]
    (contours,) = [c for c in axes.collections if hasattr(c, "levels")]
    assert len(contours.levels) >= 4
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        # Brightness rises along x alone: each contour is a vertical line where it is reached.
        np.testing.assert_allclose(path.vertices[:, 0], (level - 0.8) / 0.4 * 2400, atol=10)
    assert {text.get_text() for text in axes.texts} >= {"1", "0.9"}


def test_a_flat_field_of_rounding_errors_has_no_hills():
    flat = 1 + 1e-7 * np.random.default_rng(0).normal(size=(50, 60)).astype(np.float32)
    axes = flat_field_figure(Shading(flat, 0.0), spacing_um=SPACING_UM).axes[0]
    assert np.ptp(axes.images[0].cmap(axes.images[0].norm(flat)), axis=(0, 1)).max() < 0.01
    assert not [c for c in axes.collections if hasattr(c, "levels")]
