import numpy as np
import pytest
from scipy.spatial import cKDTree

from vasculome.geometry import Box
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.flow import OUTERMOST, flow_on_graph
from vasculome.simulate.rasterize import wall_depth_um
from vasculome.simulate.trees import VesselGraph, grow_tree

RATE_HZ = 1000.0


def steps(bubbles: BubbleTable) -> tuple[np.ndarray, np.ndarray]:
    """Return displacements from frame to frame, and the speed at their end times the frame."""
    order = np.lexsort((bubbles.frame, bubbles.track))
    same = np.diff(bubbles.track[order]) == 0
    assert (np.diff(bubbles.frame[order])[same] == 1).all()
    moved = np.diff(bubbles.position_um[order], axis=0)[same]
    return moved, (1e3 * bubbles.velocity_mm_s[order] / RATE_HZ)[1:][same]


def test_a_straight_tube_shows_poiseuilles_profile_evenly_filled() -> None:
    radius, speed = 50.0, 10.0
    tube = VesselGraph(
        positions_um=np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 900.0], [0.0, 0.0, 2000.0]]),
        edges=np.array([[0, 1], [1, 2]]),
        radius_um=np.full(2, radius),
        flow_um3_s=np.full(2, 1e3 * speed * np.pi * radius**2),
    )
    bubbles = flow_on_graph(
        tube, n_frames=1500, frame_rate_hz=RATE_HZ, mean_bubbles=80, rng=np.random.default_rng(0)
    )
    distance = np.linalg.norm(bubbles.position_um[:, :2], axis=1)
    expected = 2 * speed * (1 - (distance / radius) ** 2)
    np.testing.assert_allclose(bubbles.velocity_mm_s[:, 2], expected, rtol=1e-9)
    moved, told = steps(bubbles)
    np.testing.assert_allclose(moved, told, atol=1e-6)
    # Uniform in length and over the section, at the asked concentration, from start to end.
    assert len(bubbles) / 1500 == pytest.approx(80, rel=0.08)
    late = bubbles.between(1000, 1500)
    assert late.position_um[:, 2].mean() == pytest.approx(1000, rel=0.1)
    area = (np.linalg.norm(late.position_um[:, :2], axis=1) / radius / OUTERMOST) ** 2
    assert np.quantile(area, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.07)


@pytest.mark.parametrize("ndim", [2, 3])
def test_bubbles_stay_inside_and_fill_vessels_by_volume(ndim: int) -> None:
    domain = (1000.0, 1200.0) if ndim == 2 else (400.0, 500.0, 600.0)
    graph = grow_tree(
        domain, n_terminals=30, root_radius_um=30.0, rng=np.random.default_rng(0), tortuosity=0.3
    )
    bubbles = flow_on_graph(
        graph,
        n_frames=2000,
        frame_rate_hz=RATE_HZ,
        mean_bubbles=60,
        lifetime_s=0.2,
        rng=np.random.default_rng(1),
    )
    spacing, origin = np.full(ndim, 4.0), np.full(ndim, -100.0)
    box = Box.of_shape(np.ceil((np.array(domain) + 200) / spacing).astype(int).tolist())
    depth = wall_depth_um(graph, box=box, spacing_um=spacing, origin_um=origin, margin_um=40.0)
    pixel = np.rint((bubbles.position_um - origin) / spacing).astype(int)
    assert depth[tuple(pixel.T)].min() > -4.0 * np.sqrt(ndim)
    moved, told = steps(bubbles)
    lengths = np.linalg.norm(moved, axis=1)
    assert lengths.max() < 2.2 * np.linalg.norm(told, axis=1).max()
    assert np.median(lengths / np.linalg.norm(told, axis=1)) == pytest.approx(1.0, abs=0.05)
    counts = np.bincount(bubbles.frame, minlength=2000)
    assert counts.mean() == pytest.approx(60, rel=0.1)
    # Wide vessels hold their share of the volume in bubbles.
    middle = graph.positions_um[graph.edges].mean(axis=1)
    _, nearest = cKDTree(middle).query(bubbles.position_um)
    wide = graph.flow_um3_s > graph.flow_um3_s.max() / 3
    share = graph.volume_um3[wide].sum() / graph.volume_um3.sum()
    assert wide[nearest].mean() == pytest.approx(share, abs=0.06)


def test_branches_are_chosen_by_flow() -> None:
    graph = VesselGraph(
        positions_um=np.array([[0.0, 0.0], [100.0, 0.0], [200.0, 80.0], [200.0, -80.0]]),
        edges=np.array([[0, 1], [1, 2], [1, 3]]),
        radius_um=np.full(3, 10.0),
        flow_um3_s=np.array([4e6, 3e6, 1e6]),
    )
    bubbles = flow_on_graph(
        graph, n_frames=4000, frame_rate_hz=RATE_HZ, mean_bubbles=20, rng=np.random.default_rng(0)
    )
    past = bubbles.position_um[:, 0] > 150
    up = past & (bubbles.position_um[:, 1] > 0)
    n_up = len(np.unique(bubbles.track[up]))
    n_down = len(np.unique(bubbles.track[past & ~up]))
    assert n_up / (n_up + n_down) == pytest.approx(0.75, abs=0.05)


def test_as_many_bubbles_leave_a_branching_as_reach_it() -> None:
    graph = VesselGraph(
        positions_um=np.array([[0.0, 0.0], [200.0, 0.0], [400.0, 80.0], [400.0, -80.0]]),
        edges=np.array([[0, 1], [1, 2], [1, 3]]),
        radius_um=np.array([20.0, 17.0, 12.0]),
        flow_um3_s=np.array([1.2e7, 8e6, 4e6]),
    )
    n_frames, mean_bubbles = 6000, 60
    bubbles = flow_on_graph(
        graph,
        n_frames=n_frames,
        frame_rate_hz=RATE_HZ,
        mean_bubbles=mean_bubbles,
        rng=np.random.default_rng(3),
    )
    order = np.lexsort((bubbles.frame, bubbles.track))
    z, x = bubbles.position_um[order].T
    same = np.diff(bubbles.track[order]) == 0

    def crossings(at_um: float, side: np.ndarray) -> int:
        return int(np.sum(same & (z[:-1] < at_um) & (z[1:] >= at_um) & side[1:]))

    everywhere = np.ones(len(x), bool)
    reach, up, down = crossings(100, everywhere), crossings(300, x > 0), crossings(300, x < 0)
    # What is between the two places when the recording begins or ends is the only difference.
    assert abs(reach - up - down) < mean_bubbles
    # Concentration times flow, but for the sheath along the wall, where no bubble goes: inside
    # ρ, Poiseuille's profile carries ρ²(2 − ρ²) of all.
    concentration = mean_bubbles / (OUTERMOST**2 * graph.volume_um3.sum())
    share = OUTERMOST**2 * (2 - OUTERMOST**2)
    expected = concentration * share * graph.flow_um3_s * n_frames / RATE_HZ
    assert [reach, up, down] == pytest.approx(expected.tolist(), rel=0.1)


def test_tables_are_sorted_numbered_and_repeatable() -> None:
    graph = grow_tree(
        (800.0, 800.0), n_terminals=10, root_radius_um=20.0, rng=np.random.default_rng(0)
    )
    one, two = (
        flow_on_graph(
            graph,
            n_frames=200,
            frame_rate_hz=RATE_HZ,
            mean_bubbles=8,
            rng=np.random.default_rng(5),
        )
        for _ in range(2)
    )
    for name, column in one.columns().items():
        assert np.array_equal(column, two.columns()[name])
    assert list(one.columns()) == [
        "track", "frame", "z_um", "x_um", "vz_mm_s", "vx_mm_s", "amplitude",
    ]  # fmt: skip
    key = one.frame * (one.track.max() + 1) + one.track
    assert (np.diff(one.frame) >= 0).all()
    assert len(np.unique(key)) == len(key)
    assert np.array_equal(np.unique(one.track), np.arange(one.track.max() + 1))
    part = one.between(50, 60)
    assert part.frame.min() >= 50
    assert part.frame.max() < 60
    assert len(part) == ((one.frame >= 50) & (one.frame < 60)).sum()
    # Amplitudes vary slowly: by a few per cent over a bubble's whole life.
    for track in np.unique(one.track)[:10]:
        own = one.amplitude[one.track == track]
        assert own.max() / own.min() < 1.06
