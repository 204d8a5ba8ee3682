"""The student: its size and work, and that it says of a voxel what its surroundings tell."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
from torch import nn

from vasculome.models.build import build
from vasculome.models.student import Student, StudentDesign

CONCATENATED = StudentDesign((4, 6, 20, 40), skip="concatenate")
FULL_RESOLUTION = StudentDesign((5, 10, 20, 40), stem_stride=1)


def _work_of(network, shape):
    """Return parameters, and multiply-adds of the convolutions, counted while they run."""
    found = []

    def count(module, _, output):
        each = module.in_channels // module.groups * math.prod(module.kernel_size)
        found.append(output.numel() * each)

    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(shape))
    return sum(p.numel() for p in network.parameters()), sum(found)


@pytest.mark.parametrize(
    ("design", "parameters", "work"),
    [
        (StudentDesign(), 120_053, 109_963_264),
        (CONCATENATED, 120_813, 109_103_104),
        (FULL_RESOLUTION, 116_761, 1_072_250_880),
    ],
)
def test_size_and_work_are_those_of_the_paper(design, parameters, work):
    # The paper has 0.12 M and 0.11 GFLOPs for a patch of 64³, whose work is 8 times that of 32³.
    found = _work_of(Student(design), (1, 1, 32, 32, 32))
    assert (found[0], 8 * found[1]) == (parameters, work)
    assert round(found[0] / 1e6, 2) == 0.12
    assert round(8 * found[1] / 1e9, 2) == (1.07 if design.stem_stride == 1 else 0.11)


def test_a_second_class_at_the_head_is_all_that_our_notes_count_more():
    # 0.1201 M and 0.1101 GMAC; 0.1208 M and 0.1092 GMAC; 0.117 M: two logits instead of one.
    for design, m, g in ((StudentDesign(), 0.1201, 0.1101), (CONCATENATED, 0.1208, 0.1092)):
        network = Student(design)
        network.head = nn.Conv3d(design.widths[0], 2, 1)
        parameters, work = _work_of(network, (1, 1, 32, 32, 32))
        assert (round(parameters / 1e6, 4), round(8 * work / 1e9, 4)) == (m, g)


@pytest.mark.parametrize("design", [StudentDesign(), FULL_RESOLUTION, CONCATENATED])
def test_answers_have_the_shapes_of_the_patches(design):
    shape = (2 * design.stride, design.stride, 3 * design.stride)
    answer = Student(design)(torch.rand(2, 1, *shape))
    assert answer.logits.shape == (2, 1, *shape)
    assert answer.deepest.shape == (2, design.widths[-1], 2, 1, 3)
    # Of either sign, so that they can be the teacher's.
    assert 0.2 < float((answer.deepest < 0).float().mean()) < 0.8


@pytest.mark.parametrize("shape", [(1, 1, 15, 16, 16), (1, 2, 16, 16, 16), (1, 16, 16, 16)])
def test_patches_of_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 16"):
        Student(StudentDesign())(torch.zeros(shape))


@pytest.mark.parametrize("stem", [1, 2])
def test_nothing_beyond_its_reach_bears_on_a_voxel(stem):
    design = StudentDesign((2, 2, 2), stem, norm="batch")
    network = Student(design).eval()
    length = 24 * design.stride
    x = torch.rand(1, 1, design.stride, design.stride, length, requires_grad=True)
    at = length // 2
    network(x).logits[0, 0, 0, 0, at].backward()
    seen = torch.nonzero(x.grad[0, 0].abs().amax((0, 1)))[:, 0]
    assert int((seen - at).abs().max()) <= design.reach_voxels
    # Nor is it told to be much farther than it is.
    assert int((seen - at).abs().max()) > 0.6 * design.reach_voxels


def test_learnt_statistics_make_tiles_agree_with_the_whole():
    design = StudentDesign((2, 3), 1, norm="batch")
    network = Student(design)
    network(torch.rand(2, 1, 8, 8, 8))
    network.eval()
    reach = -(-design.reach_voxels // design.stride) * design.stride
    x = torch.rand(1, 1, 4, 4, 2 * reach + 32)
    with torch.no_grad():
        whole = network(x).logits[..., reach + 8 : reach + 24]
        tile = network(x[..., 8 : 2 * reach + 24]).logits[..., reach : reach + 16]
    assert torch.allclose(whole, tile, atol=1e-6)


@pytest.mark.parametrize("design", [StudentDesign(), CONCATENATED, StudentDesign(norm="batch")])
def test_a_card_builds_the_network(design):
    arguments = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(design).items()}
    network = build("student", arguments)
    assert isinstance(network, Student) and network.design == design


@pytest.mark.parametrize(
    "fault",
    [{"widths": (5,)}, {"stem_stride": 3}, {"skip": "cat"}, {"norm": "layer"}, {"gamma": 0.0}],
)
def test_designs_that_are_none_are_refused(fault):
    with pytest.raises(ValueError, match=next(iter(fault))):
        build("student", fault)


def test_intensities_may_be_seen_to_a_power():
    torch.manual_seed(0)
    plain, rooted = Student(StudentDesign()), Student(StudentDesign(gamma=0.5))
    rooted.load_state_dict(plain.state_dict())
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(rooted(image).logits, plain(image.sqrt()).logits)


def test_it_learns_to_tell_bright_from_dark():
    torch.manual_seed(0)
    network = Student(StudentDesign((4, 8), 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(60):
        truth = torch.rand(1, 1, 8, 8, 8) < 0.3
        x = 0.7 * truth + 0.3 * torch.rand(1, 1, 8, 8, 8)
        logits = network(x).logits
        loss = nn.functional.binary_cross_entropy_with_logits(logits, truth.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(((logits > 0) == truth).float().mean()) > 0.97
