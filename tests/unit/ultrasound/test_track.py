import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.ultrasound.fusion import DISTANCE_ONLY, FusionWeights
from vasculome.ultrasound.kalman import ConstantVelocity
from vasculome.ultrasound.track import LinkRule, advance, finish, start

RULE = LinkRule(frame_rate_hz=1000, max_speed_mm_s=200, max_gap_frames=2, min_length=4)
STEADY = ConstantVelocity(position_error_um=5, speed_change_mm_s=5)


def table(frame, position):
    frame, position = np.asarray(frame, np.int64), np.asarray(position, np.float64)
    order = np.argsort(frame, kind="stable")
    axes = "zx" if position.shape[1] == 2 else "zyx"
    n = len(frame)
    return {
        "frame": frame[order],
        **{f"{axis}_um": position[order, k] for k, axis in enumerate(axes)},
        "amplitude": np.arange(n, dtype=np.float32)[order],
        "score": np.ones(n, np.float32),
    }


def flow(seed, ndim, n_frames=60, n_bubbles=25, side_um=4000.0):
    """Bubbles on straight paths of up to 80 µm a frame, some missed, and false alarms."""
    rng = np.random.default_rng(seed)
    frame, position, bubble = [], [], []
    for b in range(n_bubbles):
        born, life = rng.integers(0, n_frames - 5), rng.integers(5, n_frames)
        t = np.arange(born, min(born + life, n_frames))
        seen = t[rng.random(len(t)) > 0.15]
        step = rng.normal(0, 1, ndim)
        step *= rng.uniform(10, 80) / np.linalg.norm(step)
        frame.append(seen)
        position.append(rng.uniform(0, side_um, ndim) + (seen - born)[:, None] * step)
        bubble.append(np.full(len(seen), b))
    n_false = n_frames // 2
    frame.append(rng.integers(0, n_frames, n_false))
    position.append(rng.uniform(0, side_um, (n_false, ndim)))
    bubble.append(np.full(n_false, -1))
    frame = np.concatenate(frame)
    order = np.argsort(frame, kind="stable")
    return table(frame, np.concatenate(position)), np.concatenate(bubble)[order]


def run(detections, cuts, n_frames, rule=RULE, ndim=2, reload=False):
    patch_size = detections["patch"].shape[1] if "patch" in detections else 0
    state, parts = start(ndim, patch_size=patch_size), []
    for low, high in zip([0, *cuts], [*cuts, n_frames], strict=True):
        inside = (detections["frame"] >= low) & (detections["frame"] < high)
        block = {name: column[inside] for name, column in detections.items()}
        state, ended = advance(state, block, stop_frame=high, rule=rule)
        parts.append(ended)
        if reload:
            file = io.BytesIO()
            np.savez(file, **state)
            file.seek(0)
            state = dict(np.load(file, allow_pickle=False))
    parts.append(finish(state, rule=rule))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 60), max_size=8), st.sampled_from([2, 3]))
def test_blocks_do_not_matter(seed, cuts, ndim):
    detections, _ = flow(seed, ndim, side_um=900.0)
    whole = run(detections, [], 60, ndim=ndim)
    cut = run(detections, sorted(cuts), 60, ndim=ndim, reload=True)
    assert list(whole) == list(cut)
    for name in whole:
        assert whole[name].dtype == cut[name].dtype
        assert whole[name].tobytes() == cut[name].tobytes()


@pytest.mark.parametrize("motion", [None, STEADY])
@pytest.mark.parametrize("weights", [DISTANCE_ONLY, FusionWeights()])
def test_blocks_do_not_matter_with_any_rule(motion, weights):
    detections, _ = flow(5, 2, side_um=900.0)
    rng = np.random.default_rng(0)
    detections["patch"] = rng.random((len(detections["frame"]), 9)).astype(np.float32)
    rule = dataclasses.replace(RULE, motion=motion, weights=weights)
    whole = run(detections, [], 60, rule)
    cut = run(detections, [7, 8, 31, 50], 60, rule, reload=True)
    assert len(whole["frame"]) > 100
    for name in whole:
        assert whole[name].tobytes() == cut[name].tobytes()


def test_brightness_and_shape_keep_bubbles_apart_that_swap_places():
    # Two bubbles orbit each other, half a turn a frame: seen by distance alone, both stand still.
    n, angle = 12, np.pi * np.arange(12)
    circle = 40 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    detections = table(np.tile(np.arange(n), 2), np.concatenate([circle, -circle]))
    bubble = np.repeat([0, 1], n)[np.argsort(np.tile(np.arange(n), 2), kind="stable")]
    detections["score"] = bubble.astype(np.float32)
    looks = np.array([[1, 0, 0], [0, 0.6, 0.8]], np.float32)[bubble]
    bright = np.array([1.0, 0.2], np.float32)[bubble]
    cases = {
        "distance": (bright, DISTANCE_ONLY, 12),
        "amplitude": (bright, FusionWeights(1, 3, 0), 0),
        "shape": (np.ones_like(bright), FusionWeights(1, 0, 3), 0),
    }
    for amplitude, weights, mixed in cases.values():
        seen = {**detections, "amplitude": amplitude, "patch": looks}
        tracks = run(seen, [], n, dataclasses.replace(RULE, weights=weights))
        assert np.bincount(tracks["track"]).tolist() == [n, n]
        swaps = np.diff(tracks["score"])[np.diff(tracks["track"]) == 0]
        assert (swaps != 0).sum() >= mixed and (mixed or not swaps.any())
    with pytest.raises(ValueError, match="patch_size"):
        run(detections, [], n, dataclasses.replace(RULE, weights=FusionWeights()))


def test_kalman_filter_foresees_steady_flow_better_than_the_last_links():
    # A crowd moving together by more than the distance between bubbles, badly localized.
    rng = np.random.default_rng(2)
    n, n_frames = 60, 40
    start_um = rng.uniform(0, 3000, (n, 2))
    truth = start_um + np.arange(n_frames)[:, None, None] * [30.0, 20.0]
    found = truth + rng.normal(0, 25, truth.shape)
    detections = table(np.repeat(np.arange(n_frames), n), found.reshape(-1, 2))
    detections["score"] = np.tile(np.arange(n), n_frames).astype(np.float32)
    rule = LinkRule(frame_rate_hz=1000, max_speed_mm_s=150, min_length=2)
    right = []
    for motion in (None, ConstantVelocity(position_error_um=25, speed_change_mm_s=1)):
        tracks = run(detections, [], n_frames, dataclasses.replace(rule, motion=motion))
        same = (np.diff(tracks["score"]) == 0) & (np.diff(tracks["track"]) == 0)
        right.append(same.sum() / (n * (n_frames - 1)))
    assert right[1] > right[0] + 0.02 and right[1] > 0.95


@pytest.mark.parametrize("ndim", [2, 3])
def test_bubbles_far_apart_are_followed_without_a_fault(ndim):
    rng = np.random.default_rng(1)
    t = np.arange(40)
    frames, positions = [], []
    for b in range(6):
        step = rng.normal(0, 60, ndim)
        seen = t[(t < 3) | ((t % 7 != b) & (t % 7 != b + 1))]  # gaps of one and two frames
        frames.append(seen)
        positions.append(np.eye(1, ndim)[0] * 10000 * b + seen[:, None] * step)
    detections = table(np.concatenate(frames), np.concatenate(positions))
    tracks = run(detections, [13], 40, ndim=ndim)
    assert np.unique(tracks["track"]).tolist() == list(range(6))
    assert len(tracks["frame"]) == sum(map(len, frames))
    for b in range(6):
        mine = np.abs(tracks["z_um"] - 10000 * b) < 5000
        assert len(np.unique(tracks["track"][mine])) == 1
        assert tracks["frame"][mine].tolist() == frames[b].tolist()


def test_crowded_flow_keeps_most_links():
    detections, bubble = flow(3, 2, n_frames=200, n_bubbles=150, side_um=6000.0)
    of_amplitude = dict(zip(detections["amplitude"].tolist(), bubble.tolist(), strict=True))
    tracks = run(detections, [50, 100], 200)
    linked = tracks["track"][1:] == tracks["track"][:-1]
    who = np.array([of_amplitude[a] for a in tracks["amplitude"].tolist()])
    assert (who[1:] == who[:-1])[linked].mean() > 0.97
    assert linked.sum() > 0.9 * (len(bubble) - 150 - 100)


def test_gap_gate_and_length():
    line = np.stack([np.zeros(10), 100.0 * np.arange(10)], axis=1)
    detections = table(np.delete(np.arange(10), [3, 4, 5]), np.delete(line, [3, 4, 5], axis=0))
    for gap, lengths in ((3, [7]), (2, [3, 4])):
        rule = LinkRule(frame_rate_hz=1000, max_speed_mm_s=200, max_gap_frames=gap, min_length=1)
        tracks = run(detections, [], 10, rule)
        assert np.bincount(tracks["track"]).tolist() == lengths
    slow = LinkRule(frame_rate_hz=1000, max_speed_mm_s=99, min_length=1)
    assert np.bincount(run(table(np.arange(10), line), [], 10, slow)["track"]).max() == 1
    long = LinkRule(frame_rate_hz=1000, max_speed_mm_s=200, min_length=11)
    assert len(run(table(np.arange(10), line), [], 10, long)["track"]) == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_no_link_is_faster_than_allowed(seed):
    detections, _ = flow(seed, 2, side_um=700.0)
    tracks = run(detections, [], 60)
    linked = tracks["track"][1:] == tracks["track"][:-1]
    moved = np.hypot(np.diff(tracks["z_um"]), np.diff(tracks["x_um"]))[linked]
    assert (moved <= RULE.gate_um * np.diff(tracks["frame"])[linked] + 1e-9).all()


def test_no_detections():
    tracks = run(table([], np.empty((0, 2))), [5], 10)
    assert all(len(column) == 0 for column in tracks.values())


def test_frames_out_of_order():
    good = table([0, 1], np.zeros((2, 2)))
    state, _ = advance(start(2), good, stop_frame=2, rule=RULE)
    with pytest.raises(ValueError, match="frames"):
        advance(state, good, stop_frame=4, rule=RULE)
    with pytest.raises(ValueError, match="frames"):
        advance(start(2), good, stop_frame=1, rule=RULE)
    wrong = {**table([0, 1, 2], np.zeros((3, 2))), "frame": np.array([0, 2, 1])}
    with pytest.raises(ValueError, match="sorted"):
        advance(start(2), wrong, stop_frame=4, rule=RULE)
    with pytest.raises(ValueError, match="positive"):
        LinkRule(frame_rate_hz=0, max_speed_mm_s=1)
