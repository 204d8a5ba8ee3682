"""How segmenters learn: from what, in which order, and how they are scored."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_patches import TinyPatches

from vasculome.models.student import Student, StudentDesign
from vasculome.models.teacher import Teacher, TeacherDesign
from vasculome.storage.checkpoints import read_checkpoint
from vasculome.training import segment_losses as losses
from vasculome.training.distill import METHODS
from vasculome.training.loop import CHECKPOINT, Plan, train
from vasculome.training.patch_source import RenderedPatches
from vasculome.training.segment_scores import (
    SCORES,
    best_threshold,
    calibrate,
    probability_of,
    score_of,
)
from vasculome.training.student_recipe import StudentRecipe, student_alone
from vasculome.training.teacher_recipe import TeacherRecipe
from vasculome.training.vessel_scenes import light_sheet

DESIGN = StudentDesign((2, 3), 1)
TEACHER = TeacherDesign(12, (1, 1, 1, 1), (1, 1, 1, 1), student_width=3, n_codes=4, window=2)


def test_the_score_is_dice_and_the_threshold_the_best():
    masks = [np.zeros((4, 4, 4), bool) for _ in range(2)]
    masks[0][1:3, 1:3] = masks[1][0] = True
    said = [np.where(m, 0.9, 0.1).astype(np.float32) for m in masks]
    perfect = score_of(said, masks)
    assert (perfect["score"], perfect["cldice"]) == (1, 1)
    assert 0.1 <= perfect["threshold"] < 0.9
    # Too sure of itself or not sure enough: the score is that of the threshold that is kept.
    unsure = score_of([0.4 * p for p in said], masks)
    assert (unsure["score"], unsure["cldice"]) == (1, 1)
    assert tuple(unsure) == SCORES
    # It says 0.36 of vessels and 0.04 of the rest, of which 32 and 96 are.
    assert unsure["uncalibrated_error"] == pytest.approx((32 * 0.64 + 96 * 0.04) / 128)
    assert unsure["calibration_error"] < unsure["uncalibrated_error"]
    assert unsure["temperature"] < 1
    said[0] = np.zeros_like(said[0])
    assert score_of(said, masks)["score"] == 0.5
    # Only above 0.7 are all who say so right.
    p = np.array([0.2, 0.4, 0.6, 0.72, 0.8, 0.9], np.float32)
    assert 0.6 <= best_threshold([p], [p > 0.7]) < 0.72
    # Where there are no vessels, nothing is told of a threshold.
    assert 0.6 <= best_threshold([p, p], [p > 0.7, p > 1]) < 0.72
    assert best_threshold([p], [p > 1]) == 0.5
    # Two patches of few vessels count more than one of many, in which 0.3 would be better.
    many = np.repeat(np.array([0.35, 0.75], np.float32), 100)
    assert best_threshold([many], [many > 0.2]) < 0.4
    assert 0.6 <= best_threshold([p, p, many], [p > 0.7, p > 0.7, many > 0.2]) < 0.72


@pytest.mark.parametrize("network", [Student(DESIGN), Teacher(TEACHER)], ids=["student", "teacher"])
def test_a_calibrated_network_says_logits_over_the_temperature(network):
    image = torch.rand(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network.eval()(image).logits
        calibrate(network, 2.5)
        after = network(image).logits
    assert before.abs().max() > 0.01
    torch.testing.assert_close(after, before / 2.5)


def test_probabilities_of_logits():
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 1, 1, 2)
    assert np.allclose(probability_of(logits), [[[0.5, 0.75]]])


def test_a_student_learns_and_resumes_as_if_nobody_had_disturbed_it(tmp_path):
    source = TinyPatches((8, 8, 8))
    recipe = StudentRecipe(
        DESIGN, source, 8, METHODS["mean_teacher"], batch_size=1, validation_patches=2
    )
    plan = Plan(8, 0.02, validate_every=4, checkpoint_every_s=1e9, ahead=0)
    whole, record = train(recipe, plan, folder=tmp_path / "a", seed=1)
    train_until(6, recipe, plan, tmp_path / "b")
    again, _ = train(recipe, plan, folder=tmp_path / "b", seed=1)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert record.validated == [4, 8]
    tensors, _ = read_checkpoint(tmp_path / "a" / CHECKPOINT)
    assert any(name.startswith("last.mean.") for name in tensors)
    assert student_alone(whole).design == DESIGN


class Neighbourly(torch.nn.Module):
    """A teacher whose answers depend, in their last bits, on the patches beside, as of a GPU."""

    design = SimpleNamespace(encoded_width=5, student_width=3)

    def encode(self, x):
        deepest = x[:, :, :4, :4, :4].expand(-1, 5, -1, -1, -1) * (1 + 1e-6 * len(x))
        return SimpleNamespace(deepest=deepest)


class Repeating(TinyPatches):
    """Three patches that come again and again."""

    def _patch(self, split, number, index):
        return super()._patch(split, number, (0, 1, 0, 2, 1, 0, 2, 1)[index % 8])


def test_a_taught_student_resumes_as_if_nobody_had_disturbed_it(tmp_path):
    recipe = StudentRecipe(
        DESIGN, Repeating((8, 8, 8)), 8, METHODS["fitnets"], Neighbourly(), validation_patches=1
    )
    plan = Plan(8, 0.02, validate_every=3, checkpoint_every_s=1e9, ahead=0)
    whole, _ = train(recipe, plan, folder=tmp_path / "a", seed=1)
    # It goes on at step 3 with patches 2 and 1; without a break it had been asked 2 alone before.
    train_until(5, recipe, plan, tmp_path / "b")
    # Another process has forgotten what the teacher said.
    again, _ = train(StudentRecipe(**vars_of(recipe)), plan, folder=tmp_path / "b", seed=1)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def train_until(last, recipe, plan, folder):
    """Train, and die in a step."""

    class Dying(StudentRecipe):
        def loss(self, network, batch, step):
            if step == last:
                raise KeyboardInterrupt
            return super().loss(network, batch, step)

    with pytest.raises(KeyboardInterrupt):
        train(Dying(**vars_of(recipe)), plan, folder=folder, seed=1)


def vars_of(recipe):
    return {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A teacher after a step with images and one with labels, and what was seen on the way."""
    source = TinyPatches((64, 32, 32))
    recipe = TeacherRecipe(TEACHER, source, 1, batch_size=1, validation_patches=2)
    plan = Plan(2, 1e-3, restart=(1, 1e-4), decay_to=0.5, validate_every=1, ahead=0)
    network, record = train(recipe, plan, folder=tmp_path_factory.mktemp("teacher"), seed=0)
    return recipe, network, record, source


def test_a_teacher_sees_images_first_then_labels(taught):
    recipe, network, record, source = taught
    # Two images to learn from and for codes to begin as: there are four, and two for each image.
    assert [asked for asked in source.asked if asked[0] != "validation"] == [
        ("unlabelled", 0),
        ("unlabelled", 0),
        ("unlabelled", 1),
        ("labelled", 1),
    ]
    assert network.codebook.begun
    assert network.fine_tuned and record.best_step == 2
    before, after = record.metrics
    assert before["score"] < 0 <= after["score"]
    assert before.keys() == after.keys() and math.isnan(before["cldice"])
    assert 1 <= after["perplexity"] <= 4
    assert 1 <= after["training_perplexity"] <= 4
    assert after["coarse_error"] > 0
    assert recipe.pretrain_steps == 1


def test_use_of_the_codebook_is_logged_while_it_is_learnt(taught, caplog):
    recipe = replace(taught[0], pretrain_steps=200)
    network = Teacher(TEACHER)
    batch = recipe.batch(0)
    with caplog.at_level("INFO"):
        recipe.loss(network.train(), batch, 98)
        assert not caplog.records
        recipe.loss(network.train(), batch, 99)
    (record,) = caplog.records
    assert "step 100: perplexity of the codes lately drawn" in record.getMessage()
    assert record.args[2] == network.codebook.restarted


def test_the_parts_of_its_loss(taught):
    recipe = taught[0]
    torch.manual_seed(0)
    network = Teacher(TEACHER)
    images, labels = recipe.batch(0), recipe.batch(1)
    assert not images.masks.any() and labels.masks.any()
    torch.manual_seed(5)
    # Codes begin as features after a third of the images; until then features pass as they are.
    early = replace(recipe, pretrain_steps=6)
    early.loss(network.train(), images, 1)
    assert not network.codebook.begun
    early.loss(network, images, 2)
    assert network.codebook.begun
    torch.manual_seed(5)
    found = float(early.loss(network, images, 3).detach())
    network.codebook.share.fill_(1 / 4)
    torch.manual_seed(5)
    with torch.no_grad():
        answer = network(images.images, learning=True, temperature=10**-0.5)
        expected = (answer.image - images.images).square().mean()
        expected = expected + 0.1 * answer.encoded.quantized.loss
        expected = expected + (answer.coarse - network.coarse(images.images)).square().mean()
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert not network.fine_tuned
    with torch.no_grad():
        answer = network(labels.images)
        dice = losses.dice_loss(answer.logits, labels.masks)
        both = 0.8 * dice + 0.2 * losses.soft_cldice_loss(answer.logits, labels.masks)
    other = replace(recipe, cldice=0.2)
    for own, expected in ((recipe, dice), (other, both)):
        found = float(own.loss(network, labels, 1).detach())
        assert found == pytest.approx(float(expected), rel=1e-4)


def test_labels_leave_the_transformer_and_the_codes_as_images_have_made_them(taught):
    recipe = replace(taught[0], pretrain_steps=1)
    kept = ("swin.swinViT.", "align.", "codebook.", "coarse_head.")
    for pretrained in (True, False):
        network = Teacher(TEACHER).train()
        if pretrained:
            recipe.loss(network, recipe.batch(0), 0)
        recipe.loss(network, recipe.batch(1), 1).backward()
        learnt = {name for name, p in network.named_parameters() if p.grad is not None}
        assert any(name.startswith("swin.encoder1.") for name in learnt)
        assert any(name.startswith("swin.decoder5.") for name in learnt)
        assert any(name.startswith(kept) for name in learnt) is not pretrained


def test_a_real_teacher_teaches(taught):
    network = taught[1]
    network.zero_grad(set_to_none=True)
    source = TinyPatches((64, 32, 32))
    recipe = StudentRecipe(DESIGN, source, 4, METHODS["vpbsd"], network, batch_size=1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    student = recipe.network()
    loss = recipe.loss(student, recipe.batch(0), 2)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert float(student.student.down[-1].second.weight.grad.abs().sum()) > 0
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())


def test_the_rate_falls_exponentially_in_both_parts():
    plan = Plan(30, 1e-3, restart=(10, 1e-5), decay_to=0.01)
    assert plan.rate(0) == pytest.approx(1e-3) and plan.rate(9) == pytest.approx(1e-5)
    assert plan.rate(3) / plan.rate(2) == pytest.approx(plan.rate(6) / plan.rate(5))
    assert plan.rate(10) == pytest.approx(1e-5) and plan.rate(29) == pytest.approx(1e-7)
    assert Plan(1, 1e-3, decay_to=0.1).rate(0) == 1e-3


def test_rendered_patches_come_again_turned_and_those_without_labels_are_others():
    scene = replace(light_sheet(), shape=(8, 16, 16))
    few, many = RenderedPatches(scene, 3, labels=2), RenderedPatches(scene, 3)
    image, mask = many.labelled(1)
    assert image.dtype == np.float32 and mask.dtype == bool and image.shape == (8, 16, 16)
    for index in (1, 3, 5):
        other, turned = few.labelled(index)
        again, _ = few.labelled(index)
        assert np.array_equal(other, again)
        options = [
            (np.flip(a, axes).swapaxes(1, 2) if swap else np.flip(a, axes), b, c)
            for axes in _subsets()
            for swap in (False, True)
            for a, b, c in [(image, axes, swap)]
        ]
        (found,) = [(axes, swap) for a, axes, swap in options if np.array_equal(a, other)]
        moved = np.flip(mask, found[0])
        assert np.array_equal(moved.swapaxes(1, 2) if found[1] else moved, turned)
    assert not np.array_equal(few.unlabelled(1), image)
    assert not np.array_equal(few.validation(1)[0], image)


def test_patches_that_come_again_are_rendered_once():
    scene = replace(light_sheet(), shape=(8, 16, 16))
    few = RenderedPatches(scene, 3, labels=1, others=2)
    first, other = few.labelled(0), few.unlabelled(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vasculome.training.patch_source.make_patch", None)
        assert np.array_equal(few.labelled(0)[0], first[0])
        assert np.array_equal(few.unlabelled(3), other)
        with pytest.raises(TypeError):
            few.unlabelled(0)


def _subsets():
    return [tuple(a for a in range(3) if bits >> a & 1) for bits in range(8)]
