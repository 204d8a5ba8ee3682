"""How good a segmenter is, on patches that it has not learnt from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vasculome.metrics.calibration import (
    calibrated,
    expected_calibration_error,
    fitted_temperature,
)
from vasculome.metrics.segmentation import cldice, dice
from vasculome.models.student import Student
from vasculome.models.teacher import Teacher

SCORES = (
    "score",
    "cldice",
    "threshold",
    "temperature",
    "uncalibrated_error",
    "calibration_error",
)

_THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)

_ALMOST = 0.005
"""Of the Dice index: no more than it differs by from one set of patches to another."""


def score_of(
    said: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]
) -> dict[str, float]:
    """Return :data:`SCORES`: mean Dice and clDice at the best threshold, and how sure it may be.

    With the ``temperature`` T, sigmoid(logit / T) tells how many voxels are vessels indeed. The
    network that is kept has its logits divided by it (:func:`calibrate`), so the threshold is of
    these probabilities; it is what the network is used with, so it is also what the best step is
    chosen at. Errors of calibration are those before and after.

    Parameters
    ----------
    said, masks
        Probabilities of patches before calibration, and their vessels, (z, y, x).
    """
    raw, truth = np.stack(said), np.stack(masks)
    temperature = fitted_temperature(raw, truth)
    together = calibrated(raw, temperature)
    threshold = best_threshold(together, truth)
    pairs = [(p >= threshold, mask) for p, mask in zip(together, masks, strict=True)]
    return {
        "score": float(np.mean([dice(found, mask) for found, mask in pairs])),
        "cldice": float(np.mean([cldice(found, mask) for found, mask in pairs])),
        "threshold": threshold,
        "temperature": temperature,
        "uncalibrated_error": expected_calibration_error(raw, truth),
        "calibration_error": expected_calibration_error(together, truth),
    }


def calibrate(network: Student | Teacher, temperature: float) -> None:
    """Divide the network's logits by the temperature, in its last layer (Guo et al. 2017)."""
    with torch.no_grad():
        for parameter in network.last.parameters():
            parameter.div_(temperature)


def probability_of(logits: Tensor) -> NDArray[np.float32]:
    """Return what logits (1, 1, z, y, x) say, as an array (z, y, x)."""
    return torch.sigmoid(logits.detach().float())[0, 0].cpu().numpy()


def best_threshold(
    said: Iterable[NDArray[np.floating]], masks: Iterable[NDArray[np.bool_]]
) -> float:
    """Return the probability, of 0.05 to 0.95, from which voxels have the highest mean Dice index.

    Of those with which it is almost as high, the nearest to one half: where patches do not tell,
    other volumes have fewer voxels taken for vessels that are noise. The mean is over patches, as
    that of the score: over all voxels together patches with many vessels would choose alone.
    Patches without vessels do not count, since one voxel found in them takes all of their index;
    of these alone it is one half.

    Parameters
    ----------
    said, masks
        Probabilities of patches, and their vessels, each (z, y, x).
    """
    pairs = [(p, mask) for p, mask in zip(said, masks, strict=True) if mask.any()]
    if not pairs:
        return 0.5
    found = np.array([np.mean([dice(p >= t, mask) for p, mask in pairs]) for t in _THRESHOLDS])
    good = _THRESHOLDS[found >= found.max() - _ALMOST]
    return float(good[np.abs(good - 0.5).argmin()])
