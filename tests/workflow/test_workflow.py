"""The real Snakefile on a tiny project: plans, targets, reruns, cluster profile, report."""

from __future__ import annotations

import base64
import csv
import json
import re
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_bad_images import not_a_number
from tiny_project import BRAIN, CONFIG, MOSAIC, MOUSE, ROOT, Project, copy_of, write_raw

from vasculome.config import Sample, parse_config
from vasculome.report.build import report_cohort
from vasculome.stages.catalog import CATALOG, stages_of
from vasculome.stages.job import Job
from vasculome.storage.tables import read_parts

REPORTS = {"sample_report", "cohort", "all"}
# Volumes of slices have a project of their own (test_slices.py), as have stages that must be asked
# for.
STAGES = [
    stage for stage, entry in CATALOG.items() if entry.modality != "slices" and not entry.wanted
]


@pytest.fixture
def spare(finished, tmp_path) -> Project:
    """A copy of the finished project that may be run again."""
    return copy_of(finished, tmp_path / "run")


def _planned(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Return how often each rule is planned to run, from the table that is printed first."""
    assert done.returncode == 0, done.stderr
    table = (done.stdout + done.stderr).partition("Job stats:")[2].partition("\ntotal")[0]
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def _jobs(output: str) -> dict[str, str]:
    """Return what is printed of each job, by rule and sample."""
    jobs = re.findall(r"^(?:local)?rule (\w+):\n((?: {4}.*\n)+)", output, re.MULTILINE)
    return {f"{rule} {_value(text, 'wildcards: sample')}".strip(): text for rule, text in jobs}


def _value(text: str, key: str) -> str:
    found = re.search(rf"\b{key}=([^,\s]+)", text)
    return found[1] if found else ""


def _job(stage: str, *, changes: dict | None = None, threads: int = 1) -> Job:
    config = parse_config({**CONFIG, **(changes or {})}, where="config")
    row = next(row for row in (BRAIN, MOSAIC, MOUSE) if row["sample"] == _sample(stage))
    return Job(stage, config, Sample.model_validate(row), threads)


def _sample(stage: str) -> str:
    """Return the name of a sample that has the stage."""
    entry = CATALOG[stage]
    return (
        "mosaic" if entry.tiled else {"microscopy": "brain", "ultrasound": "mouse"}[entry.modality]
    )


# Plans


def test_plan_is_readable_and_writes_nothing(tmp_path, monkeypatch):
    project = Project(tmp_path)
    write_raw(tmp_path)
    project.write_config()
    project.write_samples(BRAIN, MOSAIC, MOUSE)
    done = project.run("-n")
    # Two samples of microscopy, of which one is made of tiles, and one of ultrasound.
    often = {
        stage: 2 if CATALOG[stage].modality == "microscopy" and not CATALOG[stage].tiled else 1
        for stage in STAGES
    }
    assert _planned(done) == often | {"sample_report": 3, "cohort": 1, "all": 1}
    jobs = _jobs(done.stdout)
    assert "raw/brain" in jobs["ingest_image brain"]
    assert "Missing output files: results/mouse/manifests/track.json" in jobs["track mouse"]
    monkeypatch.chdir(tmp_path)
    for stage in STAGES:
        text = jobs[f"{stage} {_sample(stage)}"]
        assert int(_value(text, "mem_mb")) == _job(stage).bound().total_mb
        assert int(_value(text, "runtime")) > 0
    assert not (tmp_path / "results").exists()


def test_targets(finished):
    done = finished.run("--list-target-rules")
    assert done.returncode == 0
    told = {line.split()[0] for line in done.stdout.splitlines()}
    assert {"all", "maps", "report", *(f"all_{stage}" for stage in CATALOG)} <= told


def test_finished_project_has_its_products(finished):
    results = finished.folder / "results"
    kinds = {"brain": "vessel_fraction", "mosaic": "vessel_fraction", "mouse": "density"}
    for sample, kind in kinds.items():
        assert (results / sample / f"maps/{kind}.ome.zarr/zarr.json").exists()
        assert (results / sample / "report.html").stat().st_size > 10_000
    assert len((results / "cohort/summary.tsv").read_text().splitlines()) == 4
    for stage in STAGES:
        assert (results / f"logs/{_sample(stage)}/{stage}.log").read_text()
        assert (results / f"benchmarks/{_sample(stage)}/{stage}.tsv").read_text()


# Reruns


def test_nothing_is_done_twice(finished):
    assert "Nothing to be done" in finished.run().stderr


@pytest.mark.parametrize(
    "compute", [{"scheduler": "local", "workers": 7}, {"scheduler": "inline", "memory_limit_gb": 9}]
)
def test_the_number_of_workers_changes_no_result(spare, compute):
    spare.write_config({"compute": compute})
    done = spare.run("-n")
    assert "Nothing to be done" in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("changes", "redone"),
    [
        (
            {"microscopy": {**CONFIG["microscopy"], "maps": {"voxel_um": 40.0}}},
            {"vessel_maps"},
        ),
        (
            {"microscopy": {**CONFIG["microscopy"], "normalize": {"upper_percent": 90.0}}},
            {"normalize", "enhance", "mask", "skeleton", "graph", "vessel_maps"},
        ),
        (
            {"microscopy": {**CONFIG["microscopy"], "stitch": {"light": {"gains": False}}}},
            {"illuminate", "ingest_image", "normalize", "enhance", "mask", "skeleton"}
            | {"graph", "vessel_maps"},
        ),
        (
            {"ultrasound": {**CONFIG["ultrasound"], "track": {"min_length_frames": 6}}},
            {"track", "ulm_maps", "ulm_quality"},
        ),
    ],
    ids=["voxel_um", "upper_percent", "gains", "min_length_frames"],
)
def test_a_setting_reruns_what_it_touches(spare, changes, redone):
    spare.write_config(changes)
    assert set(_planned(spare.run("-n"))) == redone | REPORTS


def test_new_sample_leaves_the_others_alone(spare):
    spare.write_samples(BRAIN, MOSAIC, MOUSE, {**MOUSE, "sample": "rat"})
    planned = _planned(spare.run("-n"))
    stages = [stage for stage in STAGES if CATALOG[stage].modality == "ultrasound"]
    assert planned == dict.fromkeys([*stages, *REPORTS], 1)


def test_a_localizer_of_its_own_reruns_what_it_touches(spare):
    spare.write_samples(BRAIN, MOSAIC, {**MOUSE, "localizer": "radial_symmetry"})
    # From localizing on; and the echo of a bubble, which is learnt from what it finds.
    stages = {"calibrate", "localize", "track", "ulm_maps", "ulm_quality"}
    assert set(_planned(spare.run("-n"))) == stages | REPORTS


def test_one_file_is_mapped_with_two_localizers_side_by_side(spare, monkeypatch):
    rat = {**MOUSE, "sample": "rat", "localizer": "radial_symmetry"}
    spare.write_samples(BRAIN, MOSAIC, MOUSE, rat)
    monkeypatch.chdir(spare.folder)
    for stage in stages_of(Sample.model_validate(rat)):
        assert spare.run_stage(stage, "rat").code == 0
    content = {
        name: [
            json.loads(Path(f"results/{name}/manifests/{stage}.json").read_text())["content"]
            for stage in ("ingest_iq", "localize")
        ]
        for name in ("mouse", "rat")
    }
    assert content["mouse"][0] == content["rat"][0] and content["mouse"][1] != content["rat"][1]
    table, page = Path("results/cohort/summary.tsv"), Path("results/cohort/report.html")
    report_cohort(config=CONFIG, table=str(table), page=str(page))
    with table.open(newline="") as stream:
        told = {row["sample"]: row["localizer"] for row in csv.DictReader(stream, delimiter="\t")}
    conventional = {"mouse": "gaussian_fit_common_width", "rat": "radial_symmetry"}
    assert told == {"brain": "", "mosaic": "", **conventional}
    html = page.read_text()
    assert "Side by side: mouse, rat" in html
    assert html.count('<img src="data:image/png;base64,') == 3
    pictures = {path.name for path in Path("results/cohort/figures").iterdir()}
    assert pictures == {"mouse_maps.png", "mouse_detail.png", "mouse_quality.png"}


def test_changed_maps_are_made_anew_and_nothing_else(spare, finished):
    spare.write_config({"microscopy": {**CONFIG["microscopy"], "maps": {"voxel_um": 40.0}}})
    before = spare.shards("brain") | spare.shards("mouse")
    done = spare.run("maps")
    assert done.returncode == 0, done.stderr
    after = spare.shards("brain") | spare.shards("mouse")
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert changed and all("results/brain/maps/" in str(path) for path in changed)
    own = tuple(
        f"{sample}/{name}"
        for sample in ("brain", "mosaic")
        for name in ("maps/", "manifests/vessel_maps.json")
    )
    kept = {k: v for k, v in spare.results().items() if not k.startswith(own)}
    assert kept == {k: v for k, v in finished.results().items() if not k.startswith(own)}


def test_touched_raw_data_is_read_again_but_equal_tiles_are_not_redone(spare, finished):
    (spare.folder / "raw/brain/plane_003.tif").touch()
    before = spare.shards("brain")
    done = spare.run("all_mask")
    assert done.returncode == 0, done.stderr
    assert {"ingest_image brain", "enhance brain"} <= set(_jobs(done.stderr))
    after = spare.shards("brain")
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    # Which objects are kept is found out again each time, from summaries of the tiles.
    redone = {path for path in changed if not path.name.endswith(".kept.npz")}
    assert redone and all("brain/image.ome.zarr/" in str(path) for path in redone)
    results, expected = spare.results(), finished.results()
    # The digest in this manifest tells of the raw file's time.
    manifest = "brain/manifests/ingest_image.json"
    assert results.pop(manifest) != expected.pop(manifest)
    assert results == expected


def test_another_intensity_range_reaches_the_candidates(spare):
    before = spare.shards("brain")
    spare.write_config(
        {"microscopy": {**CONFIG["microscopy"], "normalize": {"upper_percent": 60.0}}}
    )
    for stage in ("normalize", "enhance"):
        assert spare.run_stage(stage, "brain").code == 0
    after = spare.shards("brain")
    assert any("candidates.ome.zarr" in str(p) for p in after if after[p] != before.get(p))


def test_another_frame_rate_in_the_file_reaches_the_tracks(spare):
    file = spare.folder / "raw/rat.h5"
    with h5py.File(file, "w") as raw:
        raw["IQ"] = np.load(spare.folder / "raw/mouse.npy")
        raw.attrs["frame_rate_hz"] = 1000.0
    spare.write_samples({**MOUSE, "sample": "rat", "path": "raw/rat.h5", "frame_rate_hz": ""})
    speeds = []
    for rate_hz in (1000.0, 500.0):
        with h5py.File(file, "r+") as raw:
            raw.attrs["frame_rate_hz"] = rate_hz
        for stage in ("ingest_iq", "calibrate", "localize", "track"):
            assert spare.run_stage(stage, "rat").code == 0
        tracks = read_parts(spare.folder / "results/rat/tracks")
        speeds.append(np.median(np.hypot(tracks["vz_mm_s"], tracks["vx_mm_s"])))
    # The gate changes too, and with it some of the pairs.
    assert speeds[1] == pytest.approx(speeds[0] / 2, rel=0.2)


# Resources and profiles


def test_memory_rises_with_each_attempt(project):
    not_a_number(project.folder / "raw/new")
    project.write_samples(BRAIN, MOSAIC, MOUSE, {**BRAIN, "sample": "new", "path": "raw/new"})
    done = project.run("all_ingest_image", "--retries", "1")
    assert done.returncode == 1
    asked = re.findall(r"rule ingest_image:.*?\bmem_mb=(\d+)", done.stderr, re.DOTALL)
    first, second = (int(mb) for mb in asked)
    assert second == 2 * first


def test_slurm_profile(finished, monkeypatch, tmp_path):
    profile = str(ROOT / "workflow/profiles/slurm")
    project = Project(tmp_path)
    (tmp_path / "raw").symlink_to(finished.folder / "raw")
    project.write_config({"compute": {"scheduler": "local"}})
    project.write_samples(BRAIN, MOSAIC, MOUSE)
    done = project.run("-n", "--workflow-profile", profile, cores=None)
    assert _planned(done)["all"] == 1
    jobs = _jobs(done.stdout)
    monkeypatch.chdir(tmp_path)
    for stage in STAGES:
        text = jobs[f"{stage} {_sample(stage)}"]
        long = stage in ("enhance", "skeleton")
        assert _value(text, "slurm_partition") == ("long" if long else "standard")
        assert _value(text, "slurm_account") == "lab"
        threads = re.search(r"threads: (\d+)", text)
        workers = int(threads[1]) if threads else 1
        assert workers == (1 if stage in ("place", "calibrate", "track", "ulm_quality") else 16)
        job = _job(stage, changes={"compute": {"scheduler": "local"}}, threads=16)
        assert int(_value(text, "mem_mb")) == job.bound().total_mb


def test_default_profile(finished):
    profile = str(ROOT / "workflow/profiles/default")
    done = finished.run("-n", "--workflow-profile", profile)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stderr + done.stdout


# Report


def test_report_holds_the_pages_and_their_pictures(finished, tmp_path):
    out = tmp_path / "report.html"
    done = finished.run("--report", str(out))
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    for sample, caption in (("brain", "maximum projections"), ("mouse", "Report of sample mouse")):
        page = (finished.folder / f"results/{sample}/report.html").read_bytes()
        assert page.count(b'<img src="data:image/png;base64,') >= 3
        assert base64.b64encode(page).decode() in text
        assert caption in text


def test_pages_need_no_other_file(finished):
    for page in Path(finished.folder, "results").glob("*/report.html"):
        links = re.findall(r'(?:src|href)="([^"#]{1,40})', page.read_text())
        assert all(link.startswith("data:") for link in links), links
