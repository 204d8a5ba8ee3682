"""How fast the segmenting stage is, against MONAI's sliding_window_inference in the same run.

Both show a student the same rendered volume through the same windows, with the same weights,
overlap and Gaussian blending. Ours is the stage as the workflow runs it: OME-Zarr in, probability
and candidates out, with their pyramids, a worker a core; MONAI's has the volume in memory,
normalized, and gives back probabilities in memory, with a thread a core. Imports and the start of
workers are not timed. Each runs in a process of its own, in turns; the fastest of all turns counts.
Then the same once more with half of the volume empty along y, as around a brain, and once with a
volume of three shards along each axis, at whose borders both sides ask about windows.

With ``--device cuda`` all networks compute there in half precision, and the student alone is set
against the device's roofline, whose peaks are measured where they are not given. What one device
cannot tell is printed as not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from vasculome.compute.device import pick_device
from vasculome.errors import UserError
from vasculome.simulate.phantoms import microscope_phantom
from vasculome.storage.weights import shipped

OURS, THEIRS = "vasculome", "MONAI"
PARTS = Path(__file__).parent / "inference_parts"
SPACING_UM = (4.0, 2.0, 2.0)
# Of such edges windows of 64 that share 16 cover every voxel without being shifted.
SHAPE, QUICK_SHAPE = (160, 256, 496), (64, 112, 208)
SHARD, QUICK_SHARD = 256, 128
TILES, QUICK_TILES = (736, 736, 736), (160, 160, 160)
TILES_SHARD, QUICK_TILES_SHARD = 256, 64
TISSUE, HALF, MANY = "tissue", "half empty", "three shards an axis"
CPU, CUDA, BOTH = ("cpu",), ("cuda",), ("cpu", "cuda")
# What it is, of which figure, how much is asked, and on what.
GOALS = (
    ("processor: voxels a second over MONAI's, tissue throughout", TISSUE, ">=", 3.0, CPU),
    ("processor: voxels a second over MONAI's, half empty", HALF, ">=", 3.0, CPU),
    ("processor: voxels a second over MONAI's, three shards an axis", MANY, ">=", 3.0, CPU),
    ("largest difference from MONAI", "difference", "<=", 1e-3, BOTH),
    ("share of time outside the network", "outside_network", "<=", 0.15, BOTH),
    ("peak memory over its bound", "memory_over_bound", "<=", 1.0, BOTH),
    ("teacher's time for a block over the student's", "teacher_over_student", ">=", 9.0, BOTH),
    ("GPU: millions of voxels a second of the student", "mvoxels_per_s", ">=", 1000.0, CUDA),
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


@dataclass(frozen=True)
class Case:
    """A volume, and how it is gone over."""

    name: str
    image: np.ndarray
    shard: int
    cores: tuple[int, ...]
    turns: int
    compared: bool


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield a rendered volume, the same with half of it empty, and a larger one of its images."""
    shape, shard = (QUICK_SHAPE, QUICK_SHARD) if options.quick else (SHAPE, SHARD)
    image, _ = microscope_phantom(seed=options.seed, shape=shape, spacing_um=SPACING_UM)
    cores, turns = tuple(sorted({1, options.cores})), options.turns
    yield Case(TISSUE, image, shard, cores, turns, compared=True)
    empty = image.copy()
    # Along y, so that both workers have as much to do: a large volume has blocks enough for that.
    half = empty[:, shape[1] // 2 :]
    half[...] = np.random.default_rng(options.seed).poisson(100, half.shape).astype(image.dtype)
    yield Case(HALF, empty, shard, cores, turns, compared=True)
    large = QUICK_TILES if options.quick else TILES
    beyond = [(0, max(0, n - m)) for n, m in zip(large, shape, strict=True)]
    image = np.pad(image, beyond, "symmetric")[tuple(slice(n) for n in large)]
    shard = QUICK_TILES_SHARD if options.quick else TILES_SHARD
    # Its differences from MONAI would be those of the others, and one turn is long enough.
    yield Case(MANY, image, shard, cores[-1:], 1, compared=False)


def measure(folder: Path, weights: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for case in cases(options):
        raw = folder / case.name / "raw"
        raw.mkdir(parents=True)
        for z, plane in enumerate(case.image):
            tifffile.imwrite(raw / f"plane_{z:03d}.tif", plane, photometric="minisblack")
        task = {
            "folder": str(folder / case.name),
            "weights": str(weights),
            "spacing_um": SPACING_UM,
            "shard": case.shard,
            "device": options.device,
        }
        part("stage", **task, do="prepare")
        for cores in case.cores:
            turns = []
            for turn in range(case.turns):
                ours = part("stage", **task, do="run", workers=cores, turn=turn)
                theirs = part("peer", **task, threads=cores)
                turns.append((ours, theirs))
            for method, found in zip((OURS, THEIRS), zip(*turns, strict=True), strict=True):
                best = min(found, key=lambda answer: answer["seconds"])
                rows.append(
                    {
                        "case": case.name,
                        "method": method,
                        "cores": cores,
                        **best,
                        "mvoxels_per_s": round(case.image.size / best["seconds"] / 1e6, 3),
                    }
                )
        if case.compared:
            rows[-1] |= part("compare", **task)
        shutil.rmtree(folder / case.name)
    peaks = {"peak_tflops": options.peak_tflops, "peak_gb_per_s": options.peak_gb_per_s}
    blocks = part("blocks", turns=options.turns, device=options.device, **peaks)
    rows.append({"case": "a block of 64³", **blocks})
    return rows


def goals(rows: list[dict[str, Any]], *, cores: int, device: str) -> list[dict[str, Any]]:
    """Return what was reached of each goal; a value of None is not measured on this device."""
    seconds = {
        (row["case"], row["method"]): row["seconds"]
        for row in rows
        if "method" in row and row["cores"] == cores
    }
    *_, blocks = rows
    values = {
        case: round(seconds[case, THEIRS] / seconds[case, OURS], 2) for case in (TISSUE, HALF, MANY)
    }
    values |= {
        "difference": max(r["difference"] for r in rows if "difference" in r),
        "outside_network": next(r["outside_network"] for r in rows if "outside_network" in r),
        "memory_over_bound": max(r["memory_over_bound"] for r in rows if "memory_over_bound" in r),
        "teacher_over_student": round(blocks["teacher_ms"] / blocks["student_ms"], 1),
        "mvoxels_per_s": blocks.get("mvoxels_per_s"),
    }
    reached = []
    for name, key, op, aim, devices in GOALS:
        value = values[key] if device in devices else None
        met = None if value is None else value >= aim if op == ">=" else value <= aim
        reached.append({"name": name, "value": value, "op": op, "goal": aim, "met": met})
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=BOTH, default="cpu", help="where networks compute")
    parser.add_argument("--peak-tflops", type=float, help="of a GPU in half precision")
    parser.add_argument("--peak-gb-per-s", type=float, help="of a GPU's memory")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--turns", type=int, default=0, help="0: three, one with --quick")
    parser.add_argument("--folder", type=Path, help="where to put files (a disk, not a RAM disk)")
    parser.add_argument("--weights", type=Path, help="of a student; else those that ship")
    options = parser.parse_args()
    options.turns = options.turns or (1 if options.quick else 3)
    try:
        pick_device(options.device)
    except UserError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        rows = measure(Path(name), options.weights or shipped("student"), options)
    reached = goals(rows, cores=options.cores, device=options.device)
    for row in rows:
        print("  ".join(f"{key}: {value}" for key, value in row.items()))
    for goal in reached:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[goal["met"]]
        print(f"{goal['name']}: {goal['value']} {goal['op']} {goal['goal']}: {verdict}")
    machine = {
        "cores": os.cpu_count(),
        "used": options.cores,
        "device": options.device,
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "weights": "given" if options.weights else "shipped",
    }
    print(
        json.dumps(
            {"benchmark": "inference", "machine": machine, "results": rows, "goals": reached}
        )
    )


if __name__ == "__main__":
    main()
