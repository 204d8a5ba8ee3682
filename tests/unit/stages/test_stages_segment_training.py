"""Segmenters as the workflow trains them: who teaches whom, what is kept, faults in one line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vasculome.config import StudentConfig, TeacherConfig, parse_config
from vasculome.errors import UserError
from vasculome.models.build import build
from vasculome.models.student import Student, StudentDesign
from vasculome.models.teacher import SMALL, Teacher, TeacherDesign
from vasculome.stages import segment_recipes
from vasculome.stages.models import training_of
from vasculome.stages.recipes import data_of, plan_of, recipe_of
from vasculome.stages.segment_recipes import read_teacher
from vasculome.stages.train import card_of, train_model
from vasculome.storage.weights import write_weights
from vasculome.training.distill import METHODS
from vasculome.training.loop import Record
from vasculome.training.vessel_scenes import broad, two_photon

TINY = {
    "network": "student",
    "widths": [2, 4],
    "patch_voxels": 8,
    "steps": 3,
    "batch_size": 1,
    "validate_every": 3,
    "validation_patches": 1,
    "device": "cpu",
    "threads": 1,
}
DESIGN = TeacherDesign(12, (1, 1, 1, 1), (1, 1, 1, 1), student_width=4, n_codes=4, window=2)


class Squares:
    """In place of rendered patches, which take a second each."""

    def __init__(self, scene, seed, *, labels, others):
        self.shape, self.seed = scene.shape, seed

    def _patch(self, index):
        rng = np.random.default_rng([self.seed, index])
        mask = rng.random(self.shape) < 0.2
        return (0.5 * mask + 0.5 * rng.random(self.shape)).astype(np.float32), mask

    labelled = validation = _patch

    def unlabelled(self, index):
        return self._patch(index)[0]


@pytest.fixture
def squares(monkeypatch):
    monkeypatch.setattr(segment_recipes, "RenderedPatches", Squares)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Weights of a teacher, and of one that has seen no labels."""
    folder = tmp_path_factory.mktemp("teachers")
    teacher = Teacher(DESIGN)
    card = {"name": "t", "architecture": "teacher", "arguments": asdict(DESIGN)}
    write_weights(folder / "early.safetensors", teacher.state_dict(), card)
    teacher.fine_tuned.fill_(True)
    write_weights(folder / "good.safetensors", teacher.state_dict(), card)
    return folder


def _config(tmp_path, **models):
    return {"samples": None, "results": str(tmp_path / "results"), "models": models}


def _training(tmp_path, name="a", **models):
    return training_of(parse_config(_config(tmp_path, **models), where=""), name, 0)


def test_only_the_student_is_kept_with_a_card_that_inference_needs(tmp_path, squares):
    config = _config(tmp_path, a={**TINY, "method": "mean_teacher"})
    train_model(config=config, model="a", seed=0)
    training = training_of(parse_config(config, where=""), "a", 0)
    card = json.loads(training.weights_path.with_suffix(".json").read_text())
    tensors = load_file(training.weights_path)
    design = StudentDesign((2, 4))
    student = build(card["architecture"], card["arguments"])
    assert student.design == design
    assert tensors.keys() == student.state_dict().keys()
    assert 0.05 <= card["metrics"]["threshold"] <= 0.95
    assert card["data"]["scene"] == "broad" and card["data"]["shape"] == [8, 8, 8]
    assert card["data"]["spacing_um"] == list(broad().spacing_um)
    record = json.loads(training.record_path.read_text())
    assert record["parameters"] == sum(p.numel() for p in student.parameters())


def test_voxels_may_be_larger_than_those_of_the_scene():
    settings = StudentConfig(network="student", spacing_um=(6.0, 8.0), steps=1)
    told = data_of(settings)["data"]
    assert (told["spacing_um"], told["most_spacing_um"]) == ((6.0, 8.0), 8.0)


def test_every_setting_reaches_student_and_teacher(teachers):
    settings = StudentConfig(
        network="student", widths=(3, 5, 4), stem_stride=1, skip="concatenate", norm="batch",
        method="without_semi", teacher="x", cldice=0.2, scene="two_photon", patch_voxels=64,
        batch_size=3, validation_patches=4, labelled_patches=7, patch_seed=5, steps=11,
        unlabelled_patches=9, gamma=0.5, label="lumen", spacing_um=(0.4, 0.6),
        large_vessels=0.3,
    )  # fmt: skip
    recipe = recipe_of(settings, where="", teacher=teachers / "good.safetensors")
    assert recipe.design == StudentDesign((3, 5, 4), 1, "concatenate", "batch", 0.5)
    assert recipe.method.features == "codebook" and recipe.method.pseudo_labels == 0
    assert recipe.method.cldice == 0.2 and recipe.teacher.design == DESIGN
    assert (recipe.batch_size, recipe.validation_patches, recipe.steps) == (3, 4, 11)
    source = recipe.source
    assert (source.labels, source.others, source.seed) == (7, 9, 5)
    assert source.scene == replace(
        two_photon(),
        shape=(64, 64, 64),
        label="lumen",
        spacing_um=(0.4, 0.6),
        large_vessels=0.3,
    )
    settings = TeacherConfig(
        network="teacher", feature_size=24, depths=(1, 2, 1, 2), heads=(2, 2, 4, 4), n_codes=9,
        student_width=6, pretrain_steps=5, reconstruction="absolute", cldice=0.1, batch_size=4,
        validation_patches=3, steps=20, fine_tune_rate=2e-5, decay_to=0.5, patch_threads=3,
        window=5, code_scores="distance", gamma=0.7,
    )  # fmt: skip
    recipe = recipe_of(settings, where="")
    assert recipe.design == TeacherDesign(24, (1, 2, 1, 2), (2, 2, 4, 4), 6, 9, 5, "distance", 0.7)
    assert (recipe.pretrain_steps, recipe.reconstruction, recipe.cldice) == (5, "absolute", 0.1)
    assert (recipe.batch_size, recipe.validation_patches) == (4, 3)
    plan = plan_of(settings)
    assert (plan.restart, plan.decay_to, plan.makers) == ((5, 2e-5), 0.5, 3)
    assert data_of(settings)["data"]["patch_seed"] == 0
    # Nothing begins again where nothing came before.
    alone = plan_of(settings.model_copy(update={"pretrain_steps": 0, "learning_rate": 3e-4}))
    assert alone.restart is None and alone.rate(0) == pytest.approx(3e-4)


def test_defaults_are_the_papers():
    student = recipe_of(StudentConfig(network="student"), where="")
    assert student.design == StudentDesign() and student.method == METHODS["light_unet"]
    teacher = recipe_of(TeacherConfig(network="teacher", feature_size=48, window=7), where="")
    assert teacher.design == TeacherDesign()
    assert recipe_of(TeacherConfig(network="teacher"), where="").design == SMALL
    plan = plan_of(StudentConfig(network="student", steps=10))
    assert (plan.rate(0), plan.rate(9)) == (pytest.approx(1e-2), pytest.approx(1e-4))


def test_a_student_depends_on_its_teacher(tmp_path, teachers):
    taught = {**TINY, "method": "vpbsd", "patch_voxels": 64}
    teacher = {"network": "teacher", "steps": 5}
    named = _training(tmp_path, a={**taught, "teacher": "t"}, t=teacher)
    assert named.teacher == tmp_path / "results/models/t/t.safetensors"
    assert [training.name for training in named.teachers] == ["t"]
    other = _training(tmp_path, a={**taught, "teacher": "t"}, t={**teacher, "steps": 6})
    assert named.identity() != other.identity()
    same = _training(tmp_path, a={**taught, "teacher": "t"}, t={**teacher, "threads": 7})
    assert named.identity() == same.identity()
    by_path = _training(tmp_path, a={**taught, "teacher": str(teachers / "good.safetensors")})
    assert by_path.teacher == teachers / "good.safetensors" and not by_path.teachers
    early = _training(tmp_path, a={**taught, "teacher": str(teachers / "early.safetensors")})
    assert by_path.identity() != early.identity()
    alone = _training(tmp_path, a=TINY)
    assert alone.teacher is None and not alone.teachers
    # A student that names itself means a file of that name, which there is not.
    assert not _training(tmp_path, a={**taught, "teacher": "a"}).teachers


def test_a_card_tells_which_teacher_it_was(tmp_path, teachers):
    path = teachers / "good.safetensors"
    given = {**TINY, "method": "kd", "patch_voxels": 64, "teacher": str(path)}
    training = _training(tmp_path, a=given)
    record = Record(step=[0], validated=[1], metrics=[{"score": 1.0}], best_step=1)
    card = card_of(training, Student(StudentDesign((2, 4))), record)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["teacher"] == {"path": str(path), "sha256": digest}
    alone = card_of(_training(tmp_path, a=TINY), Student(StudentDesign((2, 4))), record)
    assert "teacher" not in alone


def test_a_teacher_comes_back_from_its_file(teachers):
    student = StudentConfig(network="student", widths=(2, 4), method="vpbsd", teacher="t")
    teacher = read_teacher(teachers / "good.safetensors", student, where="models.a")
    assert teacher.design == DESIGN and teacher.fine_tuned and not teacher.training
    kept = load_file(teachers / "good.safetensors")
    assert all(torch.equal(v, kept[k]) for k, v in teacher.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teacher": "early.safetensors"}, "seen no labels yet"),
        ({"teacher": "none.safetensors"}, "cannot be read"),
        ({"widths": [2, 5]}, "codes have 4 channels, the student's deepest level 5"),
        ({"patch_voxels": 32}, "multiples of 32 voxels, 64 at least, not 32 .give 64"),
        ({"patch_voxels": 70}, "multiples of 4 voxels, not 70 .give 72"),
    ],
)
def test_what_cannot_be_taught_ends_in_one_line(tmp_path, teachers, changes, says):
    given = {**TINY, "method": "vpbsd", "teacher": "good.safetensors", "patch_voxels": 64}
    given |= changes
    given["teacher"] = str(teachers / given["teacher"])
    with pytest.raises(UserError, match=says) as caught:
        train_model(config=_config(tmp_path, a=given), model="a", seed=0)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_no_teacher(tmp_path):
    path = tmp_path / "s.safetensors"
    design = StudentDesign((2, 4))
    card = {"name": "s", "architecture": "student", "arguments": asdict(design)}
    write_weights(path, build("student", asdict(design)).state_dict(), card)
    with pytest.raises(UserError, match="network student, not of a teacher"):
        read_teacher(path, StudentConfig(network="student"), where="models.a")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "vpbsd"}, "method vpbsd needs a teacher"),
        ({"teacher": "t"}, "method light_unet has no teacher"),
        ({"network": "teacher", "steps": 5, "pretrain_steps": 5}, "none of the 5 steps"),
        ({"network": "teacher", "heads": [5, 5, 5, 5]}, "5 heads do not share 12 channels"),
        ({"network": "teacher", "feature_size": 20}, "multiple of 12"),
        ({"decay_to": 0}, "greater than 0"),
        ({"drops": [3]}, "drops: unknown key"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        parse_config({"models": {"a": {"network": "student", **settings}}}, where="")
