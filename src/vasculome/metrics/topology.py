"""Topology of a vessel mask: pieces, loops and cavities, and how far they are off."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import generate_binary_structure, label
from skimage.measure import euler_number


class BettiNumbers(NamedTuple):
    """Betti numbers of a mask.

    Attributes
    ----------
    components
        b0: connected pieces.
    loops
        b1: independent closed ways along the foreground; in 2-D holes.
    cavities
        b2: pieces of background that the foreground encloses; none in 2-D.
    """

    components: int
    loops: int
    cavities: int


def betti_numbers(mask: NDArray[np.bool_]) -> BettiNumbers:
    """Return the Betti numbers of a mask in 2-D or 3-D.

    The foreground is connected across corners (8 neighbours in 2-D, 26 in 3-D), the background
    across faces. What lies beyond the array is background. Components and cavities are
    counted, loops follow from the Euler characteristic, χ = b0 - b1 + b2. Those of an empty
    mask are all 0.
    """
    if mask.ndim not in (2, 3):
        raise ValueError(f"mask must be 2-D or 3-D, not {mask.ndim}-D")
    inside = np.pad(mask.astype(bool), 1)
    everywhere = generate_binary_structure(mask.ndim, mask.ndim)
    components = int(label(inside, everywhere)[1])
    enclosed = int(label(~inside)[1]) - 1
    if mask.ndim == 2:
        return BettiNumbers(components, enclosed, 0)
    loops = components + enclosed - int(euler_number(inside, 3))
    return BettiNumbers(components, loops, enclosed)


def betti_errors(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> BettiNumbers:
    """Return how much each Betti number of a mask is off, |bᵢ(mask) - bᵢ(reference)|.

    Against an empty reference: the Betti numbers of the mask, and the reverse.
    """
    if mask.shape != reference.shape:
        raise ValueError(f"shapes differ: {mask.shape} and {reference.shape}")
    pairs = zip(betti_numbers(mask), betti_numbers(reference), strict=True)
    return BettiNumbers(*(abs(found - wanted) for found, wanted in pairs))
