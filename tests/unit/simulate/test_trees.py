import numpy as np
import pytest

from vasculome.geometry import Box
from vasculome.simulate.capillaries import join_by_capillaries
from vasculome.simulate.rasterize import occupancy, rasterize, wall_depth_um
from vasculome.simulate.trees import VesselGraph, grow_tree

DOMAINS = {2: (1000.0, 1200.0), 3: (300.0, 400.0, 500.0)}


def tree(ndim: int, *, seed: int = 0, n_terminals: int = 60) -> VesselGraph:
    return grow_tree(
        DOMAINS[ndim],
        n_terminals=n_terminals,
        root_radius_um=20.0,
        rng=np.random.default_rng(seed),
    )


def net_outflow(graph: VesselGraph) -> np.ndarray:
    net = np.zeros(len(graph.positions_um))
    np.add.at(net, graph.edges[:, 0], graph.flow_um3_s)
    np.subtract.at(net, graph.edges[:, 1], graph.flow_um3_s)
    return net


@pytest.mark.parametrize("ndim", [2, 3])
def test_branchings_keep_murrays_law_and_flow(ndim: int) -> None:
    graph = tree(ndim)
    parents = dict(zip(graph.edges[:, 1].tolist(), range(len(graph.edges)), strict=True))
    assert len(parents) == len(graph.edges) == len(graph.positions_um) - 1
    starts, counts = np.unique(graph.edges[:, 0], return_counts=True)
    assert set(counts.tolist()) == {1, 2}
    assert (counts == 2).sum() == 59
    for node in starts[starts != 0]:
        into, out = parents[int(node)], graph.edges[:, 0] == node
        assert np.sum(graph.radius_um[out] ** 3) == pytest.approx(graph.radius_um[into] ** 3)
        assert np.sum(graph.flow_um3_s[out]) == pytest.approx(graph.flow_um3_s[into])
    assert len(graph.outlets) == 60
    assert graph.inlets.tolist() == [0]
    assert graph.mean_speed_mm_s[graph.edges[:, 0] == 0] == pytest.approx(20.0)


def test_a_tree_fills_its_box_and_repeats_by_seed() -> None:
    graph = tree(3, n_terminals=200)
    leaves = graph.positions_um[graph.outlets]
    octant = (leaves > np.array(DOMAINS[3]) / 2) @ [4, 2, 1]
    assert np.bincount(octant, minlength=8).min() >= 10
    again = tree(3, n_terminals=200)
    assert np.array_equal(graph.positions_um, again.positions_um)
    assert not np.array_equal(graph.positions_um[:50], tree(3, seed=1).positions_um[:50])


def test_bending_lengthens_vessels_but_keeps_them_smooth() -> None:
    straight, bent = (
        grow_tree(
            DOMAINS[3],
            n_terminals=40,
            root_radius_um=20.0,
            rng=np.random.default_rng(0),
            tortuosity=t,
        )
        for t in (0.0, 0.5)
    )
    assert 1.02 < bent.length_um.sum() / straight.length_um.sum() < 1.5
    assert bent.length_um.max() < 3 * straight.length_um.max()


def test_a_tree_needs_a_terminal() -> None:
    with pytest.raises(ValueError, match="at least one terminal"):
        tree(2, n_terminals=0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_wall_depth_is_that_of_the_nearest_capsule(ndim: int) -> None:
    rng = np.random.default_rng(1)
    graph = VesselGraph(
        positions_um=rng.uniform(0, 30, (8, ndim)),
        edges=np.array([[0, 1], [2, 3], [4, 5], [6, 7]]),
        radius_um=rng.uniform(1, 6, 4),
        flow_um3_s=np.ones(4),
    )
    spacing = (2.0, 1.5, 1.0)[-ndim:]
    box = Box.of_shape((15, 20, 30)[-ndim:])
    depth = wall_depth_um(graph, box=box, spacing_um=spacing, margin_um=2.0)
    points = np.moveaxis(np.indices(box.shape), 0, -1) * np.array(spacing)
    expected = np.full(box.shape, -2.0)
    for (a, b), radius in zip(graph.positions_um[graph.edges], graph.radius_um, strict=True):
        along = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        distance = np.linalg.norm(points - a - along[..., None] * (b - a), axis=-1)
        expected = np.maximum(expected, radius - distance)
    np.testing.assert_allclose(depth, expected, atol=1e-4)


def test_blocks_agree_with_the_whole() -> None:
    graph = tree(3)
    spacing = (10.0, 5.0, 5.0)
    whole = rasterize(graph, box=Box.of_shape((30, 80, 100)), spacing_um=spacing)
    block = Box((7, 20, 33), (19, 61, 90))
    assert np.array_equal(rasterize(graph, box=block, spacing_um=spacing), whole[block.slices])
    soft = occupancy(graph, box=block, spacing_um=spacing)
    assert np.array_equal(soft > 0.5, whole[block.slices])
    assert 0 < soft.min() + soft.max() <= 1


def test_a_rasterized_tube_has_its_volume() -> None:
    tube = VesselGraph(
        positions_um=np.array([[20.3, 20.1, -20.0], [20.3, 20.1, 120.0]]),
        edges=np.array([[0, 1]]),
        radius_um=np.array([9.0]),
        flow_um3_s=np.ones(1),
    )
    soft = occupancy(tube, box=Box.of_shape((20, 40, 100)), spacing_um=(2.0, 1.0, 1.0))
    assert 2.0 * soft.sum() == pytest.approx(np.pi * 81 * 100, rel=0.02)


@pytest.mark.parametrize("ndim", [2, 3])
def test_capillaries_carry_all_blood_from_arteries_to_veins(ndim: int) -> None:
    artery, vein = tree(ndim, n_terminals=15), tree(ndim, seed=1, n_terminals=15)
    network = join_by_capillaries(
        [artery],
        [vein],
        domain_um=DOMAINS[ndim],
        cell_um=80.0,
        radius_um=3.0,
        rng=np.random.default_rng(2),
    )
    assert len(network.inlets) == len(network.outlets) == 1
    net = net_outflow(network)
    total = artery.flow_um3_s.max()
    assert net[network.inlets] == pytest.approx(total)
    assert net[network.outlets] == pytest.approx(-total)
    inner = np.setdiff1d(np.arange(len(net)), [*network.inlets, *network.outlets])
    assert np.abs(net[inner]).max() < 1e-8 * total
    assert network.flow_um3_s.min() > 0
    assert network.radius_um.min() < 3.0
