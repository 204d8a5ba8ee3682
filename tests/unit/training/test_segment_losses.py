"""Each loss against a value worked out by hand, or against its own formula in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vasculome.metrics.segmentation import cldice
from vasculome.training import segment_losses as losses


def _logits(*probability):
    p = torch.tensor(probability, dtype=torch.float64)
    return (p / (1 - p)).log()[None, None, None, None]


def _truth(*values):
    return torch.tensor(values, dtype=torch.float64)[None, None, None, None]


def test_dice():
    # 2 (0.5 + 0.9) / (0.5 + 0.9 + 0.2 + 2)
    loss = losses.dice_loss(_logits(0.5, 0.9, 0.2), _truth(1, 1, 0))
    assert float(loss) == pytest.approx(1 - 2.8 / 3.6, abs=1e-3)


def test_reconstruction_both_ways():
    image, truth = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 1.2])
    assert float(losses.reconstruction_loss(image, truth)) == pytest.approx(0.145)
    found = losses.reconstruction_loss(image, truth, error="absolute")
    assert float(found) == pytest.approx(0.35)
    with pytest.raises(ValueError, match="squared or absolute"):
        losses.reconstruction_loss(image, truth, error="huber")


@pytest.mark.parametrize(
    ("part", "value"), [(0, math.exp(-5)), (0.5, math.exp(-1.25)), (1, 1), (2, 1)]
)
def test_ramp(part, value):
    assert losses.ramp(part) == pytest.approx(value)


def test_features_are_compared_on_the_teachers_grid():
    student = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    assert float(losses.match_features(student, torch.full((1, 1, 1, 1, 1), 5.0))) == 1.5
    assert float(losses.match_features(student, student + 2)) == pytest.approx(2)
    halves = torch.tensor([1.5, 5.5]).reshape(1, 1, 2, 1, 1)
    assert float(losses.match_features(student, halves)) == pytest.approx(0)
    with pytest.raises(ValueError, match="grids do not fit"):
        losses.match_features(student, torch.zeros(1, 1, 3, 1, 1))


def test_soft_labels():
    # T = 2: teacher's p = σ(1), student's q = σ(0) = ½; 4 (p ln 2p + (1 - p) ln 2(1 - p)).
    p = 1 / (1 + math.exp(-1))
    expected = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    student, teacher = torch.zeros(1, 1, 1, 1, 1), torch.full((1, 1, 1, 1, 1), 2.0)
    found = losses.soft_label_loss(student, teacher, temperature=2.0)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(losses.soft_label_loss(teacher, teacher, temperature=2.0)) == pytest.approx(
        0, abs=1e-6
    )


def test_hint():
    assert float(losses.hint_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))) == 1.25


def test_variational_is_the_likelihood_of_a_normal_distribution():
    torch.manual_seed(0)
    mean, teacher = torch.randn(2, 3, 2, 2, 2), torch.randn(2, 3, 2, 2, 2)
    raw = torch.tensor([-1.0, 0.5, 2.0])
    variance = (1 + raw.exp()).log() + 1e-5
    normal = torch.distributions.Normal(mean, variance.sqrt()[None, :, None, None, None])
    expected = -normal.log_prob(teacher).mean() - 0.5 * math.log(2 * math.pi)
    assert float(losses.variational_loss(mean, raw, teacher)) == pytest.approx(
        float(expected), 1e-5
    )


def test_boundary():
    # Fires and should: 1 is enough; should not: −1 is enough. (1 − 0.5)², 0, (1 + 0.5)², 0
    student = torch.tensor([0.5, 3.0, 0.5, -1.0])
    teacher = torch.tensor([2.0, 0.1, -0.3, 0.0])
    assert float(losses.boundary_loss(student, teacher)) == pytest.approx((0.25 + 2.25) / 4)
    assert float(losses.boundary_loss(student, teacher, margin=2.0)) == pytest.approx(
        (2.25 + 0 + 6.25 + 1) / 4
    )


def test_consistency_with_and_without_weights():
    student, mean = _logits(0.5, 0.9, 0.2), _truth(0.7, 0.9, 0.6)
    assert float(losses.consistency_loss(student, mean)) == pytest.approx(0.2 / 3)
    weighted = losses.consistency_loss(student, mean, weight=_truth(1, 1, 0))
    assert float(weighted) == pytest.approx(0.02, rel=1e-4)
    assert float(losses.consistency_loss(student, mean, weight=_truth(0, 0, 0))) == 0


def test_what_is_certain():
    # Half of the entropy of a coin is that of p = 0.11; ¾ of it that of p = 0.2145.
    p = torch.tensor([0.5, 0.45, 0.25, 0.20, 0.79, 1.0])
    early = losses.is_certain(p, part=-1.0)
    assert early.tolist() == [0, 0, 0, 1, 1, 1]
    assert losses.is_certain(p, part=1.0).tolist() == [0, 1, 1, 1, 1, 1]


def test_entropy_of_logits_is_that_of_probabilities():
    p = np.array([0.5, 0.9, 0.01])
    expected = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean()
    assert float(losses.entropy_loss(_logits(*p))) == pytest.approx(expected)
    far = torch.tensor([200.0, -200.0], requires_grad=True)
    losses.entropy_loss(far).backward()
    assert torch.isfinite(far.grad).all()


def _tube(radius):
    z, y, x = np.indices((9, 17, 24))
    return ((z - 4) ** 2 + (y - 8) ** 2 <= radius**2) & (x > 2) & (x < 21)


def test_soft_cldice_of_masks_is_near_to_cldice():
    wide, thin = _tube(3), _tube(1.5)
    half = thin & (np.indices(thin.shape)[2] < 12)
    for said, truth in ((wide, wide), (thin, wide), (half, wide), (half, thin)):
        logits = torch.from_numpy(np.where(said, 20.0, -20.0))[None, None]
        soft = 1 - losses.soft_cldice_loss(logits, torch.from_numpy(truth)[None, None])
        assert float(soft) == pytest.approx(cldice(said, truth), abs=0.1)


def test_the_soft_skeleton_lies_in_the_mask_and_is_thin():
    mask = _tube(3)
    skeleton = losses.soft_skeleton(torch.from_numpy(mask.astype(np.float64))[None, None])[0, 0]
    skeleton = skeleton.numpy()
    assert skeleton.max() <= 1 and not np.any(skeleton[~mask])
    assert 0 < skeleton[:, :, 12].sum() < 0.3 * mask[:, :, 12].sum()


def test_only_missed_branches_matter_to_cldice():
    # Dice sees a wall of another thickness, clDice does not.
    wide, thin = _tube(3), _tube(1.5)
    logits = torch.from_numpy(np.where(thin, 20.0, -20.0))[None, None]
    truth = torch.from_numpy(wide)[None, None]
    assert float(losses.soft_cldice_loss(logits, truth)) < 0.5 * float(
        losses.dice_loss(logits, truth)
    )
