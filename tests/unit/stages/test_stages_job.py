"""What a job knows of its stage, and what it refuses."""

import json

import numpy as np
import pytest
import tifffile

from vasculome.config import RunConfig, Sample
from vasculome.errors import UserError
from vasculome.stages import ingest_image, job, localize
from vasculome.stages.catalog import CATALOG, inputs_of, stages_of
from vasculome.stages.job import Job
from vasculome.storage.omezarr import open_image

ULTRASOUND = {
    "sample": "m",
    "modality": "ultrasound",
    "path": "a.npy",
    "format": "iq",
    "spacing_um": "50,50",
    "axes": "tzx",
}


@pytest.fixture
def brain(tmp_path):
    """A job on one small stack, its results in a temporary folder."""
    voxels = np.arange(4 * 30 * 40, dtype=np.uint16).reshape(4, 30, 40)
    tifffile.imwrite(tmp_path / "stack.tif", voxels, photometric="minisblack")
    sample = Sample(
        sample="brain",
        modality="microscopy",
        path=str(tmp_path / "stack.tif"),
        format="tiff_stack",
        spacing_um=(4.0, 2.0, 2.0),
        pose_mm=(1.0, 0.0, -0.5),
    )
    config = RunConfig(
        results=str(tmp_path / "results"),
        compute={"scheduler": "inline"},
        storage={"chunk_zyx": (2, 8, 8), "shard_zyx": (4, 16, 16)},
    )
    return Job("ingest_image", config, sample)


def test_a_stage_follows_the_stages_it_reads():
    tiled = {"sample": "t", "modality": "microscopy", "path": "t", "format": "tiff_tiles"}
    for row in (tiled | {"spacing_um": "4,2,2"}, ULTRASOUND):
        order = stages_of(Sample(**row))
        for position, stage in enumerate(order):
            assert set(CATALOG[stage].inputs) <= set(order[:position])


def test_only_tiles_are_stitched(brain):
    stitching = {"register", "place", "illuminate"}
    assert not stitching & set(stages_of(brain.sample))
    assert inputs_of("ingest_image", brain.sample) == ()
    tiled = brain.sample.model_copy(update={"format": "tiff_tiles"})
    assert stitching < set(stages_of(tiled))
    assert inputs_of("ingest_image", tiled) == ("place", "illuminate")


def test_a_stage_that_must_be_asked_for_runs_where_it_is():
    mouse = Sample(**ULTRASOUND)
    off, on = RunConfig(), RunConfig(ultrasound={"superresolve": {"network": "shipped"}})
    assert set(stages_of(mouse, on)) - set(stages_of(mouse, off)) == {"superresolve"}
    assert stages_of(mouse) == stages_of(mouse, off)
    assert inputs_of("superresolve", mouse) == ("ingest_iq", "calibrate")


def test_ingest_keeps_every_voxel_and_its_place(brain):
    job.execute(brain)
    image = open_image(brain.folder / "image.ome.zarr")
    voxels = image.read(ingest_image.Box.of_shape(image.spec.shape))
    np.testing.assert_array_equal(voxels, tifffile.imread(brain.sample.path))
    assert image.spec.origin_um == (1000.0, 0.0, -500.0)
    assert brain.manifest("ingest_image")["summary"]["intensity_span"] == [0.0, 4799.0]


def test_manifest_appears_only_when_the_stage_is_done(brain, monkeypatch):
    def fail(*_args, **_kwargs):
        raise UserError("is full", where="disk", fix="free space")

    monkeypatch.setattr(ingest_image, "build_image", fail)
    with pytest.raises(UserError, match="is full"):
        job.execute(brain)
    assert not brain.manifest_path("ingest_image").exists()


def test_identity_follows_settings_and_raw_files(brain, tmp_path):
    before = brain.identity()
    assert Job("ingest_image", brain.config, brain.sample, threads=7).identity() == before
    storage = brain.config.storage.model_copy(update={"chunk_zyx": (4, 8, 8)})
    changed = brain.config.model_copy(update={"storage": storage})
    assert Job("ingest_image", changed, brain.sample).identity() != before
    tifffile.imwrite(
        tmp_path / "stack.tif", np.ones((4, 9, 9), np.uint16), photometric="minisblack"
    )
    assert brain.identity() != before


def test_another_least_size_of_objects_filters_nothing_again(brain):
    chosen = brain.config.model_dump(mode="json")
    chosen["microscopy"]["segment"]["min_object_um3"] = 77.0
    changed = RunConfig.model_validate(chosen)
    same = {
        stage: Job(stage, changed, brain.sample).identity()
        == Job(stage, brain.config, brain.sample).identity()
        for stage in ("enhance", "mask")
    }
    assert same == {"enhance": True, "mask": False}


def test_too_small_a_memory_limit_is_refused_before_anything_is_written(brain):
    compute = brain.config.compute.model_copy(update={"memory_limit_gb": 0.001})
    limited = Job(
        "ingest_image", brain.config.model_copy(update={"compute": compute}), brain.sample
    )
    with pytest.raises(UserError, match=r"more than 0.001 GB.*fewer workers"):
        job.execute(limited)
    assert not brain.folder.exists()


def test_damaged_manifest_is_named(brain):
    path = brain.manifest_path("normalize")
    path.parent.mkdir(parents=True)
    path.write_text('{"stage": "norm')
    with pytest.raises(UserError, match=r"normalize\.json: cannot read the manifest"):
        brain.manifest("normalize")


def test_user_faults_end_in_one_line_and_status_one(tmp_path):
    log_path = tmp_path / "log" / "a.log"
    with pytest.raises(SystemExit) as ended:
        job.run_stage(
            "ingest_image",
            config={"samples": str(tmp_path / "none.tsv")},
            sample="a",
            threads=1,
            log_path=str(log_path),
        )
    assert ended.value.code == 1
    lines = log_path.read_text().splitlines()
    assert len(lines) == 1 and "none.tsv: cannot read the sample sheet" in lines[0]


@pytest.mark.parametrize("n_frames", [60, 100, 149, 151, 999, 1000, 1001])
def test_frame_blocks_are_nearly_equal_and_cover_all_frames(n_frames):
    clutter = RunConfig().ultrasound.clutter.model_copy(
        update={"block_frames": 100, "keep_from": 3}
    )
    lengths = [tile.core.shape[0] for tile in localize.frame_blocks(n_frames, clutter)]
    assert sum(lengths) == n_frames
    assert min(lengths) >= 50 or len(lengths) == 1
    assert max(lengths) <= 150
    assert max(lengths) - min(lengths) <= len(lengths)


def test_blocks_too_short_for_the_filter_are_refused():
    clutter = RunConfig().ultrasound.clutter.model_copy(update={"keep_from": 40})
    with pytest.raises(UserError, match="lower keep_from"):
        localize.frame_blocks(30, clutter)


def test_manifests_hold_no_times(brain):
    job.execute(brain)
    first = brain.manifest_path("ingest_image").read_bytes()
    brain.manifest_path("ingest_image").unlink()
    job.execute(brain)
    assert brain.manifest_path("ingest_image").read_bytes() == first
    assert json.loads(first)["stores"] == ["image.ome.zarr"]


def test_ultrasound_samples_have_their_stages():
    sample = Sample.model_validate(ULTRASOUND)
    assert Job("track", RunConfig(), sample, threads=3).workers == 3
