import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from vasculome.metrics.skeleton_distance import EPSILON, skeleton_distance

PLANS = ["full", "nearest", "published"]


def random_points(shape, count, rng):
    volume = np.zeros(shape, bool)
    volume.ravel()[rng.choice(volume.size, count, replace=False)] = True
    return volume


def costs(skeleton, reference):
    a, b = np.argwhere(skeleton), np.argwhere(reference)
    apart = np.linalg.norm(a[:, None] - b, axis=-1)
    diagonal = np.linalg.norm(np.array(skeleton.shape) - 1)
    return np.log(apart + 1) / np.log(diagonal + 1)


def in_log_domain(cost):
    """Sinkhorn's iteration on dual potentials (Peyré & Cuturi 2019, equation 4.43)."""
    f, g = np.zeros(cost.shape[0]), np.zeros(cost.shape[1])
    for _ in range(5000):
        f = -EPSILON * logsumexp((g - cost) / EPSILON - np.log(len(g)), axis=1)
        g = -EPSILON * logsumexp((f[:, None] - cost) / EPSILON - np.log(len(f)), axis=0)
        plan = np.exp((f[:, None] + g - cost) / EPSILON) / cost.size
        if np.abs(plan.sum(1) - 1 / len(f)).sum() < 1e-5:
            break
    return float((plan * cost).sum())


def by_dense_masks(skeleton, reference, *, farthest):
    """The published iteration, written with dense tensors."""
    cost = torch.from_numpy(costs(skeleton, reference))
    near = cost.topk(min(24, cost.shape[1]), dim=1, largest=False).indices
    chosen = cost.topk(min(24, cost.shape[0]), dim=0, largest=farthest).indices
    allowed = torch.zeros_like(cost).scatter(1, near, 1).scatter(0, chosen, 1) > 0
    n, m = cost.shape
    u, v = torch.zeros(n, dtype=cost.dtype), torch.zeros(m, dtype=cost.dtype)

    def plan():
        return torch.where(allowed, ((u[:, None] + v - cost) / 0.01).exp(), 0.0)

    for _ in range(100):
        last = u
        u = 0.01 * (np.log(1 / n + 1e-8) - (plan().sum(1) + 1e-8).log()) + u
        v = 0.01 * (np.log(1 / m + 1e-8) - (plan().sum(0) + 1e-8).log()) + v
        if (u - last).abs().sum() < 0.1:
            break
    return float((plan() * cost).sum())


@given(seed=st.integers(0, 10_000), count=st.integers(1, 25), other=st.integers(1, 25))
@settings(max_examples=6, deadline=None)
def test_full_is_entropic_transport(seed, count, other):
    rng = np.random.default_rng(seed)
    a, b = random_points((16, 17, 18), count, rng), random_points((16, 17, 18), other, rng)
    found = skeleton_distance(a, b)
    assert found == pytest.approx(in_log_domain(costs(a, b)), abs=2e-4)
    assert found == pytest.approx(skeleton_distance(b, a), abs=2e-4)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
@settings(max_examples=15, deadline=None)
def test_full_is_little_above_the_exact_assignment(seed, count):
    rng = np.random.default_rng(seed)
    a, b = random_points((20, 20, 20), count, rng), random_points((20, 20, 20), count, rng)
    cost = costs(a, b)
    exact = cost[linear_sum_assignment(cost)].mean()
    found = skeleton_distance(a, b)
    # The plan's entropy is at most log(n) more than that of an assignment.
    assert exact - 2e-4 <= found <= exact + EPSILON * np.log(count) + 2e-4


def test_full_agrees_with_pot():
    rng = np.random.default_rng(4)
    a, b = random_points((20, 20, 20), 40, rng), random_points((20, 20, 20), 55, rng)
    mass = np.full(40, 1 / 40), np.full(55, 1 / 55)
    expected = ot.sinkhorn2(*mass, costs(a, b), EPSILON, method="sinkhorn_log", numItermax=20_000)
    assert skeleton_distance(a, b) == pytest.approx(float(expected), abs=2e-4)


@pytest.mark.parametrize("plan", ["nearest", "published"])
@pytest.mark.parametrize("counts", [(1, 1), (80, 60), (30, 200), (10, 5)])
def test_masked_plans_agree_with_dense_tensors(plan, counts):
    rng = np.random.default_rng(sum(counts))
    a, b = (random_points((15, 40, 41), n, rng) for n in counts)
    # Ties at the rim of the neighbourhood may fall either way; positions on a shear have none.
    expected = by_dense_masks(a, b, farthest=plan == "published")
    assert skeleton_distance(a, b, plan=plan) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("plan", PLANS)
def test_it_grows_with_the_shift_and_is_about_0_without(plan):
    line = np.zeros((12, 60, 60), bool)
    line[6, 8, 2:58] = True
    steps = [skeleton_distance(np.roll(line, s, 1), line, plan=plan) for s in (0, 2, 8, 30)]
    assert steps[0] == pytest.approx(0, abs=1e-3)
    assert steps == sorted(steps)
    diagonal = np.sqrt(11**2 + 2 * 59**2)
    if plan != "published":
        assert steps[3] == pytest.approx(np.log(31) / np.log(diagonal + 1), rel=0.02)


def test_only_the_published_plan_keeps_the_farthest():
    # A vessel that is missed: its points can only reach far ones in the published plan.
    reference = np.zeros((8, 80, 80), bool)
    reference[4, 10] = reference[4, 30] = True
    found = reference.copy()
    found[4, 30] = False
    cost = {plan: skeleton_distance(found, reference, plan=plan) for plan in PLANS}
    assert cost["published"] > cost["nearest"] + 0.02
    half_of_all = 0.5 * np.log(21) / np.log(np.sqrt(7**2 + 2 * 79**2) + 1)
    assert cost["full"] == pytest.approx(half_of_all, rel=0.03)


def lattice():
    """Return vessels along all axes, 9 voxels apart, in a volume of other sides."""
    z, y, x = np.mgrid[:20, :27, :36] % 9 == 4
    return (z & y) | (y & x) | (z & x)


@pytest.mark.parametrize("plan", ["full", "nearest"])
def test_more_voxels_than_nodes_make_no_noise(plan):
    whole = lattice()
    assert whole.sum() > 500
    for max_nodes in (400, 100):
        same = skeleton_distance(whole, whole, plan=plan, max_nodes=max_nodes)
        assert same == pytest.approx(0, abs=2e-3)
    rng = np.random.default_rng(3)
    others = {
        "moved": np.roll(whole, 3, 1),
        "cut": whole & (np.arange(27) >= 9)[:, None],
        "gaps": whole & (rng.random(whole.shape) < 0.8),
    }
    if plan == "full":
        for name, other in others.items():
            expected = skeleton_distance(other, whole, max_nodes=10_000)
            found = skeleton_distance(other, whole, max_nodes=200)
            # Two draws of as many voxels are 0.2 apart, whatever the skeletons.
            assert found == pytest.approx(expected, abs=0.05), name


def test_all_parts_of_a_large_skeleton_count():
    # Both halves are full, but the first voxels all lie in one of them.
    whole = np.zeros((30, 30, 30), bool)
    whole[::3, ::3] = True
    upper = whole & (np.arange(30) >= 15)[:, None, None]
    off = [skeleton_distance(upper, whole, max_nodes=200, plan=p) for p in ("full", "published")]
    assert off[0] < off[1]


def test_empty_skeletons_have_defined_values():
    empty, one = np.zeros((2, 6, 6, 6), bool)
    one[5, 5, 5] = True
    for plan in PLANS:
        assert skeleton_distance(empty, empty, plan=plan) == pytest.approx(0, abs=1e-6)
        # The published program puts a voxel at the origin: here a whole diagonal away.
        assert skeleton_distance(one, empty, plan=plan) == pytest.approx(1, abs=1e-3)
        assert skeleton_distance(empty, one, plan=plan) == pytest.approx(1, abs=1e-3)
    lone = np.ones((1, 1, 1), bool)
    assert skeleton_distance(lone, lone) == 0
    with pytest.raises(ValueError, match="shapes differ"):
        skeleton_distance(empty, lone)
