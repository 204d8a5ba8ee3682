"""Agreement of a vessel mask with its reference.

Two empty masks agree fully (1); where one of two is empty, they do not agree at all (0).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import skeletonize


def accuracy(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Return the fraction of voxels on which both agree, background included."""
    _check(mask, reference)
    return float(np.mean(mask.astype(bool) == reference.astype(bool)))


def dice(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Return the Dice similarity coefficient, 2 |A ∩ B| / (|A| + |B|)."""
    both, either_sum = _overlap(mask, reference)
    return 2 * both / either_sum if either_sum else 1.0


def jaccard(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Return the Jaccard index, |A ∩ B| / |A ∪ B|."""
    both, either_sum = _overlap(mask, reference)
    return both / (either_sum - both) if either_sum else 1.0


def cldice(
    mask: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    *,
    mask_skeleton: NDArray[np.bool_] | None = None,
    reference_skeleton: NDArray[np.bool_] | None = None,
) -> float:
    """Return the centreline Dice (Shit et al. 2021, equations 1 and 2).

    The harmonic mean of topology precision (the part of the mask's skeleton in the reference)
    and topology sensitivity (the part of the reference's skeleton in the mask).

    Parameters
    ----------
    mask, reference
        2-D or 3-D bool, of one shape.
    mask_skeleton, reference_skeleton
        Their skeletons; by default those of ``skimage.morphology.skeletonize``. A mask whose
        skeleton is empty (scikit-image erases some small blobs) stands for its own skeleton.
    """
    _check(mask, reference)
    mask, reference = mask.astype(bool), reference.astype(bool)
    if not mask.any() or not reference.any():
        return float(mask.any() == reference.any())
    precision = float(np.mean(reference[_skeleton(mask, mask_skeleton)]))
    sensitivity = float(np.mean(mask[_skeleton(reference, reference_skeleton)]))
    if precision + sensitivity == 0:
        return 0.0
    return 2 * precision * sensitivity / (precision + sensitivity)


def _skeleton(mask: NDArray[np.bool_], given: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    skeleton = skeletonize(mask) if given is None else given.astype(bool)
    return skeleton if skeleton.any() else mask


def _overlap(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the voxels in both, and the sum of the voxels of each."""
    _check(mask, reference)
    both = np.count_nonzero(np.logical_and(mask, reference))
    return both, np.count_nonzero(mask) + np.count_nonzero(reference)


def _check(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> None:
    if mask.shape != reference.shape:
        raise ValueError(f"shapes differ: {mask.shape} and {reference.shape}")
