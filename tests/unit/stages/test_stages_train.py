"""A training as the workflow runs it: its files, its identity, and faults in one line."""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from vasculome.config import BubbleNetConfig, StulmConfig, parse_config
from vasculome.errors import UserError
from vasculome.models.bubble_net import BubbleNetDesign
from vasculome.models.site_finder import SiteFinder, SiteFinderDesign
from vasculome.models.stulm import StulmDesign
from vasculome.stages.job import load_run
from vasculome.stages.model_card import metrics_over, write_model_card
from vasculome.stages.models import training_of, trainings
from vasculome.stages.recipes import plan_of, recipe_of, scene_of
from vasculome.stages.train import train_model
from vasculome.storage.checkpoints import read_checkpoint
from vasculome.storage.weights import write_weights
from vasculome.training.bubble_recipe import BubbleRecipe
from vasculome.training.scenes import broad_2d, paper_3d
from vasculome.training.stulm_recipe import Sparsify, StulmRecipe

ROOT = Path(__file__).parents[3]
TINY = {
    "network": "bubble_net",
    "frames": 8,
    "patch_px": 8,
    "steps": 3,
    "batch_size": 1,
    "validate_every": 2,
    "validation_movies": 1,
    "channels": [2],
    "device": "cpu",
    "threads": 1,
}


def _config(tmp_path, **models):
    return {"samples": None, "results": str(tmp_path / "results"), "models": models}


def _train(tmp_path, seed=0, **changes):
    config = _config(tmp_path, tiny={**TINY, **changes})
    train_model(config=config, model="tiny", seed=seed)
    return training_of(load_run(config)[0], "tiny", seed)


def test_the_weights_are_those_of_the_best_checkpoint(tmp_path):
    training = _train(tmp_path)
    tensors, state = read_checkpoint(next(training.checkpoints.iterdir()))
    manifest = json.loads(training.manifest_path.read_text())
    record = json.loads(training.record_path.read_text())
    assert manifest["summary"]["best_step"] == state["record"]["best_step"]
    assert record["curves"]["validated"] == [2, 3]
    assert state["step"] == 3
    best = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
    kept, _ = _weights(training.weights_path)
    assert kept.keys() == best.keys()
    assert all(torch.equal(kept[name], best[name]) for name in kept)


def _weights(path):
    return load_file(path), json.loads(path.with_suffix(".json").read_text())


def test_a_card_says_what_the_network_is_and_learnt_from(tmp_path):
    training = _train(tmp_path)
    _, card = _weights(training.weights_path)
    assert BubbleNetDesign(**{**card["arguments"], "channels": (2,)}) == BubbleNetDesign(2, (2,))
    assert card["data"]["scene"] == "broad_2d" and card["data"]["shape_px"] == [8, 8]
    assert card["spacing_wavelengths"] == list(broad_2d().spacing)
    assert card["seed"] == 0 and card["settings"]["steps"] == 3


def test_the_card_of_a_network_tells_of_all_seeds(tmp_path):
    config = _config(tmp_path, tiny={**TINY, "seeds": [0, 5]})
    for seed in (0, 5):
        train_model(config=config, model="tiny", seed=seed)
    write_model_card(config=config, model="tiny")
    folder = tmp_path / "results/models/tiny"
    _, card = _weights(folder / "tiny.safetensors")
    scores = [
        json.loads((folder / f"seed-{s}/manifest.json").read_text())["summary"]["metrics"]["score"]
        for s in (0, 5)
    ]
    assert card["seeds"] == [0, 5]
    assert card["seed"] == (0, 5)[scores.index(max(scores))]
    assert card["metrics_over_seeds"]["score"]["mean"] == pytest.approx(sum(scores) / 2)


def test_means_and_spread_over_seeds():
    values = [0.5, 0.7, 0.9]
    found = metrics_over("seeds", [{"score": v, "rmse": None if v == 0.5 else v} for v in values])
    assert found["score"]["mean"] == pytest.approx(0.7)
    assert found["score"]["sd"] == pytest.approx(statistics.stdev(values))
    assert found["rmse"] == {
        "mean": pytest.approx(0.8),
        "sd": pytest.approx(math.sqrt(0.02)),
        "seeds": 2,
    }
    assert metrics_over("seeds", [{"score": 0.5}])["score"] == {"mean": 0.5, "sd": None, "seeds": 1}


def test_other_settings_begin_anew_and_other_machines_do_not(tmp_path):
    def identity(seed=0, **changes):
        return training_of(
            parse_config(_config(tmp_path, tiny={**TINY, **changes}), where=""), "tiny", seed
        ).identity()

    same = {identity(), identity(threads=2), identity(device="auto"), identity(seeds=[0, 1])}
    same |= {identity(movie_threads=3), identity(memory_gb=9), identity(checkpoint_every_s=1)}
    assert len(same) == 1
    others = [
        identity(seed=1),
        identity(steps=4),
        identity(learning_rate=0.1),
        identity(channels=[3]),
    ]
    assert len({*others, *same}) == 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"learning_rate": 1e30, "steps": 8}, r"training has failed.*lower learning_rate"),
        ({"network": "stulm", "engine": "dense", "frames": 100}, "multiples of 128 frames"),
        ({"network": "stulm", "frames": 1025}, "1024 frames at the most, not 1025"),
    ],
)
def test_what_cannot_be_trained_ends_in_one_line(tmp_path, changes, says):
    given = {**TINY, **changes}
    if given["network"] == "stulm":
        del given["channels"]
    config = _config(tmp_path, tiny=given)
    with pytest.raises(UserError, match=says) as caught:
        train_model(config=config, model="tiny", seed=0)
    assert "models.tiny" in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "results").rglob("manifest.json"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused(tmp_path):
    with pytest.raises(UserError, match="no CUDA device"):
        _train(tmp_path, device="cuda")


@pytest.mark.skipif(
    importlib.util.find_spec("MinkowskiEngine") is not None, reason="MinkowskiEngine is there"
)
def test_without_minkowski_its_engine_is_refused(tmp_path):
    settings = {"network": "stulm", "engine": "minkowski", "device": "cpu", "frames": 128}
    config = _config(tmp_path, m={**settings, "patch_px": 8, "steps": 1})
    with pytest.raises(UserError, match="make minkowski"):
        train_model(config=config, model="m", seed=0)


def test_a_damaged_checkpoint_is_named(tmp_path):
    training = _train(tmp_path)
    (checkpoint,) = training.checkpoints.iterdir()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    with pytest.raises(UserError, match="delete it to train from the beginning") as caught:
        _train(tmp_path)
    assert str(checkpoint) in str(caught.value)


def test_no_networks_and_names_that_collide_are_refused(tmp_path):
    with pytest.raises(UserError, match="no network to train"):
        trainings(parse_config({}, where=""))
    sheet = tmp_path / "samples.tsv"
    row = {"sample": "models", "modality": "microscopy", "path": "x", "format": "tiff_stack"}
    row["spacing_um"] = "1,1,1"
    sheet.write_text("\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
    config = {**_config(tmp_path, tiny=TINY), "samples": str(sheet)}
    with pytest.raises(UserError, match="would lie among the networks"):
        load_run(config)


def test_defaults_of_the_configuration_are_those_of_the_networks():
    bubbles = recipe_of(BubbleNetConfig(network="bubble_net"), where="")
    assert isinstance(bubbles, BubbleRecipe)
    assert bubbles.design == BubbleNetDesign(2) and bubbles.scene == broad_2d()
    stulm = recipe_of(StulmConfig(network="stulm", scene="paper_3d", frames=128), where="")
    assert isinstance(stulm, StulmRecipe)
    assert stulm.design == StulmDesign(3) and stulm.sparsify == Sparsify()
    assert stulm.scene == paper_3d(n_frames=128)


def test_every_setting_reaches_the_recipe():
    settings = StulmConfig(
        network="stulm", scene="paper_2d", bubbles=(2, 9), patch_px=16, sparsify="top_k", top_k=77,
        intermediate_loss=True, pruning=True, keep_above=0.4, cascade_steps=3, dilated_steps=5,
        dilation_px=1, repeat_after=11, batch_size=6, validation_movies=4, movie_seed=8,
    )  # fmt: skip
    recipe = recipe_of(settings, where="")
    assert recipe.sparsify == Sparsify("top_k", 77)
    assert recipe.design == StulmDesign(2, intermediate_loss=True, pruning=True, keep_above=0.4)
    scene = scene_of(settings)
    assert (scene.bubbles, scene.shape_px) == ((2, 9), (16, 16))
    names = ("batch_size", "validation_movies", "dilated_steps", "dilation_px", "cascade_steps")
    for name in (*names, "repeat_after"):
        assert getattr(recipe, name) == getattr(settings, name)
    assert recipe.seed == 8


def test_a_network_of_sites_is_given_to_the_one_that_needs_it(tmp_path):
    path = tmp_path / "sites.safetensors"
    design = SiteFinderDesign(2, channels=4, depth=2)
    card = {"name": "sites", "architecture": "site_finder", "arguments": asdict(design)}
    finder = SiteFinder(design)
    write_weights(path, finder.state_dict(), card)
    settings = {"network": "stulm", "scene": "paper_2d", "sparsify": "cnn", "finder": str(path)}
    recipe = recipe_of(StulmConfig(**settings, cnn=0.3), where="")
    assert (recipe.sparsify.method, recipe.sparsify.value) == ("cnn", 0.3)
    for name, kept in recipe.sparsify.finder.state_dict().items():
        assert torch.equal(kept, finder.state_dict()[name])
    # Other weights are another training.
    config = parse_config(_config(tmp_path, tiny=settings), where="test")
    before = training_of(config, "tiny", 0).identity()
    write_weights(path, SiteFinder(design).state_dict(), card)
    assert training_of(config, "tiny", 0).identity() != before
    with pytest.raises(UserError, match="not of a site_finder for 3-D"):
        recipe_of(StulmConfig(**{**settings, "scene": "paper_3d"}), where="models.tiny")


def test_the_preset_of_the_paper_has_its_rates():
    models = yaml.safe_load((ROOT / "config/models/paper.yaml").read_text())
    config = parse_config(models, where="paper.yaml")
    flat, cascaded = (plan_of(config.models[n]) for n in ("sparse_2d", "sparse_2d_cascaded"))
    expected = {1: 1e-1, 16: 1e-2, 46: 1e-3, 76: 1e-4, 149: 1e-5}
    expected |= {151: 1e-3, 161: 1e-4, 201: 1e-5, 251: 1e-6}
    for epoch, rate in expected.items():
        step = round(epoch * 2250 / 8)
        assert flat.rate(step) == pytest.approx(rate), epoch
        assert cascaded.rate(step + 3 * 281) == pytest.approx(rate), epoch
    volume = plan_of(config.models["sparse_3d_cascaded"])
    epochs = {0: 0.1, 17: 0.1, 18: 0.01, 20: 0.001, 22: 0.001}
    for epoch, rate in epochs.items():
        assert volume.rate(epoch * 3500 // 4) == pytest.approx(rate), epoch
