"""What each voxel of a skeleton is in its graph, and the runs of voxels between branch points.

A voxel with two neighbours (26 in 3-D, 8 in 2-D) that do not touch each other lies on a run; one
with a single neighbour is an end, one with none is alone; every other voxel is a knot, and knots
that touch are one branch point. A run's voxels and ends lie in no triangle of neighbours, so that
all that is not plain line is within knots: the topology of the skeleton is that of the graph and
of its knots (the nerve of closed cubes, in which boxes that meet in pairs meet all).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.vessels.centerline import steps_between

HALO_VOXELS = 2
"""How many voxels of skeleton beyond a tile its part of the graph depends on."""

NOTHING, ALONE, END, RUN, KNOT = range(5)
OUTSIDE = 8
"""Added to the kind of voxels beyond the tile."""

_OFFSETS = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
# The cell of a voxel in the direction of an offset is shared with the neighbours at the offsets
# that go along some of the same axes; it belongs to the first voxel of those. Row: the cell's
# sign in the Euler characteristic, and the bits of neighbours that come before the voxel.
_CELL_SIGN = np.array([(-1) ** (3 - np.abs(offset).sum()) for offset in _OFFSETS])
_CELL_BEFORE = np.array(
    [
        sum(
            1 << bit
            for bit, other in enumerate(_OFFSETS[:13])
            if all(o in (0, d) for o, d in zip(other, offset, strict=True))
        )
        for offset in _OFFSETS
    ]
)


@dataclass(frozen=True)
class Voxels:
    """The skeleton voxels of a tile, in order, with places in an array padded by the halo.

    Attributes
    ----------
    kind
        uint8 of the padded array, flat: kinds of the tile's voxels and of those next to it.
    places
        (n,) int64, flat places of the tile's skeleton voxels.
    steps
        (27,) int64, from a place to those of its neighbours; 0 in the middle.
    euler_number
        (n,) int64: summed over all knots of a branch point, its Euler characteristic.
    course_nm
        (n,) int64: summed over all knots of a branch point, the length of its own course.
    """

    kind: NDArray[np.uint8]
    places: NDArray[np.int64]
    steps: NDArray[np.int64]
    euler_number: NDArray[np.int64]
    course_nm: NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """Runs of a tile's voxels, one after another; those without a voxel join an end and a node.

    Attributes
    ----------
    voxel
        (p,) int64, indices of voxels of the tile.
    start
        (r + 1,) int64, where each run starts in ``voxel``.
    inner, outer
        (r, 2) int64 places at its first and at its last end: of its own last voxel, and of the
        one beyond, which is not of the run. A closed run has its own voxels on both sides.
    """

    voxel: NDArray[np.int64]
    start: NDArray[np.int64]
    inner: NDArray[np.int64]
    outer: NDArray[np.int64]


def sort_voxels(padded: NDArray[np.bool_], spacing_um: Sequence[float]) -> Voxels:
    """Sort the voxels of a (z, y, x) skeleton that is padded by `HALO_VOXELS` on every side."""
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    steps = _OFFSETS @ strides
    kind = np.zeros(padded.shape, np.uint8)
    near, core = (padded[(slice(m, -m),) * 3] for m in (1, HALO_VOXELS))
    flat = padded.ravel()
    found = _flat_places(near, 1, padded.shape)
    kind.ravel()[found] = _kinds(flat, found, steps) + OUTSIDE
    kind[(slice(HALO_VOXELS, -HALO_VOXELS),) * 3] &= OUTSIDE - 1
    places = _flat_places(core, HALO_VOXELS, padded.shape)
    euler = _euler_numbers(kind.ravel(), places, steps, _CELL_SIGN, _CELL_BEFORE)
    # Whole nanometres, so that sums do not depend on the order in which tiles come.
    apart_nm = np.rint(1e3 * np.linalg.norm(_OFFSETS * np.array(spacing_um), axis=1)).astype(int)
    course = _courses(kind.ravel(), places, steps, steps_between(_OFFSETS, strides), apart_nm)
    return Voxels(kind.ravel(), places, steps, euler, course)


def _flat_places(inner: NDArray[np.bool_], margin: int, shape: Sequence[int]) -> NDArray[np.int64]:
    found = tuple(i + margin for i in np.nonzero(inner))
    return np.ravel_multi_index(found, tuple(shape)).astype(np.int64)


def runs_of(voxels: Voxels) -> Runs:
    """Follow the runs of a tile from one end, or the tile's border, to the other."""
    return Runs(*_follow(voxels.kind, voxels.places, voxels.steps))


def clusters_of(voxels: Voxels) -> NDArray[np.int64]:
    """Return for each voxel of the tile the first one of its branch point, -1 on runs."""
    return _cluster(voxels.kind, voxels.places, voxels.steps)


def links_of(voxels: Voxels) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return how many edges start at each voxel, and links across the tile's border.

    Returns
    -------
    degree
        (n,) int64, 0 on runs.
    voxel, place
        (m,) int64 each: a voxel of the tile that is no run, and the place of a neighbour beyond
        the border that waits for it: a knot of the same branch point, or an edge's last voxel.
    """
    return _links(voxels.kind, voxels.places, voxels.steps)


@njit(cache=True)
def _kinds(flat, places, steps):
    kinds = np.empty(len(places), np.uint8)
    around = np.empty(27, np.int64)
    for i in range(len(places)):
        count = 0
        for k in range(27):
            if k != 13 and flat[places[i] + steps[k]]:
                if count < 2:
                    around[count] = k
                count += 1
        if count == 0:
            kinds[i] = ALONE
        elif count == 1:
            kinds[i] = END
        elif count == 2 and not _touch(around[0], around[1]):
            kinds[i] = RUN
        else:
            kinds[i] = KNOT
    return kinds


@njit(cache=True)
def _touch(a, b):
    """Tell whether two places of the 3×3×3 neighbourhood are neighbours."""
    return (
        abs(a // 9 - b // 9) <= 1 and abs(a // 3 % 3 - b // 3 % 3) <= 1 and abs(a % 3 - b % 3) <= 1
    )


@njit(cache=True)
def _euler_numbers(kind, places, steps, sign, before):
    numbers = np.zeros(len(places), np.int64)
    for i in range(len(places)):
        if kind[places[i]] == RUN:
            continue
        if kind[places[i]] != KNOT:
            numbers[i] = 1
            continue
        earlier = 0
        for k in range(13):
            if kind[places[i] + steps[k]] & 7 == KNOT:
                earlier |= 1 << k
        for cell in range(27):
            if not earlier & before[cell]:
                numbers[i] += sign[cell]
    return numbers


@njit(cache=True)
def _courses(kind, places, steps, between, apart_nm):
    """Return how far each knot is from those before it that it meets without a third between."""
    course = np.zeros(len(places), np.int64)
    for i in range(len(places)):
        if kind[places[i]] != KNOT:
            continue
        for k in range(13):
            if kind[places[i] + steps[k]] & 7 != KNOT:
                continue
            direct = True
            for middle in between[k]:
                if middle != 0 and kind[places[i] + middle] & 7 == KNOT:
                    direct = False
            if direct:
                course[i] += apart_nm[k]
    return course


@njit(cache=True)
def _cluster(kind, places, steps):
    parent = np.arange(len(places))
    for i in range(len(places)):
        if kind[places[i]] != KNOT:
            continue
        for k in range(13):
            if kind[places[i] + steps[k]] == KNOT:
                a = _root(parent, i)
                b = _root(parent, np.searchsorted(places, places[i] + steps[k]))
                # The first voxel leads, so that it names the branch point.
                parent[max(a, b)] = min(a, b)
    for i in range(len(places)):
        parent[i] = -1 if kind[places[i]] == RUN else _root(parent, i)
    return parent


@njit(cache=True)
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True)
def _links(kind, places, steps):
    degree = np.zeros(len(places), np.int64)
    voxel, place = [], []
    for i in range(len(places)):
        own = kind[places[i]]
        if own not in (KNOT, END):
            continue
        for k in range(27):
            there = places[i] + steps[k]
            other = kind[there] & 7
            if k == 13 or other == NOTHING:
                continue
            if own == END or other != KNOT:
                degree[i] += 1
            if kind[there] & OUTSIDE and not _makes_edge(own, places[i], other, there):
                voxel.append(i)
                place.append(there)
    return degree, np.array(voxel, np.int64), np.array(place, np.int64)


@njit(cache=True)
def _makes_edge(own, here, other, there):
    """Tell whether an end makes the edge to its neighbour: to a knot, and to a later end."""
    return own == END and (other == KNOT or (other == END and here < there))


@njit(cache=True)
def _follow(kind, places, steps):
    voxel, start = np.empty(len(places), np.int64), [0]
    inner = np.empty((len(places), 2), np.int64)
    outer = np.empty((len(places), 2), np.int64)
    for place in places:
        other, _ = _first_two(kind, place, steps)
        if _makes_edge(kind[place], place, kind[other] & 7, other):
            inner[len(start) - 1, 0], inner[len(start) - 1, 1] = other, place
            outer[len(start) - 1, 0], outer[len(start) - 1, 1] = place, other
            start.append(0)
    done = np.zeros(len(places), np.bool_)
    # Runs with an end first: what then is left closes on itself.
    for closed in (False, True):
        for i in range(len(places)):
            if done[i] or kind[places[i]] != RUN:
                continue
            head, other = _first_two(kind, places[i], steps)
            if not closed and kind[head] == RUN:
                head = other
            if not closed and kind[head] == RUN:
                continue  # in the middle of a run
            follow = start[-1], head, places[i]
            stop, last, beyond = _walk(kind, places, steps, done, voxel, follow)
            inner[len(start) - 1, 0], inner[len(start) - 1, 1] = places[i], last
            outer[len(start) - 1, 0], outer[len(start) - 1, 1] = head, beyond
            start.append(stop)
    runs = len(start) - 1
    ends = np.array(start, np.int64)
    return voxel[: start[-1]].copy(), ends, inner[:runs].copy(), outer[:runs].copy()


@njit(cache=True)
def _first_two(kind, place, steps):
    """Return the places of the first two neighbours, itself where there are none."""
    first, second, found = place, place, 0
    for k in range(27):
        if k != 13 and kind[place + steps[k]] != NOTHING:
            if found == 0:
                first = place + steps[k]
            elif found == 1:
                second = place + steps[k]
            found += 1
    return first, second


@njit(cache=True)
def _walk(kind, places, steps, done, voxel, follow):
    """Note the voxels of a run; return how many there are by now, the last, what is beyond it."""
    count, last, place = follow
    while kind[place] == RUN:
        j = np.searchsorted(places, place)
        if done[j]:
            break  # a closed run is back at its start
        done[j] = True
        voxel[count] = j
        count += 1
        first, second = _first_two(kind, place, steps)
        last, place = place, second if first == last else first
    return count, last, place
