import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import measure

from vasculome.metrics.topology import betti_errors, betti_numbers


def by_cells(mask):
    """Count cells of the complex of closed cubes: χ = vertices - edges + faces - cubes."""
    padded = np.pad(mask, 1)
    total = 0
    for cell in itertools.product((0, 1), repeat=mask.ndim):  # 1: the cell extends along this axis
        touched = padded
        for axis, extends in enumerate(cell):
            if not extends:
                low = np.take(touched, range(touched.shape[axis] - 1), axis)
                touched = low | np.take(touched, range(1, touched.shape[axis]), axis)
        total += (-1) ** sum(cell) * int(touched.sum())
    return total


@given(seed=st.integers(0, 10_000), fill=st.floats(0.01, 0.99), sigma=st.sampled_from([0.0, 1.0]))
@settings(max_examples=30, deadline=None)
def test_they_agree_with_components_and_cells(seed, fill, sigma):
    for shape in ((7, 8, 9), (12, 13)):
        noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
        mask = noise > np.quantile(noise, 1 - fill)
        found = betti_numbers(mask)
        assert found.components == measure.label(mask, connectivity=mask.ndim, return_num=True)[1]
        outside = measure.label(~np.pad(mask, 1), connectivity=1, return_num=True)[1]
        enclosed = found.cavities if mask.ndim == 3 else found.loops
        assert enclosed == outside - 1
        assert found.components - found.loops + found.cavities == by_cells(mask)


def test_known_shapes():
    z, y, x = np.mgrid[-9:10, -14:15, -14:15]
    torus = (np.hypot(y, x) - 9) ** 2 + z**2 <= 9
    shell = (np.abs(np.sqrt(x**2 + y**2 + z**2) - 6) < 1.5) & (np.abs(z) < 9)
    assert betti_numbers(torus) == (1, 1, 0)
    assert betti_numbers(shell) == (1, 0, 1)
    apart = np.concatenate([torus, np.zeros_like(torus[:2]), shell])
    assert betti_numbers(apart) == (2, 1, 1)
    alone = apart.copy()
    alone[20:] = False
    assert betti_errors(apart, alone) == betti_errors(alone, apart) == (1, 0, 1)


def test_a_hollow_torus_has_two_loops_and_a_cavity():
    z, y, x = np.mgrid[-9:10, -16:17, -16:17]
    distance = np.sqrt((np.hypot(y, x) - 9) ** 2 + z**2)
    assert betti_numbers((distance < 5) & (distance > 2.5)) == (1, 2, 1)


@pytest.mark.parametrize("seed", range(3))
def test_loops_of_a_lattice_are_the_cycles_of_its_graph(seed):
    rng = np.random.default_rng(seed)
    lattice = nx.grid_graph((4, 4, 4))
    lattice.remove_edges_from([edge for edge in list(lattice.edges) if rng.random() < 0.4])
    mask = np.zeros((19, 19, 19), bool)
    for node in lattice:
        mask[tuple(6 * n for n in node)] = True
    for a, b in lattice.edges:
        line = [slice(6 * min(p, q), 6 * max(p, q) + 1) for p, q in zip(a, b, strict=True)]
        mask[tuple(line)] = True
    pieces = nx.number_connected_components(lattice)
    cycles = lattice.number_of_edges() - lattice.number_of_nodes() + pieces
    assert betti_numbers(mask) == (pieces, cycles, 0)
    assert len(nx.cycle_basis(lattice)) == cycles


def test_empty_and_full_masks():
    empty, full = np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)
    assert betti_numbers(empty) == (0, 0, 0)
    assert betti_numbers(full) == betti_errors(full, empty) == (1, 0, 0)
    assert betti_numbers(np.zeros((4, 4), bool)) == (0, 0, 0)


def test_wrong_arrays_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        betti_errors(np.ones((2, 2), bool), np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="2-D or 3-D"):
        betti_numbers(np.ones(4, bool))
