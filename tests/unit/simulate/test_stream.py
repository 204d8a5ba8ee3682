import itertools
import tracemalloc

import numpy as np
import pytest

from vasculome.simulate.bubbles import SONOVUE, BubbleTable
from vasculome.simulate.flow import OUTERMOST, flow_blocks
from vasculome.simulate.flow_field import flow_field
from vasculome.simulate.map_flow import map_flow_blocks
from vasculome.simulate.trees import VesselGraph, grow_tree

RATE_HZ = 1000.0
RADIUS, SPEED = 40.0, 6.0
TUBE = VesselGraph(
    positions_um=np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 700.0], [0.0, 0.0, 3000.0]]),
    edges=np.array([[0, 1], [1, 2]]),
    radius_um=np.full(2, RADIUS),
    flow_um3_s=np.full(2, 1e3 * SPEED * np.pi * RADIUS**2),
)


def columns(tables: list[BubbleTable]) -> dict[str, np.ndarray]:
    return {k: np.concatenate([t.columns()[k] for t in tables]) for k in tables[0].columns()}


def on_tree(n_frames: int, block_frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    tree = grow_tree(
        (900.0, 900.0), n_terminals=12, root_radius_um=25.0, rng=np.random.default_rng(0)
    )
    blocks = flow_blocks(
        tree,
        n_frames=n_frames,
        frame_rate_hz=RATE_HZ,
        mean_bubbles=15,
        lifetime_s=0.2,
        seed=seed,
        block_frames=block_frames,
    )
    return columns(list(blocks))


def on_map(n_frames: int, block_frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    across = np.arange(60) - 30
    density = np.broadcast_to(20 * np.exp(-((across / 3) ** 2)), (120, 60)) * 1.0
    density[density < 0.5] = 0
    field = flow_field(density, np.where(density > 0, 9.0, 0.0), pixel_um=(5.0, 5.0))
    blocks = map_flow_blocks(
        field,
        n_frames=n_frames,
        frame_rate_hz=RATE_HZ,
        mean_bubbles=15,
        seed=seed,
        block_frames=block_frames,
    )
    return columns(list(blocks))


@pytest.mark.parametrize("flow", [on_tree, on_map])
def test_neither_block_nor_length_changes_a_byte_but_the_seed_does(flow) -> None:
    whole = flow(1300, 1300)
    for other in (flow(1300, 170), flow(1700, 501)):
        for name, column in whole.items():
            assert np.array_equal(other[name][: len(column)], column), name
    assert len(flow(1300, 170)["frame"]) == len(whole["frame"])
    different = flow(1300, 1300, seed=1)
    assert not np.array_equal(different["x_um"][:100], whole["x_um"][:100])


@pytest.mark.parametrize("flow", [on_tree, on_map])
def test_tracks_are_numbered_and_unbroken_over_blocks_and_segments(flow) -> None:
    table = flow(1300, 90)
    assert np.array_equal(np.unique(table["track"]), np.arange(table["track"].max() + 1))
    _, first = np.unique(table["track"], return_index=True)
    assert (np.diff(table["frame"][first]) >= 0).all()
    order = np.lexsort((table["frame"], table["track"]))
    same = np.diff(table["track"][order]) == 0
    assert (np.diff(table["frame"][order])[same] == 1).all()
    # Bubbles are followed over the frame where one segment of drawing ends.
    assert set(table["track"][table["frame"] == 499]) & set(table["track"][table["frame"] == 500])
    counts = np.bincount(table["frame"], minlength=1300)
    assert counts.mean() == pytest.approx(15, rel=0.15)


def test_positions_are_the_integral_of_velocities_in_a_tube() -> None:
    table = columns(
        list(
            flow_blocks(
                TUBE,
                n_frames=1200,
                frame_rate_hz=RATE_HZ,
                mean_bubbles=60,
                seed=2,
                block_frames=64,
            )
        )
    )
    order = np.lexsort((table["frame"], table["track"]))
    track = table["track"][order]
    for axis in "zyx":
        place, step_um = table[f"{axis}_um"][order], 1e3 / RATE_HZ * table[f"v{axis}_mm_s"][order]
        begin = np.searchsorted(track, track)  # each bubble's first row
        travelled = np.cumsum(step_um) - np.cumsum(step_um)[begin]
        np.testing.assert_allclose(place, place[begin] + travelled, atol=1e-5)


def test_mean_speed_is_half_the_speed_on_the_axis() -> None:
    table = columns(
        list(flow_blocks(TUBE, n_frames=1000, frame_rate_hz=RATE_HZ, mean_bubbles=300, seed=3))
    )
    rho = np.hypot(table["z_um"], table["y_um"]) / RADIUS
    speed = table["vx_mm_s"]
    assert rho.max() <= OUTERMOST + 1e-9
    on_axis = speed[rho < 0.1].mean()
    # Rings of equal area count alike; the outermost, which bubbles keep clear of, by its formula.
    area = np.linspace(0, 1, 21)
    inside = itertools.pairwise(area[:-1])
    rings = [speed[(rho**2 >= inner) & (rho**2 < outer)] for inner, outer in inside]
    last = on_axis * (1 - area[-2:].mean())
    mean = np.mean([*(ring.mean() for ring in rings), last])
    assert mean / on_axis == pytest.approx(0.5, abs=0.01)
    assert mean == pytest.approx(SPEED, rel=0.02)


def test_amplitudes_are_log_normal_over_bubbles() -> None:
    table = columns(
        list(
            flow_blocks(
                TUBE,
                n_frames=1500,
                frame_rate_hz=RATE_HZ,
                mean_bubbles=200,
                lifetime_s=0.05,
                seed=4,
                sizes=SONOVUE,
            )
        )
    )
    _, first = np.unique(table["track"], return_index=True)
    logarithm = np.log(table["amplitude"][first])
    assert len(first) > 4000
    assert np.median(logarithm) == pytest.approx(0, abs=0.05)
    assert logarithm.std() == pytest.approx(0.76, rel=0.04)
    skew = np.mean(((logarithm - logarithm.mean()) / logarithm.std()) ** 3)
    assert abs(skew) < 0.12


def test_memory_does_not_grow_with_the_length() -> None:
    def peak(n_frames: int) -> int:
        tracemalloc.start()
        for _ in flow_blocks(
            TUBE, n_frames=n_frames, frame_rate_hz=RATE_HZ, mean_bubbles=50, seed=5
        ):
            pass
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest

    peak(500)
    assert peak(12000) < 1.3 * peak(3000)
