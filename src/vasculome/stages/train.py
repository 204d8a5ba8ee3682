"""Train one network from one seed; what is learnt is kept, so that a rerun goes on from there."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from vasculome import __version__
from vasculome.compute.device import pick_device, pin_threads
from vasculome.config import ModelConfig
from vasculome.errors import UserError
from vasculome.models.student import Student
from vasculome.models.teacher import Teacher
from vasculome.stages.job import load_run
from vasculome.stages.models import Training, training_of
from vasculome.stages.recipes import data_of, plan_of, recipe_of
from vasculome.stages.volume_files import memory_mb
from vasculome.storage.ledger import Lease
from vasculome.storage.shards import write_json_atomic
from vasculome.storage.weights import read_card, write_weights
from vasculome.training.loop import Recipe, Record, train
from vasculome.training.segment_scores import calibrate
from vasculome.training.student_recipe import student_alone

log = logging.getLogger(__name__)


def train_model(*, config: Mapping[str, Any], model: str, seed: int) -> None:
    """Train a network of the configuration and write its manifest last; the body of a script.

    Raises
    ------
    UserError
        The network cannot be trained with these settings or on this machine, or another process
        trains it.
    """
    run, _ = load_run(config)
    training = training_of(run, model, seed)
    settings = training.settings
    where = f"config: models.{model}"
    pin_threads(settings.threads)
    device = pick_device(settings.device)
    log.info("training %s from seed %d on %s, in %d MB", model, seed, device, memory_mb(settings))
    recipe = recipe_of(settings, where=where, teacher=training.teacher)
    with Lease(training.manifest_path):
        learnt, record = _trained(training, recipe, device=device, where=where)
        network = _kept(learnt, record)
        write_json_atomic(training.record_path, _record_json(training, network, record, device))
        # A teacher is thirty times as large as its student and gains nothing by the last bits.
        content = write_weights(
            training.weights_path,
            network.state_dict(),
            card_of(training, network, record),
            half=isinstance(network, Teacher),
        )
        write_json_atomic(
            training.manifest_path,
            {
                "stage": "train_model",
                "model": model,
                "seed": seed,
                "version": __version__,
                "digest": training.identity(),
                "content": content,
                "summary": _summary(network, record),
            },
        )


def card_of(training: Training, network: nn.Module, record: Record) -> dict[str, Any]:
    """Return the model card: what the network is, what it learnt from, and how good it is."""
    settings = training.settings
    design: dict[str, Any] = asdict(network.design)  # type: ignore[call-overload, arg-type]
    return {
        "name": training.name,
        "architecture": settings.network,
        "arguments": design,
        **data_of(settings),
        **_teacher_of(training),
        "command": f"snakemake models, with models.{training.name} as in settings",
        "settings": settings.model_dump(mode="json", exclude={"seeds"}),
        "seed": training.seed,
        "metrics": _summary(network, record)["metrics"],
    }


def _teacher_of(training: Training) -> dict[str, Any]:
    """Return what a card tells of the teacher, if there is one."""
    path = training.teacher
    return (
        {}
        if path is None
        else {"teacher": {"path": str(path), "sha256": read_card(path)["sha256"]}}
    )


def _trained(
    training: Training, recipe: Recipe, *, device: str, where: str
) -> tuple[nn.Module, Record]:
    settings = training.settings
    try:
        return train(
            recipe,
            plan_of(settings),
            folder=training.checkpoints,
            seed=training.seed,
            device=device,
        )
    except FloatingPointError as error:
        raise UserError(
            f"{error}: the training has failed", where=where, fix=_against_divergence(settings)
        ) from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the memory of the GPU is used up: {str(error).splitlines()[0]}",
            where=where,
            fix="lower batch_size or the size of what it is shown",
        ) from error


def _kept(learnt: nn.Module, record: Record) -> nn.Module:
    """Return what is kept of a training: of a segmenter the network alone, calibrated."""
    network = student_alone(learnt)
    temperature = _best_metrics(record).get("temperature", math.nan)
    if isinstance(network, Student | Teacher) and math.isfinite(temperature):
        calibrate(network, temperature)
    return network


def _against_divergence(settings: ModelConfig) -> str:
    slower = settings.learning_rate / 3
    return f"lower learning_rate, say to {slower:.2g}, or raise warmup"


def _summary(network: nn.Module, record: Record) -> dict[str, Any]:
    """Return the numbers of the network that is kept; no times, which differ from run to run."""
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": record.step[-1] + 1,
        "best_step": record.best_step,
        "metrics": _finite(_best_metrics(record)),
    }


def _best_metrics(record: Record) -> dict[str, float]:
    return record.metrics[record.validated.index(record.best_step)]


def _record_json(
    training: Training, network: nn.Module, record: Record, device: str
) -> dict[str, Any]:
    return {
        "model": training.name,
        "seed": training.seed,
        "device": torch.cuda.get_device_name() if device == "cuda" else "processor",
        "threads": training.settings.threads,
        **_summary(network, record),
        "curves": {
            "step": record.step,
            "loss": record.loss,
            "seconds": record.seconds,
            "validated": record.validated,
            "metrics": [_finite(metrics) for metrics in record.metrics],
        },
        "peak_bytes": record.peak_bytes,
    }


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics as JSON can hold them: of nothing found, precision is no number."""
    return {name: float(v) if math.isfinite(v) else None for name, v in metrics.items()}
