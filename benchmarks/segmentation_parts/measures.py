"""How good a mask is, by all that the tables of the VpbSD paper measure, and by its topology."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import skeletonize

from vasculome.metrics.segmentation import accuracy, cldice, dice, jaccard
from vasculome.metrics.skeleton_distance import skeleton_distance
from vasculome.metrics.surface import hausdorff95
from vasculome.metrics.topology import betti_errors

Mask = NDArray[np.bool_]

_MOST_NODES = 1000


@dataclass(frozen=True, eq=False)
class Volume:
    """An image, from 0 to 1, with its vessels, (z, y, x)."""

    image: NDArray[np.float32]
    mask: Mask
    spacing_um: tuple[float, float, float]
    skeleton: Mask

    @classmethod
    def of(
        cls, image: NDArray[np.float32], mask: Mask, spacing_um: tuple[float, float, float]
    ) -> Volume:
        return cls(image, mask, spacing_um, skeletonize(mask))


def measures(found: Mask, truth: Volume) -> dict[str, float]:
    """Return all measures of a mask; distances in voxels, as in the paper."""
    skeleton = skeletonize(found)
    b0, b1, b2 = betti_errors(found, truth.mask)
    return {
        "dice": dice(found, truth.mask),
        "cldice": cldice(
            found, truth.mask, mask_skeleton=skeleton, reference_skeleton=truth.skeleton
        ),
        "hd95_voxels": hausdorff95(found, truth.mask),
        "jaccard": jaccard(found, truth.mask),
        "accuracy": accuracy(found, truth.mask),
        "smd": skeleton_distance(skeleton, truth.skeleton, max_nodes=_MOST_NODES),
        "smd_published": skeleton_distance(skeleton, truth.skeleton, plan="published"),
        "betti0_error": float(b0),
        "betti1_error": float(b1),
        "betti2_error": float(b2),
    }


def mean_of(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each measure."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def over_trainings(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return mean and, of more than one training, standard deviation of each measure."""
    found: dict[str, float] = {"trainings": len(rows)}
    for name, value in mean_of(rows).items():
        found[name] = round(value, 4)
        if len(rows) > 1:
            found[f"{name}_sd"] = round(float(np.std([r[name] for r in rows], ddof=1)), 4)
    return found
