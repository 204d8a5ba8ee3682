"""A training of milliseconds: points of a line in noise, and a network with chance in it."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vasculome.training.loop import Plan, Recipe, train

PLAN = Plan(steps=40, learning_rate=0.05, warmup=3, validate_every=7, checkpoint_every_s=0.0)


@dataclass
class Toy(Recipe):
    """Fits y = 2x; the network has normalization and dropout, whose states must resume too.

    Attributes
    ----------
    dies_at
        Step at which it raises; None: never.
    scores
        Scores of the validations; empty: the negative error.
    nan_at
        Step whose loss is no number.
    """

    dies_at: int | None = None
    scores: tuple[float, ...] = ()
    nan_at: int | None = None
    kills: bool = False
    asked: list[int] = field(default_factory=list)
    weights_when_scored: list[dict[str, Tensor]] = field(default_factory=list)

    def network(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ELU(), nn.Linear(8, 1)
        )

    def batch(self, step: int) -> Any:
        self.asked.append(step)
        rng = np.random.default_rng(step)
        x = torch.from_numpy(rng.normal(size=(16, 1)).astype(np.float32))
        return x, 2 * x + 0.1 * torch.from_numpy(rng.normal(size=(16, 1)).astype(np.float32))

    def loss(self, network: nn.Module, batch: Any, step: int) -> Tensor:
        if step == self.dies_at:
            if self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the power is gone")
        x, y = batch
        error = (network(x) - y).square().mean()
        return error * float("nan") if step == self.nan_at else error

    def score(self, network: nn.Module) -> dict[str, float]:
        assert not network.training
        kept = {name: value.clone() for name, value in network.state_dict().items()}
        self.weights_when_scored.append(kept)
        if self.scores:
            return {"score": self.scores[len(self.weights_when_scored) - 1]}
        x = torch.linspace(-1, 1, 9)[:, None]
        error = float((network(x) - 2 * x).square().mean())
        return {"score": -error, "error": error}


def main(folder: str, dies_at: int) -> None:
    """Train until a step at which the process is killed."""
    train(Toy(dies_at=dies_at, kills=True), PLAN, folder=Path(folder), seed=3)
    time.sleep(10)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
