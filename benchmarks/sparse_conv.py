"""How fast sparse convolutions are, and in how much memory, against MinkowskiEngine.

The same points, features and weights go through one convolution of either engine. Points lie
along trajectories (straight lines in time, two pixels wide, as bubbles leave them) or anywhere. A
cold pass makes the tensor and its kernel map anew, a warm one has both. Each engine runs in
processes of its own, in turns, after a first pass that compiles and loads; of all passes the
quickest counts, since other programs can only slow one down. Seconds are of the processor and of
the clock; peak memory is what a pass adds to the process (Linux), on CUDA what torch allocates.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from vasculome.sparse import backend

CASES: dict[str, dict[str, Any]] = {
    "2-D+T": {"shape": (128, 128, 64), "points": 20_000, "channels": 32},
    "3-D+T": {"shape": (64, 64, 64, 32), "points": 50_000, "channels": 16},
}
SITES = ("trajectories", "uniform")
OURS, THEIRS, DENSE = "vasculome", "minkowski", "dense"
PASSES = ("cold forward", "cold both", "warm forward", "warm both")
GOAL_COLD, GOAL_WARM, GOAL_MEMORY = 1.5, 1.0, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--dense", action="store_true", help="dense convolutions on the CPU too")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(measure(**json.loads(options.task))))
        return

    devices = ["cpu", *(["cuda"] if has_cuda() else [])]
    peer = has_minkowski()
    if not peer:
        print("MinkowskiEngine is not measured: `make minkowski` builds it")
    methods = [(OURS, device) for device in devices] + [(THEIRS, "cpu")] * peer
    methods += [(DENSE, device) for device in devices if options.dense or device == "cuda"]
    results = []
    for case, sites in ((case, sites) for case in CASES for sites in SITES):
        task = {"case": case, "sites": sites, "seed": options.seed, "quick": options.quick}
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {method: [] for method in methods}
        for _ in range(1 if options.quick else 3):
            for method, device in methods:
                command = {**task, "method": method, "device": device, "threads": options.threads}
                runs[method, device].append(run(command))
        for (method, device), answers in runs.items():
            results.append({"case": f"{case}, {sites}", "method": f"{method} {device}"})
            for name in answers[0]:
                results[-1][name] = min(answer[name] for answer in answers)
    print_rows(results)
    reached = list(goals(results))
    for goal in reached:
        verdict = "met" if goal["met"] else "MISSED"
        print(f"{goal['name']}: {goal['value']} {goal['op']} {goal['goal']}: {verdict}")
    machine = {
        "cores": os.cpu_count(),
        "threads": options.threads,
        "processor": platform.processor() or platform.machine(),
        "gpu": torch.cuda.get_device_name() if "cuda" in devices else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peer": "MinkowskiEngine 0.5.4" if peer else None,
    }
    answer = {"benchmark": "sparse_conv", "machine": machine, "results": results, "goals": reached}
    print(json.dumps(answer))


def has_cuda() -> bool:
    return torch.cuda.is_available()


def has_minkowski() -> bool:
    command = [sys.executable, "-c", "from vasculome.sparse import backend; backend('minkowski')"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Measure in a process of its own, whose number of threads is set before it starts."""
    threads = str(task["threads"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, __file__, "--task", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{task} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(
    *, case: str, sites: str, seed: int, quick: bool, method: str, device: str, threads: int
) -> dict[str, Any]:
    """Return seconds and bytes of one method's passes, in this process."""
    torch.set_num_threads(threads)
    shape, count, channels = (CASES[case][name] for name in ("shape", "points", "channels"))
    if quick:
        shape, count = tuple(n // 4 for n in shape), count // 50
    generator = torch.Generator().manual_seed(seed)
    place = {"uniform": uniform, "trajectories": trajectories}[sites]
    coordinates = place(shape, count, generator)
    features = torch.randn(len(coordinates), channels, generator=generator)
    kernel = torch.randn(3 ** len(shape), channels, channels, generator=generator)
    kernel /= math.sqrt(len(kernel) * channels)
    make = dense_passes if method == DENSE else sparse_passes
    passes = make(
        coordinates.to(device), features.to(device), kernel.to(device), shape=shape, method=method
    )
    answer: dict[str, Any] = {"points": len(coordinates)}
    for name, action in passes.items():
        action()
        answer[f"{name} peak_mb"] = round(peak_bytes(action, device) / 1e6, 2)
        walls, processors = [], []
        for _ in range(2 if quick else 7):
            wall, processor = time.perf_counter(), time.process_time()
            action()
            synchronize(device)
            walls.append(time.perf_counter() - wall)
            processors.append(time.process_time() - processor)
        answer[f"{name} cpu_ms"] = round(1e3 * min(processors), 2)
        answer[f"{name} wall_ms"] = round(1e3 * min(walls), 2)
    return answer


def sparse_passes(
    coordinates: Any, features: Any, kernel: Any, *, shape: tuple[int, ...], method: str
) -> dict[str, Callable[[], None]]:
    """Return the passes of a sparse engine."""

    engine = backend(method)
    channels = features.shape[1]
    layer = engine.Convolution(channels, channels, kernel_size=3, dimension=len(shape))
    layer.to(features.device).load_state_dict({"kernel": kernel})

    def tensor() -> Any:
        return engine.SparseTensor.from_points(coordinates, features.clone().requires_grad_())

    ready = tensor()
    warm = ready.with_features(ready.features.detach().requires_grad_())

    def forward(x: Any) -> None:
        with torch.no_grad():
            layer(x)

    def both(x: Any) -> None:
        layer(x).features.square().sum().backward()

    return {
        "cold forward": lambda: forward(tensor()),
        "cold both": lambda: both(tensor()),
        "warm forward": lambda: forward(warm),
        "warm both": lambda: both(warm),
    }


def dense_passes(
    coordinates: Any, features: Any, kernel: Any, *, shape: tuple[int, ...], method: str
) -> dict[str, Callable[[], None]]:
    """Return the passes of a dense convolution; there is nothing cold about it."""
    channels = features.shape[1]
    dense = torch.zeros(1, channels, *shape, device=features.device)
    dense.movedim(1, -1)[tuple(coordinates.long().unbind(1))] = features
    by_axis = kernel.reshape(*(3,) * len(shape), channels, channels)
    weight = by_axis.permute(-1, -2, *reversed(range(len(shape)))).contiguous()
    dense.requires_grad_()
    weight.requires_grad_()

    def convolution() -> Any:
        if len(shape) == 3:
            return torch.nn.functional.conv3d(dense, weight, padding=1)
        # Time is the last axis: three convolutions of space, each one frame later.
        frames = torch.nn.functional.pad(dense, (1, 1)).movedim(-1, 1)[0]
        parts = [
            torch.nn.functional.conv3d(frames[k : k + shape[-1]], weight[..., k], padding=1)
            for k in range(3)
        ]
        return parts[0] + parts[1] + parts[2]

    def forward() -> None:
        with torch.no_grad():
            convolution()

    def both() -> None:
        convolution().square().sum().backward()

    return {"warm forward": forward, "warm both": both}


def uniform(shape: tuple[int, ...], count: int, generator: Any) -> Any:
    """Return points (n, 1 + D) drawn without repetition, in no order."""
    flat = torch.randperm(math.prod(shape), generator=generator)[:count]
    columns = []
    for length in reversed(shape):
        columns.append(flat % length)
        flat = flat // length
    return torch.stack([flat, *columns[::-1]], dim=1).int()


def trajectories(shape: tuple[int, ...], count: int, generator: Any) -> Any:
    """Return points (n, 1 + D) along lines in time, the last axis, in no order."""
    *space, frames = shape
    limits = torch.tensor(shape)
    corners = torch.cartesian_prod(*[torch.arange(2)] * len(space))
    found = torch.empty((0, 1 + len(shape)), dtype=torch.int64)
    while len(found) < count:
        length = int(torch.randint(frames // 8, frames + 1, (1,), generator=generator))
        begin = int(torch.randint(0, frames - length + 1, (1,), generator=generator))
        start = torch.rand(len(space), generator=generator) * torch.tensor(space)
        step = 0.5 * torch.randn(len(space), generator=generator)
        t = torch.arange(begin, begin + length)
        line = (start + step * (t - begin)[:, None]).floor().long()
        wide = (line[:, None] + corners).flatten(0, 1)
        rows = torch.cat([wide, t.repeat_interleave(len(corners))[:, None]], dim=1)
        rows = rows[((rows >= 0) & (rows < limits)).all(1)]
        rows = torch.cat([torch.zeros(len(rows), 1, dtype=torch.int64), rows], dim=1)
        found = torch.cat([found, rows]).unique(dim=0)
    return found[torch.randperm(len(found), generator=generator)[:count]].int()


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(action: Callable[[], None], device: str) -> float:
    """Return what ``action`` takes at most beyond what is held before, NaN where unknown."""
    gc.collect()
    if device == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        synchronize(device)
        return float(torch.cuda.max_memory_allocated() - before)
    if sys.platform != "linux":
        action()
        return math.nan
    # Memory that was freed goes back to the system first, or it would hide what is taken.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    action()
    return float(_status("VmHWM") - before)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}")


def goals(results: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the figures that were asked for: the CPU of both engines, in every case."""
    theirs = {row["case"]: row for row in results if row["method"] == f"{THEIRS} cpu"}
    for row in results:
        if row["method"] != f"{OURS} cpu" or row["case"] not in theirs:
            continue
        peer = theirs[row["case"]]
        for name in PASSES:
            goal = GOAL_COLD if name.startswith("cold") else GOAL_WARM
            value = round(peer[f"{name} cpu_ms"] / row[f"{name} cpu_ms"], 2)
            yield {
                "name": f"{row['case']}: {name}, times as fast",
                "value": value,
                "op": ">=",
                "goal": goal,
                "met": value >= goal,
            }
        for name in PASSES:
            value = round(row[f"{name} peak_mb"] / peer[f"{name} peak_mb"], 2)
            yield {
                "name": f"{row['case']}: {name}, memory ratio",
                "value": value,
                "op": "<=",
                "goal": GOAL_MEMORY,
                "met": value <= GOAL_MEMORY,
            }


def print_rows(rows: list[dict[str, Any]]) -> None:
    print(f"{'case':22} {'method':16} {'pass':14} {'cpu ms':>9} {'wall ms':>9} {'peak MB':>9}")
    for row in rows:
        for name in PASSES:
            if f"{name} cpu_ms" in row:
                figures = (row[f"{name} {unit}"] for unit in ("cpu_ms", "wall_ms", "peak_mb"))
                cells = " ".join(f"{figure:9.2f}" for figure in figures)
                print(f"{row['case']:22} {row['method']:16} {name:14} {cells}")


if __name__ == "__main__":
    main()
