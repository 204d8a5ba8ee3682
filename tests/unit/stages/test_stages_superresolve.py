"""Vessels by a network, by the stages themselves: against an answer that is known.

The weights are set by hand (``hand_made_stulm``): what they say of a movie is a line of NumPy.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from hand_made_stulm import known_answer, write_hand_made_stulm
from scipy.spatial import KDTree
from tiny_ultrasound import BLOCK, N_FRAMES, SHAPE, SPACING_UM, WAVELENGTH_UM, job_of, run

from vasculome.compute import blocks
from vasculome.config import RunConfig, Sample
from vasculome.doctor import verify_store
from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.models.stulm import Stulm, StulmDesign
from vasculome.models.stulm_movies import vessel_probability
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.stages import job, superresolve, vessel_grid, vessel_network
from vasculome.stages.catalog import stages_of
from vasculome.stages.job import Job
from vasculome.storage.arrays import open_array
from vasculome.storage.bundles import read_bundle
from vasculome.storage.omezarr import open_image
from vasculome.ultrasound.clutter import svd_filter
from vasculome.ultrasound.correlate import correlation_map
from vasculome.ultrasound.psf import given_psf
from vasculome.ultrasound.sparsify import above

THRESHOLD = 0.4


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_hand_made_stulm(tmp_path_factory.mktemp("weights") / "hand.safetensors")


@pytest.fixture
def fresh(folder, tmp_path):
    """The same folder, to be written to."""
    shutil.copytree(folder, tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def small_patches(monkeypatch):
    """Patches of 24 pixels, of which the tiny field has nine."""
    monkeypatch.setattr(vessel_grid, "PATCH_PX", {2: 24, 3: 8})
    monkeypatch.setattr(vessel_grid, "HALO_PX", 4)
    monkeypatch.setattr(vessel_grid, "_CHUNK", {2: 64, 3: 32})


def by(weights, **settings):
    """Return the settings for weights."""
    return {"superresolve": {"network": str(weights), **settings}}


def made(folder, name="vessel_probability"):
    image = open_image(folder / f"results/mouse/maps/{name}.ome.zarr")
    return image.spec, image.read(Box.of_shape(image.spec.shape))


def correlation_of(folder):
    """Return the correlation of all blocks, one after the other, by plain functions."""
    kept = read_bundle(folder / "results/mouse/calibration/psf.npz")
    depth_px = (kept["depth_um"] / kept["spacing_um"][0]).tolist()
    psf = given_psf(kept["echoes"], depth_px=depth_px)
    iq = np.load(folder / "iq.npy")
    parts = [
        correlation_map(svd_filter(iq[first : first + BLOCK], keep_from=10, randomized=True), psf)
        for first in range(0, len(iq), BLOCK)
    ]
    return [np.where(above(part, threshold=THRESHOLD), part, 0) for part in parts]


# What is found


def test_the_maps_are_what_the_network_says_of_all_movies(folder, weights):
    _, summary = run(folder, "superresolve", **by(weights))
    spec, probability = made(folder)
    _, movies = made(folder, "vessel_movies")
    answers = [known_answer(movie) for movie in correlation_of(folder)]
    highest = np.max(answers, axis=0)
    seen = highest > 0.01
    np.testing.assert_allclose(probability[seen], highest[seen], atol=1e-3)
    assert (probability[~seen] < 0.02).all()
    sure = np.abs(np.array(answers) - 0.5).min(axis=0) > 0.01
    count = np.sum([answer > 0.5 for answer in answers], axis=0)
    np.testing.assert_array_equal(movies[sure], count[sure])
    assert count.max() == 3 and 0.005 < (count > 0).mean() < 0.5
    assert spec.dtype == "float32" and movies.dtype == np.uint32
    assert summary["movies"] == 3 and summary["upsampled"] == [1, 1]
    assert summary["threshold"] == THRESHOLD
    assert summary["map_shape"] == list(probability.shape)
    found = 100 * (movies > 0).mean()
    assert summary["vessels_percent"] == pytest.approx(found, abs=0.001)


@pytest.mark.parametrize("coarsest", [0.5, 0.25], ids=["pixels as trained", "pixels cut in two"])
def test_vessels_lie_where_bubbles_went(folder, phantom, tmp_path, coarsest):
    path = write_hand_made_stulm(
        tmp_path / "w.safetensors", card={"spacing_wavelengths": [coarsest, coarsest]}
    )
    run(folder, "superresolve", **by(path))
    spec, probability = made(folder)
    factor = round(0.5 / coarsest)
    assert spec.shape == tuple(8 * (factor * (n - 1) + 1) for n in SHAPE)
    # The fine pixels of the first pixel lie around its middle, those of the last around its own.
    for axis, n in enumerate(SHAPE):
        first_um, step_um = spec.origin_um[axis], spec.spacing_um[axis]
        assert step_um == pytest.approx(SPACING_UM[axis] / factor / 8)
        assert first_um + 3.5 * step_um == pytest.approx(0.0, abs=1e-9)
        last_um = first_um + (spec.shape[axis] - 4.5) * step_um
        assert last_um == pytest.approx((n - 1) * SPACING_UM[axis])
    found = np.argwhere(probability > 0.5) * spec.spacing_um + spec.origin_um
    paths = KDTree(phantom.bubbles.position_um)
    far = paths.query(found)[0] / WAVELENGTH_UM
    assert len(found) > 1000 and np.mean(far < 0.6) > 0.85
    # Were the map mirrored, it would not be so.
    field_um = (np.array(SHAPE) - 1) * SPACING_UM
    assert np.mean(paths.query(field_um - found)[0] / WAVELENGTH_UM < 0.6) < 0.75


def test_a_volume_is_mapped(tmp_path, small_patches):
    phantom = ultrasound_phantom(
        seed=3, n_frames=60, shape=(20, 18, 17), mean_bubbles=6.0, clutter_db=20.0
    )
    np.save(tmp_path / "iq.npy", np.concatenate(list(phantom.blocks)))
    path = write_hand_made_stulm(tmp_path / "w.safetensors", n_dims=3)
    sample = Sample(
        sample="mouse", modality="ultrasound", path=str(tmp_path / "iq.npy"), format="iq",
        spacing_um=phantom.spacing_um, axes="tzyx", wavelength_um=phantom.wavelength_um,
        frame_rate_hz=phantom.frame_rate_hz,
    )  # fmt: skip
    config = RunConfig(
        results=str(tmp_path / "results"),
        compute={"scheduler": "inline"},
        ultrasound={
            "clutter": {"block_frames": 60, "keep_from": 8}, "psf": {"bands": 1}, **by(path)
        },
    )  # fmt: skip
    for stage in ("ingest_iq", "calibrate", "superresolve"):
        job.execute(Job(stage, config, sample))
    correlation = open_array(tmp_path / "results/mouse/correlation.zarr")
    answer = known_answer(correlation.read(Box.of_shape(correlation.shape)))
    _, probability = made(tmp_path)
    assert 0.001 < np.mean(answer > 0.5) < 0.5
    np.testing.assert_allclose(probability[answer > 0.01], answer[answer > 0.01], atol=1e-4)
    assert (probability[answer <= 0.01] < 0.02).all()


# Patches and movies


def test_patches_make_the_map_of_the_whole(folder, tmp_path, monkeypatch, small_patches):
    """A network that looks far around it, and halos that reach as far as the field does."""
    monkeypatch.setattr(vessel_grid, "HALO_PX", 80)
    torch.manual_seed(0)
    network = Stulm(StulmDesign(2)).eval()
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.fill_(0.02)
    path = write_hand_made_stulm(tmp_path / "w.safetensors", network=network)
    run(folder, "superresolve", **by(path))
    _, probability = made(folder)
    correlation = open_array(folder / "results/mouse/correlation.zarr")
    whole = np.zeros_like(probability)
    for first in range(0, N_FRAMES, BLOCK):
        movie = correlation.read(Box((first, 0, 0), (first + BLOCK, *SHAPE)))
        whole = np.maximum(whole, vessel_probability(network, movie, movie != 0))
    assert whole.std() > 0.01
    np.testing.assert_allclose(probability, whole, atol=1e-5)


def test_long_blocks_are_several_movies(folder, tmp_path):
    path = write_hand_made_stulm(tmp_path / "w.safetensors", card={"data": {"n_frames": 40}})
    _, summary = run(folder, "superresolve", **by(path))
    assert summary["movies"] == 6
    _, movies = made(folder, "vessel_movies")
    halves = [
        known_answer(half) for movie in correlation_of(folder) for half in (movie[:40], movie[40:])
    ]
    sure = np.abs(np.array(halves) - 0.5).min(axis=0) > 0.01
    count = np.sum([answer > 0.5 for answer in halves], axis=0)
    np.testing.assert_array_equal(movies[sure], count[sure])


# Runs


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted((folder / "results/mouse").rglob("*"))
        if path.is_file() and ("c" in path.parts or path.suffix == ".jsonl")
    }


def test_a_run_that_is_cut_off_carries_on(fresh, weights, monkeypatch, small_patches):
    run(fresh, "superresolve", **by(weights))
    whole = files_of(fresh)
    done = fresh / "results/mouse"
    for name in ("vessel_probability", "vessel_movies"):
        shutil.rmtree(done / f"maps/{name}.ome.zarr")
        (done / f"maps/{name}.ome.zarr.ledger.jsonl").unlink()
    seen, patches = vessel_network.movie_vessels, []

    def counted(movie, finder):
        patches.append(movie.shape)
        if len(patches) == 7:
            raise OSError("the machine dies")
        return seen(movie, finder)

    monkeypatch.setattr(vessel_network, "movie_vessels", counted)
    monkeypatch.setattr(blocks.map_tiles, "__kwdefaults__", {"bytes_per_tile": 0, "retries": 0})
    with pytest.raises(UserError, match="the machine dies"):
        run(fresh, "superresolve", **by(weights))
    # Two patches of three movies are done; nine there are, and no block is correlated again.
    correlated = (done / "correlation.zarr.ledger.jsonl").stat().st_mtime_ns
    run(fresh, "superresolve", **by(weights))
    assert len(patches) == 7 + 3 * (9 - 2)
    assert (done / "correlation.zarr.ledger.jsonl").stat().st_mtime_ns == correlated
    assert files_of(fresh) == whole


def test_the_number_of_workers_changes_no_byte(fresh, weights, small_patches):
    # Workers know nothing of small patches: they are given the boxes.
    run(fresh, "superresolve", **by(weights))
    alone = files_of(fresh)
    asked = job_of(fresh, "superresolve", by(weights))
    shutil.rmtree(asked.folder / "correlation.zarr")
    shutil.rmtree(asked.folder / "maps")
    for ledger in asked.folder.glob("**/*.jsonl"):
        if "iq" not in ledger.name and "calibration" not in ledger.name:
            ledger.unlink(missing_ok=True)
    compute = asked.config.compute.model_copy(update={"scheduler": "local", "workers": 2})
    config = asked.config.model_copy(update={"compute": compute})
    job.execute(Job("superresolve", config, asked.sample))
    assert files_of(fresh) == alone


def test_other_maps_are_left_alone(fresh, weights):
    """Both stages write to the folder of maps."""
    run(fresh, "localize", "track", "ulm_maps", track={"min_length_frames": 5})
    density = made(fresh, "density")[1]
    run(fresh, "superresolve", **by(weights))
    probability = made(fresh)[1]
    assert verify_store(fresh / "results/mouse") == 0
    run(fresh, "superresolve", **by(weights, threshold=0.5))
    run(fresh, "ulm_maps", track={"min_length_frames": 5}, maps={"pixels_per_wavelength": 5})
    assert verify_store(fresh / "results/mouse") == 0
    assert made(fresh, "density")[1].shape[0] < density.shape[0]
    assert not np.array_equal(made(fresh)[1], probability)


def test_a_damaged_shard_of_either_map_is_found_and_mended(fresh, weights):
    run(fresh, "superresolve", **by(weights))
    whole = files_of(fresh)
    folder = fresh / "results/mouse"
    shard = folder / "maps/vessel_movies.ome.zarr/0/c/0/0"
    shard.write_bytes(shard.read_bytes()[:-5] + b"wrong")
    assert verify_store(folder) == 1
    assert not (folder / "manifests/superresolve.json").exists()
    run(fresh, "superresolve", **by(weights))
    assert files_of(fresh) == whole


# What users can get wrong


def test_the_stage_runs_only_where_a_network_is_named(folder, weights):
    asked = job_of(folder, "superresolve", by(weights))
    assert "superresolve" in stages_of(asked.sample, asked.config)
    assert "superresolve" not in stages_of(asked.sample, RunConfig())
    assert "superresolve" not in stages_of(asked.sample)
    volume = asked.sample.model_copy(update={"modality": "microscopy"})
    assert "superresolve" not in stages_of(volume, asked.config)
    with pytest.raises(UserError, match=r"superresolve\.network: no network is named"):
        superresolve.check(job_of(folder, "superresolve"))


def test_other_weights_redo_the_stage(folder, tmp_path):
    path = write_hand_made_stulm(tmp_path / "hand.safetensors")
    before = job_of(folder, "superresolve", by(path)).identity()
    assert job_of(folder, "superresolve", by(path)).identity() == before
    write_hand_made_stulm(path, slope=21.0)
    assert job_of(folder, "superresolve", by(path)).identity() != before


def test_a_sample_in_which_nothing_looks_like_a_bubble_is_told(fresh, weights):
    with pytest.raises(UserError, match=r"nothing in any block.*superresolve\.threshold"):
        run(fresh, "superresolve", **by(weights, threshold=0.9999))
