"""2-D slices at known elevations: a plain `snakemake` makes their volume."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tiny_project import CONFIG, MOUSE, Project, check_line, copy_of, told_by_snakemake

from vasculome.config import parse_samples, stacks_of
from vasculome.geometry import Box
from vasculome.simulate.acquisition import make_iq
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import PointSpread
from vasculome.simulate.slices import scan_slices
from vasculome.storage.omezarr import open_image

PIXEL_UM = float(MOUSE["spacing_um"].split(",")[0])
WAVELENGTH_UM = float(MOUSE["wavelength_um"])
N_FRAMES, SHAPE = 120, (36, 36)
DEPTH_UM = {100.0: 500.0, 200.0: 900.0, 400.0: 1300.0}
"""Of a vessel along x in the plane of each slice, by elevation."""

POSE_UM = {100.0: 0.0, 200.0: 0.0, 400.0: 197.12}
"""Depth of the first pixels of each slice."""

SPEED_MM_S = 20.0
ULTRASOUND = CONFIG["ultrasound"] | {"clutter": {"block_frames": 60, "keep_from": 1}}


def _bubbles() -> BubbleTable:
    """Return bubbles that follow each other along three straight vessels, left and right."""
    frame, place, velocity, track = [], [], [], []
    n_frames = N_FRAMES * len(DEPTH_UM)
    ways = {y: SPEED_MM_S * (-1 if y == 200.0 else 1) for y in DEPTH_UM}
    length_um = SHAPE[1] * PIXEL_UM
    for (y, z), n in ((vessel, n) for vessel in DEPTH_UM.items() for n in range(3)):
        at = ways[y] * np.arange(n_frames) + n * length_um / 3
        frame.append(np.arange(n_frames))
        place.append(np.stack([np.full(n_frames, z), np.full(n_frames, y), at % length_um], axis=1))
        velocity.append(np.tile([0.0, 0.0, ways[y]], (n_frames, 1)))
        # One that leaves on one side is followed by another one on the other.
        track.append(1000 * len(track) + np.abs(at // length_um).astype(int))
    order = np.argsort(np.concatenate(frame), kind="stable")
    return BubbleTable(
        track=np.unique(np.concatenate(track), return_inverse=True)[1][order],
        frame=np.concatenate(frame)[order],
        position_um=np.concatenate(place)[order],
        velocity_mm_s=np.concatenate(velocity)[order],
        amplitude=np.ones(len(order), np.float32),
    )


def _rows() -> list[dict[str, str]]:
    return [
        MOUSE
        | {
            "sample": f"slice{y:.0f}",
            "path": f"raw/slice{y:.0f}.npy",
            "volume": "head",
            "elevation_mm": f"{y / 1000:g}",
            "pose_mm": f"{POSE_UM[y] / 1000:g},0",
        }
        for y in DEPTH_UM
    ]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory) -> Project:
    """A project of three slices that has run to its end; not to be changed."""
    project = Project(tmp_path_factory.mktemp("scanned"))
    (project.folder / "raw").mkdir()
    seen = scan_slices(_bubbles(), elevation_um=[*DEPTH_UM], thickness_um=60.0, n_frames=N_FRAMES)
    for row, z_um, bubbles in zip(_rows(), POSE_UM.values(), seen, strict=True):
        iq = make_iq(
            bubbles,
            shape=SHAPE,
            n_frames=N_FRAMES,
            spacing_um=(PIXEL_UM, PIXEL_UM),
            origin_um=(z_um, 0.0),
            frame_rate_hz=1000.0,
            psf=PointSpread.typical(WAVELENGTH_UM),
            seed=1,
            clutter_db=-np.inf,
        )
        np.save(project.folder / row["path"], np.concatenate(list(iq)))
    # There is no tissue: bubbles in straight lines would be taken for it.
    project.write_config({"ultrasound": ULTRASOUND})
    project.write_samples(*_rows())
    done = project.run()
    assert done.returncode == 0, done.stderr[-4000:]
    return project


def _joined(project: Project, name: str):
    image = open_image(project.folder / f"results/head/maps/{name}.ome.zarr")
    return image.spec, image.read(Box.of_shape(image.spec.shape))


def _planned(project: Project) -> dict[str, int]:
    done = project.run("-n")
    assert done.returncode == 0, done.stderr
    table = (done.stdout + done.stderr).partition("Job stats:")[2].partition("\ntotal")[0]
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def test_vessels_lie_in_the_volume_where_they_are(scanned):
    spec, density = _joined(scanned, "density")
    assert spec.axes == ("z", "y", "x")
    np.testing.assert_allclose(spec.spacing_um, (WAVELENGTH_UM / 10, 100.0, WAVELENGTH_UM / 10))
    assert spec.origin_um[1] == pytest.approx(100.0) and density.shape[1] == 4
    z_um = spec.origin_um[0] + spec.spacing_um[0] * np.arange(density.shape[0])
    _, velocity = _joined(scanned, "velocity_x")
    # The plane at 300 µm is half way between two slices: it takes the lower one.
    for plane, y_um in enumerate([100.0, 200.0, 200.0, 400.0]):
        passages = density[:, plane].sum(axis=1)
        assert passages.sum() > 100
        middle_um = np.average(z_um, weights=passages)
        assert middle_um == pytest.approx(DEPTH_UM[y_um], abs=WAVELENGTH_UM / 10)
        way = -SPEED_MM_S if y_um == 200.0 else SPEED_MM_S
        assert np.nanmedian(velocity[:, plane]) == pytest.approx(way, rel=0.05)


def test_all_maps_are_joined_and_reported(scanned):
    results = scanned.folder / "results"
    names = {path.name for path in (results / "head/maps").glob("*.ome.zarr")}
    assert names == {path.name for path in (results / "slice100/maps").glob("*.ome.zarr")}
    assert {"density.ome.zarr", "power_doppler.ome.zarr", "velocity_z.ome.zarr"} <= names
    figures = {path.stem for path in (results / "head/figures").glob("*.png")}
    assert figures == {"density", "speed", "speed_error", "axial_velocity"}
    page = (results / "head/report.html").read_text()
    assert "Volume of ultrasound slices" in page and "No " not in page.split("<main>")[1]
    table = page.split("Slices of the volume")[1].split("</table>")[0]
    assert [row for row in ("slice100", "slice200", "slice400") if row in table] == [
        row["sample"] for row in _rows()
    ]
    cohort = (results / "cohort/summary.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in cohort[1:]] == [
        "slice100",
        "slice200",
        "slice400",
        "head",
    ]
    assert _planned(scanned) == {}


def test_another_elevation_remakes_the_volume_and_no_slice(scanned, tmp_path):
    project = copy_of(scanned, tmp_path / "run")
    rows = _rows()
    rows[2]["elevation_mm"] = "0.3"
    project.write_samples(*rows)
    # The pages of the volume and of the slice that tells another elevation.
    again = {"join_slices": 1, "sample_report": 2, "cohort": 1, "all": 1}
    assert _planned(project) == again
    before = {name: project.shards(name) for name in ("slice100", "slice200", "slice400")}
    done = project.run()
    assert done.returncode == 0, done.stderr[-4000:]
    assert {name: project.shards(name) for name in before} == before
    _, joined = _joined(project, "density")
    _, first = _joined(scanned, "density")
    np.testing.assert_array_equal(joined, first[:, [0, 1, 3]])


def test_two_slices_at_one_place_are_refused(scanned, tmp_path):
    project = Project(tmp_path)
    project.write_config()
    rows = _rows()
    rows[1]["elevation_mm"] = rows[0]["elevation_mm"]
    project.write_samples(*rows)
    line = told_by_snakemake(project.run())
    check_line(line, "samples.tsv, line 3", "elevation_mm: 0.1", "'slice100' (line 2)")


def test_the_sheet_tells_the_volume(scanned):
    sheet = (scanned.folder / "samples.tsv").read_text()
    (stack,) = stacks_of(parse_samples(sheet, where="samples.tsv"))
    np.testing.assert_allclose(stack.elevation_um, [*DEPTH_UM])
