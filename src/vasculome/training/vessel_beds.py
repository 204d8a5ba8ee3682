"""Vascular beds for patches: trees and capillaries in a cube, grown on demand."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vasculome.simulate.capillaries import with_capillaries
from vasculome.simulate.refine import in_short_edges, vessels_of, with_rounded_bends
from vasculome.simulate.staining import smooth_field
from vasculome.simulate.trees import VesselGraph, grow_tree
from vasculome.training.scenes import Range

CUBE_UM = 400.0
"""Edge of the cube that vessels are grown in."""

_TREES = 3
_EDGE_UM = 4.0  # light changes from one edge to the next
_ROUNDING_PASSES = 6
_CALIBER_UM = 20.0  # length over which the calibre of a vessel changes
_LARGE_BEND = (4.0, 40.0)  # least radius of curvature of a large vessel, over its own radius


@dataclass(frozen=True)
class BedKind:
    """What vascular beds differ in; each draws a value of its own from each range.

    Attributes
    ----------
    cell_um
        Mean size of the meshes of capillaries: 68 µm make 1 m of capillaries a mm³, as in cortex.
    capillary_um
        Mean radius of capillaries.
    terminals
        Leaves of each tree.
    terminal_um
        Radius of a leaf; by Murray's law the root's is its product with ∛terminals.
    tortuosity
        Of trees, as of `vasculome.simulate.trees.grow_tree`.
    bow
        Depth of the curves of capillaries over their length.
    caliber
        Standard deviation of the logarithm of the radius along a vessel.
    without_capillaries
        Part of the beds of which only the trees are stained.
    """

    cell_um: Range = (50.0, 95.0)
    capillary_um: Range = (1.8, 3.2)
    terminals: Range = (5, 25)
    terminal_um: Range = (2.5, 4.5)
    tortuosity: Range = (0.1, 0.6)
    bow: Range = (0.02, 0.15)
    caliber: Range = (0.0, 0.15)
    without_capillaries: float = 0.1


@dataclass(frozen=True, eq=False)
class VascularBed:
    """Vessels in a cube.

    Attributes
    ----------
    graph
        Edges of some 4 µm at the most.
    vessel
        Number of the vessel that each edge belongs to.
    middle_um
        Of each edge (edges, 3).
    """

    graph: VesselGraph
    vessel: NDArray[np.int64]
    middle_um: NDArray[np.float64]


@functools.lru_cache(maxsize=8)
def vascular_bed(kind: BedKind, *, seed: int, split: int, number: int) -> VascularBed:
    """Grow a bed; the same arguments give the same vessels, others others."""
    rng = np.random.default_rng([seed, split, number, 2])
    trees = []
    for _ in range(_TREES):
        inlet = CUBE_UM * rng.uniform(0.1, 0.9, 3)
        inlet[0] = 0.0
        n_terminals = int(rng.integers(int(kind.terminals[0]), int(kind.terminals[1]) + 1))
        trees.append(
            grow_tree(
                (CUBE_UM,) * 3,
                n_terminals=n_terminals,
                root_radius_um=float(rng.uniform(*kind.terminal_um)) * n_terminals ** (1 / 3),
                inlet_um=inlet.tolist(),
                tortuosity=float(rng.uniform(*kind.tortuosity)),
                rng=rng,
            )
        )
    graph = with_capillaries(
        trees,
        domain_um=(CUBE_UM,) * 3,
        cell_um=float(rng.uniform(*kind.cell_um)),
        radius_um=float(rng.uniform(*kind.capillary_um)),
        bow=float(rng.uniform(*kind.bow)),
        rng=rng,
    )
    if rng.random() < kind.without_capillaries:
        carries = graph.flow_um3_s > 0
        graph = replace(
            graph,
            edges=graph.edges[carries],
            radius_um=graph.radius_um[carries],
            flow_um3_s=graph.flow_um3_s[carries],
        )
    graph = with_rounded_bends(in_short_edges(graph, longest_um=_EDGE_UM), passes=_ROUNDING_PASSES)
    middle = graph.positions_um[graph.edges].mean(axis=1)
    caliber = rng.uniform(*kind.caliber) * smooth_field(middle, scale_um=_CALIBER_UM, rng=rng)
    graph = replace(graph, radius_um=graph.radius_um * np.exp(caliber))
    return VascularBed(graph, vessels_of(graph), middle)


def piece_of(
    bed: VascularBed,
    *,
    start_um: NDArray[np.float64],
    stop_um: NDArray[np.float64],
    magnify: float,
    rng: np.random.Generator,
) -> VascularBed:
    """Return the vessels that reach into a box, turned, mirrored and cut out at random.

    Parameters
    ----------
    bed
        Whole cube.
    start_um, stop_um
        The box; the vessels' positions are in its frame.
    magnify
        How much larger they are than they grew. Where the cube does not fill the box even so, its
        mirror images stand beside it: radii stay what they are.
    rng
        Chooses the piece.

    Returns
    -------
    VascularBed
        Of the edges that reach into the box.
    """
    box = stop_um - start_um
    cubes = np.ceil(box / magnify / CUBE_UM - 1e-9).astype(int).clip(min=1)
    turn, flip = rng.permutation(3), rng.random(3) < 0.5
    corner = rng.uniform(0, 1, 3) * (cubes * CUBE_UM - box / magnify)
    place = bed.graph.positions_um[:, turn]
    place = np.where(flip, CUBE_UM - place, place)
    # Every second cube is a mirror image, so that vessels go on from one into the next.
    places = [
        CUBE_UM * np.array(cube) + np.where(np.mod(cube, 2), CUBE_UM - place, place)
        for cube in np.ndindex(*cubes)
    ]
    n_cubes, n_nodes = len(places), len(place)
    graph = VesselGraph(
        positions_um=(np.concatenate(places) - corner) * magnify + start_um,
        edges=np.concatenate([bed.graph.edges + k * n_nodes for k in range(n_cubes)]),
        radius_um=np.tile(bed.graph.radius_um * magnify, n_cubes),
        flow_um3_s=np.tile(bed.graph.flow_um3_s, n_cubes),
    )
    return _reaching(graph, np.tile(bed.vessel, n_cubes), start_um, stop_um)


def large_vessel(
    *,
    start_um: NDArray[np.float64],
    stop_um: NDArray[np.float64],
    radius_um: float,
    rng: np.random.Generator,
) -> VascularBed:
    """Return an artery or a vein, as far as it reaches into a box.

    Parameters
    ----------
    start_um, stop_um
        The box.
    radius_um
        Of the vessel.
    rng
        Chooses its course, a parabola, so that a point of the box, any one, lies in the vessel:
        as often near the wall as near the middle.
    """
    along, aside, across = np.linalg.qr(rng.standard_normal((3, 3)))[0].T

    def away() -> NDArray[np.float64]:
        turn = rng.uniform(0, 2 * math.pi)
        return math.cos(turn) * aside + math.sin(turn) * across

    middle = rng.uniform(start_um, stop_um) + radius_um * rng.random() * away()
    bend_um = radius_um * rng.uniform(*_LARGE_BEND)
    half_um = float(np.linalg.norm(stop_um - start_um)) + 2 * radius_um
    n_edges = math.ceil(2 * half_um / _EDGE_UM)
    way = np.linspace(-half_um, half_um, n_edges + 1)[:, None]
    nodes = np.arange(n_edges + 1)
    graph = VesselGraph(
        positions_um=middle + way * along + way**2 / (2 * bend_um) * away(),
        edges=np.stack([nodes[:-1], nodes[1:]], axis=1),
        radius_um=np.full(n_edges, radius_um),
        flow_um3_s=np.ones(n_edges),
    )
    return _reaching(graph, np.zeros(n_edges, np.int64), start_um, stop_um)


def joined(bed: VascularBed, other: VascularBed) -> VascularBed:
    """Return the vessels of both; those of ``other`` have the higher numbers."""
    a, b = bed.graph, other.graph
    graph = VesselGraph(
        positions_um=np.concatenate([a.positions_um, b.positions_um]),
        edges=np.concatenate([a.edges, b.edges + len(a.positions_um)]),
        radius_um=np.concatenate([a.radius_um, b.radius_um]),
        flow_um3_s=np.concatenate([a.flow_um3_s, b.flow_um3_s]),
    )
    number = other.vessel + bed.vessel.max(initial=-1) + 1
    middle = np.concatenate([bed.middle_um, other.middle_um])
    return VascularBed(graph, np.concatenate([bed.vessel, number]), middle)


def _reaching(
    graph: VesselGraph,
    vessel: NDArray[np.int64],
    start_um: NDArray[np.float64],
    stop_um: NDArray[np.float64],
) -> VascularBed:
    """Return the edges that reach into a box."""
    ends = graph.positions_um[graph.edges]
    radius = graph.radius_um[:, None]
    near = (ends.min(axis=1) - radius < stop_um).all(axis=1)
    near &= (ends.max(axis=1) + radius > start_um).all(axis=1)
    graph = replace(
        graph,
        edges=graph.edges[near],
        radius_um=graph.radius_um[near],
        flow_um3_s=graph.flow_um3_s[near],
    )
    return VascularBed(graph, vessel[near], ends[near].mean(axis=1))
