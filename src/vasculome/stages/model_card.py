"""Of the seeds of a network: how good they are together, and the weights of the best."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vasculome import __version__
from vasculome.stages.job import load_run
from vasculome.stages.models import chosen_path, model_folder, read_training, trainings
from vasculome.storage.shards import write_json_atomic
from vasculome.storage.weights import copy_weights, read_card


def write_model_card(*, config: Mapping[str, Any], model: str) -> None:
    """Write the best seed's weights with a card that tells of all seeds; the body of a script.

    The best has the highest score on the validation movies, so its own score is a little too good:
    what to expect of such a network is the mean over seeds, which the card tells beside it.

    Raises
    ------
    UserError
        A training is not done, or its files are damaged.
    """
    run, _ = load_run(config)
    done = trainings(run, of=model)
    manifests = [read_training(training) for training in done]
    scores = [manifest["summary"]["metrics"]["score"] for manifest in manifests]
    chosen = done[scores.index(max(scores))]
    seeds = metrics_over("seeds", [manifest["summary"]["metrics"] for manifest in manifests])
    card = read_card(chosen.weights_path)
    told = {"metrics_over_seeds": seeds, "seeds": [training.seed for training in done]}
    content = copy_weights(chosen.weights_path, chosen_path(run.results, model), told)
    write_json_atomic(
        model_folder(run.results, model) / "manifest.json",
        {
            "stage": "model_card",
            "model": model,
            "version": __version__,
            "content": content,
            "summary": {
                "chosen_seed": chosen.seed,
                "metrics_over_seeds": seeds,
                "volumes": card.get("data", {}).get("volumes"),
            },
        },
    )


def metrics_over(
    what: Literal["seeds", "folds"], metrics: Sequence[Mapping[str, float | None]]
) -> dict[str, dict[str, Any]]:
    """Return mean and standard deviation of each metric, and of how many; one has no deviation."""
    found: dict[str, dict[str, Any]] = {}
    for name in metrics[0]:
        values = [m[name] for m in metrics if m[name] is not None]
        found[name] = {
            "mean": statistics.fmean(values) if values else None,
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            what: len(values),
        }
    return found
