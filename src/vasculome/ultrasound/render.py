"""Rendering: tracks drawn onto a fine map, box by box, each box exactly the crop of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.geometry import Box
from vasculome.ultrasound.columns import Table, axis_names, positions, table_axes, velocities
from vasculome.ultrasound.smooth import track_bounds

Sums = dict[str, NDArray[Any]]
"""``count`` (int64), ``speed``, ``speed_squared`` and ``vz``, [``vy``,] ``vx`` (float64).

Sums over passages, in (mm/s)² for the square.
"""


def empty_sums(box: Box) -> Sums:
    """Return sums of nothing over ``box``."""
    names = _value_names(axis_names(box.ndim))
    return {"count": np.zeros(box.shape, np.int64), **{name: np.zeros(box.shape) for name in names}}


def accumulate(
    sums: Sums, tracks: Table, *, box: Box, pixel_um: Sequence[float], origin_um: Sequence[float]
) -> None:
    """Add tracks to the sums of a box of the map.

    A track is the line through its points. It counts once in every map voxel it crosses, for each
    passage, be it through a corner or for many frames: lines have no holes, and a slow bubble
    weighs no more than a fast one. The velocity of a passage is that along the line, averaged over
    the time spent in the voxel; a voxel that a point only touches takes the velocity there.

    Passages are added one after the other in the order of the table, whatever the box: a box holds
    the same bits as the crop of the whole map, and a table added in parts (of whole tracks) the
    same as at once.

    Parameters
    ----------
    sums
        As from :func:`empty_sums` for this box; changed in place.
    tracks
        Table with ``track`` (equal values together), ``frame``, positions in micrometres and
        velocities in mm/s. Points with a velocity that is not finite are an error.
    box
        The voxels of the map that the sums hold.
    pixel_um, origin_um
        Size of a map voxel, and centre of voxel 0 of the map, along each axis in micrometres.

    Raises
    ------
    ValueError
        If dimensions do not fit, or positions or velocities are not finite.
    """
    axes = table_axes(tracks)
    if not len(axes) == box.ndim == len(pixel_um) == len(origin_um):
        raise ValueError(f"tracks have {len(axes)} axes, the map {box.ndim}, {len(pixel_um)}")
    for name, total in sums.items():
        if total.shape != box.shape or not total.flags.c_contiguous:
            raise ValueError(f"{name} must be contiguous and of shape {box.shape}: {total.shape}")
    # In this frame voxel k of the map covers [k, k + 1).
    place = (positions(tracks) - np.asarray(origin_um)) / np.asarray(pixel_um) + 0.5
    velocity = velocities(tracks)
    if not (np.isfinite(place).all() and np.isfinite(velocity).all()):
        raise ValueError("positions and velocities must be finite")
    _draw(
        _touching(track_bounds(tracks), place, box),
        np.asarray(tracks["frame"], np.float64),
        place,
        np.concatenate([np.linalg.norm(velocity, axis=1)[:, None], velocity], axis=1),
        np.array(box.start),
        np.array(box.shape),
        sums["count"].reshape(-1),
        tuple(sums[name].reshape(-1) for name in _value_names(axes)),
    )


def maps(sums: Sums) -> dict[str, NDArray[np.float32]]:
    """Turn sums into maps.

    Returns
    -------
    float32 maps of the shape of the sums: ``density`` (passages), ``speed_mm_s`` and ``vz_mm_s``,
    [``vy_mm_s``,] ``vx_mm_s`` (means over passages), ``speed_error_mm_s``, the standard error of
    the mean speed, and, in 2-D, ``direction_rad``, the angle of the mean velocity from x towards
    z, i.e. to the right and down, in (−π, π]. All but the density are NaN where nothing passed,
    and the error also where only one bubble did.
    """
    count = np.asarray(sums["count"], np.float64)
    per_passage = np.divide(1, count, out=np.full(count.shape, np.nan), where=count > 0)
    made = {"density": count.astype(np.float32)}
    for name, total in sums.items():
        if name not in ("count", "speed_squared"):
            made[f"{name}_mm_s"] = (total * per_passage).astype(np.float32)
    # Rounding may leave less than nothing of equal speeds.
    scatter = np.maximum(sums["speed_squared"] - sums["speed"] ** 2 * per_passage, 0.0)
    freedom = np.where(count > 1, count - 1, np.nan)
    made["speed_error_mm_s"] = np.sqrt(scatter / freedom * per_passage).astype(np.float32)
    if "vy" not in sums:
        # Adding zero turns −0 into 0, which would otherwise be read as −π.
        angle = np.arctan2(sums["vz"] + 0.0, sums["vx"] + 0.0)
        made["direction_rad"] = np.where(count > 0, angle, np.nan).astype(np.float32)
    return made


def _value_names(axes: Sequence[str]) -> tuple[str, ...]:
    return ("speed", *(f"v{axis}" for axis in axes), "speed_squared")


def _touching(bounds: NDArray[np.int64], place: NDArray[np.float64], box: Box) -> NDArray[np.int64]:
    """Return (first, stop) of the tracks whose bounding box meets ``box``, shape (tracks, 2)."""
    spans = np.stack([bounds[:-1], bounds[1:]], axis=1)
    if not len(spans):
        return spans
    low = np.minimum.reduceat(place, bounds[:-1], axis=0)
    high = np.maximum.reduceat(place, bounds[:-1], axis=0)
    return spans[((high >= box.start) & (low <= box.stop)).all(axis=1)]


@njit(cache=True, nogil=True)
def _draw(
    spans: NDArray[np.int64],
    frame: NDArray[np.float64],
    place: NDArray[np.float64],
    velocity: NDArray[np.float64],
    start: NDArray[np.int64],
    shape: NDArray[np.int64],
    count: NDArray[np.int64],
    totals: tuple[NDArray[np.float64], ...],
) -> None:  # pragma: no cover - compiled
    """Walk every track through the voxels of the map, and add each passage when it ends.

    The walk goes from face to face: Amanatides and Woo, Eurographics 1987.
    """
    ndim, n_values = place.shape[1], velocity.shape[1]
    voxel = np.empty(ndim, np.int64)
    to_cross = np.empty(ndim, np.int64)  # faces still to cross along each axis
    step = np.empty(ndim, np.int64)
    at_face = np.empty(ndim)  # part of the segment at which the next face of each axis is met
    to_face = np.empty(ndim)
    summed = np.empty(n_values)
    for n in range(len(spans)):
        low, high = spans[n]
        for axis in range(ndim):
            voxel[axis] = int(np.floor(place[low, axis]))
        time = 0.0
        for i in range(low, max(high - 1, low + 1)):
            j = min(i + 1, high - 1)
            for axis in range(ndim):
                a, b = place[i, axis], place[j, axis]
                faces = int(np.floor(b)) - voxel[axis]
                to_cross[axis], step[axis] = abs(faces), np.sign(faces)
                at_face[axis] = np.inf
                if faces != 0:
                    to_face[axis] = 1 / abs(b - a)
                    ahead = voxel[axis] + 1 - a if faces > 0 else a - voxel[axis]
                    at_face[axis] = ahead * to_face[axis]
            entered = 0.0
            to_walk = to_cross.sum()
            while True:
                nearest = np.argmin(at_face)
                left = min(at_face[nearest], 1.0)
                stayed = (left - entered) * (frame[j] - frame[i])
                if stayed > 0 or time == 0:
                    middle = (entered + left) / 2
                    # A voxel that is only touched has no time: it takes the velocity alone.
                    weight = stayed if stayed > 0 else 1.0
                    for v in range(n_values):
                        value = velocity[i, v] + middle * (velocity[j, v] - velocity[i, v])
                        summed[v] = weight * value + (summed[v] if time > 0 else 0.0)
                    time += stayed
                entered = left
                if to_walk == 0:
                    break
                _count_passage(voxel, start, shape, time, summed, count, totals)
                time = 0.0
                voxel[nearest] += step[nearest]
                to_walk -= 1
                to_cross[nearest] -= 1
                at_face[nearest] += to_face[nearest] if to_cross[nearest] else np.inf
        _count_passage(voxel, start, shape, time, summed, count, totals)


@njit(cache=True, nogil=True)
def _count_passage(
    voxel: NDArray[np.int64],
    start: NDArray[np.int64],
    shape: NDArray[np.int64],
    time: float,
    summed: NDArray[np.float64],
    count: NDArray[np.int64],
    totals: tuple[NDArray[np.float64], ...],
) -> None:  # pragma: no cover - compiled
    flat = 0
    for axis in range(len(voxel)):
        k = voxel[axis] - start[axis]
        if k < 0 or k >= shape[axis]:
            return
        flat = flat * shape[axis] + k
    count[flat] += 1
    for v in range(len(summed)):
        totals[v][flat] += summed[v] / time if time > 0 else summed[v]
    speed = summed[0] / time if time > 0 else summed[0]
    totals[len(summed)][flat] += speed * speed
