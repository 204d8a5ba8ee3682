"""Whether probabilities are what they say, and the temperature that makes them so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

_SURE = 1e-7
"""Probabilities are told from 0 and 1 down to this: float32 has none between 1 − 6e-8 and 1."""

_LOGIT_BINS = 4096
"""The likelihood is a sum over so many kinds of voxels, not over millions of voxels."""

_TEMPERATURES = (0.05, 20.0)


def expected_calibration_error(
    probability: NDArray[np.floating], truth: NDArray[np.bool_], *, bins: int = 15
) -> float:
    """Return how far probabilities are from the part that is true (Guo et al. 2017, equation 3).

    Parameters
    ----------
    probability, truth
        Of one shape.
    bins
        Of equal width, within which both are averaged.
    """
    index = np.minimum((probability.ravel() * bins).astype(np.int64), bins - 1)
    said = np.bincount(index, probability.ravel().astype(np.float64), minlength=bins)
    true = np.bincount(index, truth.ravel().astype(np.float64), minlength=bins)
    return float(np.abs(said - true).sum() / index.size)


def fitted_temperature(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Return T with which sigmoid(logit / T) is the most likely (Guo et al. 2017, section 4.2).

    Between 0.05 and 20; 1 where all voxels are of one kind, from which nothing can be told.

    Parameters
    ----------
    probability, truth
        Of one shape.
    """
    if truth.all() or not truth.any():
        return 1.0
    most = float(logit(1 - _SURE))
    part = (logit(np.clip(probability.ravel(), _SURE, 1 - _SURE)) + most) / (2 * most)
    index = np.minimum((part * _LOGIT_BINS).astype(np.int64), _LOGIT_BINS - 1)
    count = np.bincount(index, minlength=_LOGIT_BINS)
    true = np.bincount(index, truth.ravel().astype(np.float64), minlength=_LOGIT_BINS)
    z = ((np.arange(_LOGIT_BINS) + 0.5) / _LOGIT_BINS * 2 - 1) * most

    def unlikeliness(log_temperature: float) -> float:
        own = z / np.exp(log_temperature)
        return float((count * np.logaddexp(0, own) - true * own).sum())

    found = minimize_scalar(unlikeliness, bounds=np.log(_TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def calibrated(probability: NDArray[np.floating], temperature: float) -> NDArray[np.floating]:
    """Return sigmoid(logit / T) of probabilities."""
    sure = np.clip(probability, _SURE, 1 - _SURE)
    return np.asarray(expit(logit(sure) / temperature))
