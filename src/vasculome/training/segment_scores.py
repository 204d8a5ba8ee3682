"""How good a segmenter is, on patches that it has not learnt from."""

from __future__ import annotations

from collections.abc import Sequence

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

SCORES = (
    "score",
    "cldice",
    "threshold",
    "temperature",
    "calibration_error",
    "calibrated_error",
)

_THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)


def score_of(
    said: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]
) -> dict[str, float]:
    """Return :data:`SCORES`: mean Dice and clDice at the best threshold, and how sure it may be.

    The threshold is what the network is used with, so it is also what the best step is chosen at.
    With the ``temperature`` T, sigmoid(logit / T) tells how many voxels are vessels indeed: errors
    of calibration are those before and after it.

    Parameters
    ----------
    said, masks
        Probabilities of patches, and their vessels, (z, y, x).
    """
    together, truth = np.stack(said), np.stack(masks)
    threshold = best_threshold(together, truth)
    temperature = fitted_temperature(together, truth)
    pairs = [(p > threshold, mask) for p, mask in zip(said, masks, strict=True)]
    return {
        "score": float(np.mean([dice(found, mask) for found, mask in pairs])),
        "cldice": float(np.mean([cldice(found, mask) for found, mask in pairs])),
        "threshold": threshold,
        "temperature": temperature,
        "calibration_error": expected_calibration_error(together, truth),
        "calibrated_error": expected_calibration_error(calibrated(together, temperature), truth),
    }


def probability_of(logits: Tensor) -> NDArray[np.float32]:
    """Return what logits (1, 1, z, y, x) say, as an array (z, y, x)."""
    return torch.sigmoid(logits.detach().float())[0, 0].cpu().numpy()


def best_threshold(probability: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Return the probability, of 0.05 to 0.95, above which voxels have the highest Dice index.

    Parameters
    ----------
    probability, mask
        Of one shape; the index is taken over all voxels together. Of several that are equally
        good, the one in the middle.
    """
    found = np.array([dice(probability > t, mask) for t in _THRESHOLDS])
    best = np.flatnonzero(found >= found.max() - 1e-12)
    return float(_THRESHOLDS[best[len(best) // 2]])
