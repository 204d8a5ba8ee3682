import numpy as np
import pytest

from vasculome.simulate.refine import blended, in_short_edges, vessels_of, with_rounded_bends
from vasculome.simulate.staining import Staining, smooth_field, stain, vessel_light
from vasculome.simulate.trees import VesselGraph


def fork() -> VesselGraph:
    """A stem of two edges at right angles that forks into two branches."""
    positions = np.array([[0, 0, 0], [10, 0, 0], [10, 10, 0], [20, 10, 0], [10, 20, 5]], float)
    return VesselGraph(
        positions_um=positions,
        edges=np.array([[0, 1], [1, 2], [2, 3], [2, 4]]),
        radius_um=np.array([3.0, 3.0, 2.0, 1.0]),
        flow_um3_s=np.ones(4),
    )


def test_vessels_end_where_others_join() -> None:
    vessel = vessels_of(fork())
    assert vessel[0] == vessel[1]
    assert len(set(vessel.tolist())) == 3


def test_short_edges_are_the_same_lines() -> None:
    graph = fork()
    short = in_short_edges(graph, longest_um=3.0)
    assert short.length_um.max() <= 3.0
    assert short.length_um.sum() == pytest.approx(graph.length_um.sum())
    assert short.volume_um3.sum() == pytest.approx(graph.volume_um3.sum())
    # Ends and branchings are where they were, and nothing else is one.
    degree = np.bincount(short.edges.ravel())
    ends = short.positions_um[degree == 1]
    assert sorted(ends.tolist()) == sorted(graph.positions_um[[0, 3, 4]].tolist())
    assert short.positions_um[degree == 3].tolist() == [graph.positions_um[2].tolist()]
    assert len(set(vessels_of(short).tolist())) == 3


def test_rounding_shortens_a_bend_and_keeps_ends_and_branchings() -> None:
    short = in_short_edges(fork(), longest_um=2.0)
    rounded = with_rounded_bends(short, passes=5)
    degree = np.bincount(short.edges.ravel())
    kept = degree != 2
    np.testing.assert_array_equal(rounded.positions_um[kept], short.positions_um[kept])
    assert 0.9 * short.length_um.sum() < rounded.length_um.sum() < short.length_um.sum()
    # Two straight legs of 10 µm meet at the corner: it moves inwards along the diagonal.
    corner = rounded.positions_um[1]
    assert corner[0] < 10
    assert corner[1] > 0
    assert corner[0] + corner[1] == pytest.approx(10)


def test_blending_keeps_even_values_and_lessens_jumps() -> None:
    short = in_short_edges(fork(), longest_um=2.0)
    np.testing.assert_allclose(blended(short, np.full(len(short.edges), 3.0), passes=4), 3.0)
    vessel = vessels_of(short)
    soft = blended(short, vessel.astype(float), passes=4)
    node = 2  # the branching
    touching = (short.edges == node).any(axis=1)
    assert np.ptp(soft[touching]) < 0.6 * np.ptp(vessel[touching])


def test_light_varies_as_it_is_told_and_is_1_on_average() -> None:
    rng = np.random.default_rng(0)
    vessel = np.arange(40_000)
    places = rng.uniform(0, 3000, (len(vessel), 3))
    light, hollow = stain(places, vessel, staining=Staining(spread=0.5, hollow=0.3), rng=rng)
    assert np.log(light).std() == pytest.approx(0.5, rel=0.02)
    assert light.mean() == pytest.approx(1.0, rel=0.02)
    assert hollow.mean() == pytest.approx(0.3, abs=0.01)


def test_one_vessel_has_one_light_unless_it_is_patchy() -> None:
    rng = np.random.default_rng(0)
    places = np.zeros((200, 3))
    places[:, 2] = np.arange(200)
    vessel = np.zeros(200, int)
    even, _ = stain(places, vessel, staining=Staining(spread=0.5), rng=rng)
    assert np.ptp(even) == 0
    patchy, _ = stain(places, vessel, staining=Staining(patchiness=0.5, patch_um=20), rng=rng)
    assert np.log(patchy).std() > 0.2
    # Neighbours 1 µm apart are alike.
    assert np.abs(np.diff(np.log(patchy))).max() < 0.2


def test_gaps_are_dim_and_as_common_as_told() -> None:
    rng = np.random.default_rng(3)
    places = rng.uniform(0, 20_000, (40_000, 3))
    light, _ = stain(
        places, np.zeros(len(places), int), staining=Staining(gaps=0.2, gap_light=0.1), rng=rng
    )
    assert light.min() == pytest.approx(0.1, abs=0.01)
    assert (light < 0.55).mean() == pytest.approx(0.2, abs=0.04)


def test_smooth_field_is_as_correlated_as_a_gaussian() -> None:
    products = []
    for seed in range(400):
        line = np.zeros((3, 3))
        line[:, 0] = [0.0, 10.0, 30.0]
        products.append(
            smooth_field(line, scale_um=10.0, rng=np.random.default_rng(seed))[[0, 0, 0]]
            * smooth_field(line, scale_um=10.0, rng=np.random.default_rng(seed))
        )
    found = np.mean(products, axis=0)
    np.testing.assert_allclose(found, np.exp([0, -0.5, -4.5]), atol=0.15)


def test_a_hollow_vessel_has_a_bright_wall_and_a_dark_lumen() -> None:
    staining = Staining(lumen=0.2, wall_um=2.0)
    depth = np.array([-1.0, -0.25, 0.0, 1.0, 3.0, 8.0], np.float32)
    light, hollow = np.ones(6, np.float32), np.ones(6, bool)
    profile = vessel_light(depth, light, hollow, voxel_um=0.5, staining=staining)
    np.testing.assert_allclose(profile, [0, 0, 0.5, 1.0, 0.2, 0.2], atol=1e-6)
    filled = vessel_light(depth, light, ~hollow, voxel_um=0.5, staining=staining)
    np.testing.assert_allclose(filled, [0, 0, 0.5, 1.0, 1.0, 1.0], atol=1e-6)
