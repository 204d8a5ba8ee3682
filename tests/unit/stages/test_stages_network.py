"""A network as localizer, by the stages themselves: what it finds, and weights that are refused.

The weights are set by hand (``hand_made_network``): good enough to find bubbles, whose places are
known, without a training.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hand_made_network import hand_made, write_hand_made
from tiny_ultrasound import N_FRAMES, SHAPE, SPACING_UM, both, job_of, run, scores

from vasculome.config import NetworkConfig, RunConfig, Sample
from vasculome.errors import UserError
from vasculome.metrics.localization import score_localization
from vasculome.models.bubble_net import detections, sites_of
from vasculome.models.stulm import Stulm, StulmDesign
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.stages import bubble_network, job, localize, network_weights
from vasculome.stages.bubble_network import network_bubbles
from vasculome.stages.job import Job
from vasculome.stages.network_weights import finder_for, network_bytes
from vasculome.storage.tables import read_parts
from vasculome.storage.weights import card_path, write_weights
from vasculome.ultrasound import upsample
from vasculome.ultrasound.columns import positions
from vasculome.ultrasound.correlate import correlation_map
from vasculome.ultrasound.psf_gaussian import gaussian_psf
from vasculome.ultrasound.sparsify import above

WAVELENGTH_UM = 98.56


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_hand_made(tmp_path_factory.mktemp("weights") / "hand.safetensors")


def by_network(weights, **settings):
    """Return the settings of ``localize`` for weights."""
    return {"localizer": "stulm", "stulm": {"weights": str(weights)}, **settings}


def test_bubbles_are_found_where_they_are(folder, phantom, weights):
    done, summary = run(folder, "localize", localize=by_network(weights))
    found = scores(done.folder, phantom)
    assert found.recall > 0.68 and found.precision > 0.55
    assert found.rmse < 0.18
    assert summary["localizer"] == "stulm" and summary["upsampled"] == [1, 1]
    share = summary["active_sites"] / (N_FRAMES * math.prod(SHAPE))
    assert summary["active_sites_percent"] == pytest.approx(100 * share, abs=0.01)
    assert summary["active_sites"] > summary["detections"]
    _, conventional = run(folder, "localize")
    assert conventional["localizer"] == "gaussian_fit_common_width"
    assert "active_sites" not in conventional


def test_the_table_is_that_of_any_localizer(folder, weights):
    other = read_parts(run(folder, "localize")[0].folder / "detections")
    found = read_parts(
        run(folder, "localize", localize=by_network(weights))[0].folder / "detections"
    )
    assert set(other) - set(found) == {"maxima", "shift_px"}
    assert set(found) - set(other) == {"sigma_z_um", "sigma_x_um"}
    assert all(found[name].dtype == other[name].dtype for name in set(found) & set(other))
    assert (np.diff(found["frame"]) >= 0).all()
    assert found["score"].min() >= 0.5 and found["score"].max() <= 1
    # The network says softplus(-1) + 0.02 pixels everywhere.
    np.testing.assert_allclose(found["sigma_z_um"], 0.33326 * SPACING_UM[0], rtol=1e-4)
    _, summary = run(folder, "track", localize=by_network(weights))
    assert summary["tracks"] > 10


def test_only_the_surest_of_a_frame_are_kept(folder, weights):
    everything = read_parts(
        run(folder, "localize", localize=by_network(weights))[0].folder / "detections"
    )
    few = read_parts(
        run(folder, "localize", localize=by_network(weights, max_per_frame=2))[0].folder
        / "detections"
    )
    frames, counts = np.unique(few["frame"], return_counts=True)
    assert counts.max() == 2
    for frame in frames:
        best = np.sort(everything["score"][everything["frame"] == frame])[::-1][:2]
        np.testing.assert_array_equal(np.sort(few["score"][few["frame"] == frame])[::-1], best)


def test_images_of_bubbles_are_kept_for_pairing(folder, weights):
    how = by_network(weights, image_half_width_px=2)
    done, _ = run(folder, "localize", localize=how)
    found = read_parts(done.folder / "detections")
    parts = sorted((done.folder / "detections").glob("*.images.npz"))
    assert sum(len(np.load(part)["patch"]) for part in parts) == len(found["frame"])


def _frames(shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@pytest.mark.parametrize("shape", [(50, 30, 34), (20, 12, 11, 14)], ids=["2-D", "3-D"])
def test_blocks_are_worked_on_in_pieces_to_the_same_result(monkeypatch, tmp_path, shape):
    """Against the network on all sites at once, with nothing in between."""
    n_dims = len(shape) - 1
    network = hand_made(n_dims, threshold=0.05)
    with torch.no_grad():
        network.out.linear.bias[0] = -6
    path = write_hand_made(tmp_path / "w.safetensors", network=network)
    psf = gaussian_psf(fwhm_px=(2.0,) * n_dims, half_width=2, turn_rad=1.0)
    how = SimpleNamespace(max_per_frame=1000)
    finder = finder_for(
        NetworkConfig(weights=str(path), min_probability=0.01),
        spacing_um=(0.5,) * n_dims,
        wavelength_um=1.0,
    )
    iq = _frames(shape)
    correlation = correlation_map(iq, psf)
    mask = above(correlation, threshold=0.05)
    with torch.no_grad():
        whole = detections(network(sites_of([iq], [correlation], [mask])), min_probability=0.01)
    inside = (whole["position_px"] >= -0.5).all(axis=1)
    inside &= (whole["position_px"] < np.array(shape[1:]) - 0.5).all(axis=1)
    monkeypatch.setattr(bubble_network, "MOST_SITES", int(0.7 * mask.sum()))
    monkeypatch.setattr(upsample, "PIXELS_AT_ONCE", 3 * math.prod(shape[1:]))
    found, sites = network_bubbles(iq, abs(iq), psf, how, finder, first_frame=7)
    assert sites == mask.sum()
    assert inside.sum() > 20
    assert np.array_equal(found["frame"], 7 + whole["frame"][inside])
    axes = "zx" if n_dims == 2 else "zyx"
    place = np.stack([found[axis] for axis in axes], axis=1)
    np.testing.assert_allclose(place, whole["position_px"][inside], atol=1e-5)
    np.testing.assert_allclose(found["score"], whole["probability"][inside], atol=1e-5)
    voxel = np.clip(np.rint(place).astype(int), 0, np.array(shape[1:]) - 1)
    np.testing.assert_array_equal(found["amplitude"], abs(iq)[(found["frame"] - 7, *voxel.T)])


def test_pixels_larger_than_those_of_training_are_cut(tmp_path):
    """Bubbles on pixels of 0.9 λ, which the network is shown as pixels of 0.45 λ."""
    rng = np.random.default_rng(0)
    shape, sigma = (24, 28), 0.8
    true = np.stack([rng.uniform(4, n - 5, 30) for n in shape], axis=1)
    away = [np.arange(n)[None] - true[:, axis, None] for axis, n in enumerate(shape)]
    lines = [np.exp(-0.5 * (d / sigma) ** 2) for d in away]
    iq = (lines[0] * np.exp(2.2j * away[0]))[:, :, None] * lines[1][:, None, :]
    iq = (iq + 0.01 * _frames(iq.shape)).astype(np.complex64)
    psf = gaussian_psf(fwhm_px=(sigma * 2.3548,) * 2, half_width=2, turn_rad=2.2)
    path = write_hand_made(tmp_path / "w.safetensors")
    finder = finder_for(
        NetworkConfig(weights=str(path)), spacing_um=(90.0, 90.0), wavelength_um=100.0
    )
    assert finder.factors == (2, 2)
    found, _ = network_bubbles(iq, abs(iq), psf, SimpleNamespace(max_per_frame=99), finder)
    # Correlation finds bubbles in mere noise as well.
    bright = found["amplitude"] > 0.5
    place = np.stack([found["z"], found["x"]], axis=1)[bright]
    result = score_localization(
        found["frame"][bright], place, np.arange(30), true, pair_distance=0.5
    )
    assert result.recall > 0.95
    assert result.rmse < 0.15
    np.testing.assert_allclose(found["sigma_z"], 0.33326 / 2, rtol=1e-4)


def test_pixels_are_cut_along_each_axis_as_little_as_needed(weights):
    def factors(*spacing_wavelengths):
        return finder_for(
            NetworkConfig(weights=str(weights)),
            spacing_um=[s * 100 for s in spacing_wavelengths],
            wavelength_um=100.0,
        ).factors

    assert factors(0.5, 0.6) == (1, 1)
    assert factors(0.605, 0.61) == (1, 2)
    assert factors(0.5, 1.3) == (1, 3)
    assert factors(0.2495, 0.3) == (1, 1)
    with pytest.raises(UserError, match=r"pixels of 0\.25 to 0\.6 wavelengths.*0\.2 × 0\.5"):
        factors(0.2, 0.5)


def test_a_volume_is_localized(tmp_path):
    phantom = ultrasound_phantom(
        seed=3, n_frames=60, shape=(28, 24, 26), mean_bubbles=6.0, clutter_db=20.0
    )
    np.save(tmp_path / "iq.npy", np.concatenate(list(phantom.blocks)))
    path = write_hand_made(tmp_path / "w.safetensors", n_dims=3)
    sample = Sample(
        sample="matrix", modality="ultrasound", path=str(tmp_path / "iq.npy"), format="iq",
        spacing_um=phantom.spacing_um, axes="tzyx", wavelength_um=phantom.wavelength_um,
        frame_rate_hz=phantom.frame_rate_hz,
    )  # fmt: skip
    config = RunConfig(
        results=str(tmp_path / "results"),
        compute={"scheduler": "inline"},
        ultrasound={
            "clutter": {"block_frames": 60, "keep_from": 8},
            "localize": by_network(path),
            "psf": {"bands": 1},
        },
    )
    for stage in ("ingest_iq", "calibrate", "localize"):
        done = Job(stage, config, sample)
        job.execute(done)
    found = read_parts(done.folder / "detections")
    assert {"sigma_z_um", "sigma_y_um", "sigma_x_um"} <= set(found)
    result = score_localization(
        found["frame"], positions(found), phantom.bubbles.frame, phantom.bubbles.position_um,
        pair_distance=phantom.wavelength_um / 2,
    )  # fmt: skip
    assert result.precision > 0.7 and result.recall > 0.38
    assert result.rmse < 0.25 * phantom.wavelength_um


def missing(path):
    path.unlink()
    return r"hand\.safetensors: cannot be read"


def no_card(path):
    card_path(path).unlink()
    return r"hand\.json: cannot be read"


def truncated(path):
    path.write_bytes(path.read_bytes()[:-10])
    return "not the weights"


def tampered(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 64
    path.write_bytes(content)
    return "not the weights"


def of_another_kind(path):
    design = StulmDesign(2)
    card = {"name": "hand", "architecture": "stulm", "arguments": vars(design)}
    write_weights(path, Stulm(design).state_dict(), card)
    return r"hand\.json: is no card of a network that finds bubbles: architecture.*'stulm'"


def for_volumes(path):
    write_hand_made(path, n_dims=3)
    return "are weights for 3-D, and the sample is 2-D"


def for_other_pixels(path):
    write_hand_made(path, card={"spacing_wavelengths": [0.6, 0.9]})
    return "trained on pixels of 0.6 to 0.9 wavelengths"


def for_no_pixels(path):
    write_hand_made(path, card={"spacing_wavelengths": None})
    return "spacing_wavelengths"


@pytest.mark.parametrize(
    "damage",
    [
        missing, no_card, truncated, tampered, of_another_kind, for_volumes, for_other_pixels,
        for_no_pixels,
    ],
)  # fmt: skip
def test_bad_weights_are_told_before_anything_runs(folder, tmp_path, damage):
    path = write_hand_made(tmp_path / "hand.safetensors")
    says = damage(path)
    asked = job_of(folder, "localize", {"localize": by_network(path)})
    # What identifies the stage is asked for first, and says nothing.
    assert asked.identity()
    with pytest.raises(UserError, match=says) as caught:
        localize.check(asked)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def not_finite(path):
    network = hand_made()
    with torch.no_grad():
        network.out.linear.bias[1] = math.nan
    write_hand_made(path, network=network)
    return "values that are not finite"


def fewer_channels(path):
    write_hand_made(path, card={"arguments": {"n_dims": 2, "channels": [4], "threshold": 0.2}})
    return "of the network that hand.json tells of"


def unknown_argument(path):
    arguments = {"n_dims": 2, "channels": [5], "threshold": 0.2, "depth": 9}
    write_hand_made(path, card={"arguments": arguments})
    return "cannot be built.*depth"


@pytest.mark.parametrize("damage", [not_finite, fewer_channels, unknown_argument])
def test_weights_that_no_network_can_take_are_told(folder, tmp_path, damage):
    path = tmp_path / "hand.safetensors"
    says = damage(path)
    with pytest.raises(UserError, match=says):
        run(folder, "localize", localize=by_network(path))


def test_weights_that_change_under_a_run_are_refused(tmp_path):
    path = write_hand_made(tmp_path / "hand.safetensors")
    finder = finder_for(
        NetworkConfig(weights=str(path)), spacing_um=SPACING_UM, wavelength_um=WAVELENGTH_UM
    )
    write_hand_made(path, slope=0.9)
    psf = gaussian_psf(fwhm_px=(2.0, 2.0), half_width=2)
    iq = _frames((8, 9, 9))
    with pytest.raises(UserError, match="has changed since the run began"):
        network_bubbles(iq, abs(iq), psf, SimpleNamespace(max_per_frame=9), finder)


def test_weights_that_do_not_ship_are_told(folder, monkeypatch):
    monkeypatch.setattr(network_weights, "SHIPPED", {2: "nothing_2d"})
    asked = job_of(folder, "localize", {"localize": {"localizer": "stulm"}})
    with pytest.raises(UserError, match="no weights 'nothing_2d' come with vasculome"):
        localize.check(asked)


def test_without_the_echo_of_a_bubble_there_is_nothing_to_correlate_with(folder, weights, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    folder = tmp_path
    with pytest.raises(UserError, match="echo of a single bubble is not known"):
        both(folder, localize=by_network(weights), psf={"min_bubbles": 100000})


def test_frames_that_are_all_echo_are_refused(weights):
    finder = finder_for(
        NetworkConfig(weights=str(weights)), spacing_um=SPACING_UM, wavelength_um=WAVELENGTH_UM
    )
    iq = np.ones((20, 16, 16), np.complex64)
    psf = gaussian_psf(fwhm_px=(9.0, 9.0), half_width=1)
    with pytest.raises(UserError, match="more than 50% of the pixels look like an echo"):
        network_bubbles(iq, abs(iq), psf, SimpleNamespace(max_per_frame=9), finder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused(folder, weights):
    how = by_network(weights)
    how["stulm"] = how["stulm"] | {"device": "cuda"}
    with pytest.raises(UserError, match="no CUDA device"):
        run(folder, "localize", localize=how)


def test_other_weights_redo_the_stage_and_no_stage_before(folder, tmp_path):
    path = write_hand_made(tmp_path / "hand.safetensors")

    def identities():
        how = {"localize": by_network(path)}
        return [job_of(folder, stage, how).identity() for stage in ("calibrate", "localize")]

    before = identities()
    write_hand_made(path)
    assert identities() == before
    write_hand_made(path, slope=0.8)
    after = identities()
    assert after[0] == before[0] == job_of(folder, "calibrate").identity()
    assert after[1] != before[1]


def test_weights_are_checked_without_torch(folder, weights):
    """The workflow does it before anything runs, and torch takes seconds to import."""
    asked = job_of(folder, "localize", {"localize": by_network(weights)})
    look = (
        "import json, sys; from vasculome.config import RunConfig, Sample;"
        "from vasculome.stages.job import Job, check_sample;"
        "config = RunConfig(**json.loads(sys.argv[1])); sample = Sample(**json.loads(sys.argv[2]));"
        "check_sample(config, sample); Job('localize', config, sample).identity();"
        "print('torch' in sys.modules)"
    )
    texts = [part.model_dump_json() for part in (asked.config, asked.sample)]
    done = subprocess.run(
        [sys.executable, "-c", look, *texts], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


def test_memory_is_foretold_by_pixels_and_by_how_they_are_cut(weights):
    def needed(block, spacing_um):
        finder = finder_for(
            NetworkConfig(weights=str(weights)), spacing_um=spacing_um, wavelength_um=100.0
        )
        return network_bytes(block, finder)

    once, larger = needed((100, 64, 64), (50.0, 50.0)), needed((100, 64, 64), (90.0, 90.0))
    assert once < larger < 4 * once + 1
    # Sites beyond those that go through the network at once cost a place in the list, no more.
    more = needed((2000, 128, 128), (50.0, 50.0)) - needed((1000, 128, 128), (50.0, 50.0))
    assert more / (1000 * 128 * 128) < 40
