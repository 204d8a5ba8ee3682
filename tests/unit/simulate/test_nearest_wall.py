import math

import numpy as np
import pytest

from vasculome.geometry import Box
from vasculome.simulate.capillaries import with_capillaries
from vasculome.simulate.rasterize import nearest_wall, wall_depth_um
from vasculome.simulate.trees import VesselGraph, grow_tree

BOX = Box.of_shape((60, 60, 60))


def rods(*ends: list[list[float]], radius: float) -> VesselGraph:
    positions = np.array(ends, float).reshape(-1, 3)
    return VesselGraph(
        positions_um=positions,
        edges=np.arange(len(positions)).reshape(-1, 2),
        radius_um=np.full(len(ends), radius),
        flow_um3_s=np.ones(len(ends)),
    )


def test_a_rod_has_the_volume_of_a_capsule() -> None:
    graph = rods([[30.3, 30.4, 15.2], [30.3, 30.4, 45.2]], radius=8.3)
    depth, edge = nearest_wall(graph, box=BOX, spacing_um=(1, 1, 1), margin_um=1.0)
    volume = math.pi * 8.3**2 * 30 + 4 / 3 * math.pi * 8.3**3
    assert (depth > 0).sum() == pytest.approx(volume, rel=0.01)
    np.testing.assert_array_equal(
        depth, wall_depth_um(graph, box=BOX, spacing_um=(1, 1, 1), margin_um=1.0)
    )
    assert set(np.unique(edge)) == {-1, 0}
    assert (edge >= 0)[depth > 0].all()


def test_a_stretched_rod_has_an_elliptic_section() -> None:
    graph = rods([[30.3, 30.4, -20], [30.3, 30.4, 80]], radius=6.2)
    depth, _ = nearest_wall(
        graph, box=BOX, spacing_um=(1, 1, 1), margin_um=1.0, stretch=np.array([2.0])
    )
    section = depth[:, :, 30] > 0
    assert section.sum() == pytest.approx(math.pi * 6.2 * 12.4, rel=0.02)
    assert np.flatnonzero(section.any(axis=1))[[0, -1]].tolist() == [18, 42]
    assert np.flatnonzero(section.any(axis=0))[[0, -1]].tolist() == [25, 36]


def test_the_deeper_of_two_owns_a_voxel() -> None:
    graph = rods([[30, 20, 5], [30, 20, 55]], [[30, 30, 5], [30, 30, 55]], radius=7.0)
    _, edge = nearest_wall(graph, box=BOX, spacing_um=(1, 1, 1), margin_um=1.0)
    assert edge[30, 22, 30] == 0
    assert edge[30, 28, 30] == 1


def test_capillaries_without_flow_have_no_blind_ends() -> None:
    rng = np.random.default_rng(0)
    domain = (150.0, 150.0, 150.0)
    trees = [grow_tree(domain, n_terminals=3, root_radius_um=6.0, rng=rng) for _ in range(2)]
    graph = with_capillaries(trees, domain_um=domain, cell_um=45.0, radius_um=2.5, rng=rng)
    degree = np.bincount(graph.edges.ravel())
    # Only the two roots end.
    assert (degree == 1).sum() == 2
    assert (degree >= 3).sum() > 20
