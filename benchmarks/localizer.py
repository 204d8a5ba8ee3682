"""How well networks and conventional ULM find bubbles and vessels, and what learning takes.

Held-out simulated movies of the scenes of Rauby et al. (sparse Deep-stULM), in vessels that no
network has learnt from: 2-D with 1, 5, 10 and 20 bubbles in the field of view, 3-D with 1, 10 and
30. All movies of a case show the same vessels.

- *Dice*: overlap of the found and the true angiogram, each the union over the movies, on a grid of
  eight fine pixels a pixel (the paper's protocol). Methods that find bubbles are tracked first.
- *Jaccard, RMSE, bias*: bubbles found within λ/4, error of those within λ/2, and its mean along
  each axis, for the methods that keep them (optimal matching).
- *Conventional*: the brightest maxima, as many as it is told there are bubbles, a Gaussian fit and
  assignment from frame to frame. Its patch, gate and least length were chosen on the validation
  movies.
- *Memory*: the most that a training step of one movie takes, each measured in a process of its own.

Networks are those under ``--weights``, trained by ``snakemake models``, or those that ship.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from localizer_parts.conventional import angiogram, conventional_detections, tracks_of
from localizer_parts.networks import found_by
from numpy.typing import NDArray

from vasculome.metrics.localization import score_localization
from vasculome.models.stulm import UPSCALING, StulmDesign
from vasculome.stages.network_load import load_network
from vasculome.storage.weights import read_card, shipped_weights
from vasculome.training.memory import PeakMemory
from vasculome.training.movies import (
    UlmMovie,
    UlmScene,
    make_movie,
    paper_2d,
    paper_3d,
    path_target,
)
from vasculome.training.stulm_recipe import Sparsify, StulmRecipe
from vasculome.ultrasound.columns import Table, axis_names

BUBBLES = {2: (1, 5, 10, 20), 3: (1, 10, 30)}
MAX_SPEED_MM_S = {2: 30.0, 3: 60.0}
DIMENSION_NAMES = {2: "2-D", 3: "3-D"}
GOAL_BUBBLES_2D, GOAL_BUBBLES_3D = 5, 30


@dataclass(frozen=True)
class Case:
    """Test movies."""

    n_dims: int
    bubbles: int
    scene: UlmScene

    @property
    def name(self) -> str:
        return f"{DIMENSION_NAMES[self.n_dims]}, {self.bubbles} bubbles"

    def movies(self, count: int, *, seed: int) -> Iterator[UlmMovie]:
        for index in range(count):
            yield make_movie(self.scene, split="test", index=index, seed=seed)


def cases(n_dims: int, *, frames: int | None) -> list[Case]:
    """Return the test sets of a number of axes."""
    preset = {2: paper_2d, 3: paper_3d}[n_dims]
    found = [Case(n_dims, n, preset(float(n))) for n in BUBBLES[n_dims]]
    if frames is not None:
        found = [replace(c, scene=replace(c.scene, n_frames=frames)) for c in found]
    return found


class Method:
    """Finds vessels, and bubbles if it can."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find(self, movie: UlmMovie, case: Case) -> tuple[NDArray[np.bool_], Table | None]:
        """Return fine pixels of vessels, and bubbles in pixels."""
        found = conventional_detections(movie, n_bubbles=case.bubbles)
        tracks = tracks_of(movie, found, max_speed_mm_s=MAX_SPEED_MM_S[case.n_dims])
        return angiogram(movie, tracks, factor=UPSCALING), found


class Network(Method):
    """A trained network."""

    def __init__(self, path: Path) -> None:
        card = read_card(path)
        super().__init__(card["name"])
        self.network = load_network(path, sha256=card["sha256"], device="cpu")
        self.n_dims = card["arguments"]["n_dims"]
        settings = card["settings"]
        kind = settings.get("sparsify", "threshold")
        self.sparsify = Sparsify(kind, float(settings.get(kind, 0.0)))

    def find(self, movie: UlmMovie, case: Case) -> tuple[NDArray[np.bool_], Table | None]:
        return found_by(
            self.network,
            movie,
            sparsify=self.sparsify,
            max_speed_mm_s=MAX_SPEED_MM_S[case.n_dims],
        )


def measure(method: Method, case: Case, movies: int, *, seed: int) -> dict[str, Any]:
    """Return the scores of a method over the movies of a case."""
    found: NDArray[np.bool_] | None = None
    true: NDArray[np.bool_] | None = None
    kept: dict[str, list[NDArray[Any]]] = {"found": [], "at": [], "true": [], "true_at": []}
    seconds, first = 0.0, 0
    for movie in case.movies(movies, seed=seed):
        begin = time.perf_counter()
        vessels, table = method.find(movie, case)
        seconds += time.perf_counter() - begin
        target = path_target(movie, factor=UPSCALING, chunk_frames=len(movie.iq))[0]
        found = vessels if found is None else found | vessels
        true = target if true is None else true | target
        if table is not None:
            scale = np.array(movie.spacing_um) / movie.wavelength_um
            position = np.stack([table[a] for a in axis_names(case.n_dims)], axis=1)
            kept["found"].append(position * scale)
            kept["at"].append(first + table["frame"])
            kept["true"].append(movie.positions_px * scale)
            kept["true_at"].append(first + movie.bubbles.frame)
        first += len(movie.iq)
    assert found is not None
    assert true is not None
    both = np.count_nonzero(found & true)
    row: dict[str, Any] = {
        "case": case.name,
        "method": method.name,
        "dice": round(2 * both / (np.count_nonzero(found) + np.count_nonzero(true)), 4),
        "frames_per_s": round(first / seconds, 1),
    }
    if kept["found"]:
        score = score_localization(
            np.concatenate(kept["at"]),
            np.concatenate(kept["found"]),
            np.concatenate(kept["true_at"]),
            np.concatenate(kept["true"]),
            pair_distance=0.5,
            true_positive_distance=0.25,
        )
        row |= {
            "jaccard": round(score.jaccard, 4),
            "precision": round(score.precision, 4),
            "recall": round(score.recall, 4),
            "rmse_wavelengths": round(score.rmse, 4),
            "bias_wavelengths": [round(bias, 4) for bias in score.bias_axes],
        }
    return row


# Memory of learning


def variants(n_dims: int) -> dict[str, tuple[StulmDesign, Sparsify]]:
    """Return the networks whose learning is measured."""
    threshold = Sparsify("threshold", {2: 0.1, 3: 0.25}[n_dims])
    found = {
        "sparse": (StulmDesign(n_dims), threshold),
        "sparse, int. loss": (StulmDesign(n_dims, intermediate_loss=True), threshold),
        "sparse, int. loss, pruning": (
            StulmDesign(n_dims, intermediate_loss=True, pruning=True),
            threshold,
        ),
    }
    if n_dims == 2:
        found = {"dense": (StulmDesign(2, engine="dense"), Sparsify("none"))} | found
    return found


def step_memory(n_dims: int, name: str, frames: int | None, *, seed: int) -> None:
    """Take a learning step on one movie, and print its peak memory; in a child process."""
    torch.set_num_threads(1)
    design, sparsify = variants(n_dims)[name]
    case = next(
        c
        for c in cases(n_dims, frames=frames)
        if c.bubbles == (GOAL_BUBBLES_2D if n_dims == 2 else GOAL_BUBBLES_3D)
    )
    recipe = StulmRecipe(design, case.scene, seed=seed, sparsify=sparsify, batch_size=1)
    network = recipe.network()
    batch = recipe.batch(0)
    memory = PeakMemory("cpu")
    begin = time.perf_counter()
    recipe.loss(network, batch, 0).backward()
    seconds = time.perf_counter() - begin
    print(json.dumps({"peak_mb": round(memory.peak_bytes() / 1e6), "step_s": round(seconds, 2)}))


def memories(n_dims: int, *, frames: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the memory of a learning step of each network."""
    for name in variants(n_dims):
        command = [sys.executable, __file__, "--step-of", f"{n_dims}:{name}", "--seed", str(seed)]
        command += [] if frames is None else ["--frames", str(frames)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        yield {
            "case": f"{DIMENSION_NAMES[n_dims]}, learning from one movie",
            "method": name,
            **json.loads(done.stdout.strip().splitlines()[-1]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--weights", type=Path, help="folder of networks, e.g. results/models")
    parser.add_argument("--dimensions", default="2,3", help="2, 3 or both")
    parser.add_argument(
        "--movies", type=int, default=64, help="of each case in 2-D; a quarter in 3-D"
    )
    parser.add_argument("--frames", type=int, help="of a movie; as in the paper by default")
    parser.add_argument("--step-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if options.step_of is not None:
        n_dims, name = options.step_of.split(":")
        step_memory(int(n_dims), name, options.frames, seed=options.seed)
        return
    frames = 128 if options.quick and options.frames is None else options.frames
    rows: list[dict[str, Any]] = []
    for n_dims in map(int, options.dimensions.split(",")):
        movies = 2 if options.quick else max(2, options.movies // (1 if n_dims == 2 else 4))
        methods = [Method("conventional"), *networks(options.weights, n_dims)]
        for case in cases(n_dims, frames=frames):
            for method in methods:
                rows.append(measure(method, case, movies, seed=options.seed))
                told(rows[-1])
        for row in memories(n_dims, frames=frames, seed=options.seed):
            rows.append(row)
            told(row)
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "torch": torch.__version__}
    print(
        json.dumps(
            {"benchmark": "localizer", "machine": machine, "results": rows, "goals": goals(rows)}
        )
    )


def networks(folder: Path | None, n_dims: int) -> list[Method]:
    """Return the networks of a folder, or those that ship, of a number of axes."""
    paths = shipped_weights() if folder is None else sorted(folder.glob("*/*.safetensors"))
    found = [Network(path) for path in paths]
    return [network for network in found if network.n_dims == n_dims]


def told(row: dict[str, Any]) -> None:
    """Print a row as it comes."""
    rest = ", ".join(f"{k} {v}" for k, v in row.items() if k not in {"case", "method"})
    print(f"{row['case']}: {row['method']}: {rest}", flush=True)


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures that were asked for, where the networks for them are there."""
    dice = {(r["case"], r["method"]): r["dice"] for r in rows if "dice" in r}
    peak = {(r["case"], r["method"]): r["peak_mb"] for r in rows if "peak_mb" in r}
    asked: list[tuple[str, float, str, float]] = []

    def gain(case: str, better: str, worse: str) -> float | None:
        both = (case, better), (case, worse)
        if not all(key in dice for key in both):
            return None
        return round(100 * (dice[both[0]] - dice[both[1]]), 2)

    for bubbles in BUBBLES[2][1:]:
        more = gain(f"2-D, {bubbles} bubbles", "sparse_2d", "conventional")
        if more is not None:
            least = 10.0 if bubbles == GOAL_BUBBLES_2D else 0.0
            asked.append((f"2-D, {bubbles} bubbles: points above conventional", more, ">=", least))
    lost = gain("2-D, 5 bubbles", "dense_2d", "sparse_2d")
    if lost is not None:
        asked.append(("2-D, 5 bubbles: points below dense", lost, "<=", 3.0))
    learning = "2-D, learning from one movie"
    if (learning, "dense") in peak:
        part = round(peak[learning, "sparse"] / peak[learning, "dense"], 3)
        asked.append(("2-D: memory of sparse over dense", part, "<=", 0.5))
    dense_case = f"3-D, {GOAL_BUBBLES_3D} bubbles"
    if (dense_case, "sparse_3d") in dice:
        ratio = round(dice[dense_case, "sparse_3d"] / dice[dense_case, "conventional"], 2)
        asked.append(("3-D, 30 bubbles: Dice over conventional", ratio, ">=", 3.0))
    for name, case in (("2d", "2-D, 5 bubbles"), ("3d", dense_case)):
        cost = gain(case, f"sparse_{name}", f"sparse_{name}_pruned")
        if cost is not None:
            asked.append((f"{case}: points lost by pruning", cost, "<=", 3.0))
    return [
        {"name": n, "value": v, "op": op, "goal": g, "met": bool(v <= g if op == "<=" else v >= g)}
        for n, v, op, g in asked
    ]


if __name__ == "__main__":
    main()
