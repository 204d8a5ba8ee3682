"""The loop: what is interrupted ends as what is not, and the best network is the best."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_recipe import PLAN, Toy

from vasculome.errors import UserError
from vasculome.training.loop import CHECKPOINT, Plan, train


def _same(a: nn.Module | dict, b: nn.Module | dict) -> bool:
    first = a.state_dict() if isinstance(a, nn.Module) else a
    second = b.state_dict() if isinstance(b, nn.Module) else b
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def _untimed(record):
    return dataclasses.replace(record, seconds=[], peak_bytes=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The training that nobody disturbs."""
    return train(Toy(), PLAN, folder=tmp_path_factory.mktemp("whole"), seed=3)


def test_it_learns(whole):
    network, record = whole
    assert record.step == list(range(40))
    assert record.validated == [7, 14, 21, 28, 35, 40]
    assert record.best_score > record.metrics[0]["score"]
    x = torch.linspace(-1, 1, 9)[:, None]
    with torch.no_grad():
        assert float((network(x) - 2 * x).square().mean()) == -record.best_score


def test_another_seed_is_another_network(whole, tmp_path):
    other, _ = train(Toy(), PLAN, folder=tmp_path, seed=4)
    assert not _same(whole[0], other)


@pytest.mark.parametrize("dies_at", [0, 1, 7, 20, 39])
def test_a_training_that_dies_ends_as_the_whole_one(whole, tmp_path, dies_at):
    with pytest.raises(RuntimeError, match="power"):
        train(Toy(dies_at=dies_at), PLAN, folder=tmp_path, seed=3)
    again = Toy()
    network, record = train(again, PLAN, folder=tmp_path, seed=3)
    assert sorted(again.asked) == list(range(dies_at, 40)), "no step is learnt twice"
    assert _same(network, whole[0])
    assert _untimed(record) == _untimed(whole[1])
    assert record.seconds == sorted(record.seconds)


def test_a_training_that_is_killed_twice_ends_as_the_whole_one(whole, tmp_path):
    script = Path(__file__).with_name("toy_recipe.py")
    for dies_at in (9, 30):
        command = [sys.executable, str(script), str(tmp_path), str(dies_at)]
        assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
        # What is found is a whole checkpoint and nothing half-written.
        assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    network, record = train(Toy(), PLAN, folder=tmp_path, seed=3)
    assert _same(network, whole[0])
    assert _untimed(record) == _untimed(whole[1])


def test_checkpoints_between_validations_are_as_good(whole, tmp_path):
    rare = dataclasses.replace(PLAN, checkpoint_every_s=1e9)
    with pytest.raises(RuntimeError):
        train(Toy(dies_at=13), rare, folder=tmp_path, seed=3)
    again = Toy()
    network, _ = train(again, rare, folder=tmp_path, seed=3)
    assert min(again.asked) == 7, "the last checkpoint is that of the validation"
    assert _same(network, whole[0])


@pytest.mark.parametrize(("ahead", "makers"), [(0, 1), (2, 1), (5, 3)])
def test_who_makes_the_batches_does_not_matter(whole, tmp_path, ahead, makers):
    plan = dataclasses.replace(PLAN, ahead=ahead, makers=makers)
    assert _same(train(Toy(), plan, folder=tmp_path, seed=3)[0], whole[0])


def test_the_best_network_is_the_one_that_scored_best(tmp_path):
    # The best is neither the first nor the last; of equals the first is kept.
    recipe = Toy(scores=(0.1, 0.4, 0.9, 0.9, 0.2, 0.3))
    network, record = train(recipe, PLAN, folder=tmp_path, seed=3)
    assert (record.best_step, record.best_score) == (21, 0.9)
    assert _same(network, recipe.weights_when_scored[2])
    assert not _same(network, recipe.weights_when_scored[-1])
    assert not network.training


def test_the_best_network_outlives_a_fault(tmp_path):
    first = Toy(scores=(0.1, 0.9, 0.2), dies_at=23)
    with pytest.raises(RuntimeError):
        train(first, PLAN, folder=tmp_path, seed=3)
    again = Toy(scores=(0.3, 0.4, 0.5))
    network, record = train(again, PLAN, folder=tmp_path, seed=3)
    assert (record.best_step, record.best_score) == (14, 0.9)
    assert _same(network, first.weights_when_scored[1])


def test_a_training_that_is_done_is_not_done_again(whole, tmp_path):
    train(Toy(), PLAN, folder=tmp_path, seed=3)
    again = Toy()
    network, record = train(again, PLAN, folder=tmp_path, seed=3)
    assert again.asked == [] and len(record.step) == 40
    assert _same(network, whole[0])


def test_a_loss_that_is_no_number_ends_it(tmp_path):
    with pytest.raises(FloatingPointError, match="loss of step 10 is nan"):
        train(Toy(nan_at=10), PLAN, folder=tmp_path, seed=3)
    # What was learnt before is kept.
    again = Toy()
    train(again, PLAN, folder=tmp_path, seed=3)
    assert min(again.asked) == 10


def test_a_score_that_is_no_number_ends_it(tmp_path):
    with pytest.raises(FloatingPointError, match="score after 14 steps is nan"):
        train(Toy(scores=(0.1, math.nan)), PLAN, folder=tmp_path, seed=3)


class _Wider(Toy):
    def network(self):
        return nn.Linear(1, 1)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train(Toy(), PLAN, folder=tmp_path, seed=3)
    with pytest.raises(UserError, match="another network"):
        train(_Wider(), PLAN, folder=tmp_path, seed=3)


@pytest.mark.parametrize("damage", ["cut", "flipped header", "empty", "text"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    train(Toy(), PLAN, folder=tmp_path, seed=3)
    path = tmp_path / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[20] ^= 0xFF
    damaged = {
        "cut": path.read_bytes()[:-100],
        "flipped header": bytes(content),
        "empty": b"",
        "text": b"no checkpoint",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match=r"damaged.*delete it") as caught:
        train(Toy(), PLAN, folder=tmp_path, seed=3)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_rates_of_a_cosine():
    plan = Plan(steps=101, learning_rate=0.2)
    assert plan.rate(0) == pytest.approx(0.2)
    assert plan.rate(50) == pytest.approx(0.2 * (1 + 0.01) / 2)
    assert plan.rate(100) == pytest.approx(0.002)
    rates = [plan.rate(step) for step in range(101)]
    assert rates == sorted(rates, reverse=True)


def test_rates_rise_and_drop():
    plan = Plan(steps=100, learning_rate=0.1, warmup=4, drops=(20, 50))
    expected = {0: 0.02, 1: 0.04, 3: 0.08, 4: 0.1, 19: 0.1, 20: 0.01, 49: 0.01, 50: 0.001}
    for step, rate in expected.items():
        assert plan.rate(step) == pytest.approx(rate), step


def test_rates_of_the_paper():
    epoch = 10
    plan = Plan(
        steps=300 * epoch,
        learning_rate=0.1,
        drops=tuple(e * epoch for e in (15, 45, 75, 100, 160, 200, 250)),
        restart=(150 * epoch, 1e-3),
    )
    by_epoch = {
        0: 1e-1, 14: 1e-1, 15: 1e-2, 45: 1e-3, 75: 1e-4, 100: 1e-5, 149: 1e-5,
        150: 1e-3, 159: 1e-3, 160: 1e-4, 200: 1e-5, 250: 1e-6, 299: 1e-6,
    }  # fmt: skip
    for number, rate in by_epoch.items():
        assert plan.rate(number * epoch) == pytest.approx(rate), number


def test_the_optimizer_gets_the_rates_of_the_plan(tmp_path):
    seen = []

    class Watched(torch.optim.Adam):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", Watched)
        train(Toy(), PLAN, folder=tmp_path, seed=3)
    np.testing.assert_array_equal(seen, [PLAN.rate(step) for step in range(PLAN.steps)])


def test_a_log_tells_where_it_is(tmp_path, caplog):
    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError):
        train(Toy(dies_at=30), PLAN, folder=tmp_path, seed=3)
    with caplog.at_level(logging.INFO):
        train(Toy(), PLAN, folder=tmp_path, seed=3)
    assert "training goes on from step 30 of 40" in caplog.text
    assert "40/40 steps (30 from before)" in caplog.text
    assert "steps/s" in caplog.text and ", loss " in caplog.text
    assert "step 35: score -" in caplog.text
