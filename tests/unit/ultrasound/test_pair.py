import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from vasculome.ultrasound.pair import assign, pair


def total_cost(distance, i, j, gate):
    return distance[i, j].sum() + np.delete(gate, i).sum()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_as_cheap_as_the_dense_assignment(data):
    m, n, ndim = (data.draw(st.integers(low, high)) for low, high in ((0, 25), (0, 25), (2, 3)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    coarse = data.draw(st.booleans())  # ties
    before, after = rng.random((m, ndim)), rng.random((n, ndim))
    if coarse:
        before, after = np.round(before * 5) / 5, np.round(after * 5) / 5
    gate = rng.uniform(0.05, 0.7, m)
    i, j = pair(before, after, gate_um=gate)
    distance = cdist(before, after)
    alone = np.where(np.eye(m, dtype=bool), gate, 1e6)
    inside = np.where(distance < gate[:, None], distance, 1e6)
    dense = np.concatenate([inside, alone], axis=1)
    best = dense[linear_sum_assignment(dense)].sum()
    assert total_cost(distance, i, j, gate) == pytest.approx(best, abs=1e-9)
    assert len(set(j.tolist())) == len(j) and (np.diff(i) > 0).all()
    assert (distance[i, j] < gate[i]).all()


def test_optimum_and_not_the_nearest_first():
    # Taking the nearest pair first (1 with 0, at 1) leaves 0 with 1 at 5; crossing is 2 + 2.
    before = np.array([[0.0, 0.0], [3.0, 0.0]])
    after = np.array([[2.0, 0.0], [5.0, 0.0]])
    i, j = pair(before, after, gate_um=6.0)
    assert i.tolist() == [0, 1] and j.tolist() == [0, 1]


def test_assign_with_costs_that_are_no_distance():
    # Costs as a fusion of features would give them: any sparse matrix, dense answer as reference.
    rng = np.random.default_rng(0)
    for _ in range(50):
        matrix = rng.random((12, 9))
        matrix[rng.random(matrix.shape) < 0.6] = np.inf
        rows, columns = np.nonzero(np.isfinite(matrix))
        first = np.searchsorted(rows, np.arange(13))
        partner = assign(first, columns, matrix[rows, columns], np.full(12, 0.7), 9)
        capped = np.minimum(matrix, 0.7)
        best = capped[linear_sum_assignment(capped)].sum() + 0.7 * 3
        got = np.where(partner >= 0, matrix[np.arange(12), partner], 0.7).sum()
        assert got == pytest.approx(best)


def test_no_points_and_wrong_gates():
    i, j = pair(np.empty((0, 2)), np.ones((3, 2)), gate_um=1.0)
    assert len(i) == len(j) == 0
    with pytest.raises(ValueError, match="gate"):
        pair(np.ones((1, 2)), np.ones((1, 2)), gate_um=0.0)
    with pytest.raises(ValueError, match="shape"):
        pair(np.ones((1, 2)), np.ones((1, 3)), gate_um=1.0)
