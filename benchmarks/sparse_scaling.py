"""What learning takes in memory and time as the field and the number of bubbles grow.

Deep-stULM, sparse and dense, in 2-D and 3-D: one learning step on one simulated movie of 128 frames
(the paper's scenes, thresholds 0.1 and 0.25 of |c|²), each in a process of its own.

- *side*: fields of more and more pixels along each axis, with as many bubbles for their size.
- *bubbles*: a field of one size with more and more bubbles.

Beside it stands the law of Rauby et al. (their Eq. 1): the positions of bubbles that a grid can
hold apart take d (ρ/αr)^d of the memory of the fine grid, with pixels of ρ wavelengths, echoes of
α = 3 wavelengths and r = 8 fine pixels a pixel. From 2-D to 3-D that ratio falls to 3/2 · ρ/αr.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

from vasculome.models.stulm import UPSCALING, StulmDesign
from vasculome.training.memory import PeakMemory
from vasculome.training.scenes import UlmScene, paper_2d, paper_3d
from vasculome.training.stulm_recipe import Sparsify, StulmRecipe

FRAMES = 128
SIDES = {(2, "dense"): (16, 32, 64), (2, "sparse"): (16, 32, 64), (3, "dense"): (8, 16),
         (3, "sparse"): (8, 16, 32)}  # fmt: skip
REFERENCE_SIDE = {2: 32, 3: 16}
REFERENCE_BUBBLES = {2: 5.0, 3: 30.0 / 8}
BUBBLES = {2: (1, 5, 10, 20), 3: (1, 4, 12, 36)}
THRESHOLD = {2: 0.1, 3: 0.25}
PRESETS = {2: paper_2d, 3: paper_3d}
ECHO_WAVELENGTHS = 3.0
"""α of the law: the extent of an echo."""


def scene_of(n_dims: int, side: int, bubbles: float) -> UlmScene:
    """Return movies of a field of so many pixels along each axis."""
    scene = PRESETS[n_dims](bubbles)
    # As much cortex a pixel as in the paper's field, whatever the size.
    whole = scene.shape_px[0]
    tissue = scene.tissue_um[0] * min(side / whole, 1.0)
    return replace(scene, shape_px=(side,) * n_dims, n_frames=FRAMES, tissue_um=(tissue, tissue))


def crowd(n_dims: int, side: int) -> float:
    """Return the bubbles of a field, in proportion to its size."""
    return REFERENCE_BUBBLES[n_dims] * (side / REFERENCE_SIDE[n_dims]) ** n_dims


def step(n_dims: int, engine: str, side: int, bubbles: float, *, seed: int) -> None:
    """Take a learning step and print what it took; in a child process."""
    torch.set_num_threads(1)
    dense = engine == "dense"
    recipe = StulmRecipe(
        StulmDesign(n_dims, engine="dense" if dense else "vasculome"),
        scene_of(n_dims, side, bubbles),
        seed=seed,
        sparsify=Sparsify("none") if dense else Sparsify("threshold", THRESHOLD[n_dims]),
        batch_size=1,
    )
    network = recipe.network()
    batch = recipe.batch(0)
    memory = PeakMemory("cpu")
    begin = time.perf_counter()
    recipe.loss(network, batch, 0).backward()
    seconds = time.perf_counter() - begin
    told = {"peak_mb": round(memory.peak_bytes() / 1e6, 1), "step_s": round(seconds, 3)}
    if not dense:
        told["sites"] = len(batch.movies)
    print(json.dumps(told))


def measured(
    group: str, n_dims: int, engine: str, side: int, bubbles: float, *, seed: int
) -> dict[str, Any]:
    """Return what a learning step takes, the median of three processes."""
    command = [sys.executable, __file__, "--step-of", f"{n_dims}:{engine}:{side}:{bubbles}"]
    done = [
        json.loads(
            subprocess.run(
                [*command, "--seed", str(seed)], capture_output=True, text=True, check=True
            ).stdout.splitlines()[-1]
        )
        for _ in range(3)
    ]
    middle = sorted(done, key=lambda d: d["peak_mb"])[1]
    middle["step_s"] = sorted(d["step_s"] for d in done)[1]
    return {
        "case": f"{n_dims}-D, {group}",
        "method": engine,
        "side_px": side,
        "bubbles": round(bubbles, 2),
        **middle,
    }


def sweep(*, quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the measurements."""
    for (n_dims, engine), sides in SIDES.items():
        for side in sides[:1] if quick else sides:
            yield measured("side", n_dims, engine, side, crowd(n_dims, side), seed=seed)
    for n_dims, counts in BUBBLES.items():
        for count in counts[:1] if quick else counts:
            yield measured(
                "bubbles", n_dims, "sparse", REFERENCE_SIDE[n_dims], float(count), seed=seed
            )


def law() -> float:
    """Return by how much the ratio of sparse and dense memory falls from 2-D to 3-D, by Eq. 1."""
    pixel = PRESETS[3]().spacing[0]
    return 3 / 2 * pixel / (ECHO_WAVELENGTHS * UPSCALING)


def ratios(rows: list[dict[str, Any]]) -> dict[int, float]:
    """Return sparse over dense memory at the largest field that both were measured on."""
    found = {}
    for n_dims in PRESETS:
        peak = {
            (r["method"], r["side_px"]): r["peak_mb"]
            for r in rows
            if r["case"] == f"{n_dims}-D, side"
        }
        shared = {s for m, s in peak if m == "dense"} & {s for m, s in peak if m == "sparse"}
        found[n_dims] = peak["sparse", max(shared)] / peak["dense", max(shared)]
    return found


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw memory and time against side and number of bubbles."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(2, 2, figsize=(9, 7), constrained_layout=True, sharex="col")
    styles = {("2-D", "dense"): "C0--o", ("2-D", "sparse"): "C0-o", ("3-D", "dense"): "C3--s",
              ("3-D", "sparse"): "C3-s"}  # fmt: skip
    for column, (group, key, name) in enumerate(
        [("side", "side_px", "pixels along an edge"), ("bubbles", "bubbles", "bubbles")]
    ):
        for row, (value, label) in enumerate(
            [
                ("peak_mb", "memory of a learning step (MB)"),
                ("step_s", "time of a learning step (s)"),
            ]
        ):
            panel = axes[row, column]
            for (dimension, method), style in styles.items():
                points = [
                    (r[key], r[value])
                    for r in rows
                    if r["case"] == f"{dimension}, {group}" and r["method"] == method
                ]
                if points:
                    panel.plot(*zip(*points, strict=True), style, label=f"{dimension}, {method}")
            panel.set(xscale="log", yscale="log", ylabel=label)
            panel.grid(alpha=0.3)
        axes[1, column].set_xlabel(name)
        axes[0, column].set_title(
            "as many bubbles for its size" if group == "side" else "field of one size"
        )
        ticks = sorted({r[key] for r in rows if r["case"].endswith(group)})
        axes[1, column].set_xticks(ticks, [f"{t:g}" for t in ticks], rotation=45)
        axes[1, column].minorticks_off()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    found = ratios(rows)
    figure.suptitle(
        f"Sparse over dense memory: {found[2]:.2f} in 2-D, {found[3]:.2f} in 3-D; "
        f"it falls to {found[3] / found[2]:.2f}, by Eq. 1 of the paper to {law():.3f}",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--picture", type=Path, help="where to draw the curves (.png)")
    parser.add_argument("--step-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step_of is not None:
        n_dims, engine, side, bubbles = options.step_of.split(":")
        step(int(n_dims), engine, int(side), float(bubbles), seed=options.seed)
        return
    rows = []
    for row in sweep(quick=options.quick, seed=options.seed):
        rows.append(row)
        rest = ", ".join(f"{k} {v}" for k, v in row.items() if k not in {"case", "method"})
        print(f"{row['case']}: {row['method']}: {rest}", flush=True)
    found = ratios(rows)
    for n_dims, ratio in found.items():
        rows.append(
            {
                "case": f"{n_dims}-D, sparse over dense memory",
                "method": "ours",
                "ratio": round(ratio, 4),
                "law_of_ideal_outputs": round(
                    n_dims
                    * (PRESETS[n_dims]().spacing[0] / (ECHO_WAVELENGTHS * UPSCALING)) ** n_dims,
                    7,
                ),
            }
        )
    fall = found[3] / found[2]
    rows.append(
        {
            "case": "fall of the ratio from 2-D to 3-D",
            "method": "ours",
            "ratio": round(fall, 4),
            "law": round(law(), 4),
            "paper": 0.026,
        }
    )
    if options.picture is not None and not math.isnan(fall):
        draw(rows[:-3], options.picture)
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "torch": torch.__version__}
    print(
        json.dumps(
            {"benchmark": "sparse_scaling", "machine": machine, "results": rows, "goals": []}
        )
    )


if __name__ == "__main__":
    main()
