"""The middle of values that do not all count the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Return the value up to which half of the weight lies; without weight, one of the values."""
    order = np.argsort(values, kind="stable")
    # A little for each, so that values are found where none has a weight.
    passed = np.cumsum(weights[order] + 1e-12)
    return float(values[order][np.searchsorted(passed, passed[-1] / 2)])
