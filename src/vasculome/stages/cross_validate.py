"""Cross-validation: how good the networks of all folds are on the whole volumes they never saw."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import skeletonize
from torch import nn

from vasculome import __version__
from vasculome.compute.device import pick_device, pin_threads
from vasculome.config import PatchTrainingConfig, StudentConfig
from vasculome.geometry import Box
from vasculome.metrics.segmentation import accuracy, cldice, dice, jaccard
from vasculome.metrics.skeleton_distance import skeleton_distance
from vasculome.metrics.surface import hausdorff95
from vasculome.models.student import Student
from vasculome.models.teacher import STRIDE
from vasculome.models.vessel_tiles import vessel_probability
from vasculome.models.windows import WindowPlan
from vasculome.stages.job import load_run
from vasculome.stages.model_card import metrics_over
from vasculome.stages.models import chosen_path, folds_path
from vasculome.stages.network_load import load_network
from vasculome.stages.segment_recipes import vessel_scene_of
from vasculome.stages.training_volumes import read_given
from vasculome.stages.volume_sheet import roles_of
from vasculome.storage.shards import write_json_atomic
from vasculome.storage.weights import read_card
from vasculome.training.volume_patches import GivenVolume

log = logging.getLogger(__name__)

Metrics = dict[str, float]

_BATCH_SIZE = 2

_MOST_NODES = 1000
"""Points of a skeleton that are compared: 0.7 s for a volume of 100³ voxels, where 3,000 take 5."""


def cross_validate(*, config: Mapping[str, Any], model: str) -> None:
    """Write the metrics of all folds of an entry of ``models``; the body of a script.

    Each fold's network is asked about the whole volumes that it has not learnt from, through
    windows of the size of its patches that share half, at the threshold of its card. A fold counts
    as the mean of its volumes; mean and standard deviation are over folds.

    Raises
    ------
    UserError
        Weights or volumes cannot be read.
    """
    run, _ = load_run(config)
    folds = []
    for name in run.folds[model]:
        settings = run.models[name]
        assert isinstance(settings, PatchTrainingConfig)
        volumes = _scores(settings, chosen_path(run.results, name))
        folds.append({"model": name, "volumes": volumes, "metrics": _mean(volumes)})
        log.info("%s: %s", name, ", ".join(f"{k} {v:.4f}" for k, v in folds[-1]["metrics"].items()))
    write_json_atomic(
        folds_path(run.results, model),
        {
            "stage": "cross_validate",
            "model": model,
            "version": __version__,
            "folds": folds,
            "metrics_over_folds": metrics_over("folds", [fold["metrics"] for fold in folds]),
        },
    )


def volume_metrics(
    probability: NDArray[np.float32], volume: GivenVolume, *, threshold: float
) -> Metrics:
    """Return how good what a network says of a volume is.

    ``hd95_um`` is in µm; ``smd`` is relative to the volume's diagonal, so that only folds of one
    sheet compare; ``dice_at_half`` needs no threshold that was chosen on such volumes.
    """
    assert volume.mask is not None
    # As `models.window_sums.classify` sorts voxels in the stage that segments.
    found, truth = (probability >= threshold) & (probability > 0), volume.mask
    lines = skeletonize(found) > 0, skeletonize(truth) > 0
    return {
        "dice": dice(found, truth),
        "cldice": cldice(found, truth, mask_skeleton=lines[0], reference_skeleton=lines[1]),
        "jaccard": jaccard(found, truth),
        "accuracy": accuracy(found, truth),
        "hd95_um": hausdorff95(found, truth, spacing=volume.spacing_um),
        "smd": skeleton_distance(*lines, max_nodes=_MOST_NODES),
        "dice_at_half": dice(probability >= 0.5, truth),
    }


def _scores(settings: PatchTrainingConfig, weights: Path) -> list[dict[str, Any]]:
    """Return the metrics of each volume that is held out, with its image."""
    pin_threads(settings.threads)
    card = read_card(weights)
    device = pick_device(settings.device)
    network = load_network(weights, sha256=card["sha256"], device=device).requires_grad_(False)
    scores = []
    for row in roles_of(settings).held_out:
        volume = read_given(row, upper_percent=settings.upper_percent)
        probability = _whole(network, volume, settings)
        metrics = volume_metrics(probability, volume, threshold=card["metrics"]["threshold"])
        scores.append({"image": row.image, **metrics})
    return scores


def _whole(
    network: nn.Module, volume: GivenVolume, settings: PatchTrainingConfig
) -> NDArray[np.float32]:
    """Return what a network says of a whole volume."""
    image = volume.image
    window = vessel_scene_of(settings).shape[0]
    stride = network.design.stride if isinstance(network, Student) else STRIDE
    least = stride if isinstance(settings, StudentConfig) else 2 * STRIDE
    overlap = min(window // 2, window - stride)
    plan = WindowPlan(image.shape, window, overlap, stride, "gaussian", least)
    part = vessel_probability(
        network,
        lambda box: image[box.slices],
        Box.of_shape(image.shape),
        plan,
        batch_size=_BATCH_SIZE,
    )
    return part.probability


def _mean(volumes: Sequence[Mapping[str, Any]]) -> Metrics:
    names = [name for name in volumes[0] if name != "image"]
    return {name: statistics.fmean(volume[name] for volume in volumes) for name in names}
