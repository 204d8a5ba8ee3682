import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from vasculome.metrics.localization import match, score_localization


def brute_force(found, true, limit):
    """Most pairs inside the limit, and the least total distance of so many, by trying all."""
    best = (0, 0.0)
    short, long = (found, true) if len(found) <= len(true) else (true, found)
    for chosen in itertools.permutations(range(len(long)), len(short)):
        distance = np.linalg.norm(short - long[list(chosen)], axis=1)
        near = distance < limit
        best = min(best, (-int(near.sum()), float(distance[near].sum())))
    return -best[0], best[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(2, 3), st.integers(0, 10**6))
def test_optimal_matching_against_trying_everything(n_found, n_true, ndim, seed):
    rng = np.random.default_rng(seed)
    found, true = rng.random((n_found, ndim)), rng.random((n_true, ndim))
    i, j = match(np.zeros(n_found, int), found, np.zeros(n_true, int), true, pair_distance=0.5)
    distance = np.linalg.norm(found[i] - true[j], axis=1)
    count, total = brute_force(found, true, 0.5)
    assert len(i) == count and distance.sum() == pytest.approx(total)
    assert len(set(i)) == len(set(j)) == len(i)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 1.0), st.integers(2, 3))
def test_components_are_as_good_as_whole_frames(seed, limit, ndim):
    rng = np.random.default_rng(seed)
    true_frame, found_frame = rng.integers(-2, 4, 80), rng.integers(-2, 4, 70)
    true, found = rng.random((80, ndim)) * 2, rng.random((70, ndim)) * 2
    i, j = match(found_frame, found, true_frame, true, pair_distance=limit)
    assert (found_frame[i] == true_frame[j]).all() and (np.diff(found_frame[i]) >= 0).all()
    assert len(set(i)) == len(set(j)) == len(i)
    distance = np.linalg.norm(found[i] - true[j], axis=1)
    assert (distance < limit).all()
    pairs, total = 0, 0.0
    for t in range(-2, 4):
        whole = cdist(found[found_frame == t], true[true_frame == t])
        a, b = linear_sum_assignment(np.where(whole < limit, whole, 1e3))
        near = whole[a, b] < limit
        pairs, total = pairs + near.sum(), total + whole[a, b][near].sum()
    assert len(i) == pairs and distance.sum() == pytest.approx(total)


def test_known_counts_and_errors():
    true_frame = np.array([0, 0, 1, 1, 2])
    true = np.array([[0.0, 0], [5, 5], [0, 0], [9, 9], [3, 3]])
    found_frame = np.array([1, 0, 0, 3, 1])
    found = np.array([[0.1, 0.0], [0.0, 0.2], [5.4, 5], [3, 3], [7, 7]])
    score = score_localization(
        found_frame, found, true_frame, true, pair_distance=0.5, true_positive_distance=0.25
    )
    assert (score.n_true, score.n_found, score.n_pairs, score.true_positives) == (5, 5, 3, 2)
    assert score.precision == score.recall == pytest.approx(2 / 5)
    assert score.jaccard == pytest.approx(2 / 8)
    assert score.rmse == pytest.approx(np.sqrt((0.01 + 0.04 + 0.16) / 3))
    assert score.rmse_axes == pytest.approx((np.sqrt(0.17 / 3), np.sqrt(0.04 / 3)))
    assert score.mean_error == pytest.approx((0.1 + 0.2 + 0.4) / 3)
    assert score.bias_axes == pytest.approx((0.5 / 3, 0.2 / 3))


def test_pala_passes_over_true_positions():
    # One detection near each true position, both in the same order of distance: all are found.
    frame = np.zeros(3, int)
    true = np.array([[0.0, 0], [2, 0], [4, 0]])
    found = np.array([[0.10, 0], [4.15, 0], [2.20, 0]])
    for matching in ("pala", "optimal"):
        i, _ = match(frame, found, frame, true, pair_distance=0.5, matching=matching)
        assert len(i) == 3
    # True positions P, R, Q come in this order of their nearest detection (0.05, 0.3, 0.81). The
    # first detection takes P. The second, nearest to P too, must take one after it: of R and Q
    # Q is nearer (0.80), beyond the limit, but R is passed over and lost to the third.
    true = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.9]])
    found = np.array([[0.05, 0.0], [-0.06, 0.1], [0.7, 0.0]])
    i, j = match(frame, found, frame, true, pair_distance=0.5, matching="pala")
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 0)]
    i, j = match(frame, found, frame, true, pair_distance=0.5)
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 0), (2, 1)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_pala_never_finds_more_than_optimal(seed):
    rng = np.random.default_rng(seed)
    true_frame, found_frame = rng.integers(0, 4, 30), rng.integers(0, 4, 25)
    true, found = rng.random((30, 2)) * 3, rng.random((25, 2)) * 3
    counts = {
        m: len(match(found_frame, found, true_frame, true, pair_distance=0.5, matching=m)[0])
        for m in ("pala", "optimal")
    }
    assert counts["pala"] <= counts["optimal"]


def test_nothing_found_or_nothing_there():
    none, some = np.empty((0, 2)), np.ones((2, 2))
    frames = np.zeros(2, int)
    score = score_localization(frames[:0], none, frames, some, pair_distance=1)
    assert score.recall == 0 and np.isnan(score.precision) and np.isnan(score.rmse)
    score = score_localization(frames, some, frames[:0], none, pair_distance=1)
    assert score.precision == 0 and np.isnan(score.recall) and score.jaccard == 0


def test_localization_score_refusals():
    frames, points = np.zeros(2, int), np.ones((2, 2))
    with pytest.raises(ValueError, match="matching"):
        match(frames, points, frames, points, pair_distance=1, matching="nearest")
    with pytest.raises(ValueError, match="frame"):
        match(frames[:1], points, frames, points, pair_distance=1)
    with pytest.raises(ValueError, match="shape"):
        match(frames, np.ones((2, 3)), frames, points, pair_distance=1)
    with pytest.raises(ValueError, match="further"):
        score_localization(
            frames, points, frames, points, pair_distance=1, true_positive_distance=2
        )
