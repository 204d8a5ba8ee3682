"""How fast the segmenting stage is, against MONAI's sliding_window_inference in the same run.

Both show a student the same rendered volume through the same windows, with the same weights,
overlap and Gaussian blending. Ours is the stage as the workflow runs it: OME-Zarr in, probability
and candidates out, with their pyramids, a worker a core; MONAI's has the volume in memory,
normalized, and gives back probabilities in memory, with a thread a core. Imports and the start of
workers are not timed. Each runs in a process of its own, in turns; the fastest of all turns counts.
Then the same once more with half of the volume empty, as around a brain. Without ``--weights`` and
before weights ship, the weights are random: the work is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from inference_parts.weights import write_random_student

from vasculome.errors import UserError
from vasculome.simulate.phantoms import microscope_phantom
from vasculome.storage.weights import shipped

OURS, THEIRS = "vasculome", "MONAI"
PARTS = Path(__file__).parent / "inference_parts"
SPACING_UM = (4.0, 2.0, 2.0)
# Of such edges windows of 64 that share 16 cover every voxel without being shifted.
SHAPE, QUICK_SHAPE = (160, 256, 496), (64, 112, 208)
SHARD, QUICK_SHARD = 256, 128
GOALS = (
    ("voxels a second over MONAI's, tissue throughout", "speed_ratio", ">=", 3.0),
    ("voxels a second over MONAI's, half empty", "speed_ratio_half_empty", ">=", 3.0),
    ("largest difference from MONAI", "difference", "<=", 1e-3),
    ("share of time outside the network", "outside_network", "<=", 0.15),
    ("peak memory over its bound", "memory_over_bound", "<=", 1.0),
    ("teacher's time for a block over the student's", "teacher_over_student", ">=", 9.0),
)


def part(name: str, **task: Any) -> dict[str, Any]:
    """Run a part in a process of its own, and return its answer."""
    threads = str(task.get("threads", 1))
    done = subprocess.run(
        [sys.executable, str(PARTS / f"{name}.py"), json.dumps(task)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": threads, "MALLOC_ARENA_MAX": "1"},
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def volumes(shape: tuple[int, ...], seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a rendered volume, and the same without anything in its second half."""
    image, _ = microscope_phantom(seed=seed, shape=shape, spacing_um=SPACING_UM)
    yield "tissue", image
    empty = image.copy()
    half = empty[:, :, shape[2] // 2 :]
    half[...] = np.random.default_rng(seed).poisson(100, half.shape).astype(image.dtype)
    yield "half empty", empty


def measure(folder: Path, weights: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    shape = QUICK_SHAPE if options.quick else SHAPE
    shard = QUICK_SHARD if options.quick else SHARD
    rows = []
    for case, image in volumes(shape, options.seed):
        raw = folder / case / "raw"
        raw.mkdir(parents=True)
        for z, plane in enumerate(image):
            tifffile.imwrite(raw / f"plane_{z:03d}.tif", plane, photometric="minisblack")
        task = {
            "folder": str(folder / case),
            "weights": str(weights),
            "spacing_um": SPACING_UM,
            "shard": shard,
        }
        part("stage", **task, do="prepare")
        for cores in sorted({1, options.cores}):
            turns = []
            for turn in range(options.turns):
                ours = part("stage", **task, do="run", workers=cores, turn=turn)
                theirs = part("peer", **task, threads=cores)
                turns.append((ours, theirs))
            for method, found in zip((OURS, THEIRS), zip(*turns, strict=True), strict=True):
                best = min(found, key=lambda answer: answer["seconds"])
                rows.append(
                    {
                        "case": case,
                        "method": method,
                        "cores": cores,
                        **best,
                        "mvoxels_per_s": round(image.size / best["seconds"] / 1e6, 3),
                    }
                )
        difference = part("compare", **task)
        rows[-1] |= difference
    rows.append({"case": "a block of 64³", **part("blocks", turns=options.turns)})
    return rows


def goals(rows: list[dict[str, Any]], cores: int) -> list[dict[str, Any]]:
    by_case = {
        (row["case"], row["method"]): row
        for row in rows
        if row.get("cores", cores) == cores
        if "method" in row
    }
    alone = next(r for r in rows if "outside_network" in r)

    def ratio(case: str) -> float:
        ours, theirs = (by_case[case, method]["seconds"] for method in (OURS, THEIRS))
        return round(theirs / ours, 2)

    blocks = rows[-1]
    values = {
        "speed_ratio": ratio("tissue"),
        "speed_ratio_half_empty": ratio("half empty"),
        "difference": max(r["difference"] for r in rows if "difference" in r),
        "outside_network": alone["outside_network"],
        "memory_over_bound": max(r["memory_over_bound"] for r in rows if "memory_over_bound" in r),
        "teacher_over_student": round(blocks["teacher_ms"] / blocks["student_ms"], 1),
    }
    return [
        {
            "name": name,
            "value": values[key],
            "op": op,
            "goal": aim,
            "met": values[key] >= aim if op == ">=" else values[key] <= aim,
        }
        for name, key, op, aim in GOALS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--turns", type=int, default=0, help="0: three, one with --quick")
    parser.add_argument("--folder", type=Path, help="where to put files (a disk, not a RAM disk)")
    parser.add_argument("--weights", type=Path, help="of a student; else those that ship")
    options = parser.parse_args()
    options.turns = options.turns or (1 if options.quick else 3)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        weights, told = options.weights, "given"
        if weights is None:
            try:
                weights, told = shipped("student"), "shipped"
            except UserError:
                weights, told = write_random_student(Path(name) / "random.safetensors"), "random"
        rows = measure(Path(name), weights, options)
    reached = goals(rows, options.cores)
    for row in rows:
        print("  ".join(f"{key}: {value}" for key, value in row.items()))
    for goal in reached:
        verdict = "met" if goal["met"] else "MISSED"
        print(f"{goal['name']}: {goal['value']} {goal['op']} {goal['goal']}: {verdict}")
    machine = {
        "cores": os.cpu_count(),
        "used": options.cores,
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "weights": told,
    }
    print(
        json.dumps(
            {"benchmark": "inference", "machine": machine, "results": rows, "goals": reached}
        )
    )


if __name__ == "__main__":
    main()
