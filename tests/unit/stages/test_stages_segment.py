"""A network as segmenter, by the stages themselves: what it finds, and weights that are refused."""

from __future__ import annotations

import itertools
import json
import logging
import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest
import tifffile
import torch
from hand_made_student import TINY, bright_student, write_student
from segmented_volume import SPACING_UM, job_of, prepared, run, voxels, write_planes

from vasculome.config import SegmentConfig
from vasculome.errors import UserError
from vasculome.geometry import Box, TileGrid
from vasculome.models.student import Student, StudentDesign
from vasculome.models.student_engine import StudentEngine
from vasculome.models.teacher import Teacher, TeacherDesign
from vasculome.simulate.phantoms import microscope_phantom
from vasculome.stages import segment_network
from vasculome.stages.job import check_sample
from vasculome.stages.segment_weights import segmenter_for
from vasculome.storage.weights import card_path, write_weights
from vasculome.vessels.normalize import rescale

SHAPE = (40, 48, 56)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder with a small light-sheet volume."""
    volume, _ = microscope_phantom(seed=1, shape=SHAPE, spacing_um=SPACING_UM)
    return write_planes(tmp_path_factory.mktemp("raw"), volume)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_student(tmp_path_factory.mktemp("weights") / "bright.safetensors")


def test_the_mask_is_what_the_network_sees(raw, weights, tmp_path):
    """Against the network on the whole volume at once, with nothing in between."""
    job = prepared(raw, tmp_path, weights, blend="exact")
    summary = run(job, "enhance", "mask")
    spread = job.manifest("normalize")["summary"]
    image = rescale(voxels(job, "image.ome.zarr"), low=spread["low"], high=spread["high"])
    with torch.no_grad():
        logits = bright_student()(torch.from_numpy(image)[None, None]).logits[0, 0]
    expected = torch.sigmoid(logits).numpy()
    found = voxels(job, "vessel_probability.ome.zarr")
    assert np.abs(found / 255 - expected).max() < 0.51 / 255 + 1e-5
    assert np.array_equal(voxels(job, "candidates.ome.zarr"), 2 * (expected >= 0.5))
    assert np.array_equal(voxels(job, "mask.ome.zarr"), expected >= 0.5)
    assert 0.001 < (expected >= 0.5).mean() < 0.5
    assert summary["vessel_voxels"] == np.count_nonzero(expected >= 0.5)
    told = job.manifest("enhance")["summary"]
    assert told["network"] == "student" and told["threshold"] == 0.5
    assert told["spacing_as_trained"] is True


@pytest.mark.parametrize("blend", ["gaussian", "crop"])
def test_neither_tiles_nor_batches_matter(raw, tmp_path, blend):
    network = bright_student(StudentDesign(widths=(2, 3), stem_stride=2, norm="group"), slope=3)
    weights = write_student(tmp_path / "group.safetensors", network=network)
    found = []
    for number, (shard, batch) in enumerate([((16, 32, 16), 3), ((48, 48, 64), 1)]):
        job = prepared(
            raw, tmp_path / str(number), weights, shard=shard, batch_size=batch, blend=blend
        )
        run(job, "enhance")
        found.append(voxels(job, "vessel_probability.ome.zarr").astype(int))
    one, other = found
    # Where rounding to 255ths meets rounding of floats.
    assert np.abs(one - other).max() <= 1
    assert np.count_nonzero(one != other) < 1e-3 * one.size
    assert one.std() > 1


def test_what_is_done_is_not_done_again(raw, weights, tmp_path, monkeypatch):
    job = prepared(raw, tmp_path, weights)
    work, done = segment_network.tile_probability, []

    def dies_at_the_third(source, core, *args, **kwargs):
        if len(done) == 2:
            raise MemoryError("killed")
        done.append(core)
        return work(source, core, *args, **kwargs)

    monkeypatch.setattr(segment_network, "tile_probability", dies_at_the_third)
    with pytest.raises(RuntimeError, match="killed"):
        run(job, "enhance")
    again = []
    monkeypatch.setattr(
        segment_network,
        "tile_probability",
        lambda source, core, *a, **k: again.append(core) or work(source, core, *a, **k),
    )
    run(job, "enhance")
    assert len(again) == 6 and not set(again) & set(done)
    whole = prepared(raw, tmp_path / "whole", weights)
    monkeypatch.setattr(segment_network, "tile_probability", work)
    run(whole, "enhance")
    for name in ("vessel_probability.ome.zarr", "candidates.ome.zarr"):
        assert np.array_equal(voxels(job, name), voxels(whole, name))
    assert job.manifest("enhance") == whole.manifest("enhance")


def test_mirror_images_are_seen_where_it_is_asked(raw, tmp_path):
    """The probability of a window is the mean over the eight, which the manifest's digest knows."""
    network = bright_student(StudentDesign(widths=(2, 3), stem_stride=2, norm="group"), slope=3)
    weights = write_student(tmp_path / "group.safetensors", network=network)
    window = {"window": 56, "overlap": 0.0}
    job = prepared(raw, tmp_path / "flips", weights, flips=True, **window)
    run(job, "enhance")
    spread = job.manifest("normalize")["summary"]
    image = rescale(voxels(job, "image.ome.zarr"), low=spread["low"], high=spread["high"])
    mean = np.zeros(SHAPE)
    for steps in itertools.product((1, -1), repeat=3):
        mirror = tuple(slice(None, None, step) for step in steps)
        with torch.no_grad():
            answer = network(torch.from_numpy(image[mirror].copy())[None, None])
        mean += torch.sigmoid(answer.logits)[0, 0].numpy()[mirror] / 8
    found = voxels(job, "vessel_probability.ome.zarr")
    assert np.abs(found / 255 - mean).max() < 0.51 / 255 + 1e-5
    alone = prepared(raw, tmp_path / "alone", weights, **window)
    run(alone, "enhance")
    assert np.any(voxels(alone, "vessel_probability.ome.zarr") != found)
    assert alone.identity() != job.identity()
    assert alone.bound().total_bytes < job.bound().total_bytes


def test_background_is_not_looked_at(raw, weights, tmp_path):
    volume = np.stack([tifffile.imread(path) for path in sorted(raw.iterdir())])
    volume[:, :, 24:] = volume.min()
    (tmp_path / "raw").mkdir()
    job = prepared(write_planes(tmp_path / "raw", volume), tmp_path / "results", weights)
    summary = run(job, "enhance")
    assert 0.2 < summary["windows_of_background"] / summary["windows"] < 0.8
    assert voxels(job, "vessel_probability.ome.zarr")[:, :, 48:].max() == 0


def test_the_threshold_is_the_cards_unless_told(raw, tmp_path):
    weights = write_student(tmp_path / "w.safetensors", card={"metrics": {"threshold": 0.7}})
    job = prepared(raw, tmp_path / "card", weights)
    assert run(job, "enhance")["threshold"] == 0.7
    probability = voxels(job, "vessel_probability.ome.zarr")
    share = (probability > 0.7 * 255).mean()
    assert (voxels(job, "candidates.ome.zarr") > 0).mean() == pytest.approx(share, abs=2e-3)
    told = prepared(raw, tmp_path / "told", weights, threshold=0.2)
    assert run(told, "enhance")["threshold"] == 0.2
    assert told.identity() != job.identity()


def refused(raw, folder, weights, **settings):
    """Return what a run says before it begins."""
    job = job_of(raw, folder, weights, **settings)
    with pytest.raises(UserError) as told:
        check_sample(job.config, job.sample)
    return str(told.value)


def segmenter_for_a_brain(path, shape, *, shard=(256, 256, 256), threads=1, **network):
    chosen = SegmentConfig(segmenter=str(path), network=network)
    return segmenter_for(
        chosen,
        shape=shape,
        spacing_um=SPACING_UM,
        chunk=(64, 64, 64),
        shard=shard,
        threads=threads,
        workers=2,
    )


def test_windows_of_blend_exact_answer_for_whole_parts_of_blocks(tmp_path):
    """No block asks about a window that another one asks about too, but where steps do not fit."""
    path = write_student(tmp_path / "w.safetensors", design=StudentDesign(norm="batch"))
    for shard, once in (((256, 256, 256), True), ((512, 256, 256), True), ((100, 100, 100), False)):
        told = segmenter_for_a_brain(path, (1024, 768, 1280), shard=shard, blend="exact")
        blocks = TileGrid(Box.of_shape(told.plan.volume), told.block, (0, 0, 0))
        asked = [w for tile in blocks for layer in told.plan.layers(tile.core) for w in layer]
        assert (len(asked) == len(set(asked))) == once
        assert told.batch_size == 1


def test_blocks_are_large_where_there_are_many(tmp_path):
    path = write_student(tmp_path / "w.safetensors", design=StudentDesign())
    for shape, shard, block in [
        ((500, 600, 700), (256, 256, 256), (256, 256, 256)),
        ((5000, 6000, 7000), (256, 256, 256), (512, 512, 512)),
        ((5000, 6000, 7000), (64, 1024, 128), (512, 1024, 512)),
        ((1500, 1500, 1500), (128, 128, 128), (384, 384, 384)),
    ]:
        assert segmenter_for_a_brain(path, shape, shard=shard).block == block


@pytest.mark.parametrize("skip", ["add", "concatenate"])
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_what_an_engine_takes_is_known(tmp_path, stem_stride, skip):
    design = StudentDesign(widths=(5, 6, 20), stem_stride=stem_stride, skip=skip)
    path = write_student(tmp_path / "w.safetensors", design=design)
    told = segmenter_for_a_brain(path, (99, 99, 99), window=96)
    engine = StudentEngine(Student(design))
    image = np.zeros((96, 96, 96), np.float32)
    engine(image)
    tracemalloc.start()
    StudentEngine(Student(design))(image)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.9 * told.window_bytes < taken < told.window_bytes + 2e6


def test_bad_weights_are_told_before_anything_runs(raw, tmp_path):
    path = write_student(tmp_path / "w.safetensors")
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert "not the weights that w.json tells of" in refused(raw, tmp_path, path)
    path.write_bytes(good)
    assert "cannot be read" in refused(raw, tmp_path, tmp_path / "none.safetensors")
    card = json.loads(card_path(path).read_text())
    for changes, told in [
        ({"architecture": "stulm"}, "no card of a network that segments vessels: architecture"),
        ({"metrics": {}}, "tells of no threshold"),
        ({"metrics": {"threshold": 2}}, "metrics.threshold"),
        ({"arguments": {"widths": []}}, "arguments.widths"),
    ]:
        card_path(path).write_text(json.dumps(card | changes))
        assert told in refused(raw, tmp_path, path)


def test_windows_that_do_not_fit_are_told(raw, weights, tmp_path):
    assert "multiples of 2 voxels" in refused(raw, tmp_path, weights, window=25)
    group = write_student(
        tmp_path / "g.safetensors", design=StudentDesign(widths=(2, 3), norm="group")
    )
    assert "no margin makes it exact" in refused(raw, tmp_path, group, blend="exact")


def test_weights_of_another_network_are_told(raw, tmp_path):
    other = Student(StudentDesign(widths=(2, 4), stem_stride=1, norm="batch"))
    path = tmp_path / "w.safetensors"
    card = {"name": "w", "architecture": "student", "arguments": asdict(TINY)}
    write_weights(path, other.state_dict(), card | {"metrics": {"threshold": 0.5}})
    job = prepared(raw, tmp_path / "results", path)
    with pytest.raises(UserError, match="instead of"):
        run(job, "enhance")


def test_a_network_that_says_what_is_no_number_is_told(raw, tmp_path):
    network = bright_student()
    with torch.no_grad():
        network.down[1].first.weight.uniform_(-1.6e38, 1.6e38)
    path = write_student(tmp_path / "w.safetensors", network=network)
    job = prepared(raw, tmp_path / "results", path)
    with pytest.raises(UserError, match="no number"):
        run(job, "enhance")


def test_voxels_unlike_those_of_training_are_told(raw, tmp_path, caplog):
    weights = write_student(tmp_path / "w.safetensors", card={"data": {"spacing_um": [0.5, 1]}})
    job = prepared(raw, tmp_path / "results", weights)
    with caplog.at_level(logging.WARNING):
        summary = run(job, "enhance")
    assert summary["spacing_as_trained"] is False
    assert "4 × 2 × 2 µm" in caplog.text


def test_a_teacher_segments(tmp_path):
    """Its windows are 64 voxels long, even where the volume is not; untuned ones are refused."""
    volume = np.random.default_rng(0).integers(0, 900, (5, 20, 30), np.uint16)
    (tmp_path / "raw").mkdir()
    raw = write_planes(tmp_path / "raw", volume)
    design = TeacherDesign(feature_size=12, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), n_codes=4)
    torch.manual_seed(0)
    network = Teacher(design).eval()
    path = tmp_path / "t.safetensors"
    card = {"name": "t", "architecture": "teacher", "arguments": asdict(design)}
    card |= {"metrics": {"threshold": 0.5}}
    write_weights(path, network.state_dict(), card)
    job = prepared(raw, tmp_path / "results", path, window=64)
    with pytest.raises(UserError, match="only been shown images"):
        run(job, "enhance")
    network.fine_tuned.fill_(True)
    write_weights(path, network.state_dict(), card)
    summary = run(job, "enhance")
    assert summary["network"] == "teacher" and summary["windows"] == 1
    assert voxels(job, "vessel_probability.ome.zarr").std() > 0
    assert "at least" in refused(raw, tmp_path, path, window=32)
