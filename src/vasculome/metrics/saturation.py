"""How fast a map fills up, and how long it takes to be nearly full."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

_ROUNDING = 1.05
"""A full map's plateau may come out a little above 1."""


@dataclass(frozen=True)
class Saturation:
    """The law that a filling map follows, filled(t) = plateau · (1 − exp(−t/time constant)).

    Attributes
    ----------
    plateau
        Part of the map that is filled in the end.
    time_constant_s
        Time to 63 % of the plateau.
    rms_residual
        Root mean square of measured − fitted.
    """

    plateau: float
    time_constant_s: float
    rms_residual: float

    @property
    def time_to_90_s(self) -> float:
        """Time to 90 % of the plateau."""
        return self.time_constant_s * math.log(10)


def fit_saturation(time_s: NDArray[np.floating], filled: NDArray[np.floating]) -> Saturation | None:
    """Fit a saturating exponential to a filling curve by least squares.

    Where the map still fills nearly in proportion to time, any large plateau fits as well as any
    other, so nothing is told: a curve must have bent enough that the time constant is no longer
    than the acquisition.

    Parameters
    ----------
    time_s, filled
        Times, rising from above 0, and the part of the map that is filled then.

    Returns
    -------
    The law, or None where the curve does not tell it.

    Raises
    ------
    ValueError
        If there are fewer than three times, they do not rise, or nothing is ever filled.

    Notes
    -----
    Source: Hingot et al., Scientific Reports 9, 2456, 2019, doi:10.1038/s41598-018-38349-x.
    """
    if len(time_s) < 3 or time_s[0] <= 0 or (np.diff(time_s) <= 0).any() or not filled.any():
        raise ValueError("a saturation needs three rising times above 0 and something filled")

    def plateau_and_cost(log_tau: float) -> tuple[float, float]:
        # For a given time constant the best plateau is a linear problem.
        rise = -np.expm1(-time_s / math.exp(log_tau))
        plateau = float(rise @ filled / (rise @ rise))
        return plateau, float(np.mean((filled - plateau * rise) ** 2))

    bounds = (math.log(time_s[0] / 10), math.log(time_s[-1] * 2))
    grid = np.linspace(*bounds, 200)
    best = int(np.argmin([plateau_and_cost(x)[1] for x in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    log_tau = minimize_scalar(
        lambda x: plateau_and_cost(x)[1], bounds=around, method="bounded", options={"xatol": 1e-9}
    ).x
    plateau, cost = plateau_and_cost(log_tau)
    if math.exp(log_tau) > time_s[-1] or plateau > _ROUNDING:
        return None
    return Saturation(min(plateau, 1.0), math.exp(log_tau), math.sqrt(cost))
