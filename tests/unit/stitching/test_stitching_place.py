import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.stitching.place import DisconnectedTilesError, place
from vasculome.stitching.register import Edge


def edge(i, j, offset, nominal=None, *, sigma=0.05, accepted=True):
    return Edge(
        i,
        j,
        tuple(float(o) for o in offset),
        tuple(float(o) for o in (offset if nominal is None else nominal)),
        ncc=0.9,
        peak_height=50.0,
        peak_sharpness=5.0,
        agreement=0.01,
        sigma=tuple(np.broadcast_to(sigma, 3)),
        slabs_agreeing=4,
        slabs_usable=4,
        accepted=accepted,
        reason="" if accepted else "nothing in common",
    )


def grid(rows, columns, rng, *, jitter=6.0):
    """Return nominal and true starts of a grid, and its pairs of neighbours."""
    index = np.indices((rows, columns)).reshape(2, -1).T
    nominal = np.concatenate([np.zeros((len(index), 1)), index * 460.0], 1)
    number = np.arange(rows * columns).reshape(rows, columns)
    pairs = [
        *zip(number[:, :-1].ravel(), number[:, 1:].ravel(), strict=True),
        *zip(number[:-1].ravel(), number[1:].ravel(), strict=True),
    ]
    return nominal, nominal + rng.uniform(-jitter, jitter, nominal.shape), np.array(pairs)


def measured(true, nominal, pairs, rng, *, noise=0.05, false=0.0):
    """Return edges with noise, and which of them are false by up to 40 voxels."""
    edges, bad = [], []
    for n, (i, j) in enumerate(pairs.tolist()):
        offset = true[j] - true[i] + rng.normal(0, noise, 3)
        if rng.random() < false:
            offset = nominal[j] - nominal[i] + rng.uniform(-40, 40, 3)
            bad.append(n)
        edges.append(edge(i, j, offset, nominal[j] - nominal[i], sigma=max(noise, 0.02)))
    return edges, bad


def error(starts, true):
    """Return the distance of each tile along each axis, but for the shift they share."""
    return np.abs(starts - true - np.median(starts - true, axis=0))


@given(seed=st.integers(0, 1000), rows=st.integers(1, 5), columns=st.integers(2, 5))
@settings(max_examples=15, deadline=None)
def test_exact_offsets_give_exact_positions(seed, rows, columns):
    rng = np.random.default_rng(seed)
    nominal, true, pairs = grid(rows, columns, rng)
    edges, _ = measured(true, nominal, pairs, rng, noise=0.0)
    placed = place(edges, nominal)
    assert error(placed.starts, true).max() < 1e-3
    assert placed.used.all()
    assert np.abs(placed.residuals).max() < 1e-3
    assert (placed.parts == 0).all()


def test_it_is_weighted_least_squares():
    rng = np.random.default_rng(0)
    nominal, true, pairs = grid(3, 3, rng)
    sigmas = rng.uniform(0.05, 0.2, (len(pairs), 3))
    edges = [
        edge(i, j, true[j] - true[i] + s * rng.uniform(-1, 1, 3), sigma=s)
        for (i, j), s in zip(pairs.tolist(), sigmas, strict=True)
    ]
    placed = place(edges, nominal, stage_sigma=8.0)
    for axis in range(3):
        rows, wanted = [], []
        for e in edges:
            row = np.zeros(9)
            row[[e.i, e.j]] = -1, 1
            rows.append(row / e.sigma[axis])
            wanted.append(e.offset[axis] / e.sigma[axis])
        rows += list(np.eye(9) / 8.0)
        wanted += list(nominal[:, axis] / 8.0)
        expected = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
        np.testing.assert_allclose(placed.starts[:, axis], expected, atol=1e-8)


def test_17000_tiles_with_false_edges_are_placed_in_seconds():
    rng = np.random.default_rng(1)
    nominal, true, pairs = grid(130, 130, rng)
    edges, bad = measured(true, nominal, pairs, rng, false=0.05)
    start = time.process_time()
    placed = place(edges, nominal)
    assert time.process_time() - start < 15
    # A few tiles have more false edges than good ones: nothing can tell.
    assert len(set(bad) - set(placed.outliers)) < 0.005 * len(bad)
    assert len(set(placed.outliers) - set(bad)) < 0.02 * len(bad)
    off = error(placed.starts, true).max(1)
    assert np.mean(off > 0.4) < 0.001
    assert np.sqrt(np.square(off[off < 0.4]).mean()) < 0.12


def test_a_false_edge_of_a_corner_is_told_by_the_diagonals():
    rng = np.random.default_rng(2)
    nominal, true, pairs = grid(2, 2, rng)
    edges, _ = measured(true, nominal, np.concatenate([pairs, [[0, 3], [1, 2]]]), rng)
    edges[0] = edge(0, 1, true[1] - true[0] + (0, 9, -7), sigma=0.02)
    placed = place(edges, nominal)
    assert placed.outliers == (0,)
    np.testing.assert_allclose(placed.residuals[0], (0, -9, 7), atol=0.3)
    assert error(placed.starts, true).max() < 0.2


def test_tiles_without_edges_are_refused_or_placed_by_the_stage():
    rng = np.random.default_rng(3)
    nominal, _, pairs = grid(3, 4, rng, jitter=0.0)
    # The stage drifts, so a lost tile must follow its neighbours, not the stage's origin.
    true = nominal + np.array([1.0, 50.0, -30.0])
    true[:, 2] += 0.02 * nominal[:, 2]
    edges = [
        edge(i, j, true[j] - true[i], nominal[j] - nominal[i], accepted=5 not in (i, j))
        for i, j in pairs.tolist()
    ]
    with pytest.raises(DisconnectedTilesError, match=r"1 tiles in 1 parts .*\[\[5\]\]") as caught:
        place(edges, nominal)
    assert caught.value.parts == [[5]]
    placed = place(edges, nominal, allow_stage_positions=True)
    assert placed.parts.tolist() == [1 if tile == 5 else 0 for tile in range(12)]
    others = np.arange(12) != 5
    shift = np.median((placed.starts - true)[others], axis=0)
    assert np.abs((placed.starts - true - shift)[others]).max() < 0.01
    assert np.abs(placed.starts - true - shift)[5].max() < 10
    assert np.isnan(placed.residuals[[5 in (e.i, e.j) for e in edges]]).all()


def test_tiles_that_are_left_out_need_no_edge_and_make_no_part_large():
    rng = np.random.default_rng(3)
    nominal, true, pairs = grid(1, 7, rng, jitter=2.0)
    # Three tiles in the middle are not used: two tiles on their left are lost, two on their right.
    cut = [(i, j) for i, j in pairs.tolist() if (i, j) not in {(1, 2), (4, 5)}]
    edges = [edge(i, j, true[j] - true[i], nominal[j] - nominal[i]) for i, j in cut]
    unused = np.isin(np.arange(7), [2, 3, 4])
    with pytest.raises(DisconnectedTilesError) as caught:
        place(edges, nominal, left_out=unused)
    assert caught.value.parts == [[5, 6]]
    placed = place(edges, nominal, left_out=unused, allow_stage_positions=True)
    assert placed.parts.tolist() == [0, 0, 2, 2, 2, 1, 1]
    lone = [k for k, (i, j) in enumerate(cut) if 5 not in (i, j)]
    unused = np.isin(np.arange(7), [2, 3, 4, 5, 6])
    assert place([edges[k] for k in lone], nominal, left_out=unused).parts[0] == 0


def test_a_false_position_of_the_stage_is_named_and_moves_no_other():
    rng = np.random.default_rng(4)
    nominal, true, pairs = grid(4, 4, rng, jitter=2.0)
    nominal[[6, 15]] += (0, 40, -40)
    edges, _ = measured(true, nominal, pairs, rng)
    placed = place(edges, nominal)
    assert placed.stage_outliers == (6, 15)
    assert not placed.outliers
    assert error(placed.starts, true).max() < 0.3


def test_lone_tiles_stay_where_the_stage_put_them():
    nominal = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 900.0]])
    assert place([], nominal[:1]).starts.tolist() == [[0.0, 0.0, 0.0]]
    placed = place([], nominal, allow_stage_positions=True)
    np.testing.assert_allclose(placed.starts, nominal)
    assert placed.parts.tolist() == [0, 1]
    with pytest.raises(DisconnectedTilesError):
        place([], nominal)


def test_the_order_of_edges_does_not_matter():
    rng = np.random.default_rng(5)
    nominal, true, pairs = grid(4, 5, rng)
    edges, _ = measured(true, nominal, pairs, rng, false=0.1)
    order = rng.permutation(len(edges))
    one, other = place(edges, nominal), place([edges[k] for k in order], nominal)
    np.testing.assert_allclose(one.starts, other.starts, atol=1e-9)
    assert sorted(order[list(other.outliers)]) == list(one.outliers)
