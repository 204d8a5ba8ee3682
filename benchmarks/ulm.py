"""How fast the ULM chain goes from IQ to tracks, part by part, and what memory it takes.

A block of 800 frames of 78 x 118 pixels with 50 bubbles each in simulated vessels, and 200 volumes
of 64 x 64 x 96 voxels with 900 bubbles each all over, both with moving tissue and noise. "One core"
is a process of one thread; several cores are as many blocks, each in a process of its own, as the
workflow does it. Beside the time on the clock stands that of the processor, which other work on the
machine changes less: where it is much the smaller, the machine was busy.

Tracking alone is compared with the plain ways: a dense linear_sum_assignment of each two frames,
and, where ``--peer-python`` names an interpreter that has them, trackpy and laptrack, on the same
detections with the same gate. Only ours and laptrack close gaps by assignment, and only ours
smooths; so the assignment of each two frames is timed for itself, too. Memory is the peak of a
process that runs all stages on acquisitions of more and more blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from vasculome.compute.device import peak_rss_bytes
from vasculome.config import Sample, parse_config
from vasculome.geometry import Box
from vasculome.simulate.acquisition import make_iq
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import PointSpread
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.stages.catalog import stages_of
from vasculome.stages.job import Job, execute
from vasculome.storage.raw_files import write_npy_blocks
from vasculome.ultrasound.clutter import svd_filter
from vasculome.ultrasound.columns import Table, positions
from vasculome.ultrasound.detect import find_peaks, noise_level
from vasculome.ultrasound.localize import LOCALIZERS, positions_um
from vasculome.ultrasound.pair import pair
from vasculome.ultrasound.render import accumulate, empty_sums
from vasculome.ultrasound.smooth import add_velocities, smooth
from vasculome.ultrasound.track import LinkRule, advance, finish, start

WAVELENGTH_UM = 98.56
SPACING_UM = WAVELENGTH_UM / 2
FRAME_RATE_HZ = 1000.0
RULE = LinkRule(frame_rate_hz=FRAME_RATE_HZ, max_speed_mm_s=60.0, max_gap_frames=1, min_length=10)
GATE_UM = 60.0
LOCALIZER_NAMES = ("radial_symmetry", "gaussian_fit_common_width")
Points = NDArray[np.float64]
PEER = Path(__file__).parent / "ulm_parts/peer.py"


@dataclass(frozen=True)
class Scene:
    """What is filmed, and how fast it should go."""

    shape: tuple[int, ...]
    n_frames: int
    bubbles: float
    goal_per_s: float


SCENES = {
    "2-D": Scene((78, 118), 800, 50.0, 1000.0),
    "3-D": Scene((64, 64, 96), 200, 900.0, 50.0),
}
GOAL_DETECTIONS_PER_S = 1e5
GOAL_GROWTH = 1.1


def simulate(scene: Scene, path: Path, *, seed: int) -> None:
    """Write a block of IQ."""
    if len(scene.shape) == 2:
        blocks = ultrasound_phantom(
            seed, n_frames=scene.n_frames, shape=scene.shape, mean_bubbles=scene.bubbles
        ).blocks
    else:
        blocks = make_iq(
            everywhere(scene, seed=seed),
            shape=scene.shape,
            n_frames=scene.n_frames,
            spacing_um=(SPACING_UM,) * 3,
            frame_rate_hz=FRAME_RATE_HZ,
            psf=PointSpread.typical(WAVELENGTH_UM),
            seed=seed,
            block_frames=20,
        )
    write_npy_blocks(path, blocks, shape=(scene.n_frames, *scene.shape), dtype="complex64")


def everywhere(scene: Scene, *, seed: int) -> BubbleTable:
    """Return bubbles that cross the volume straight, at up to 20 mm/s along each axis.

    In the simulated vessels so many would lie on top of each other, and few would be found.
    """
    rng = np.random.default_rng(seed)
    count, n_dims = round(scene.bubbles), len(scene.shape)
    size_um = np.multiply(scene.shape, SPACING_UM)
    velocity_mm_s = rng.uniform(-20, 20, (count, n_dims))
    middle_um = rng.uniform(0, 1, (count, n_dims)) * size_um
    time_s = (np.arange(scene.n_frames) - scene.n_frames / 2) / FRAME_RATE_HZ
    path_um = middle_um + 1e3 * velocity_mm_s * time_s[:, None, None]
    rows = scene.n_frames * count
    return BubbleTable(
        track=np.tile(np.arange(count), scene.n_frames),
        frame=np.repeat(np.arange(scene.n_frames), count),
        position_um=(path_um % size_um).reshape(rows, n_dims),
        velocity_mm_s=np.tile(velocity_mm_s, (scene.n_frames, 1)),
        amplitude=np.ones(rows, np.float32),
    )


@dataclass(frozen=True)
class Seconds:
    """That a part took, on the clock and of the processor."""

    clock: float
    processor: float


def now() -> Seconds:
    """Return both clocks of this process."""
    return Seconds(time.perf_counter(), time.process_time())


def chain(block: NDArray[np.complex64], localizer: str) -> tuple[dict[str, Seconds], Table]:
    """Return what each part from IQ to the map of a block took, and its detections.

    The block is overwritten.
    """
    seconds: dict[str, Seconds] = {}
    before = now()

    def lap(name: str) -> None:
        nonlocal before
        after = now()
        seconds[name] = Seconds(after.clock - before.clock, after.processor - before.processor)
        before = after

    n_dims = block.ndim - 1
    magnitude = np.abs(svd_filter(block, keep_from=10, randomized=True, overwrite=True))
    lap("clutter filter")
    half_width = 2 if localizer == "radial_symmetry" else 1
    threshold = 4 * noise_level(magnitude)
    peaks = find_peaks(magnitude, threshold=threshold, half_width=half_width, max_per_frame=1000)
    lap("detection")
    found = positions_um(
        LOCALIZERS[localizer](magnitude, peaks, half_width=half_width),
        spacing_um=(SPACING_UM,) * n_dims,
        origin_um=(0.0,) * n_dims,
    )
    lap("localization")
    tracks = track(found, n_frames=len(block))
    lap("tracking")
    # The map comes after the tracks, and is timed for itself.
    pixel_um = WAVELENGTH_UM / (10 if n_dims == 2 else 4)
    box = Box.of_shape(tuple(round(n * SPACING_UM / pixel_um) for n in block.shape[1:]))
    sums = empty_sums(box)
    accumulate(sums, tracks, box=box, pixel_um=(pixel_um,) * n_dims, origin_um=(0.0,) * n_dims)
    lap("map")
    return seconds, found


def track(found: Table, *, n_frames: int) -> Table:
    """Return smoothed tracks with velocities."""
    n_dims = sum(name.endswith("_um") for name in found)
    state, ended = advance(start(n_dims), found, stop_frame=n_frames, rule=RULE)
    last = finish(state, rule=RULE)
    tracks = {name: np.concatenate([ended[name], last[name]]) for name in ended}
    moving = add_velocities(tracks, frame_rate_hz=FRAME_RATE_HZ, sigma_frames=4.0)
    return smooth(moving, sigma_frames=4.0)


def timed_block(path: str, localizer: str, repeats: int) -> list[dict[str, Seconds]]:
    """Return what each part took in several runs, after one that compiles; in a worker."""
    block = np.load(path)
    chain(block[:60].copy(), localizer)
    return [chain(block.copy(), localizer)[0] for _ in range(repeats)]


def speed(name: str, scene: Scene, path: Path, *, cores: int, repeats: int) -> Iterator[dict]:
    """Yield a row for each localizer: one block on one core, and one on every core at once."""
    for localizer in LOCALIZER_NAMES:
        row: dict[str, float | str] = {
            "case": f"{name}, {scene.n_frames} frames of {'x'.join(map(str, scene.shape))}",
            "method": localizer,
        }
        for label, workers in (("one_core", 1), (f"{cores}_cores", cores)):
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                runs = list(
                    pool.map(
                        timed_block, [str(path)] * workers, [localizer] * workers,
                        [repeats] * workers,
                    )
                )  # fmt: skip
            # Workers run side by side for as long as the slowest does.
            median = {
                part: Seconds(
                    max(statistics.median(run[part].clock for run in worker) for worker in runs),
                    max(
                        statistics.median(run[part].processor for run in worker) for worker in runs
                    ),
                )
                for part in runs[0][0]
            }
            to_tracks = [taken for part, taken in median.items() if part != "map"]
            frames = workers * scene.n_frames
            row[f"frames_per_s_{label}"] = round(frames / sum(s.clock for s in to_tracks), 1)
            row[f"frames_per_processor_s_{label}"] = round(
                frames / sum(s.processor for s in to_tracks), 1
            )
            row |= {
                f"{part}, {label} (s, of processor)": f"{s.clock:.3f}, {s.processor:.3f}"
                for part, s in median.items()
            }
        yield row


def frame_by_frame(found: Table, assign: Callable[[Points, Points], object]) -> float:
    """Return the seconds that an assignment of each two frames takes."""
    points = positions(found)
    edges = np.flatnonzero(np.diff(found["frame"], prepend=-1, append=found["frame"][-1] + 1))
    started = time.perf_counter()
    for a, b, c in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
        assign(points[a:b], points[b:c])
    return time.perf_counter() - started


def plainly(before: Points, after: Points) -> None:
    """Assign by a dense matrix of costs."""
    cost = cdist(before, after)
    cost[cost > GATE_UM] = 1e6
    linear_sum_assignment(cost)


def sparsely(before: Points, after: Points) -> None:
    """Assign as the package does."""
    pair(before, after, gate_um=GATE_UM)


def tracking(
    name: str, scene: Scene, path: Path, folder: Path, *, peer: str | None, repeats: int
) -> Iterator[dict]:
    """Yield a row for each way to link the same detections."""
    _, found = chain(np.load(path), LOCALIZER_NAMES[1])
    n_found = len(found["frame"])

    def ours() -> float:
        started = time.perf_counter()
        track(found, n_frames=scene.n_frames)
        return time.perf_counter() - started

    def by(assign: Callable[[Points, Points], object]) -> float:
        return statistics.median(frame_by_frame(found, assign) for _ in range(repeats))

    seconds = {
        "ours, with gaps, smoothed": statistics.median(ours() for _ in range(repeats)),
        "assignment alone, ours": by(sparsely),
        "assignment alone, dense linear_sum_assignment": by(plainly),
    }
    if peer is not None:
        table = {k: v for k, v in found.items() if k == "frame" or k.endswith("_um")}
        np.savez(folder / "found.npz", **table)
        answer = subprocess.run(
            [peer, str(PEER), str(folder / "found.npz"), str(GATE_UM)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        seconds |= json.loads(answer.stdout.strip().splitlines()[-1])
    for method, value in seconds.items():
        same = method.startswith("assignment")
        ours_s = seconds["assignment alone, ours" if same else "ours, with gaps, smoothed"]
        yield {
            "case": f"{name}, tracking of {n_found} detections",
            "method": method,
            "detections_per_s": round(n_found / value),
            "times_ours": round(value / ours_s, 1),
        }


def memory_of(n_blocks: int, seed: int) -> None:
    """Run all stages on an acquisition of so many blocks, and print the peak memory; in a child."""
    block_frames, shape = 400, (78, 118)
    n_frames = n_blocks * block_frames
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "raw.npy"
        # Another process makes the acquisition: only the chain is measured.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(simulate, Scene(shape, n_frames, 50.0, 0), raw, seed=seed).result()
        config = parse_config(
            {
                "results": f"{name}/results",
                "compute": {"scheduler": "inline"},
                "ultrasound": {"clutter": {"block_frames": block_frames}},
            },
            where="benchmark",
        )
        sample = Sample(
            sample="ulm", modality="ultrasound", path=str(raw), format="iq", axes="tzx",
            spacing_um=(SPACING_UM, SPACING_UM), frame_rate_hz=FRAME_RATE_HZ,
            wavelength_um=WAVELENGTH_UM,
        )  # fmt: skip
        for stage in stages_of(sample):
            execute(Job(stage, config, sample))
    print(json.dumps({"peak_mb": round(peak_rss_bytes() / 1e6)}))


def memory(blocks: tuple[int, ...], *, seed: int) -> Iterator[dict]:
    """Yield the peak memory over the number of blocks."""
    for n_blocks in blocks:
        command = [sys.executable, __file__, "--memory-of", str(n_blocks), "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        yield {
            "case": f"memory, {n_blocks} blocks of 400 frames of 78x118",
            "method": "all stages, one process",
            **json.loads(done.stdout.strip().splitlines()[-1]),
        }


def goals(rows: list[dict], *, cores: int) -> list[dict]:
    """Return the figures that were asked for, and whether they were met."""
    found: list[tuple[str, float, str, float]] = []
    for name, scene in SCENES.items():
        key = f"frames_per_s_{cores}_cores"
        rate = next(
            r[key]
            for r in rows
            if r["case"].startswith(f"{name}, ") and r["method"] == LOCALIZER_NAMES[0]
        )
        found.append((f"{name}: frames/s on {cores} cores", rate, ">=", scene.goal_per_s))
        alone = next(
            r["detections_per_s"]
            for r in rows
            if r["case"].startswith(f"{name}, tracking") and r["method"].startswith("ours")
        )
        found.append((f"{name}: detections tracked/s", alone, ">=", GOAL_DETECTIONS_PER_S))
    peaks = [r["peak_mb"] for r in rows if "peak_mb" in r]
    found.append(
        ("peak memory, most blocks over fewest", round(peaks[-1] / peaks[0], 3), "<=", GOAL_GROWTH)
    )
    return [
        {"name": n, "value": v, "op": op, "goal": g, "met": v <= g if op == "<=" else v >= g}
        for n, v, op, g in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peer-python", help="an interpreter that has trackpy and laptrack")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Workers get one thread each, as those of the workflow.
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.memory_of is not None:
        memory_of(options.memory_of, options.seed)
        return
    repeats = 1 if options.quick else 5
    rows: list[dict] = []

    def told(more: Iterator[dict]) -> None:
        for row in more:
            print(f"{row['case']}: {row['method']}", flush=True)
            print(
                "   ", ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("case", "method"))
            )
            rows.append(row)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for dimensions, scene in SCENES.items():
            chosen = (
                Scene(scene.shape, scene.n_frames // 8, scene.bubbles, scene.goal_per_s)
                if options.quick
                else scene
            )
            path = folder / f"{dimensions}.npy"
            simulate(chosen, path, seed=options.seed)
            told(speed(dimensions, chosen, path, cores=options.cores, repeats=repeats))
            told(
                tracking(
                    dimensions, chosen, path, folder, peer=options.peer_python, repeats=repeats
                )
            )
    told(memory((1, 2) if options.quick else (4, 8, 16), seed=options.seed))
    asked = goals(rows, cores=options.cores)
    for goal in asked:
        met = "met" if goal["met"] else "MISSED"
        print(f"{met}: {goal['name']}: {goal['value']} {goal['op']} {goal['goal']}")
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    print(json.dumps({"benchmark": "ulm", "machine": machine, "results": rows, "goals": asked}))


if __name__ == "__main__":
    main()
