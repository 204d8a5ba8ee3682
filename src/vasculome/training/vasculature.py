"""Vessels for simulated movies: pieces of cortex, grown on demand and enlarged."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vasculome.simulate.capillaries import join_by_capillaries
from vasculome.simulate.trees import VesselGraph, grow_tree

CUBE_UM = 500.0
"""Edge of the cube of cortex that vessels are grown in: of the same size as the paper's."""

_RIM = 0.05
"""Part of the cube beyond a piece at each side, as far as there is room: its echoes reach in."""


@functools.lru_cache(maxsize=8)
def cortex(seed: int, split: int, number: int) -> VesselGraph:
    """Grow two arteries and a vein that fill a cube, joined by capillaries.

    Blood leaves the roots of the arteries at about 1 mm/s. The same arguments give the same
    vessels; others, others.
    """
    rng = np.random.default_rng([seed, split, number, 1])
    trees = []
    for _ in range(3):
        inlet = CUBE_UM * rng.uniform(0.1, 0.9, 3)
        inlet[0] = 0.0
        n_terminals = int(rng.integers(15, 50))
        trees.append(
            grow_tree(
                (CUBE_UM,) * 3,
                n_terminals=n_terminals,
                root_radius_um=float(rng.uniform(3.5, 5.5)) * n_terminals ** (1 / 3),
                inlet_um=inlet.tolist(),
                root_speed_mm_s=1.0,
                tortuosity=float(rng.uniform(0.3, 0.6)),
                rng=rng,
            )
        )
    joined = join_by_capillaries(
        trees[:2],
        trees[2:],
        domain_um=(CUBE_UM,) * 3,
        cell_um=float(rng.uniform(80, 130)),
        radius_um=3.0,
        rng=rng,
    )
    return _as_murray(joined, shear_per_s=max(_shear_per_s(tree)[0] for tree in trees))


def enlarged(
    vessels: VesselGraph,
    *,
    box_um: NDArray[np.float64],
    start_um: NDArray[np.float64],
    scale: float,
    speed: float,
    rng: np.random.Generator | None,
) -> VesselGraph:
    """Return a cube's vessels ``scale`` times as large, so that a piece of them fills a box.

    Parameters
    ----------
    vessels
        From :func:`cortex`; what lies beyond the box is kept.
    box_um, start_um
        Size of the box (z, y, x) and where it begins, enlarged.
    scale
        Of lengths and radii.
    speed
        Factor on all velocities.
    rng
        Turns and mirrors the cube and chooses the piece; None: as it was grown, from the middle.

    Raises
    ------
    ValueError
        If the cube is too small for the box.
    """
    room = CUBE_UM - box_um / scale
    if (room < 0).any():
        raise ValueError(f"{box_um / scale} µm are more than {CUBE_UM} µm of cortex")
    place = vessels.positions_um
    corner = room / 2
    if rng is not None:
        place = place[:, rng.permutation(3)]
        place = np.where(rng.random(3) < 0.5, CUBE_UM - place, place)
        rim = np.minimum(_RIM * CUBE_UM, room / 2)
        corner = rng.uniform(rim, room - rim)
    return replace(
        vessels,
        positions_um=(place - corner) * scale + start_um,
        radius_um=vessels.radius_um * scale,
        flow_um3_s=vessels.flow_um3_s * scale**2 * speed,
    )


def part_within(
    vessels: VesselGraph, *, start_um: NDArray[np.float64], box_um: NDArray[np.float64]
) -> float:
    """Return the part of the vessels' volume that lies in a box, edges taken as their middles."""
    middle = vessels.positions_um[vessels.edges].mean(axis=1) - start_um
    inside = ((middle >= 0) & (middle < box_um)).all(axis=1)
    return float(vessels.volume_um3[inside].sum() / vessels.volume_um3.sum())


def _shear_per_s(vessels: VesselGraph) -> NDArray[np.float64]:
    """Return each edge's mean speed over its radius: by Murray's law all vessels have the same."""
    return 1e3 * vessels.mean_speed_mm_s / vessels.radius_um


def _as_murray(vessels: VesselGraph, *, shear_per_s: float) -> VesselGraph:
    """Widen vessels that blood would rush through, as short cuts between trees are.

    Vessels grow where shear is high; without that a capillary would be faster than an artery.
    """
    excess = np.maximum(_shear_per_s(vessels) / shear_per_s, 1.0)
    return replace(vessels, radius_um=vessels.radius_um * np.cbrt(excess))
