import numpy as np
import pytest

from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.flow import flow_on_graph
from vasculome.simulate.slices import in_slice, scan_slices
from vasculome.simulate.trees import grow_tree

THICKNESS_UM = 120.0


def tree_bubbles(n_frames: int) -> BubbleTable:
    graph = grow_tree(
        (900.0, 800.0, 1000.0), n_terminals=40, root_radius_um=30.0, rng=np.random.default_rng(0)
    )
    return flow_on_graph(
        graph,
        n_frames=n_frames,
        frame_rate_hz=1000.0,
        mean_bubbles=80,
        lifetime_s=0.2,
        rng=np.random.default_rng(1),
    )


def test_an_echo_falls_to_half_at_half_the_thickness() -> None:
    y = np.array([300.0, 360.0, 240.0, 1000.0])
    bubbles = BubbleTable(
        track=np.array([5, 2, 3, 4]),
        frame=np.zeros(4, np.int64),
        position_um=np.stack([[1.0, 2.0, 3.0, 4.0], y, [5.0, 6.0, 7.0, 8.0]], axis=1),
        velocity_mm_s=np.stack([[0.1, 0.2, 0.3, 0.4], y, [0.5, 0.6, 0.7, 0.8]], axis=1),
        amplitude=np.full(4, 2.0, np.float32),
    )
    seen = in_slice(bubbles, elevation_um=300.0, thickness_um=THICKNESS_UM)
    np.testing.assert_allclose(seen.amplitude, [2.0, 1.0, 1.0], rtol=1e-6)
    assert seen.track.tolist() == [5, 2, 3]
    assert seen.position_um.tolist() == [[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]
    assert seen.velocity_mm_s.tolist() == [[0.1, 0.5], [0.2, 0.6], [0.3, 0.7]]
    with pytest.raises(ValueError, match="z, y, x"):
        in_slice(seen, elevation_um=0.0, thickness_um=1.0)


def test_slices_together_see_the_volume_evenly() -> None:
    bubbles = tree_bubbles(50)
    at = np.arange(-200.0, 1100.0, THICKNESS_UM / 2)
    total = np.zeros((bubbles.track.max() + 1, 50))
    for elevation in at:
        seen = in_slice(bubbles, elevation_um=elevation, thickness_um=THICKNESS_UM)
        np.add.at(total, (seen.track, seen.frame), seen.amplitude)
    # Gaussians half their width apart add up to √(π / 4 ln 2) · 2, wherever the bubble is.
    sums = total[bubbles.track, bubbles.frame] / bubbles.amplitude
    np.testing.assert_allclose(sums, 2 * np.sqrt(np.pi / (4 * np.log(2))), rtol=0.02)


def test_slices_taken_in_turn_show_where_vessels_are_in_elevation() -> None:
    n_frames, at = 100, [100.0, 300.0, 500.0, 700.0]
    bubbles = tree_bubbles(n_frames * len(at))
    tables = scan_slices(bubbles, elevation_um=at, thickness_um=THICKNESS_UM, n_frames=n_frames)
    assert len(tables) == len(at)
    for number, (elevation, table) in enumerate(zip(at, tables, strict=True)):
        assert table.ndim == 2
        assert table.frame.min() >= 0
        assert table.frame.max() < n_frames
        rows = bubbles.between(number * n_frames, (number + 1) * n_frames)
        near = np.abs(rows.position_um[:, 1] - elevation) < THICKNESS_UM / 2
        key = {(t, f) for t, f in zip(table.track, table.frame + number * n_frames, strict=True)}
        assert all(k in key for k in zip(rows.track[near], rows.frame[near], strict=True))
        assert len(table) < len(rows)
