"""How well bubbles are paired between two frames, and how fast.

Accuracy: the simulation of Chen et al. (Improved Microbubble Tracking for Super-Resolution
Ultrasound Localization Microscopy using a Bi-Directional Long Short-term Memory Neural Network) at
the six cells of its Table I. Beside the two published assignments, on the distance and on Eq. 3,
are ours, which look only at pairs inside the gate: the longest step, which the published ones are
not told. What the paper leaves open was chosen so that its table comes out, and is varied below to
show what it does: 0.5 % of the bubbles unpaired, patches of 41 pixels, a correlation that keeps the
mean. Its point spread functions were measured, and few are shown; ours are drawn
(vasculome.simulate.bubble_pairs.psf_bank) and set how far images overlap.

Tracks: rules of linking on crowded curved paths with missed bubbles and false alarms.

Speed: the frames of a crowded volume paired by dense assignments, by a dense one in each connected
component of the gated graph, and by ours, whose costs are checked to be the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import platform
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from vasculome.metrics.tracking import score_links, score_tracks
from vasculome.simulate.bubble_pairs import FramePair, PairScene, frame_pairs, psf_bank
from vasculome.simulate.psf_pymust import LinearArray, simulate_echoes
from vasculome.ultrasound.fusion import (
    DISTANCE_ONLY,
    PUBLISHED,
    Bubbles,
    FusionWeights,
    centred_patches,
    pair_as_published,
    pair_fused,
    unit_patches,
)
from vasculome.ultrasound.kalman import ConstantVelocity
from vasculome.ultrasound.pair import pair
from vasculome.ultrasound.track import LinkRule, advance, finish, start

PIXEL_UM = 4.928
WAVELENGTH_UM = 77.0  # 20 MHz
FIELD_MM2 = 4.0
STEPS_PX = {"low": 20, "high": 30}
DENSITIES = (20, 40, 80)
# Table I of the paper, in per cent.
TABLE_I = {
    ("low", 20): {"LSA-distance": 82.7, "LSA-fusion": 87.9, "Bi-LSTM": 86.1},
    ("high", 20): {"LSA-distance": 64.6, "LSA-fusion": 74.5, "Bi-LSTM": 76.6},
    ("low", 40): {"LSA-distance": 66.0, "LSA-fusion": 70.1, "Bi-LSTM": 72.0},
    ("high", 40): {"LSA-distance": 44.5, "LSA-fusion": 48.9, "Bi-LSTM": 54.6},
    ("low", 80): {"LSA-distance": 44.5, "LSA-fusion": 46.4, "Bi-LSTM": 50.1},
    ("high", 80): {"LSA-distance": 21.8, "LSA-fusion": 23.9, "Bi-LSTM": 29.4},
}
TOLERANCE = 4.0
# The paper's patch holds "a single MB": 41 pixels are the width of a point spread function.
HALF_WIDTH_PX = 20

Pairing = tuple[NDArray[np.int64], NDArray[np.int64]]
Method = Callable[[Bubbles, Bubbles, float], Pairing]
METHODS: dict[str, Method] = {
    "LSA-distance": lambda a, b, _: pair_as_published(a, b, weights=DISTANCE_ONLY),
    "LSA-fusion": lambda a, b, _: pair_as_published(a, b, weights=PUBLISHED),
    "gated, distance": lambda a, b, gate: pair_fused(a, b, gate_um=gate, weights=DISTANCE_ONLY),
    "gated, fusion 1/0.2/0.2": lambda a, b, gate: pair_fused(a, b, gate_um=gate, weights=PUBLISHED),
    "gated, fusion (default)": lambda a, b, gate: pair_fused(a, b, gate_um=gate),
    "gated, fusion 1/2/1": lambda a, b, gate: pair_fused(
        a, b, gate_um=gate, weights=FusionWeights(1, 2, 1)
    ),
}


def see(frame_pair: FramePair, half_width: int) -> list[Bubbles]:
    """Return the bubbles of both frames as a perfect localizer would hand them over."""
    seen = []
    for number, position in enumerate((frame_pair.before_um, frame_pair.after_um)):
        patches = centred_patches(
            frame_pair.frames[number][None],
            np.zeros(len(position), int),
            position / PIXEL_UM,
            half_width=half_width,
        )
        seen.append(Bubbles(position, patches[:, patches.shape[1] // 2], unit_patches(patches)))
    return seen


def accuracy(
    methods: dict[str, Method],
    *,
    density: int,
    step_px: int,
    bank: NDArray[np.float32],
    samples: int,
    seed: int,
    half_width: int = HALF_WIDTH_PX,
    unpaired: float = 0.005,
) -> dict[str, tuple[float, float, float]]:
    """Return mean and standard deviation of correct / true pairs (%), and seconds a frame pair."""
    bubbles = round(density * FIELD_MM2)
    scene = PairScene((bubbles, bubbles), step_px * PIXEL_UM, unpaired=unpaired)
    parts: dict[str, list[float]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for frame_pair in frame_pairs(scene, bank, count=samples, seed=seed):
        before, after = see(frame_pair, half_width)
        # A step may be as long as the gate: rounding must not put it outside.
        gate_um = scene.max_step_um * 1.0001
        for name, method in methods.items():
            started = time.perf_counter()
            i, j = method(before, after, gate_um)
            seconds[name] += time.perf_counter() - started
            right = int((frame_pair.partner[i] == j).sum())
            parts[name].append(100 * right / int((frame_pair.partner >= 0).sum()))
    return {
        name: (float(np.mean(p)), float(np.std(p)), seconds[name] / samples)
        for name, p in parts.items()
    }


def pymust_bank(count: int, *, seed: int) -> NDArray[np.float32]:
    """Simulate point spread functions of a 20 MHz array at nine angles, 3 to 9 mm deep.

    Bandwidth and aperture vary, in place of the aberrations that make measured ones differ.
    """
    rng = np.random.default_rng(seed)
    reach = int(np.ceil(2 * WAVELENGTH_UM / PIXEL_UM))
    offsets_um = PIXEL_UM * np.arange(-reach, reach + 1)
    echoes = []
    for _ in range(count):
        depth_um = rng.uniform(3000, 9000)
        array = LinearArray(
            frequency_hz=20e6,
            bandwidth=rng.uniform(0.45, 0.75),
            pitch_um=69.0,
            width_um=0.9 * 69.0,
            angles_deg=tuple(range(-4, 5)),
            f_number=rng.uniform(0.8, 1.6),
        )
        echo = simulate_echoes(array, depth_um=[depth_um], offsets_um=(offsets_um, offsets_um))
        echoes.append(echo[0])
    bank = np.abs(np.stack(echoes))
    return (bank / bank.max(axis=(1, 2), keepdims=True)).astype(np.float32)


def table_one(bank: NDArray[np.float32], *, samples: int, seed: int) -> list[dict]:
    rows = []
    for (speed, density), published in TABLE_I.items():
        scored = accuracy(
            METHODS,
            density=density,
            step_px=STEPS_PX[speed],
            bank=bank,
            samples=samples,
            seed=seed,
        )
        for name, (mean, spread, seconds) in scored.items():
            rows.append(
                {
                    "case": f"{density} MB/mm2, {speed}",
                    "method": name,
                    "accuracy_percent": round(mean, 1),
                    "sd_percent": round(spread, 1),
                    "published_percent": published.get(name),
                    "ms_per_frame_pair": round(1e3 * seconds, 2),
                }
            )
        print_cell(f"{density} MB/mm2, {speed}", scored, published)
    return rows


def print_cell(
    case: str, scored: dict[str, tuple[float, float, float]], published: dict[str, float]
) -> None:
    print(f"{case}   (Bi-LSTM of the paper: {published['Bi-LSTM']} %)")
    for name, (mean, spread, seconds) in scored.items():
        beside = f"paper {published[name]:5.1f}" if name in published else ""
        print(f"    {name:<26}{mean:6.1f} ± {spread:3.1f} %{1e3 * seconds:8.2f} ms  {beside}")


def without_mean(bubbles: Bubbles) -> Bubbles:
    patch = bubbles.patch - bubbles.patch.mean(axis=1, keepdims=True)
    return dataclasses.replace(bubbles, patch=unit_patches(patch))


def sensitivity(seed: int, *, samples: int, with_pymust: bool) -> list[dict]:
    """Vary what the paper leaves open, one thing at a time, under its two methods."""

    def drawn(scale: float) -> NDArray[np.float32]:
        return psf_bank(
            64,
            wavelength_um=scale * WAVELENGTH_UM,
            pixel_um=PIXEL_UM,
            rng=np.random.default_rng(seed),
        )

    usual = drawn(1.0)
    fusion = {"LSA-fusion": METHODS["LSA-fusion"]}
    distance = {"LSA-distance": METHODS["LSA-distance"]}
    centred: dict[str, Method] = {
        "LSA-fusion": lambda a, b, _: pair_as_published(without_mean(a), without_mean(b))
    }
    cases: list[tuple[str, dict[str, Method], dict]] = [
        ("as in the table", distance, {}),
        ("no bubble unpaired", distance, {"unpaired": 0.0}),
        ("2 % unpaired", distance, {"unpaired": 0.02}),
        ("as in the table", fusion, {}),
        ("no bubble unpaired", fusion, {"unpaired": 0.0}),
        ("correlation without mean", centred, {}),
        ("patch of 11 pixels", fusion, {"half_width": 5}),
        ("images 0.6 times as wide", fusion, {"bank": drawn(0.6)}),
        ("images 0.8 times as wide", fusion, {"bank": drawn(0.8)}),
        ("images 1.2 times as wide", fusion, {"bank": drawn(1.2)}),
        ("all images alike", fusion, {"bank": usual[:1]}),
    ]
    if with_pymust:
        cases.append(("simulated by PyMUST", fusion, {"bank": pymust_bank(24, seed=seed)}))
    rows = []
    print("What the paper leaves open, in per cent at the six cells")
    for case, method, changed in cases:
        (name,) = method
        if case == "as in the table":
            print(f"    {name + ', published':<40}", *(f"{p[name]:7.1f}" for p in TABLE_I.values()))
        scores = [
            accuracy(
                method,
                density=density,
                step_px=STEPS_PX[speed],
                samples=samples,
                seed=seed,
                **{"bank": usual, **changed},
            )[name][0]
            for speed, density in TABLE_I
        ]
        print(f"    {name + ', ' + case:<40}", *(f"{score:7.1f}" for score in scores))
        rows += [
            {
                "case": f"{density} MB/mm2, {speed}, {case}",
                "method": name,
                "accuracy_percent": round(score, 1),
            }
            for (speed, density), score in zip(TABLE_I, scores, strict=True)
        ]
    return rows


def crowd(
    seed: int, *, bubbles: int, missed: float, false: float, n_frames: int
) -> tuple[dict[str, NDArray], NDArray[np.int64], NDArray[np.int64]]:
    """Return detections of bubbles on curved paths in 78 x 118 voxels of 50 µm, and the truth.

    Up to 2 voxels a frame, lost after 80 frames on average and replaced; localized to 0.15 voxels;
    brightness known to 10 %. The column ``bubble`` tells who each detection is, -1 a false alarm.
    """
    rng = np.random.default_rng(seed)
    size = np.array([78.0, 118.0])
    parts = []
    for _ in range(bubbles):
        born = -int(rng.integers(0, 60))
        while born < n_frames:
            age = np.arange(int(rng.geometric(1 / 80)))
            angle = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.06) * age
            step = 2 * np.sqrt(rng.random()) * np.stack([np.sin(angle), np.cos(angle)], axis=1)
            place = rng.random(2) * size + np.cumsum(step, axis=0)
            frame = born + age
            inside = (frame >= 0) & (frame < n_frames) & ((place >= 0) & (place < size)).all(axis=1)
            bright = np.full(len(age), rng.lognormal(0, 0.35))
            parts.append((frame[inside], place[inside], bright[inside]))
            born += len(age)
    frame, place, bright = (np.concatenate(column) for column in zip(*parts, strict=True))
    bubble = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    seen = np.flatnonzero(rng.random(len(frame)) > missed)
    n_false = round(false * len(seen))
    found = place[seen] + rng.normal(0, 0.15, (len(seen), 2))
    found = 50.0 * np.concatenate([found, rng.random((n_false, 2)) * size])
    columns = {
        "frame": np.concatenate([frame[seen], rng.integers(0, n_frames, n_false)]),
        "z_um": found[:, 0],
        "x_um": found[:, 1],
        "amplitude": np.concatenate(
            [
                bright[seen] * np.exp(rng.normal(0, 0.1, len(seen))),
                rng.lognormal(-0.5, 0.35, n_false),
            ]
        ),
        "score": np.concatenate([bubble[seen], np.full(n_false, -1)]),
    }
    order = np.argsort(columns["frame"], kind="stable")
    return {name: column[order] for name, column in columns.items()}, bubble, frame


def linking(seed: int, *, n_frames: int) -> list[dict]:
    """Compare rules of linking over many frames, with missed bubbles and false alarms."""
    usual = LinkRule(frame_rate_hz=1000, max_speed_mm_s=125, max_gap_frames=2, min_length=5)
    steady = ConstantVelocity(position_error_um=7.5, speed_change_mm_s=10.0)
    rules = {
        "distance": {},
        "distance, Kalman": {"motion": steady},
        "with amplitude, 1/0.2": {"weights": FusionWeights(1, 0.2, 0)},
        "with amplitude, 1/1": {"weights": FusionWeights(1, 1, 0)},
        "with amplitude, 1/1, Kalman": {"weights": FusionWeights(1, 1, 0), "motion": steady},
    }
    rows = []
    for bubbles, missed, false in (
        (70, 0.1, 0.05),
        (70, 0.2, 0.2),
        (250, 0.1, 0.05),
        (250, 0.2, 0.2),
    ):
        found, true_bubble, true_frame = crowd(
            seed, bubbles=bubbles, missed=missed, false=false, n_frames=n_frames
        )
        case = f"{bubbles} bubbles, {missed:.0%} missed, {false:.0%} false"
        print(case)
        for name, changed in rules.items():
            rule = dataclasses.replace(usual, **changed)
            advance(start(2), {k: v[:50] for k, v in found.items()}, stop_frame=n_frames, rule=rule)
            started = time.perf_counter()
            state, ended = advance(start(2), found, stop_frame=n_frames, rule=rule)
            rest = finish(state, rule=rule)
            seconds = time.perf_counter() - started
            tracks = {key: np.concatenate([ended[key], rest[key]]) for key in ended}
            seen = (tracks["track"], tracks["frame"], tracks["score"].astype(np.int64))
            links = score_links(*seen, true_bubble=true_bubble, true_frame=true_frame)
            whole = score_tracks(*seen, true_bubble=true_bubble, true_frame=true_frame)
            rows.append(
                {
                    "case": case,
                    "method": name,
                    "link_precision": round(links.precision, 4),
                    "link_recall": round(links.recall, 4),
                    "track_precision": round(whole.precision, 4),
                    "track_recall": round(whole.recall, 4),
                    "switches": whole.switches,
                    "fragments": whole.fragments,
                    "detections_per_s": round(len(found["frame"]) / seconds),
                }
            )
            print(f"    {name:<28}", *(f"{value:>9}" for value in list(rows[-1].values())[2:]))
    return rows


def dense(before: NDArray[np.float64], after: NDArray[np.float64], gate_um: float) -> float:
    """Return the cost of the dense assignment: pairs beyond the gate cost as much as it."""
    cost = np.minimum(cdist(before, after), gate_um)
    i, j = linear_sum_assignment(cost)
    return float(cost[i, j].sum())


def ungated(before: NDArray[np.float64], after: NDArray[np.float64], gate_um: float) -> float:
    """Return the cost when pairs beyond the gate are removed only afterwards, as is often done."""
    cost = cdist(before, after)
    i, j = linear_sum_assignment(cost)
    return float(np.minimum(cost[i, j], gate_um).sum())


def components(before: NDArray[np.float64], after: NDArray[np.float64], gate_um: float) -> float:
    """Return the cost of dense assignments, one in each component of the gated graph."""
    pairs = cKDTree(before).sparse_distance_matrix(cKDTree(after), gate_um, output_type="ndarray")
    m, n = len(before), len(after)
    links = coo_array((np.ones(len(pairs)), (pairs["i"], m + pairs["j"])), shape=(m + n, m + n))
    count, part = connected_components(links, directed=False)
    rows, columns = np.argsort(part[:m], kind="stable"), np.argsort(part[m:], kind="stable")
    rows = np.split(rows, np.cumsum(np.bincount(part[:m], minlength=count))[:-1])
    columns = np.split(columns, np.cumsum(np.bincount(part[m:], minlength=count))[:-1])
    total = 0.0
    for i, j in zip(rows, columns, strict=True):
        lonely = max(0, len(i) - len(j)) * gate_um
        total += lonely + (dense(before[i], after[j], gate_um) if len(i) and len(j) else 0.0)
    return total


def ours(before: NDArray[np.float64], after: NDArray[np.float64], gate_um: float) -> float:
    i, j = pair(before, after, gate_um=gate_um)
    apart = np.linalg.norm(before[i] - after[j], axis=1)
    return float(apart.sum()) + gate_um * (len(before) - len(i))


def assignment(seed: int, *, frames: int) -> list[dict]:
    """Time the assignment of 900 bubbles a frame in 64 x 64 x 96 voxels of 100 µm.

    The first gate is 30 mm/s at 750 Hz, the field's default in 3-D.
    """
    rng = np.random.default_rng(seed)
    size_um = np.array([6400.0, 6400.0, 9600.0])
    rows = []
    for gate_um in (40.0, 200.0, 600.0):
        place = rng.random((900, 3)) * size_um
        sequence = []
        for _ in range(frames):
            sequence.append(place)
            # A tenth of the bubbles is replaced in each frame.
            fresh = rng.random((900, 1)) < 0.1
            moved = (place + rng.normal(0, gate_um / 4, place.shape)) % size_um
            place = np.where(fresh, rng.random((900, 3)) * size_um, moved)
        seconds = {}
        costs = {}
        ours(sequence[0], sequence[1], gate_um)  # compiles
        for method in (ours, components, dense, ungated):
            started = time.perf_counter()
            costs[method] = [method(a, b, gate_um) for a, b in itertools.pairwise(sequence)]
            seconds[method] = time.perf_counter() - started
        if not np.allclose(costs[ours], costs[dense]):
            raise AssertionError("the assignment is not the cheapest")
        if not np.allclose(costs[components], costs[dense]):
            raise AssertionError("the components do not add up to the whole")
        for method, spent in seconds.items():
            rows.append(
                {
                    "case": f"900 bubbles, gate {gate_um:.0f} um, {frames} frames",
                    "method": method.__name__,
                    "seconds": round(spent, 3),
                    "times_ours": round(spent / seconds[ours], 1),
                }
            )
            print(f"{rows[-1]['case']:<40}{method.__name__:<12}{spent:9.3f} s")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    samples = 5 if options.quick else 100
    bank = psf_bank(
        64,
        wavelength_um=WAVELENGTH_UM,
        pixel_um=PIXEL_UM,
        rng=np.random.default_rng(options.seed),
    )
    compared = table_one(bank, samples=samples, seed=options.seed)
    tried = sensitivity(options.seed, samples=samples // 2 + 1, with_pymust=not options.quick)
    linked = linking(options.seed, n_frames=60 if options.quick else 300)
    timed = assignment(options.seed, frames=20 if options.quick else 200)
    goals = [
        {
            "name": f"{row['method']} at {row['case']}: points off Table I",
            "value": (off := round(abs(row["accuracy_percent"] - row["published_percent"]), 1)),
            "op": "<=",
            "goal": TOLERANCE,
            "met": off <= TOLERANCE,
        }
        for row in compared
        if row["published_percent"] is not None
    ]
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    results = compared + tried + linked + timed
    print(
        json.dumps({"benchmark": "pairing", "machine": machine, "results": results, "goals": goals})
    )


if __name__ == "__main__":
    main()
