"""How exactly, how fast and in how much memory tiles become a volume, against multiview-stitcher.

Both put the same tiles together: a rendered light-sheet sample, and real planes cut into tiles.
Tiles lie at known places between voxels; the stage's positions, which are off by up to 2 planes
and 5 pixels, are all that is told. Then both fuse: ours from raw TIFF to the shards of an
OME-Zarr with its pyramid, light and gains corrected; the peer, at the true positions and without
correction, to its own OME-Zarr. Files are in the page cache. Each method runs in a process of its
own; imports are not timed, and memory is that of the process and its workers together (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from stitching_parts import tiles
from stitching_parts.tiles import Mosaic

PLANES = Path(__file__).parents[2] / "shared/data/microscopy/planes"
PARTS = Path(tiles.__file__).parent
OURS, THEIRS = "vasculome", "multiview-stitcher"
GOAL_RMS_PX = {"phantom": 0.10, "planes": 0.20}
GOAL_SECONDS_RATIO = 0.1
GOAL_MB_PER_S = 100
GOAL_FUSION_RATIO = 10
GOAL_GROWTH = 1.1
SAMPLE_S = 0.05


def measured(command: list[str], task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a task in a process of its own and return its answer, with the most memory it took.

    The sum over processes of what each has for itself, and once what they may share: libraries.
    """
    answer = folder / "answer.json"
    with (folder / "log.txt").open("w+") as log:
        process = subprocess.Popen(
            [*command, json.dumps(task), str(answer)], stdout=log, stderr=subprocess.STDOUT
        )
        root, together, largest, tick = psutil.Process(process.pid), 0, 0, 0
        family = [root]
        while process.poll() is None:
            if tick % 10 == 0:
                family = [root, *root.children(recursive=True)]
            memory = [m for m in map(_memory, family) if m]
            own = sum(m.rss - m.shared for m in memory)
            together = max(together, own + max((m.shared for m in memory), default=0))
            largest = max([largest, *(m.rss for m in memory)])
            tick += 1
            time.sleep(SAMPLE_S)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{task['task']} failed:\n{log.read()[-4000:]}")
    peaks = {"peak_mb": together / 1e6, "peak_mb_process": largest / 1e6}
    return {**json.loads(answer.read_text()), **peaks}


def _memory(process: psutil.Process) -> Any:
    try:
        return process.memory_info()
    except psutil.NoSuchProcess:
        return None


@dataclass(frozen=True)
class Bench:
    """Where things are, and what is run.

    ``peer`` is None where multiview-stitcher is not installed.
    """

    folder: Path
    peer: list[str] | None
    cores: int
    rounds: int

    def ours(self, **task: Any) -> dict[str, Any]:
        command = [sys.executable, str(PARTS / "ours.py")]
        return measured(command, {**task, "cores": self.cores}, self.folder)

    def theirs(self, **task: Any) -> dict[str, Any]:
        return measured(self.peer or [], {**task, "cores": self.cores}, self.folder)


def registration(bench: Bench, case: str, mosaics: list[Mosaic]) -> Iterator[dict[str, Any]]:
    """Place the tiles of every mosaic by every method, and compare with where they are."""
    task = {
        "task": "register",
        "folders": [str(mosaic.folder) for mosaic in mosaics],
        "spacing_um": mosaics[0].spacing_um,
    }
    answers = {OURS: bench.ours(**task)}
    for binning in (1, 2) if bench.peer else ():
        answers[f"{THEIRS}, bin {binning}"] = bench.theirs(**task, binning=binning)
    for method, answer in answers.items():
        runs = answer["runs"]
        errors = [m.rms_px(run["starts"]) for run, m in zip(runs, mosaics, strict=True)]
        yield {
            "case": case,
            "method": method,
            "rms_px": round(statistics.median(errors), 4),
            "rms_px_largest": round(max(errors), 4),
            "seconds": round(statistics.median(run["seconds"] for run in runs), 3),
            "seconds_first": round(runs[0]["seconds"], 3),
            "cpu_s": round(statistics.median(run["cpu_s"] for run in runs), 3),
            "peak_mb": round(answer["peak_mb"], 1),
        }


def fusion(bench: Bench, mosaics: list[Mosaic]) -> Iterator[dict[str, Any]]:
    """Fuse mosaics of growing size by our stages, and the largest by the peer, once."""
    for number, mosaic in enumerate(mosaics):
        row = fuse_ours(bench, mosaic, warm_up=number == 0)
        yield row
    if bench.peer:
        yield {"case": row["case"], **fuse_theirs(bench, mosaic)}


def fuse_ours(bench: Bench, mosaic: Mosaic, *, warm_up: bool) -> dict[str, Any]:
    """Run the stages up to fusion on a mosaic, the last of them several times."""
    before, out = bench.folder / "before", bench.folder / "out"
    task = {"folder": str(mosaic.folder), "spacing_um": mosaic.spacing_um, "out": str(out)}
    took = bench.ours(task="prepare", **task)
    out.rename(before)
    runs = []
    for _ in range(bench.rounds + warm_up):
        shutil.copytree(before, out)
        runs.append(bench.ours(task="fuse", **task))
        shutil.rmtree(out)
    shutil.rmtree(before)
    # The first of all compiles, and fills the page cache.
    row = _speed_and_peak(runs[warm_up:])
    seconds = {f"{k}_s": round(v, 2) for k, v in took.items() if not k.startswith("peak")}
    return {"case": f"{runs[0]['megabytes'] / 1000:.2f} GB", "method": OURS, **row, **seconds}


def fuse_theirs(bench: Bench, mosaic: Mosaic) -> dict[str, Any]:
    """Fuse a mosaic at its true positions, once: it takes minutes."""
    out = bench.folder / "out"
    task = {
        "folder": str(mosaic.folder),
        "positions_um": (mosaic.starts * mosaic.spacing_um).tolist(),
        "spacing_um": mosaic.spacing_um,
        "out": str(out),
    }
    run = bench.theirs(task="fuse", **task)
    shutil.rmtree(out)
    return {"method": THEIRS, **_speed_and_peak([run])}


def _speed_and_peak(runs: list[dict[str, Any]]) -> dict[str, float]:
    megabytes = runs[0]["megabytes"]
    seconds = statistics.median(run["seconds"] for run in runs)
    peaks = {k: round(max(run[k] for run in runs), 1) for k in ("peak_mb", "peak_mb_process")}
    return {"seconds": round(seconds, 2), "mb_per_s": round(megabytes / seconds, 1), **peaks}


def goals(placed: list[dict[str, Any]], fused: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return what was asked for; what needs the peer has no value where there is none."""
    for case in dict.fromkeys(row["case"] for row in placed):
        ours, *theirs = (row for row in placed if row["case"] == case)
        yield goal(f"{case}: largest rms_px", ours["rms_px_largest"], "<=", GOAL_RMS_PX[case])
        for k, binning in enumerate((1, 2)):
            ratio = ours["seconds"] / theirs[k]["seconds"] if theirs else None
            name = f"{case}: seconds, ours / the peer's at bin {binning}"
            yield goal(name, ratio, "<=", GOAL_SECONDS_RATIO)
        ratio = ours["peak_mb"] / min(row["peak_mb"] for row in theirs) if theirs else None
        yield goal(f"{case}: peak memory, ours / the peer's", ratio, "<=", 1)
    ours_fused = [row for row in fused if row["method"] == OURS]
    peer = next((row for row in fused if row["method"] == THEIRS), None)
    # In a volume narrower than a slab no slab is full.
    half, last = ours_fused[-2], ours_fused[-1]
    yield goal("fusion: MB/s, largest volume", last["mb_per_s"], ">=", GOAL_MB_PER_S)
    ratio = last["mb_per_s"] / peer["mb_per_s"] if peer else None
    yield goal("fusion: MB/s, ours / the peer's", ratio, ">=", GOAL_FUSION_RATIO)
    ratio = last["peak_mb"] / peer["peak_mb"] if peer else None
    yield goal("fusion: peak memory, ours / the peer's", ratio, "<=", 1)
    growth = last["peak_mb"] / half["peak_mb"]
    yield goal("fusion: peak memory, largest volume / half of it", growth, "<=", GOAL_GROWTH)


def goal(name: str, value: float | None, op: str, aim: float) -> dict[str, Any]:
    met = None
    if value is not None:
        value = round(value, 4)
        met = value <= aim if op == "<=" else value >= aim
    return {"name": name, "value": value, "op": op, "goal": aim, "met": met}


def print_rows(rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    widths = [max(len(str(row.get(c, ""))) for row in [*rows, {c: c}]) for c in columns]
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        cells = (str(row.get(c, "")) for c in columns)
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(cells, widths, strict=True)).rstrip())
    print()


def find_peer(python: str) -> tuple[list[str] | None, str | None]:
    """Return how to run the peer's part, and its version; None where it is not installed."""
    command = [python, str(PARTS / "peer.py")]
    found = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return command, found.stdout.strip()
    reason = (found.stderr.strip().splitlines() or ["no output"])[-1]
    print(f"{THEIRS} is not measured: {python}: {reason}")
    return None, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="where to put files (a disk, not a RAM disk)")
    parser.add_argument("--planes", type=Path, default=PLANES, help="real planes, one TIFF each")
    parser.add_argument("--peer-python", default=sys.executable, help=f"that has {THEIRS}")
    options = parser.parse_args()
    peer, version = find_peer(options.peer_python)
    rounds = 1 if options.quick else 5
    shape = (64, 128, 128) if options.quick else (64, 512, 512)
    fused_shape = (64, 128, 128) if options.quick else (256, 400, 400)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        bench = Bench(Path(name), peer, options.cores, rounds)
        light = tiles.phantom_light(tiles.needed((1, 2, 2), shape), options.seed)
        cases = {"phantom": (light, tiles.PHANTOM_UM, tiles.photograph)}
        if options.planes.is_dir():
            cases["planes"] = (tiles.read_planes(options.planes), tiles.PLANES_UM, tiles.cut_planes)
        else:
            print(f"real planes are not measured: {options.planes} does not exist")
        placed = []
        for case, (image, spacing_um, expose) in cases.items():
            mosaics = [
                tiles.cut_mosaic(
                    bench.folder / case / str(k),
                    image,
                    spacing_um,
                    expose=expose,
                    seed=options.seed + k,
                )
                for k in range(rounds)
            ]
            placed += registration(bench, case, mosaics)
            shutil.rmtree(bench.folder / case)
        largest = tiles.unevenly_lit_mosaic(
            bench.folder / "4x4", light, counts=(4, 4), shape=fused_shape, seed=options.seed
        )
        grid = np.arange(16).reshape(4, 4)
        smaller = [
            tiles.part_of(largest, bench.folder / f"2x{n}", grid[:2, :n].ravel()) for n in (2, 4)
        ]
        fused = list(fusion(bench, [*smaller, largest]))
    reached = list(goals(placed, fused))
    print_rows(placed, list(placed[0]))
    print_rows(fused, list(fused[0]))
    for g in reached:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[g["met"]]
        print(f"{g['name']}: {g['value']} {g['op']} {g['goal']}: {verdict}")
    machine = {
        "cores": os.cpu_count(),
        "used": options.cores,
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "peer": version,
    }
    results = [*placed, *fused]
    print(
        json.dumps(
            {"benchmark": "stitching", "machine": machine, "results": results, "goals": reached}
        )
    )


if __name__ == "__main__":
    main()
