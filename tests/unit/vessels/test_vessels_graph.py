"""The graph of a skeleton: known shapes, its topology, and tiles that give the whole."""

import dataclasses
import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import euler_number

from vasculome.geometry import Box, TileGrid
from vasculome.metrics.topology import betti_numbers
from vasculome.vessels.centerline import length_per_voxel_um
from vasculome.vessels.graph import HALO_VOXELS, graph_of_tile, whole_graph
from vasculome.vessels.graph_join import GraphJoiner
from vasculome.vessels.skeleton import thin


def graph_of(skeleton, spacing_um=None, radius_um=1.0):
    spacing_um = spacing_um or (1.0,) * skeleton.ndim
    return whole_graph(skeleton, np.full(skeleton.sum(), radius_um), spacing_um=spacing_um)


def as_networkx(nodes, edges):
    graph = nx.MultiGraph()
    graph.add_nodes_from(nodes.node.tolist())
    graph.add_edges_from(edges.nodes.tolist())
    return graph


def blobs(shape, seed, sigma, fill):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    return noise > np.quantile(noise, 1 - fill)


def lines(shape, *segments):
    volume = np.zeros(shape, bool)
    for a, b in segments:
        steps = max(abs(p - q) for p, q in zip(a, b, strict=True)) + 1
        points = np.rint(np.linspace(a, b, steps)).astype(int)
        volume[tuple(points.T)] = True
    return volume


def sorted_by_name(nodes, edges):
    """Return all numbers of a graph in an order that does not depend on how it was made."""
    starts = edges.path_start
    paths = {
        name: (edges.path_um[a:b], edges.path_radius_um[a:b])
        for name, (a, b) in zip(edges.edge.tolist(), itertools.pairwise(starts), strict=True)
    }
    of_nodes = nodes.take(np.argsort(nodes.node))
    order = np.argsort(edges.edge)
    columns = [
        getattr(edges, key)[order]
        for key in ("edge", "nodes", "length_um", "radius_um", "tortuosity")
    ]
    of_paths = [np.concatenate([paths[n][i] for n in sorted(paths)] or [[]]) for i in range(2)]
    return [getattr(of_nodes, f.name) for f in dataclasses.fields(of_nodes)] + columns + of_paths


def in_tiles(skeleton, radius_um, tile_shape, spacing_um, order=None):
    grid = TileGrid(Box.of_shape(skeleton.shape), tile_shape, (HALO_VOXELS,) * skeleton.ndim)
    joiner = GraphJoiner(shape=skeleton.shape, spacing_um=spacing_um)
    parts = []
    tiles = list(grid)
    for i in order(len(tiles)) if order else range(len(tiles)):
        tile = tiles[i]
        core = skeleton[tile.core.slices]
        nodes, edges, seam = graph_of_tile(
            skeleton[tile.outer.slices],
            radius_um[tile.core.slices][core],
            core=tile.core,
            outer=tile.outer,
            shape=skeleton.shape,
            spacing_um=spacing_um,
        )
        joiner.add(seam)
        parts += [(nodes, edges), joiner.take()]
    joiner.finish()
    return [joined([p[0] for p in parts]), joined_edges([p[1] for p in parts])]


def joined(tables):
    names = [field.name for field in dataclasses.fields(tables[0])]
    columns = (np.concatenate([getattr(table, name) for table in tables]) for name in names)
    return type(tables[0])(*columns)


def joined_edges(parts):
    columns = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts])
        for f in dataclasses.fields(parts[0])
        if f.name != "path_start"
    }
    lengths = np.concatenate([np.diff(p.path_start) for p in parts])
    return type(parts[0])(path_start=np.concatenate([[0], np.cumsum(lengths)]), **columns)


@st.composite
def skeletons_and_tiles(draw):
    ndim = draw(st.sampled_from([2, 3, 3]))
    shape = draw(st.tuples(*[st.integers(3, 16 if ndim == 3 else 30)] * ndim))
    tile = draw(st.tuples(*[st.integers(1, 12)] * ndim))
    seed = draw(st.integers(0, 2**32 - 1))
    if draw(st.booleans()):
        sigma, fill = draw(st.sampled_from([(0.5, 0.4), (1.0, 0.5), (1.5, 0.3)]))
        skeleton, _ = thin(blobs(shape, seed, sigma, fill))
    else:  # no skeleton at all: knots of every shape, many of them across seams
        fill = draw(st.sampled_from([0.02, 0.08, 0.15, 0.3]))
        skeleton = np.random.default_rng(seed).random(shape) < fill
    return skeleton, tile, seed


@given(skeletons_and_tiles())
@settings(max_examples=60, deadline=None)
def test_tiles_give_the_graph_of_the_whole(case):
    skeleton, tile_shape, seed = case
    rng = np.random.default_rng(seed)
    radius_um = rng.random(skeleton.shape).astype(np.float32)
    spacing_um = (3.0, 1.625, 1.7)[-skeleton.ndim :]
    whole = whole_graph(skeleton, radius_um[skeleton], spacing_um=spacing_um)
    for order in (None, rng.permutation):
        tiled = in_tiles(skeleton, radius_um, tile_shape, spacing_um, order)
        for found, expected in zip(sorted_by_name(*tiled), sorted_by_name(*whole), strict=True):
            np.testing.assert_array_equal(found, expected)


@given(skeletons_and_tiles())
@settings(max_examples=60, deadline=None)
def test_topology_is_that_of_the_voxels(case):
    skeleton, _, _ = case
    nodes, edges = graph_of(skeleton)
    graph = as_networkx(nodes, edges)
    everywhere = ndimage.generate_binary_structure(skeleton.ndim, skeleton.ndim)
    pieces = ndimage.label(skeleton, everywhere)[1]
    assert nx.number_connected_components(graph) == pieces
    expected = euler_number(skeleton, skeleton.ndim) if skeleton.any() else 0
    assert nodes.euler_number.sum() - len(edges.edge) == expected
    betti = betti_numbers(skeleton)
    cycles = graph.number_of_edges() - graph.number_of_nodes() + pieces
    # What has no edge of its own: loops within branch points, less the cavities they enclose.
    within = (1 - nodes.euler_number).sum() + betti.cavities
    assert cycles + within == betti.loops
    assert [graph.degree(node) for node in nodes.node.tolist()] == nodes.degree.tolist()
    assert nodes.voxels.sum() + len(edges.path_um) - 2 * len(edges.edge) == skeleton.sum()


@pytest.mark.parametrize("seed", range(4))
def test_cycles_are_the_loops_of_a_thinned_network(seed):
    mask = blobs((24, 26, 28), seed, 2.0, 0.35)
    nodes, edges = graph_of(thin(mask)[0])
    betti = betti_numbers(mask)
    graph = nx.Graph(as_networkx(nodes, edges))  # without parallel edges
    parallel = len(edges.edge) - graph.number_of_edges()
    loops = nx.number_of_selfloops(graph)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    within_nodes = (1 - nodes.euler_number).sum() + betti.cavities
    assert betti.loops > 3
    assert len(nx.cycle_basis(graph)) + parallel + loops + within_nodes == betti.loops


def test_a_y_has_one_branch_point_and_three_ends():
    arms = [((5, 10, 10), (5, 10, 2)), ((5, 10, 10), (5, 2, 18)), ((5, 10, 10), (5, 18, 18))]
    nodes, edges = graph_of(lines((11, 21, 21), *arms), spacing_um=(2.0, 1.0, 1.0))
    assert sorted(nodes.degree.tolist()) == [1, 1, 1, 3]
    np.testing.assert_allclose(nodes.position_um[nodes.degree == 3], [[10, 10, 10]], atol=1)
    assert sorted(edges.length_um) == pytest.approx([8, 8 * 2**0.5, 8 * 2**0.5], rel=0.08)
    assert edges.tortuosity == pytest.approx(1, abs=0.03)
    assert edges.radius_um.tolist() == [1, 1, 1]


@pytest.mark.parametrize("stem", [0, 6])
def test_a_ring_is_one_edge_with_or_without_a_stem(stem):
    y, x = np.mgrid[-20:21, -30:31]
    ring = thin(np.abs(np.hypot(y, x) - 12) < 1.2)[0]
    if stem:
        ring[20, 30 + 12 : 30 + 12 + stem] = True
        ring = thin(ring)[0]
    nodes, edges = graph_of(ring)
    assert sorted(nodes.degree.tolist()) == ([1, 3] if stem else [2])
    loop = np.isnan(edges.tortuosity)
    assert edges.length_um[loop] == pytest.approx(2 * np.pi * 12, rel=0.05)
    assert len(edges.edge) == 1 + bool(stem)


@pytest.mark.parametrize("rungs", [2, 5])
def test_a_ladder_has_a_loop_between_two_rungs(rungs):
    ends = [8 * i for i in range(1, rungs + 1)]
    rails = [((3, r, 0), (3, r, 8 * rungs + 8)) for r in (4, 12)]
    steps = [((3, 4, at), (3, 12, at)) for at in ends]
    nodes, edges = graph_of(lines((8, 17, 8 * rungs + 9), *rails, *steps))
    graph = as_networkx(nodes, edges)
    assert sorted(nodes.degree.tolist()) == [1] * 4 + [3] * 2 * rungs
    assert len(edges.edge) == 3 * rungs + 2
    assert graph.number_of_edges() - graph.number_of_nodes() + 1 == rungs - 1


def test_lone_voxels_pairs_and_blocks():
    volume = np.zeros((9, 9, 30), bool)
    volume[4, 4, 2] = True
    volume[4, 4, 6] = volume[5, 5, 7] = True
    volume[2:5, 2:5, 12:15] = True
    volume[3, 3, 15:20] = True
    nodes, edges = graph_of(volume)
    order = np.argsort(nodes.position_um[:, 2])
    assert nodes.degree[order].tolist() == [0, 1, 1, 1, 1]
    assert nodes.voxels[order].tolist()[:3] == [1, 1, 1]
    assert nodes.euler_number.tolist() == [1] * 5
    assert sorted(edges.length_um) == pytest.approx([3**0.5, edges.length_um.max()])
    assert edges.radius_um.tolist() == [1, 1]


def test_a_loop_within_a_branch_point_is_told_by_its_euler_number():
    # Four voxels around a hole of one, each with a vessel of its own.
    square = lines((1, 9, 9), ((0, 4, 0), (0, 4, 8)), ((0, 0, 4), (0, 8, 4)))
    square[0, 4, 4] = False
    nodes, edges = graph_of(square)
    assert nodes.degree.max() == 4
    assert nodes.euler_number[nodes.degree == 4].tolist() == [0]
    assert nodes.euler_number.sum() - len(edges.edge) == euler_number(square, 3) == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_straight_vessel_is_as_long_as_it_is(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(5, 55, (2, 3))
    grid = np.stack(np.mgrid[:60, :60, :60], -1).astype(float)
    along = np.clip((grid - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    mask = np.linalg.norm(grid - a - along[..., None] * (b - a), axis=-1) <= 2
    skeleton, _ = thin(mask)
    nodes, edges = graph_of(skeleton)
    assert sorted(nodes.degree.tolist()) == [1, 1]
    apart = np.linalg.norm(nodes.position_um[1] - nodes.position_um[0])
    assert edges.length_um[0] == pytest.approx(apart, rel=0.08)
    assert edges.tortuosity[0] == pytest.approx(edges.length_um[0] / apart)


def arms_of_one_point(rng, directions, spacing_um, length_um):
    """Return the mask of straight vessels with round ends, of 3 to 7 um, that start at a point."""
    arms = length_um * np.array(directions)
    radius_um, spacing = rng.uniform(3, 7), np.array(spacing_um)
    low, high = np.minimum(arms.min(0), 0), np.maximum(arms.max(0), 0)
    margin = radius_um + 2 * spacing + rng.uniform(0, 1, 3) * spacing
    shape = np.ceil((high - low + 2 * margin) / spacing).astype(int)
    points = np.stack(np.mgrid[tuple(map(slice, shape))], -1) * spacing + low - margin
    mask = np.zeros(shape, bool)
    for arm in arms:
        along = np.clip(points @ arm / length_um**2, 0, 1)
        mask |= np.linalg.norm(points - along[..., None] * arm, axis=-1) <= radius_um
    return mask


def random_cylinder(seed, spacing_um):
    """Return the mask of a straight vessel of 100 um in some direction."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=3)
    return arms_of_one_point(rng, [direction / np.linalg.norm(direction)], spacing_um, 100.0)


@pytest.mark.parametrize("spacing_um", [(1, 1, 1), (3, 1.6, 1.6), (2, 1, 1), (1, 1, 3), (5, 1, 1)])
def test_a_straight_cylinder_is_one_edge_as_long_as_it_is(spacing_um):
    for seed in range(25):
        skeleton, _ = thin(random_cylinder(seed, spacing_um), spacing_um=spacing_um)
        nodes, edges = graph_of(skeleton, spacing_um=spacing_um)
        assert sorted(nodes.degree.tolist()) == [1, 1], seed
        # Of its round ends, 3 to 7 um, more or less is left, to a voxel.
        assert edges.length_um.tolist() == pytest.approx([100], abs=10 + max(spacing_um)), seed
        assert 1 <= edges.tortuosity[0] < 1.08, seed


@pytest.mark.parametrize("spacing_um", [(1, 1, 1), (2, 1, 1), (5, 1, 1)])
def test_three_arms_stay_three_arms(spacing_um):
    done = 0
    for seed in itertools.count():
        rng = np.random.default_rng(seed)
        directions = rng.normal(size=(3, 3))
        directions /= np.linalg.norm(directions, axis=1)[:, None]
        if (directions @ directions.T)[np.triu_indices(3, 1)].max() > 0.3:
            continue  # two of them are one for too long
        mask = arms_of_one_point(rng, directions, spacing_um, 45.0)
        nodes, edges = graph_of(thin(mask, spacing_um=spacing_um)[0], spacing_um=spacing_um)
        assert sorted(nodes.degree.tolist()) == [1, 1, 1, 3], seed
        assert length_of(nodes, edges) == pytest.approx(3 * 45, abs=18), seed
        done += 1
        if done == 8:
            break


def length_of(nodes, edges):
    return edges.length_um.sum() + nodes.course_nm.sum() / 1e3


def test_a_branch_point_with_many_edges_counts_its_own_course_once():
    # A comb: its knots all touch, and are one node; each tooth is an edge.
    teeth = [((0, 10, x), (0, 14, x)) for x in range(2, 60, 2)]
    comb = lines((1, 18, 62), ((0, 10, 0), (0, 10, 60)), *teeth)
    nodes, edges = graph_of(comb, spacing_um=(1.0, 3.0, 2.0))
    assert nodes.degree.max() == len(teeth) + 2
    assert length_of(nodes, edges) == pytest.approx(60 * 2 + 4 * 3 * len(teeth), rel=0.01)
    assert edges.tortuosity == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_length_is_that_of_the_skeleton_even_of_a_poor_one(seed):
    # Thinned as if voxels were cubes, an oblique vessel has branches that it has not.
    spacing_um = (2.0, 1.0, 1.0)
    skeleton, _ = thin(random_cylinder(seed, spacing_um))
    expected = length_per_voxel_um(skeleton, spacing_um=spacing_um).sum()
    nodes, edges = graph_of(skeleton, spacing_um=spacing_um)
    assert length_of(nodes, edges) == pytest.approx(expected, rel=0.15)


def test_an_empty_skeleton_has_an_empty_graph():
    nodes, edges = graph_of(np.zeros((4, 5, 6), bool))
    assert len(nodes.node) == len(edges.edge) == len(edges.path_um) == 0
    assert edges.path_start.tolist() == [0]


def test_missing_tiles_and_wrong_radii_are_refused():
    line = np.ones((1, 12), bool)
    halves = TileGrid(Box.of_shape(line.shape), (1, 6), (HALO_VOXELS,) * 2)
    tile = next(iter(halves))
    parts = {"core": tile.core, "outer": tile.outer, "shape": line.shape, "spacing_um": (1.0, 1.0)}
    _, _, seam = graph_of_tile(line[tile.outer.slices], np.ones(6), **parts)
    joiner = GraphJoiner(shape=line.shape, spacing_um=(1.0, 1.0))
    joiner.add(seam)
    assert joiner.held == 1
    with pytest.raises(ValueError, match="no other end"):
        joiner.finish()
    with pytest.raises(ValueError, match="radii"):
        graph_of_tile(line[tile.outer.slices], np.ones(5), **parts)
