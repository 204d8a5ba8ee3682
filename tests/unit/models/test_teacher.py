"""The teacher: Swin UNETR but for its deepest features, which come from the codebook."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from vasculome.models.build import build
from vasculome.models.teacher import SMALL, Teacher, TeacherDesign

TINY = TeacherDesign(12, (1, 1, 1, 1), (2, 2, 2, 2), student_width=6, n_codes=16, window=2)
SHAPE = (1, 1, 64, 32, 32)


@pytest.fixture(scope="module")
def teacher(images):
    torch.manual_seed(0)
    teacher = Teacher(TINY)
    teacher.codebook.restart_dead(teacher.encode(images).aligned[0].flatten(1).T.detach())
    return teacher


@pytest.fixture(scope="module")
def images():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))


def _parameters(design):
    with torch.device("meta"):
        return sum(p.numel() for p in Teacher(design).parameters())


def test_the_size_is_that_of_the_paper_and_the_small_one_is_a_processors(monkeypatch):
    # Nothing is allocated, but MONAI reads a few numbers while it builds.
    linspace = torch.linspace
    monkeypatch.setattr(torch, "linspace", lambda *a, **k: linspace(*a, **k, device="cpu"))
    # The paper has 63.98 M; 62.19 M are MONAI's network, the rest is what we know of.
    aligned = 768 * 44 + 44 + 44 * 768 + 768 + 512 * 44 + 48 + 1 + 44 * 64 + 1
    assert _parameters(TeacherDesign()) == 62_186_659 + aligned
    assert _parameters(TeacherDesign()) == pytest.approx(63.98e6, rel=0.03)
    assert _parameters(SMALL) == pytest.approx(4.0e6, rel=0.02)


def test_answers_have_their_shapes(teacher, images):
    with torch.no_grad():
        answer = teacher.eval()(images)
    assert answer.logits.shape == answer.image.shape == SHAPE
    assert answer.coarse.shape == teacher.coarse(images).shape == (1, 1, 8, 4, 4)
    encoded = answer.encoded
    assert [level.shape[1] for level in encoded.levels] == [12, 24, 48, 96, 192]
    assert encoded.deepest.shape == (1, TINY.encoded_width, 2, 1, 1)
    assert encoded.aligned.shape == encoded.quantized.features.shape == (1, 6, 2, 1, 1)
    assert not teacher.fine_tuned


def test_with_the_encoders_own_features_it_is_monais_network(teacher, images, monkeypatch):
    # Without the codebook in between, what is left must be SwinUNETR.forward.
    teacher.eval()
    seen = {}
    monkeypatch.setattr(teacher.widen, "forward", lambda _: seen["deepest"])
    teacher.swin.swinViT.register_forward_hook(lambda *a: seen.update(deepest=a[2][4]))
    with torch.no_grad():
        assert torch.equal(teacher(images).logits, teacher.swin(images))


def test_the_deepest_features_reach_the_answer_by_the_codes_only(teacher, images):
    teacher.eval()
    with torch.no_grad():
        encoded = teacher.encode(images)
        before = teacher(images).logits
        codes = teacher.codebook.codes[encoded.quantized.index[0, :, 0, 0]]
        assert torch.equal(encoded.quantized.features[0, :, :, 0, 0].T, codes)
        teacher.codebook.codes.add_(1.0)
        assert not torch.equal(teacher(images).logits, before)
        teacher.codebook.codes.sub_(1.0)


def test_labels_teach_the_encoder_past_the_codes_which_stay(teacher, images):
    teacher.train().zero_grad()
    (teacher(images).logits * torch.rand(SHAPE)).sum().backward()
    assert float(teacher.align.weight.grad.abs().sum()) > 0
    assert teacher.codebook.codes.grad is None
    teacher.zero_grad()
    answer = teacher(images, learning=True)
    (answer.image.square().mean() + answer.encoded.quantized.loss).backward()
    assert float(teacher.codebook.codes.grad.abs().sum()) > 0


def test_the_coarse_image_is_told_by_codes_alone_voxel_for_voxel(teacher, images):
    teacher.eval()
    with torch.no_grad():
        answer = teacher(images)
        known = teacher.coarse_head.weight[:, 0], teacher.coarse_head.bias
        codes = answer.encoded.quantized.features[0, :, :, 0, 0]
        told = torch.einsum("dz,dabc->zabc", codes, known[0]) + known[1]
    torch.testing.assert_close(answer.coarse[0, 0], told.reshape(8, 4, 4))
    flat = torch.full(SHAPE, 0.25)
    flat[:, :, :8, :8, :8] = 0.5
    expected = torch.full((1, 1, 8, 4, 4), 0.25)
    expected[..., 0, 0, 0] = 0.5
    torch.testing.assert_close(teacher.coarse(flat), expected)


@pytest.mark.parametrize("shape", [(1, 1, 48, 32, 64), (1, 2, 64, 32, 32), (1, 1, 32, 32, 32)])
def test_patches_of_other_sizes_are_refused(teacher, shape):
    with pytest.raises(ValueError, match="patches must be"):
        teacher(torch.zeros(shape))


def test_intensities_may_be_seen_to_a_power(teacher, images):
    rooted = Teacher(replace(teacher.design, gamma=0.5)).eval()
    rooted.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        assert torch.equal(rooted(images).logits, teacher.eval()(images.sqrt()).logits)


def test_a_card_builds_the_network():
    arguments = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(TINY).items()}
    network = build("teacher", arguments)
    assert isinstance(network, Teacher) and network.design == TINY
    assert isinstance(network, nn.Module)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"feature_size": 10}, "multiple of 12"),
        ({"depths": (2, 2)}, "four levels"),
        ({"depths": (2, 2, 2, 0)}, "1 or more"),
        ({"heads": (5, 5, 5, 5)}, "do not share"),
        ({"gamma": 0.0}, "gamma"),
    ],
)
def test_designs_that_are_none_are_refused(fault, says):
    with pytest.raises(ValueError, match=says):
        build("teacher", fault)
