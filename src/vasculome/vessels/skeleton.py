"""Curve skeletons by topology-preserving thinning that gives the same result in tiles.

Each iteration peels one layer. The voxels on the surface when it starts, ends of curves left
out, are visited in eight sub-fields (the parities of z, y and x), and those that are simple are
deleted. No two voxels of a sub-field are neighbours, so deleting all its simple voxels at once
is the same as deleting them one by one, and topology is kept (Bertrand & Aktouf 1995). Looking
for ends once per iteration, rather than once per sub-field, avoids most spurious branches
(Németh, Kardos & Palágyi 2010).

After n iterations a voxel depends on a neighbourhood that grows with n only (`halo_voxels`), and
n + m iterations are n, then m: a volume can be thinned in rounds of a few iterations over all
its tiles, with a small halo whatever the radius of the vessels.
"""

from __future__ import annotations

import itertools
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
# along an axis only where its parity changes from visit to visit: 3, 3 and 5 times. One voxel
# more, since the chain ends at a voxel that looks at its neighbours.
_REACH_PER_ITERATION = (4, 4, 6)

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

    A straight vessel of radius r voxels is stable after 1.25 r + 2 iterations at most (cylinders
    of 2 to 12 voxels in random directions); `thin` tells whether it was.
    """
    return tuple(iterations * reach for reach in _REACH_PER_ITERATION[-ndim:])


def thin(
    mask: NDArray[np.bool_], *, iterations: int | None = None, origin: Sequence[int] | None = None
) -> tuple[NDArray[np.bool_], bool]:
    """Thin vessels to curves of one voxel, with the topology of the mask.

    Components (26 neighbours in 3-D, 8 in 2-D), loops and cavities are kept. What lies beyond
    the array is background.

    Parameters
    ----------
    mask
        (z, y, x) or (y, x) bool.
    iterations
        How many layers to peel at most; None goes on until nothing changes.
    origin
        Position of the array's first voxel in the volume. The parities of sub-fields are those
        of the volume, so that tiles agree.

    Returns
    -------
    skeleton
        bool, of the same shape.
    stable
        False if the last iteration still deleted a voxel, so that another may, too.
    """
    if mask.ndim not in (2, 3):
        raise ValueError(f"mask must be 2-D or 3-D, not {mask.ndim}-D")
    volume = mask[np.newaxis] if mask.ndim == 2 else mask
    first = (0, *(origin or (0, 0)))[-3:] if mask.ndim == 2 else tuple(origin or (0, 0, 0))
    padded = np.pad(volume.astype(bool), 1)
    alive = np.concatenate([_subfield_voxels(padded, parity, first) for parity in _SUBFIELDS])
    steps = _OFFSETS @ np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    faces = steps[(_NONZERO_AXES == 1) & ((mask.ndim == 3) | (_OFFSETS[:, 0] == 0))]
    flat = padded.ravel()
    stable = False
    done = 0
    while not stable and (iterations is None or done < iterations):
        alive, stable = _peel_layer(flat, alive, steps, faces)
        done += 1
    skeleton = padded[1:-1, 1:-1, 1:-1].copy()
    return (skeleton[0] if mask.ndim == 2 else skeleton), stable


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
    on_surface = np.zeros(len(alive), np.bool_)
    for i in range(len(alive)):
        for step in faces:
            if not flat[alive[i] + step]:
                neighbours = 0
                for other in steps:
                    if other != 0 and flat[alive[i] + other]:
                        neighbours += 1
                on_surface[i] = neighbours != 1
                break
    kept = 0
    remaining = np.empty_like(alive)
    for i in range(len(alive)):
        if on_surface[i] and _is_simple(flat, alive[i], steps):
            flat[alive[i]] = False
        else:
            remaining[kept] = alive[i]
            kept += 1
    return remaining[:kept].copy(), kept == len(alive)


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
