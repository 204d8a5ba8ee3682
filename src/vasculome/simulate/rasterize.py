"""Vessel graphs drawn as masks and occupancies, block by block where the volume is large."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.geometry import Box
from vasculome.simulate.trees import Float, VesselGraph


def wall_depth_um(
    graph: VesselGraph,
    *,
    box: Box,
    spacing_um: Sequence[float],
    margin_um: float,
    origin_um: Sequence[float] | None = None,
) -> NDArray[np.float32]:
    """Return how deep each voxel centre lies inside the nearest vessel wall, radius − distance.

    Each edge is a capsule. Blocks of a volume can be computed on their own and agree with the
    whole; memory is that of the block.

    Parameters
    ----------
    box
        The voxels wanted, in voxels of the whole volume.
    spacing_um, origin_um
        Voxel size, and centre of voxel 0 (0 by default), along each axis.
    margin_um
        Outside the vessels, depths down to ``-margin_um`` are exact and lower ones are cut there.

    Returns
    -------
    numpy.ndarray
        Float32 of the box's shape, in micrometres; positive inside.
    """
    nothing = np.empty((0, 0, 0), dtype=np.int32)
    return _drawn(graph, box, spacing_um, origin_um, margin_um, np.ones(len(graph.edges)), nothing)


def nearest_wall(
    graph: VesselGraph,
    *,
    box: Box,
    spacing_um: Sequence[float],
    margin_um: float,
    origin_um: Sequence[float] | None = None,
    stretch: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return depths inside the nearest wall as `wall_depth_um` does, in 3-D, and whose they are.

    Parameters
    ----------
    graph, box, spacing_um, margin_um, origin_um
        As of `wall_depth_um`.
    stretch
        Of each edge, how much thicker it is along z than across; 1 by default. Its depths are told
        on the scale of across.

    Returns
    -------
    depth_um, edge
        Float32 and int32 of the box's shape; the edge is −1 where none is within the margin.
    """
    edge = np.full(box.shape, -1, dtype=np.int32)
    factor = np.ones(len(graph.edges)) if stretch is None else stretch
    return _drawn(graph, box, spacing_um, origin_um, margin_um, factor, edge), edge


def _drawn(
    graph: VesselGraph,
    box: Box,
    spacing_um: Sequence[float],
    origin_um: Sequence[float] | None,
    margin_um: float,
    stretch: Float,
    edge: NDArray[np.int32],
) -> NDArray[np.float32]:
    missing = 3 - graph.ndim
    spacing = np.array([1.0] * missing + list(spacing_um), dtype=np.float64)
    origin = np.zeros(3)
    origin[missing:] = 0.0 if origin_um is None else origin_um
    start = np.array([0] * missing + list(box.start), dtype=np.int64)
    depth = np.full((1,) * missing + box.shape, -margin_um, dtype=np.float32)
    ends = np.zeros((len(graph.edges), 2, 3))
    ends[..., missing:] = graph.positions_um[graph.edges]
    place = origin + start * spacing
    _draw_capsules(depth, edge, ends, graph.radius_um, stretch, place, spacing, margin_um)
    return depth.reshape(box.shape)


def rasterize(
    graph: VesselGraph,
    *,
    box: Box,
    spacing_um: Sequence[float],
    origin_um: Sequence[float] | None = None,
) -> NDArray[np.bool_]:
    """Return which voxel centres lie inside a vessel; parameters as of `wall_depth_um`."""
    depth = wall_depth_um(graph, box=box, spacing_um=spacing_um, origin_um=origin_um, margin_um=1.0)
    return depth > 0


def occupancy(
    graph: VesselGraph,
    *,
    box: Box,
    spacing_um: Sequence[float],
    origin_um: Sequence[float] | None = None,
) -> NDArray[np.float32]:
    """Return about which part of each voxel is lumen, 0 to 1; parameters as of `wall_depth_um`.

    The wall is a ramp one voxel wide (the geometric mean of the voxel size), so that 0.5 is the
    surface and thin vessels keep their brightness.
    """
    width = math.prod(spacing_um) ** (1 / len(spacing_um))
    depth = wall_depth_um(
        graph, box=box, spacing_um=spacing_um, origin_um=origin_um, margin_um=width
    )
    return np.clip(0.5 + depth / width, 0.0, 1.0, dtype=np.float32)


@njit(cache=True, nogil=True)
def _draw_capsules(
    depth: NDArray[np.float32],
    owner: NDArray[np.int32],
    ends: Float,
    radius: Float,
    stretch: Float,
    origin: Float,
    spacing: Float,
    margin: float,
) -> None:
    """Raise each voxel to radius − distance of the capsules within ``margin`` of it.

    ``owner`` becomes the edge that did it last, unless it is empty.
    """
    low, high = np.empty(3, dtype=np.int64), np.empty(3, dtype=np.int64)
    for e in range(len(radius)):
        a, b = ends[e, 0], ends[e, 1]
        for d in range(3):
            reach = (radius[e] + margin) * (stretch[e] if d == 0 else 1.0)
            near = np.ceil((min(a[d], b[d]) - reach - origin[d]) / spacing[d])
            far = np.floor((max(a[d], b[d]) + reach - origin[d]) / spacing[d])
            low[d] = max(0, int(near))
            high[d] = min(depth.shape[d], int(far) + 1)
        az, ay, ax = a[0], a[1], a[2]
        uz, uy, ux = (b[0] - az) / stretch[e], b[1] - ay, b[2] - ax
        square = uz * uz + uy * uy + ux * ux + 1e-12
        for z in range(low[0], high[0]):
            pz = (origin[0] + z * spacing[0] - az) / stretch[e]
            for y in range(low[1], high[1]):
                py = origin[1] + y * spacing[1] - ay
                for x in range(low[2], high[2]):
                    px = origin[2] + x * spacing[2] - ax
                    t = min(max((pz * uz + py * uy + px * ux) / square, 0.0), 1.0)
                    dz, dy, dx = pz - t * uz, py - t * uy, px - t * ux
                    inside = radius[e] - np.sqrt(dz * dz + dy * dy + dx * dx)
                    if inside > depth[z, y, x]:
                        depth[z, y, x] = inside
                        if owner.size > 0:
                            owner[z, y, x] = e
