"""Losses by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vasculome.models.bubble_net import Sites
from vasculome.sparse import SparseTensor
from vasculome.training.losses import Bubbles, bubble_loss, soft_dice_loss


def test_soft_dice_of_known_sets() -> None:
    probability = torch.tensor([1.0, 0.5, 0.0])
    target = torch.tensor([1.0, 1.0, 0.0])
    # One more pixel of the target is where the network says nothing.
    loss = soft_dice_loss(probability, target, target_sum=3.0, eps=0.0)
    assert float(loss) == pytest.approx(1 - 2 * 1.5 / (1.5 + 3))
    nothing = torch.zeros(3)
    assert float(soft_dice_loss(nothing, nothing, target_sum=0.0)) == pytest.approx(0)


def _points(rows: list[list[int]]) -> SparseTensor:
    coordinates = torch.tensor(rows)
    return SparseTensor.from_points(coordinates, torch.zeros(len(rows), 1), batch_size=1)


def _sites(points: SparseTensor, probability: list[float], position: list[list[float]]) -> Sites:
    return Sites(
        points.coordinates,
        torch.logit(torch.tensor(probability, dtype=torch.float64)),
        torch.tensor(position, dtype=torch.float64),
        torch.full((len(probability), 2), 0.5, dtype=torch.float64),
    )


def test_bubble_loss_of_one_frame_by_its_formula() -> None:
    points = _points([[0, 2, 2, 0], [0, 2, 3, 0]])
    sites = _sites(points, [0.8, 0.3], [[2.1, 2.0], [2.0, 3.2]])
    truth = Bubbles(
        torch.tensor([0]), torch.tensor([0]), torch.tensor([[2.0, 2.2]], dtype=torch.float64)
    )
    found = bubble_loss(sites, points, truth, n_frames=1)

    expected, variance = 1.1, 0.8 * 0.2 + 0.3 * 0.7 + 0.05
    count = (1 - expected) ** 2 / (2 * variance) + math.log(2 * math.pi * variance) / 2

    def normal(z: float, x: float) -> float:
        away = ((2.0 - z) ** 2 + (2.2 - x) ** 2) / 0.5**2
        return math.exp(-away / 2) / (2 * math.pi * 0.5**2)

    mixture = 0.8 * normal(2.1, 2.0) + 0.3 * normal(2.0, 3.2) + 1e-4
    assert float(found) == pytest.approx(count - math.log(mixture / (expected + 1e-3)), rel=1e-6)


def test_bubbles_where_nothing_was_given_are_left_out() -> None:
    points = _points([[0, 2, 2, 0], [0, 8, 8, 1]])
    sites = _sites(points, [0.9, 0.1], [[2.0, 2.0], [8.0, 8.0]])
    seen = Bubbles(torch.tensor([0]), torch.tensor([0]), torch.tensor([[2.0, 2.1]]).double())
    more = Bubbles(
        torch.tensor([0, 0]),
        torch.tensor([0, 1]),
        torch.tensor([[2.0, 2.1], [3.0, 3.0]]).double(),
    )
    one = bubble_loss(sites, points, seen, n_frames=2)
    other = bubble_loss(sites, points, more, n_frames=2)
    assert float(one) == float(other)


def test_the_truth_is_where_the_loss_is_least() -> None:
    rng = np.random.default_rng(0)
    points = _points([[0, z, x, t] for z in range(6) for x in range(6) for t in range(3)])
    place = points.coordinates[:, 1:3].double()
    logit = torch.zeros(len(points), dtype=torch.float64, requires_grad=True)
    offset = torch.zeros((len(points), 2), dtype=torch.float64, requires_grad=True)
    frame = torch.tensor([0, 1, 1, 2])
    true = torch.from_numpy(rng.uniform(1, 4, (4, 2)))
    true[1], true[2] = torch.tensor([1.2, 1.3]), torch.tensor([4.2, 3.8])
    truth = Bubbles(torch.zeros(4, dtype=torch.int64), frame, true)
    optimizer = torch.optim.Adam([logit, offset], lr=0.05)
    for _ in range(800):
        optimizer.zero_grad()
        said = Sites(points.coordinates, logit, place + offset, torch.full_like(place, 0.2))
        bubble_loss(said, points, truth, n_frames=3).backward()
        optimizer.step()
    probability = torch.sigmoid(logit).detach()
    when = points.coordinates[:, 3]
    for t, count in enumerate([1, 2, 1]):
        assert float(probability[when == t].sum()) == pytest.approx(count, abs=0.25)
    for t, position in zip(frame.tolist(), true, strict=True):
        here = (when == t) & (probability > 0.3)
        away = ((place + offset).detach()[here] - position).norm(dim=1)
        assert away.min() < 0.1
