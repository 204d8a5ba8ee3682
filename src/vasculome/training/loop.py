"""The loop of a training: batches, checkpoints, learning curves; resumes where it was killed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vasculome.compute.progress import TileProgress
from vasculome.storage.checkpoints import read_checkpoint, write_checkpoint
from vasculome.training.memory import PeakMemory
from vasculome.training.state import BEST, restore, restore_network, state_of, tensors_of

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
_RECENT = 50
"""Steps whose mean loss is shown."""


class Recipe(Protocol):
    """What is trained, on what, and how good it is."""

    def network(self) -> nn.Module:
        """Return a new network; torch's generator is seeded."""

    def batch(self, step: int) -> Any:
        """Return the batch of a step, the same whenever it is asked for; called in threads."""

    def loss(self, network: nn.Module, batch: Any, step: int) -> Tensor:
        """Return the loss of a batch."""

    def score(self, network: nn.Module) -> dict[str, float]:
        """Return validation metrics by name; the largest ``score`` is the best network."""


@dataclass(frozen=True)
class Plan:
    """How long, and how fast.

    Attributes
    ----------
    steps
        Batches in all.
    learning_rate
        Of Adam, at its highest.
    warmup
        Steps of its linear rise.
    drops
        Steps at which it falls to a tenth; none: it falls as a cosine to a hundredth.
    restart
        Step, and learning rate that it begins again with: drops before it do not count any more.
    decay_to
        Part of the highest learning rate that is left at the end, and before a restart: it falls
        exponentially instead; None: as ``drops`` says.
    validate_every
        Steps from one validation to the next.
    checkpoint_every_s
        Seconds from one checkpoint to the next.
    ahead
        Batches that are made while others are learnt from; 0: none.
    makers
        Threads that make them.
    """

    steps: int
    learning_rate: float
    warmup: int = 0
    drops: tuple[int, ...] = ()
    restart: tuple[int, float] | None = None
    decay_to: float | None = None
    validate_every: int = 100
    checkpoint_every_s: float = 120.0
    ahead: int = 2
    makers: int = 1

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        since, highest, until = 0, self.learning_rate, self.steps
        if self.restart is not None and step >= self.restart[0]:
            since, highest = self.restart
        elif self.restart is not None:
            until = self.restart[0]
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        if self.decay_to is not None:
            return highest * rise * self.decay_to ** ((step - since) / max(until - since - 1, 1))
        if self.drops or self.restart is not None:
            return highest * rise * 0.1 ** sum(since < drop <= step for drop in self.drops)
        part = min(1.0, step / max(self.steps - 1, 1))
        return highest * rise * (0.505 + 0.495 * math.cos(math.pi * part))


@dataclass
class Record:
    """What was seen during a training; grows, and is kept with every checkpoint.

    Attributes
    ----------
    step, loss, seconds
        Step of each learning batch, its loss, and the time spent so far.
    validated, metrics
        Steps learnt before each validation, and its metrics.
    best_step, best_score
        Of the network that is kept.
    peak_bytes
        Most memory taken while learning.
    """

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    validated: list[int] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    best_step: int = -1
    best_score: float = -math.inf
    peak_bytes: int = 0


def train(
    recipe: Recipe, plan: Plan, *, folder: Path, seed: int, device: str = "cpu"
) -> tuple[nn.Module, Record]:
    """Train, or carry on with, a network; return the best one and the record.

    A run that was killed goes on from its last checkpoint in ``folder``, with the batches that
    would have followed: on one machine's processor it ends with the same network as one that was
    not.

    Parameters
    ----------
    recipe, plan
        What and how.
    folder
        Where the checkpoint is: one file, which holds the best network as well, so that none can
        be ahead of the other.
    seed
        Of the network's first weights; the recipe has its own for the data.
    device
        Of torch.

    Raises
    ------
    UserError
        If the checkpoint is damaged or of another network.
    FloatingPointError
        If a loss or a score is not finite.
    """
    torch.manual_seed(seed)
    network = recipe.network().to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=plan.learning_rate)
    record, begin, best = Record(), 0, dict[str, Tensor]()
    path = folder / CHECKPOINT
    if path.exists():
        tensors, state = read_checkpoint(path)
        best = restore(network, optimizer, tensors, path=path)
        record, begin = Record(**state["record"]), state["step"]
        log.info("training goes on from step %d of %d", begin, plan.steps)
    memory = PeakMemory(device)
    saved = started = time.monotonic()
    spent = record.seconds[-1] if record.seconds else 0.0
    with TileProgress("training", total=plan.steps, unit="steps") as progress:
        progress.skip(begin)
        for step, batch in _batches(recipe, begin, plan):
            # Whatever is drawn in a step does not depend on where the run began.
            torch.manual_seed(seed * plan.steps + step)
            loss = _learn(recipe, network, optimizer, batch, step=step, rate=plan.rate(step))
            done = step + 1
            record.step.append(step)
            record.loss.append(loss)
            record.seconds.append(round(spent + time.monotonic() - started, 2))
            validates = done % plan.validate_every == 0 or done == plan.steps
            if validates and _validate(recipe, network, record, done=done):
                best = state_of(network, BEST)
            if validates or time.monotonic() - saved > plan.checkpoint_every_s:
                record.peak_bytes = max(record.peak_bytes, memory.peak_bytes())
                kept = tensors_of(network, optimizer) | best
                write_checkpoint(path, kept, {"step": done, "record": asdict(record)})
                saved = time.monotonic()
            recent = record.loss[-_RECENT:]
            progress.advance(f"loss {sum(recent) / len(recent):.4f}")
    restore_network(network, best, BEST, path=path)
    network.eval()
    return network, record


def _learn(
    recipe: Recipe,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Any,
    *,
    step: int,
    rate: float,
) -> float:
    """Change the network by one batch; return its loss."""
    network.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss = recipe.loss(network, batch, step)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of step {step} is {value}")
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return value


def _validate(recipe: Recipe, network: nn.Module, record: Record, *, done: int) -> bool:
    """Add the metrics to the record; return whether the network is the best so far."""
    network.eval()
    with torch.no_grad():
        metrics = recipe.score(network)
    log.info("step %d: %s", done, ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
    if not math.isfinite(metrics["score"]):
        raise FloatingPointError(f"the score after {done} steps is {metrics['score']}")
    record.validated.append(done)
    record.metrics.append(metrics)
    if metrics["score"] <= record.best_score:
        return False
    record.best_step, record.best_score = done, metrics["score"]
    return True


def _batches(recipe: Recipe, begin: int, plan: Plan) -> Iterator[tuple[int, Any]]:
    """Yield steps with their batches, some of which are made in advance."""
    if plan.ahead == 0:
        for step in range(begin, plan.steps):
            yield step, recipe.batch(step)
        return
    pool = ThreadPoolExecutor(plan.makers)
    try:
        waiting: list[tuple[int, Future[Any]]] = []
        following = begin
        while waiting or following < plan.steps:
            while following < plan.steps and len(waiting) < max(plan.ahead, plan.makers):
                waiting.append((following, pool.submit(recipe.batch, following)))
                following += 1
            step, future = waiting.pop(0)
            yield step, future.result()
    finally:
        # After a fault nobody wants the batches that are still to be made.
        pool.shutdown(cancel_futures=True)
