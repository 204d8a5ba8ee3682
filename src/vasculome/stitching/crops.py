"""The same place in two tiles, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.geometry import Box
from vasculome.stitching.fuse import covered, fuse
from vasculome.stitching.place import Placement
from vasculome.stitching.slabs import Tile

MAX_CROP_PX = 256
_WORST = 3


def worst_and_median(placement: Placement) -> tuple[list[int], list[bool]]:
    """Return the edges to look at, and whether each is among the worst.

    Up to three of the largest misfit, outliers included, worst first, then the median one of
    those in use.
    """
    misfit = np.linalg.norm(placement.residuals, axis=1)
    known = np.flatnonzero(np.isfinite(misfit))
    worst = known[np.argsort(-misfit[known], kind="stable")][:_WORST].tolist()
    used = np.flatnonzero(placement.used & np.isfinite(misfit))
    middle = used[np.argsort(misfit[used], kind="stable")][len(used) // 2 :][:1].tolist()
    middle = [edge for edge in middle if edge not in worst]
    return worst + middle, [True] * len(worst) + [False] * len(middle)


def crop_pair(
    tile_i: Tile, tile_j: Tile, start_i: Sequence[float], start_j: Sequence[float]
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return one plane through the middle of two tiles' overlap as each of them shows it.

    Parameters
    ----------
    tile_i, tile_j
        The tiles (z, y, x).
    start_i, start_j
        Their first voxels in the volume.

    Returns
    -------
    tuple
        Two arrays (y, x) of the tiles' dtype, up to 256 voxels wide, on the same voxels of the
        volume; None where the tiles do not overlap.
    """
    shared = covered(start_i, tile_i.shape).intersect(covered(start_j, tile_j.shape))
    if shared is None:
        return None
    middle = [(a + b) // 2 for a, b in zip(shared.start, shared.stop, strict=True)]
    half = (0, MAX_CROP_PX // 2, MAX_CROP_PX // 2)
    box = Box(
        tuple(max(a, m - h) for a, m, h in zip(shared.start, middle, half, strict=True)),
        tuple(min(b, m + max(h, 1)) for b, m, h in zip(shared.stop, middle, half, strict=True)),
    )
    first, second = (
        fuse([tile], [start], box)[0] for tile, start in ((tile_i, start_i), (tile_j, start_j))
    )
    return first, second
