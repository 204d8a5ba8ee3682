"""Curve skeletons by topology-preserving thinning that gives the same result in tiles.

Each iteration peels one layer. The voxels on the surface when it starts, ends of curves left
out, are visited in eight sub-fields (the parities of z, y and x), and those that are simple are
deleted. No two voxels of a sub-field are neighbours, so deleting all its simple voxels at once
is the same as deleting them one by one, and topology is kept (Bertrand & Aktouf 1995). Looking
for ends once per iteration, rather than once per sub-field, avoids many spurious branches
(Németh, Kardos & Palágyi 2010). Two rules avoid the others, which come of the steps of a surface
on a grid: an end counts as one only if the curve behind it is already a curve for a few voxels,
and where voxels are not cubes, faces across a longer side are peeled less often, so that all
sides of a vessel recede at one speed in micrometres.

After n iterations a voxel depends on a neighbourhood that grows with n only (`halo_voxels`), and
n + m iterations are n, then m: a volume can be thinned in rounds of a few iterations over all
its tiles, with a small halo whatever the radius of the vessels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Parities (z, y, x) of the sub-fields in the order of their visits. Along each axis the field
# that is visited last is the same for both parities: otherwise the voxel that survives in a thick
# line alternates from side to side, and the skeleton is a zigzag a tenth longer.
_SUBFIELDS = (
    (0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (0, 1, 1), (1, 1, 1),
)  # fmt: skip
# What becomes of a voxel depends on neighbours visited before it, and theirs on theirs.
# Neighbours of one parity along an axis lie in one plane across it, so that such a chain moves
# along an axis only where its parity changes from visit to visit: 3, 3 and 5 times. Some voxels
# more, since the chain may end at an end of a curve, which looks at what is behind it.
_TAIL_VOXELS = 2
_REACH_PER_ITERATION = tuple(chain + _TAIL_VOXELS + 1 for chain in (3, 3, 5))

# The 3×3×3 neighbourhood as bits 9 z + 3 y + x, the centre left out.
_OFFSETS = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
_NONZERO_AXES = np.abs(_OFFSETS).sum(axis=1)


def _bits(chosen: NDArray[np.bool_]) -> int:
    return int(sum(1 << int(bit) for bit in np.flatnonzero(chosen)))


_N6, _N18 = _bits(_NONZERO_AXES == 1), _bits((_NONZERO_AXES == 1) | (_NONZERO_AXES == 2))
_NOT_FIRST_X, _NOT_LAST_X = _bits(_OFFSETS[:, 2] > -1), _bits(_OFFSETS[:, 2] < 1)
_NOT_FIRST_Y, _NOT_LAST_Y = _bits(_OFFSETS[:, 1] > -1), _bits(_OFFSETS[:, 1] < 1)


def halo_voxels(*, iterations: int, ndim: int = 3) -> tuple[int, ...]:
    """Return how many voxels beyond a tile its thinning depends on, along each axis.

    A straight vessel of radius r voxels, counted along their shortest side, is stable after
    1.25 r + 2 iterations at most (cylinders of 2 to 15 voxels in random directions, of voxels up
    to 5 times as long as wide); `thin` tells whether it was.
    """
    return tuple(iterations * reach for reach in _REACH_PER_ITERATION[-ndim:])


def thin(
    mask: NDArray[np.bool_],
    *,
    spacing_um: Sequence[float] | None = None,
    iterations: int | None = None,
    done: int = 0,
    origin: Sequence[int] | None = None,
) -> tuple[NDArray[np.bool_], bool]:
    """Thin vessels to curves of one voxel, with the topology of the mask.

    Components (26 neighbours in 3-D, 8 in 2-D), loops and cavities are kept. What lies beyond
    the array is background.

    Parameters
    ----------
    mask
        (z, y, x) or (y, x) bool.
    spacing_um
        Voxel size along each axis; cubes where it is not given.
    iterations
        How many layers to peel at most; None goes on until nothing changes.
    done
        Iterations that ``mask`` has behind it, which tell the sides that are peeled next.
    origin
        Position of the array's first voxel in the volume. The parities of sub-fields are those
        of the volume, so that tiles agree.

    Returns
    -------
    skeleton
        bool, of the same shape.
    stable
        False if further iterations would delete a voxel.
    """
    if mask.ndim not in (2, 3):
        raise ValueError(f"mask must be 2-D or 3-D, not {mask.ndim}-D")
    volume = mask[np.newaxis] if mask.ndim == 2 else mask
    first = (0, *(origin or (0, 0)))[-3:] if mask.ndim == 2 else tuple(origin or (0, 0, 0))
    padded = np.pad(volume.astype(bool), 1)
    alive = np.concatenate([_subfield_voxels(padded, parity, first) for parity in _SUBFIELDS])
    steps = _OFFSETS @ np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    # In 2-D no face is across z, whose voxels are as long as one likes.
    spacing = np.array([np.inf, *(spacing_um or (1.0,) * mask.ndim)][-3:])
    flat = padded.ravel()
    faces = steps[_across(np.isfinite(spacing))]
    last = math.inf if iterations is None else done + iterations
    while done < last:
        alive, same = _peel_layer(flat, alive, steps, steps[_across(_due(spacing, done))])
        done += 1
        # A layer that deletes nothing is the last one only if faces that were not due agree.
        if same and _is_stable(flat, alive, steps, faces):
            break
    stable = bool(_is_stable(flat, alive, steps, faces))
    skeleton = padded[1:-1, 1:-1, 1:-1].copy()
    return (skeleton[0] if mask.ndim == 2 else skeleton), stable


def _due(spacing: NDArray[np.float64], layer: int) -> NDArray[np.bool_]:
    """Return the axes whose faces are peeled with this layer: those of the shortest side always."""
    rate = spacing.min() / spacing
    # The first faces of a longer side are due in the middle of their turn.
    peeled = np.floor(np.multiply.outer([layer, layer + 1], rate) + 0.5 * (1 - rate) + 1e-9)
    return np.asarray(peeled[1] > peeled[0])


def _across(axes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the 27 offsets lead to faces across these axes."""
    return (_NONZERO_AXES == 1) & (_OFFSETS[:, axes] != 0).any(axis=1)


def _subfield_voxels(
    padded: NDArray[np.bool_], parity: Sequence[int], first: Sequence[int]
) -> NDArray[np.int64]:
    """Return the flat indices of the foreground whose position has this parity."""
    # Position p of the volume is index p - first + 1 of the padded array.
    starts = [(p - f + 1) % 2 for p, f in zip(parity, first, strict=True)]
    found = np.nonzero(padded[tuple(slice(start, None, 2) for start in starts)])
    index = [2 * i + start for i, start in zip(found, starts, strict=True)]
    return np.ravel_multi_index(tuple(index), padded.shape).astype(np.int64)


@njit(cache=True)
def _peel_layer(flat, alive, steps, faces):
    """Delete one layer; return the voxels that remain, in order, and whether all did."""
    may_go = np.zeros(len(alive), np.bool_)
    for i in range(len(alive)):
        may_go[i] = _may_go(flat, alive[i], steps, faces)
    kept = 0
    remaining = np.empty_like(alive)
    for i in range(len(alive)):
        if may_go[i] and _is_simple(flat, alive[i], steps):
            flat[alive[i]] = False
        else:
            remaining[kept] = alive[i]
            kept += 1
    return remaining[:kept].copy(), kept == len(alive)


@njit(cache=True)
def _is_stable(flat, alive, steps, faces):
    """Tell whether no voxel would be deleted."""
    for index in alive:
        if _may_go(flat, index, steps, faces) and _is_simple(flat, index, steps):
            return False
    return True


@njit(cache=True)
def _may_go(flat, index, steps, faces):
    """Tell whether a voxel is on the surface, and no end of a curve."""
    for step in faces:
        if not flat[index + step]:
            return not _is_end(flat, index, steps)
    return False


@njit(cache=True)
def _is_end(flat, index, steps):
    """Tell whether a voxel has one neighbour, and behind it is a curve for `_TAIL_VOXELS`.

    A whole curve that is shorter has two ends as well.
    """
    before, here = index, index
    for behind in range(_TAIL_VOXELS + 1):
        count, onwards = 0, index
        for k in range(27):
            there = here + steps[k]
            if k != 13 and flat[there]:
                count += 1
                if there != before:
                    onwards = there
        if behind == 0 and count != 1:
            return False
        if behind > 0 and count != 2:
            return count == 1
        before, here = here, onwards
    return True


@njit(cache=True)
def _is_simple(flat, index, steps):
    """Tell whether deleting a voxel keeps topology (Bertrand & Malandain 1994).

    So it is where its foreground neighbours are one 26-component, and the background among its
    18 neighbours has one 6-component that touches it.
    """
    cube = 0
    for bit in range(27):
        if flat[index + steps[bit]]:
            cube |= 1 << bit
    foreground = cube & ~(1 << 13)
    reached, before = foreground & -foreground, 0
    while reached != before:
        before = reached
        grown = reached | (reached & _NOT_LAST_X) << 1 | (reached & _NOT_FIRST_X) >> 1
        grown |= (grown & _NOT_LAST_Y) << 3 | (grown & _NOT_FIRST_Y) >> 3
        grown |= grown << 9 | grown >> 9
        reached = grown & foreground
    if foreground == 0 or reached != foreground:
        return False
    background = ~cube & _N18
    touching = background & _N6
    reached, before = touching & -touching, 0
    while reached != before:
        before = reached
        grown = reached | (reached & _NOT_LAST_X) << 1 | (reached & _NOT_FIRST_X) >> 1
        grown |= (reached & _NOT_LAST_Y) << 3 | (reached & _NOT_FIRST_Y) >> 3
        grown |= reached << 9 | reached >> 9
        reached = grown & background
    return touching != 0 and reached & touching == touching
