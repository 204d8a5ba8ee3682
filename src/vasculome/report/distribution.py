"""How a quantity is spread, counted part by part, whatever the number of values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Distribution:
    """Weight of a quantity in narrow bins from zero upward.

    Attributes
    ----------
    weight
        float64, shape (bins,): bin i holds values in [i, i + 1) × ``bin_width``.
    bin_width
        Width of a bin, in the unit of the quantity.
    count
        Number of values.
    """

    weight: NDArray[np.float64]
    bin_width: float
    count: int

    @classmethod
    def empty(cls, *, bin_width: float) -> Distribution:
        """Return the distribution of no values."""
        return cls(np.zeros(0), bin_width, 0)

    def add(
        self, values: NDArray[np.generic], *, weight: NDArray[np.floating] | None = None
    ) -> Distribution:
        """Return the distribution with more values, each of weight 1 where none is given.

        Raises
        ------
        ValueError
            A value is negative or not finite.
        """
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError("a distribution takes finite values that are not negative")
        bins = (values / self.bin_width).astype(np.int64)
        weights = None if weight is None else weight.astype(np.float64)
        total = np.bincount(bins, weights, minlength=len(self.weight)).astype(np.float64)
        total[: len(self.weight)] += self.weight
        return Distribution(total, self.bin_width, self.count + len(values))

    def quantile(self, share: float) -> int:
        """Return the first bin up to which ``share`` of the weight lies."""
        cumulated = np.cumsum(self.weight)
        return int(np.searchsorted(cumulated, share * cumulated[-1]))
