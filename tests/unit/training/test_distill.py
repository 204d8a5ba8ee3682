"""Which terms the methods have, from what they are told, and that only the student is kept."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from tiny_patches import TinyPatches

from vasculome.config.segment_models import (
    WITH_CODES,
    WITH_MASKS,
    WITHOUT_TEACHER,
    LabelKind,
    SegmentMethod,
)
from vasculome.models.student import Student, StudentDesign
from vasculome.models.teacher import TeacherDesign
from vasculome.training import segment_losses as losses
from vasculome.training import vessel_scenes
from vasculome.training.distill import METHODS, Distillation, Method, distillation_loss
from vasculome.training.lessons import Lessons
from vasculome.training.patch_source import PatchBatch, labelled_batch
from vasculome.training.student_recipe import StudentRecipe, student_alone

DESIGN = StudentDesign((2, 3, 4), 1)
WIDTH = 5  # of what the teacher's encoder says


class FakeTeacher(torch.nn.Module):
    """Says what it is told, and remembers what it was asked."""

    design = SimpleNamespace(encoded_width=WIDTH, student_width=4)

    def __init__(self):
        super().__init__()
        self.asked = []

    def encode(self, x):
        self.asked.append(("encode", len(x)))
        grid = (len(x), 1, 2, 2, 2)
        codes = torch.arange(4.0)[None, :, None, None, None].expand(*grid[:1], 4, *grid[2:])
        deepest = torch.linspace(-1, 1, len(x) * WIDTH * 8).reshape(len(x), WIDTH, 2, 2, 2)
        return SimpleNamespace(deepest=deepest, quantized=SimpleNamespace(features=codes))

    def forward(self, x):
        encoded = self.encode(x)
        self.asked[-1] = ("answer", len(x))
        return SimpleNamespace(logits=8 * x - 4, encoded=encoded)


@pytest.fixture
def batch():
    source = TinyPatches((8, 8, 8))
    others = torch.from_numpy(source.unlabelled(0))[None, None]
    return replace(labelled_batch(source, [0, 1]), others=others)


def _network(method, seed=0):
    torch.manual_seed(seed)
    return Distillation(DESIGN, method, teacher_width=WIDTH)


def _loss(method, network, batch, *, part=0.5, teacher=None):
    torch.manual_seed(7)
    lessons = None if teacher is None else Lessons(teacher, method.features_asked)
    found = distillation_loss(network, method, batch, lessons=lessons, part=part)
    return float(found.detach())


def test_the_configuration_knows_the_same_methods():
    assert set(get_args(SegmentMethod)) == set(METHODS)
    assert {name for name, m in METHODS.items() if not m.needs_teacher} == WITHOUT_TEACHER
    assert {name for name, m in METHODS.items() if m.features == "codebook"} == WITH_CODES
    assert {name for name, m in METHODS.items() if m.pseudo_labels or m.soft_labels} == WITH_MASKS
    assert LabelKind == vessel_scenes.LabelKind


def test_vpbsd_is_equation_10(batch):
    method, teacher = METHODS["vpbsd"], FakeTeacher()
    network = _network(method)
    found = _loss(method, network, batch, part=0.6, teacher=teacher)
    with torch.no_grad():
        own, free = network.student(batch.images), network.student(batch.others)
    deepest = torch.cat([own.deepest, free.deepest])
    codes = torch.arange(4.0)[None, :, None, None, None]
    expected = (
        losses.dice_loss(own.logits, batch.masks)
        + losses.ramp(0.6) * losses.dice_loss(free.logits, batch.others > 0.5)
        + (deepest - codes).abs().mean()
    )
    assert found == pytest.approx(float(expected), rel=1e-5)
    # The teacher's decoder is not asked of what has labels.
    assert teacher.asked == [("encode", 1), ("encode", 1), ("answer", 1)]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("light_unet", []),
        ("kd", [("answer", 1)] * 2),
        ("fitnets", [("encode", 1)] * 2),
        ("vid", [("encode", 1)] * 2),
        ("ab", [("encode", 1)] * 2),
        ("mean_teacher", []),
        ("uamt", []),
        ("entropy", []),
        ("without_distillation", [("answer", 1)]),
        ("without_semi", [("encode", 1)] * 3),
        ("mid", [("encode", 1)] * 3),
        ("semi_mid", [("encode", 1), ("encode", 1), ("answer", 1)]),
    ],
)
def test_every_method_adds_its_own_to_dice(batch, name, asked):
    method, teacher = METHODS[name], FakeTeacher()
    network = _network(method)
    found = _loss(method, network, batch, teacher=teacher)
    with torch.no_grad():
        own, free = network.student(batch.images), network.student(batch.others)
    torch.manual_seed(7)
    dice = float(losses.dice_loss(own.logits, batch.masks))
    assert teacher.asked == asked
    ramp, pseudo = losses.ramp(0.5), losses.dice_loss(free.logits, batch.others > 0.5)
    target = torch.cat([FakeTeacher().encode(image[None]).deepest for image in batch.images])
    # Of labelled patches and the one without labels, which all look alike to this teacher.
    deepest = torch.cat([own.deepest, free.deepest])
    everywhere, codes = torch.cat([target, target[:1]]), torch.arange(4.0)[:, None, None, None]

    def l_mid():
        # A 1×1 convolution is a product of matrices at each voxel.
        weight, bias = network.regressor.weight[:, :, 0, 0, 0], network.regressor.bias
        aligned = torch.einsum("oi,nizyx->nozyx", weight, deepest) + bias[:, None, None, None]
        return (aligned - everywhere).abs().mean()

    added = {
        "light_unet": lambda: 0.0,
        "kd": lambda: losses.soft_label_loss(own.logits, 8 * batch.images - 4, temperature=4),
        "fitnets": lambda: losses.hint_loss(network.regressor(own.deepest), target),
        "vid": lambda: losses.variational_loss(
            network.regressor(own.deepest), network.regressor.raw_variance, target
        ),
        "ab": lambda: losses.boundary_loss(network.regressor(own.deepest), target),
        "mean_teacher": lambda: 0.1 * ramp * _disagreement(network, free.logits, batch.others),
        "entropy": lambda: 0.1 * ramp * losses.entropy_loss(free.logits),
        "uamt": lambda: (
            0.1 * ramp * _disagreement_where_certain(network, free.logits, batch.others)
        ),
        "without_distillation": lambda: ramp * pseudo,
        "without_semi": lambda: (deepest - codes).abs().mean(),
        "mid": l_mid,
        "semi_mid": lambda: l_mid() + ramp * pseudo,
    }
    with torch.no_grad():
        assert found - dice == pytest.approx(float(added[name]()), rel=1e-4, abs=1e-6)


def _disagreement(network, logits, images):
    noise = (0.1 * torch.randn(images.shape)).clamp(-0.2, 0.2)
    return losses.consistency_loss(logits, torch.sigmoid(network.mean(images + noise).logits))


def _disagreement_where_certain(network, logits, images):
    """Equation 3 of UAMT by hand: where the mean of eight looks has little entropy."""
    looks = []
    for _ in range(8):
        noise = (0.1 * torch.randn(images.shape)).clamp(-0.2, 0.2)
        looks.append(torch.sigmoid(network.mean(images + noise).logits))
    p = torch.stack(looks).mean(0)
    uncertain = -(p * p.log() + (1 - p) * (1 - p).log())
    certain = uncertain < (0.75 + 0.25 * losses.ramp(0.5)) * np.log(2)
    assert 0 < certain.sum() < certain.numel()
    apart = (torch.sigmoid(logits) - looks[0]) ** 2
    return apart[certain].sum() / certain.sum()


def test_uamt_leaves_out_what_the_mean_is_uncertain_of(batch):
    method = METHODS["uamt"]
    network = _network(method)
    torch.nn.init.zeros_(network.mean.head.weight)
    torch.nn.init.zeros_(network.mean.head.bias)
    # It says ½ of every voxel: nothing counts.
    with torch.no_grad():
        alone = float(losses.dice_loss(network.student(batch.images).logits, batch.masks))
    assert _loss(method, network, batch, part=0.0) == pytest.approx(alone, abs=1e-6)
    assert _loss(METHODS["mean_teacher"], network, batch, part=1.0) > alone


def test_gradients_reach_student_and_regressor_and_no_one_else(batch):
    for name in ("vpbsd", "vid", "ab", "uamt"):
        method = METHODS[name]
        network = _network(method)
        lessons = Lessons(FakeTeacher(), method.features_asked)
        loss = distillation_loss(network, method, batch, lessons=lessons, part=1.0)
        loss.backward()
        deep = network.student.down[-1].second.weight
        assert float(deep.grad.abs().sum()) > 0
        if network.regressor is not None:
            assert all(p.grad is not None for p in network.regressor.parameters())
        if network.mean is not None:
            assert all(p.grad is None for p in network.mean.parameters())


def test_the_mean_follows_the_student():
    network = _network(METHODS["mean_teacher"])
    first = network.student.head.weight.detach().clone()
    with torch.no_grad():
        network.student.head.weight.add_(1)
    network.follow(0)  # 1 − 1/1: all of it is the student's.
    assert torch.allclose(network.mean.head.weight, first + 1)
    with torch.no_grad():
        network.student.head.weight.add_(1)
    network.follow(1)
    assert torch.allclose(network.mean.head.weight, first + 1.5)
    with torch.no_grad():
        network.student.head.weight.add_(1)
    network.follow(10**6)
    assert torch.allclose(network.mean.head.weight, first + 1.5 + 0.01 * 1.5, atol=1e-4)


def test_cldice_takes_its_part_of_the_loss_on_labels(batch):
    network = _network(Method())
    logits = network.student(batch.images).logits
    expected = 0.7 * losses.dice_loss(logits, batch.masks) + 0.3 * losses.soft_cldice_loss(
        logits, batch.masks
    )
    assert _loss(Method(cldice=0.3), network, batch) == pytest.approx(float(expected.detach()))


@pytest.mark.parametrize(
    "fault", [{"pseudo_labels": 1.0}, {"entropy": 1.0}, {"only_certain": True}]
)
def test_methods_that_contradict_themselves_are_refused(fault):
    with pytest.raises(ValueError, match=r"without labels|belongs"):
        Method(**fault)


def test_only_the_student_is_kept():
    network = _network(METHODS["vid"])
    assert isinstance(student_alone(network), Student)
    assert student_alone(network.student) is network.student


def test_what_the_teacher_said_is_remembered(batch):
    teacher = FakeTeacher()
    lessons = Lessons(teacher, "codebook", most=3)
    first = lessons.ask(batch.images, decodes=True)
    again = lessons.ask(batch.images.flip(0), decodes=True)
    assert teacher.asked == [("answer", 1)] * 2
    assert torch.equal(again.logits.flip(0), first.logits)
    assert torch.equal(again.features, first.features)
    # A new one among known ones is asked for alone; without logits it is another question.
    mixed = lessons.ask(torch.cat([batch.images[:1], batch.others]), decodes=True)
    assert teacher.asked[2:] == [("answer", 1)]
    assert torch.equal(mixed.logits[0], first.logits[0])
    assert torch.allclose(mixed.logits[1], 8 * batch.others[0] - 4, atol=5e-3)
    # Three are remembered, no more.
    for _ in range(2):
        twice = lessons.ask(torch.cat([batch.others, batch.others]), decodes=False)
        assert twice.logits is None and len(twice.features) == 2
    assert teacher.asked[3:] == [("encode", 1), ("encode", 1)]


def test_a_recipe_shows_what_its_method_needs():
    source = TinyPatches()
    recipe = StudentRecipe(DESIGN, source, 10, METHODS["vpbsd"], FakeTeacher(), batch_size=2)
    batch = recipe.batch(3)
    assert source.asked == [("labelled", 6), ("labelled", 7), ("unlabelled", 6), ("unlabelled", 7)]
    assert batch.others.shape == batch.images.shape == (2, 1, 16, 16, 16)
    assert StudentRecipe(DESIGN, source, 10).batch(0).others is None
    with pytest.raises(ValueError, match="needs a teacher"):
        StudentRecipe(DESIGN, source, 10, METHODS["kd"])
    wrong = StudentDesign((2, 3, 9), 1)
    with pytest.raises(ValueError, match="codes of 4 channels"):
        StudentRecipe(wrong, source, 10, METHODS["vpbsd"], FakeTeacher())
    assert TeacherDesign().encoded_width == 768


def test_a_batch_can_go_to_a_device(batch):
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved, PatchBatch) and moved.masks.device.type == "meta"
    assert moved.others.device.type == "meta"
