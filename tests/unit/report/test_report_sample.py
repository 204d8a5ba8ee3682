import importlib
import inspect
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vasculome.config import Sample
from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.report import charts, flow_pictures, panels, vessel_pictures
from vasculome.report.cohort import write_cohort_report
from vasculome.report.sample import KEY_NUMBERS, sample_summary, write_sample_report
from vasculome.report.sources import picture_level, read_benchmark, read_volume
from vasculome.stages import skeleton, track, ulm_quality
from vasculome.stages.catalog import stages_of
from vasculome.storage.bundles import write_bundle
from vasculome.storage.omezarr import ImageSpec, create_image, open_image
from vasculome.storage.tables import part_path, read_table, write_table


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    for room in (panels, charts):
        monkeypatch.setattr(room, "DPI", 50)


STAGES = {
    "microscopy": stages_of(
        Sample(sample="m", modality="microscopy", path="m", format="tiff_stack", spacing_um="4,2,2")
    ),
    "ultrasound": stages_of(
        Sample(
            sample="u", modality="ultrasound", path="u", format="iq", spacing_um="50,50", axes="tzx"
        )
    ),
}
PARAMETERS = {"segment": {"scales_um": [2.0, 4.0]}, "note": "<b>bold</b>"}


def _image(path, values, spacing_um, origin_um=None):
    spec = ImageSpec(
        shape=values.shape,
        dtype=str(values.dtype),
        axes=("z", "y", "x") if values.ndim == 3 else ("z", "x"),
        spacing_um=spacing_um,
        chunk=(8,) * values.ndim,
        shard=(16,) * values.ndim,
        reduce="mean",
        name=path.name,
        origin_um=origin_um,
    )
    image = create_image(path, spec)
    image.write(Box.of_shape(values.shape), values)
    image.finish_levels()


def _manifests(folder, modality):
    (folder / "manifests").mkdir(parents=True)
    for stage in STAGES[modality]:
        summary = {key: 1234.5 for s, key in KEY_NUMBERS[modality] if s == stage}
        manifest = {"stage": stage, "digest": "d", "content": "c", "summary": summary}
        (folder / "manifests" / f"{stage}.json").write_text(json.dumps(manifest))


def _benchmarks(folder, modality):
    folder.mkdir(parents=True, exist_ok=True)
    for seconds, stage in enumerate(STAGES[modality], start=1):
        (folder / f"{stage}.tsv").write_text(
            "s\th:m:s\tmax_rss\tio_in\tcpu_time\n" + f"{seconds}.5\t0:00:01\t100.0\tNA\t{seconds}\n"
        )


def _skeleton_part(folder, number, points):
    columns = dict(zip(("z_um", "y_um", "x_um"), points.T, strict=True))
    ones = np.ones(len(points))
    table = {**columns, "radius_um": 3 * ones, "length_um": 2 * ones}
    write_table(part_path(folder / "skeleton_points", number), table)


@pytest.fixture
def microscopy(tmp_path):
    folder = tmp_path / "results" / "m1"
    mask = np.zeros((20, 24, 32), np.uint8)
    mask[10, 12, :] = mask[:, 6, 16] = 1
    spacing, origin = (4.0, 2.0, 2.0), (1000.0, 2000.0, 3000.0)
    noise = np.random.default_rng(0).integers(0, 100, mask.shape)
    _image(
        folder / "image.ome.zarr",
        (900 * mask.astype(int) + noise).astype(np.uint16),
        spacing,
        origin,
    )
    _image(folder / "mask.ome.zarr", mask, spacing, origin)
    points = np.argwhere(mask) * spacing + origin
    _skeleton_part(folder, 0, points[::2])
    _skeleton_part(folder, 1, points[1::2])
    for name in ("vessel_fraction", "length_density", "mean_radius"):
        values = np.random.default_rng(1).random((4, 5, 6)).astype(np.float32)
        _image(folder / "maps" / f"{name}.ome.zarr", values, (20.0, 10.0, 10.0))
    _manifests(folder, "microscopy")
    _benchmarks(tmp_path / "benchmarks", "microscopy")
    return folder, {"sample": "m1", "modality": "microscopy"}, tmp_path / "benchmarks"


@pytest.fixture
def ultrasound(tmp_path):
    folder = tmp_path / "results" / "u1"
    rng = np.random.default_rng(0)
    density = rng.poisson(0.5, (40, 30)).astype(np.float32)
    for name in ("density", "speed", "speed_error", "velocity_z", "velocity_x"):
        values = density if name == "density" else rng.normal(size=density.shape).astype("f4")
        _image(folder / "maps" / f"{name}.ome.zarr", np.abs(values), (5.0, 5.0))
    _image(folder / "maps" / "power_doppler.ome.zarr", density[::10, ::10].copy(), (50.0, 50.0))
    for number in range(2):
        table = {"track": np.repeat(np.arange(4), 12) + 4 * number, "frame": np.arange(48) % 12}
        flow = {"vz_mm_s": np.full(48, 3.0), "vx_mm_s": np.full(48, 4.0)}
        write_table(part_path(folder / "tracks", number), {**table, **flow})
    rising = np.linspace(0.1, 1, 5)
    curves = {
        "frequency_per_um": rising,
        "correlation": 1 - rising,
        "threshold": 0.3 * np.ones(5),
        "time_s": rising,
        "filled": rising / 2,
    }
    write_bundle(folder / "quality" / "curves.npz", curves)
    _manifests(folder, "ultrasound")
    _benchmarks(tmp_path / "benchmarks", "ultrasound")
    return folder, {"sample": "u1", "modality": "ultrasound"}, tmp_path / "benchmarks"


def _report(made):
    folder, sample, benchmarks = made
    out = folder / "report.html"
    write_sample_report(
        folder,
        sample=sample,
        stages=STAGES[sample["modality"]],
        parameters=PARAMETERS,
        benchmarks_dir=benchmarks,
        out=out,
    )
    return out.read_text("utf-8")


def _pictures(folder):
    return {path.stem for path in (folder / "figures").glob("*.png")}


def test_a_microscopy_report_has_all_pictures_and_tables(microscopy):
    html = _report(microscopy)
    names = {"overview", "vessel_fraction", "length_density", "mean_radius", "radius_histogram"}
    assert _pictures(microscopy[0]) == names
    assert html.count("<img ") == len(names)
    assert "No " not in html.split("<main>")[1].split("<footer>")[0]
    assert "segment.scales_um" in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    for name in names:
        png = (microscopy[0] / "figures" / f"{name}.png").read_bytes()
        assert np.asarray(Image.open(io.BytesIO(png)).convert("L")).std() > 5


def test_the_skeleton_is_drawn_where_the_sample_lies(microscopy):
    """Tables hold positions from the animal's origin, pictures begin at voxel 0."""
    _report(microscopy)
    png = (microscopy[0] / "figures" / "overview.png").read_bytes()
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    left = pixels[:, : int(pixels.shape[1] * 0.85)]
    assert (np.ptp(left, axis=2) > 100).sum() > 50


def test_an_ultrasound_report_has_all_pictures_and_tables(ultrasound):
    html = _report(ultrasound)
    names = {"density", "speed", "speed_error", "direction", "axial_velocity"}
    names |= {"speed_histogram", "track_length_histogram", "resolution", "saturation"}
    assert _pictures(ultrasound[0]) == names
    assert "No singular vectors: the clutter filter made no use of any." in html
    assert "No picture of the echo of a bubble: psf.npz is not among the results." in html


def test_vessels_by_network_are_drawn_beside_the_density_where_they_are_asked_for(
    ultrasound, monkeypatch
):
    folder = ultrasound[0]
    assert "vessels" not in _report(ultrasound).split("<main>")[1].lower()
    probability = np.zeros((48, 40), np.float32)
    probability[:, 20] = 1
    _image(folder / "maps" / "vessel_probability.ome.zarr", probability, (4.0, 4.0))
    # What an earlier run has left is not shown.
    _report(ultrasound)
    assert "vessel_probability" not in _pictures(folder)
    monkeypatch.setitem(STAGES, "ultrasound", (*STAGES["ultrasound"], "superresolve"))
    assert "Stage superresolve has not been run" in _report(ultrasound)
    assert "vessel_probability" in _pictures(folder)
    picture = np.asarray(Image.open(folder / "figures/vessel_probability.png").convert("L"))
    left, right = np.array_split(picture, 2, axis=1)
    # A white line down the middle, on black: the last picture, with the density on its left.
    middle = right[right.shape[0] // 2, : int(0.75 * right.shape[1])]
    assert 0 < (middle > 250).sum() < 0.1 * len(middle) and np.median(middle) < 30
    assert len(np.unique(left)) > 20
    shutil.rmtree(folder / "maps" / "density.ome.zarr")
    _report(ultrasound)
    alone = np.asarray(Image.open(folder / "figures/vessel_probability.png"))
    assert alone.shape[1] < picture.shape[1]


CUT = {"keep_from": 2, "keep_to": None, "keep_from_centroid": 2, "keep_to_noise": 3}
CUT |= {"keep_from_similarity": 2, "keep_to_similarity": 3}


def _calibrated(folder, summary):
    bounds = {name: np.array([90.0, 9.0, 1.0]) for name in ("singular_values", "centroid_hz")}
    bounds |= {"similarity": np.eye(3), "noise_value": np.array(2.0)}
    write_bundle(
        folder / "calibration" / "bounds.npz", bounds | {"tissue_below_hz": np.array(50.0)}
    )
    path = folder / "manifests" / "calibrate.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"summary": CUT | summary}))


def test_the_calibration_is_drawn(ultrasound):
    folder = ultrasound[0]
    _calibrated(folder, {"psf": "estimated", "psf_bubbles": [31], "lateral_fwhm_um": [130.0]})
    line = np.exp(-0.5 * np.arange(-2, 3) ** 2)
    echo = {"echoes": np.outer(line, line)[None], "fwhm_um": np.array([[118.0, 130.0]])}
    echo |= {"spacing_um": np.array([50.0, 50.0]), "wavelength_um": np.array(100.0)}
    echo |= {"depth_um": np.array([900.0]), "bubbles": np.array([31])}
    write_bundle(folder / "calibration" / "psf.npz", echo)
    html = _report(ultrasound)
    assert {"clutter", "psf"} <= _pictures(folder)
    assert "the mean of isolated bubbles in the first block" in html
    assert "lateral fwhm (µm)" in html


def test_an_echo_that_is_not_known_is_said_in_words(ultrasound):
    _calibrated(ultrasound[0], {"psf": "unknown", "psf_unknown_because": "only 3 isolated bubbles"})
    html = _report(ultrasound)
    assert "The echo of a single bubble is not known: only 3 isolated bubbles." in html
    assert "psf" not in _pictures(ultrasound[0])


def test_time_and_memory_are_summed_over_stages(tmp_path):
    _benchmarks(tmp_path / "benchmarks", "ultrasound")
    sample = {"sample": "u1", "modality": "ultrasound"}
    html = _report((tmp_path / "u1", sample, tmp_path / "benchmarks"))
    rows = html.split("Time and memory</h2>")[1].split("</table>")[0]
    total = rows.split('<th scope="row">all</th>')[1]
    # 1.5 + 2.5 + ... s, 1 + 2 + ... s of processor time, 100 MiB at most.
    n = len(STAGES["ultrasound"])
    processor_s = n * (n + 1) / 2
    expected = [f"{processor_s + n / 2:g}", f"{processor_s:g}", "105"]
    assert [cell.split("<")[0] for cell in total.split('"number">')[1:]] == expected


def test_missing_pieces_are_said_in_words(ultrasound):
    folder, _, benchmarks = ultrasound
    for name in ("velocity_x", "power_doppler"):
        (folder / "maps" / f"{name}.ome.zarr").rename(folder / f"{name}.away")
    shutil.rmtree(folder / "tracks")
    (folder / "manifests" / "track.json").unlink()
    (benchmarks / "track.tsv").unlink()
    html = _report(ultrasound)
    assert "No direction map: velocity_x.ome.zarr is not among the results." in html
    assert "No power Doppler picture: power_doppler.ome.zarr is not among the results." in html
    assert "No histogram of speeds: tracks is not among the results." in html
    assert "Stage track has not been run" in html
    assert "Stage track was not measured" in html
    kept = {"density", "speed", "speed_error", "axial_velocity", "resolution", "saturation"}
    assert _pictures(folder) == kept


def test_an_empty_skeleton_is_said_in_words(microscopy):
    folder = microscopy[0]
    for number in range(2):
        _skeleton_part(folder, number, np.empty((0, 3)))
    html = _report(microscopy)
    assert "No histogram of radii: the skeleton is empty." in html
    assert "overview" in _pictures(folder)


def test_no_results_at_all_still_make_a_page(tmp_path):
    sample = {"sample": "m2", "modality": "microscopy"}
    html = _report((tmp_path / "m2", sample, tmp_path / "none"))
    assert "<img" not in html
    assert html.count("is not among the results.") == 7


def test_a_damaged_result_is_an_error_that_names_it(microscopy):
    folder = microscopy[0]
    (folder / "manifests" / "mask.json").write_text("{")
    with pytest.raises(UserError, match=r"mask\.json"):
        _report(microscopy)


def test_the_same_results_give_the_same_bytes(ultrasound):
    assert _report(ultrasound) == _report(ultrasound)


def test_pictures_are_read_from_a_level_that_is_small_enough(tmp_path):
    values = np.arange(32 * 32 * 32, dtype=np.uint16).reshape(32, 32, 32)
    path = tmp_path / "a.ome.zarr"
    _image(path, values, (2.0, 1.0, 1.0))
    image = open_image(path)
    assert picture_level(image, max_voxels=32**3) == 0
    for limit in (32**3 - 1, 5000, 1000):
        volume = read_volume(path, max_voxels=limit)
        assert volume.values.size <= limit
        np.testing.assert_allclose(volume.extent_um, (64.0, 32.0, 32.0))
    with pytest.raises(UserError, match="too large"):
        read_volume(path, max_voxels=10)


def test_benchmarks_keep_the_numbers_of_the_last_repeat(tmp_path):
    (tmp_path / "a.tsv").write_text("s\th:m:s\tio_in\n1.0\t0:00:01\tNA\n2.0\t0:00:02\tNA\n")
    assert read_benchmark(tmp_path, "a") == {"s": 2.0}
    assert read_benchmark(tmp_path, "b") is None


def test_charts_count_as_the_stages_do():
    assert vessel_pictures.RADIUS_BIN_UM == skeleton.RADIUS_BIN_UM
    assert flow_pictures.SPEED_BIN_MM_S == track.SPEED_BIN_MM_S
    assert vessel_pictures.POINTS == skeleton.POINTS
    assert flow_pictures.TRACKS == track.TRACKS
    assert (flow_pictures.QUALITY, flow_pictures.CURVES) == (
        ulm_quality.QUALITY,
        ulm_quality.CURVES,
    )


def test_key_numbers_are_those_that_stages_record():
    for entries in KEY_NUMBERS.values():
        for stage, key in entries:
            source = inspect.getsource(importlib.import_module(f"vasculome.stages.{stage}"))
            assert f'"{key}"' in source


def test_a_coarse_picture_keeps_the_widest_vessel_of_each_voxel(microscopy, monkeypatch):
    monkeypatch.setattr(vessel_pictures, "MAX_VOXELS", 4000)
    folder = microscopy[0]
    points = np.array([[4.0, 8.0, 16.0], [4.0, 10.0, 18.0], [76.0, 46.0, 62.0]])
    _skeleton_part(folder, 0, points + np.array([1000.0, 2000.0, 3000.0]))
    _skeleton_part(folder, 1, np.empty((0, 3)))
    table = read_table(part_path(folder / "skeleton_points", 0))
    table["radius_um"] = np.array([2.0, 7.0, 1.0])
    write_table(part_path(folder / "skeleton_points", 0), table)
    drawn = vessel_pictures._skeleton(folder)
    assert drawn.spacing_um == (4.0, 4.0, 4.0)
    np.testing.assert_array_equal(drawn.radius_um, [7.0, 1.0])
    np.testing.assert_array_equal(drawn.points_um, [[4.0, 8.0, 16.0], [76.0, 44.0, 60.0]])


def test_the_cohort_is_one_row_a_sample(tmp_path, microscopy, ultrasound):
    (ultrasound[0] / "manifests" / "track.json").unlink()
    rows = [sample_summary(made[0], sample=made[1]) for made in (microscopy, ultrasound)]
    table, page = tmp_path / "cohort" / "summary.tsv", tmp_path / "cohort" / "report.html"
    write_cohort_report(rows, table, page)
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    assert [line[:2] for line in lines] == [
        ["sample", "modality"],
        ["m1", "microscopy"],
        ["u1", "ultrasound"],
    ]
    by_name = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert by_name[0]["median_radius_um"] == "1234.5"
    assert by_name[0]["detections"] == ""
    assert by_name[1]["detections"] == "1234.5"
    assert by_name[1]["tracks"] == ""
    html = page.read_text("utf-8")
    assert "median radius (µm)" in html
    assert "2 samples" in html
    assert html.count("<table>") == 2
    assert "–" in html
