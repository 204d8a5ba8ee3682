"""Vascular beds for patches: trees and capillaries in a cube, grown on demand."""

from __future__ import annotations

import functools
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
        Edges of 4 µm at the most.
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
    place = (np.concatenate(places) - corner) * magnify + start_um
    edges = np.concatenate([bed.graph.edges + k * n_nodes for k in range(n_cubes)])
    radius = np.tile(bed.graph.radius_um * magnify, n_cubes)
    ends = place[edges]
    near = (ends.min(axis=1) - radius[:, None] < stop_um).all(axis=1)
    near &= (ends.max(axis=1) + radius[:, None] > start_um).all(axis=1)
    graph = VesselGraph(
        positions_um=place,
        edges=edges[near],
        radius_um=radius[near],
        flow_um3_s=np.tile(bed.graph.flow_um3_s, n_cubes)[near],
    )
    return VascularBed(graph, np.tile(bed.vessel, n_cubes)[near], ends[near].mean(axis=1))
