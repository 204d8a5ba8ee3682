"""From a dense correlation movie to the sites that a sparse network is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DEFAULT_THRESHOLD = {2: 0.1, 3: 0.25}
"""Of |c|², in 2-D and 3-D, as Rauby et al. chose."""


def above(correlation: NDArray[np.complexfloating], *, threshold: float) -> NDArray[np.bool_]:
    """Return where |c|² is above a threshold, of the shape of ``correlation``.

    Parameters
    ----------
    correlation
        Correlation of IQ with the echo of a bubble, complex, |c| ≤ 1, any shape.
    threshold
        From 0 to 1, of the square of the magnitude.

    Raises
    ------
    ValueError
        If the threshold is not within [0, 1).
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"a threshold of {threshold} is not within [0, 1)")
    return _power(correlation) > threshold


def strongest(correlation: NDArray[np.complexfloating], *, count: int) -> NDArray[np.bool_]:
    """Return where |c|² is among the ``count`` largest, of the shape of ``correlation``.

    Of equal values the first ones are taken. A count beyond all sites takes all.

    Raises
    ------
    ValueError
        If ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f"{count} sites are too few")
    power = _power(correlation).ravel()
    chosen = np.zeros(power.size, np.bool_)
    if count >= power.size:
        chosen[:] = True
    else:
        least = np.partition(power, power.size - count)[power.size - count]
        chosen[power > least] = True
        ties = np.flatnonzero(power == least)
        chosen[ties[: count - np.count_nonzero(chosen)]] = True
    return chosen.reshape(correlation.shape)


def _power(correlation: NDArray[np.complexfloating]) -> NDArray[np.floating]:
    return correlation.real**2 + correlation.imag**2
