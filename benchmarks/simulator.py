"""How fast the ultrasound simulator makes acquisitions, part by part, on one core and two.

A frame of 78 x 118 pixels of λ/2 with 50 bubbles, and a volume of 32³ voxels of λ/2 with 30, each
with moving tissue and noise. Bubbles flow in a simulated artery and vein, and on a map where the
maps come from them. Echoes are the Gaussian formula's, and those of a bank by depth: PyMUST's where
it is installed, else a Gaussian one of the same size. "anew, to disk" grows new vessels, makes the
scanner and writes IQ and truth to a file besides: all but the bank, which is made once. Every rate
is the best of several runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vasculome.errors import UserError
from vasculome.simulate.acquisition import Scanner, simulate_acquisition
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import PointSpread, Psf, add_echoes
from vasculome.simulate.flow import flow_blocks
from vasculome.simulate.flow_field import FlowField, flow_field
from vasculome.simulate.map_flow import map_flow_blocks
from vasculome.simulate.noise import complex_noise
from vasculome.simulate.phantoms import artery_and_vein, ultrasound_phantom
from vasculome.simulate.psf_bank import PsfBank
from vasculome.simulate.psf_pymust import LinearArray, simulate_bank
from vasculome.simulate.speckle import Tissue, TissueMotion
from vasculome.simulate.trees import VesselGraph
from vasculome.storage.raw_files import write_acquisition

ARRAY = LinearArray()
WAVELENGTH_UM = ARRAY.wavelength_um
FRAME_RATE_HZ = 1000.0
BLOCK_FRAMES = 100
SCENES = {"2-D": ((78, 118), 50.0, 800), "3-D": ((32, 32, 32), 30.0, 512)}
GOAL_FRAMES_PER_S = 500


def bank_2d(shape: tuple[int, ...]) -> tuple[str, PsfBank]:
    """Return PyMUST's echoes at five depths of the frame, or Gaussian ones without it."""
    depth_um = np.linspace(10, 10 + shape[0] / 2, 5) * WAVELENGTH_UM
    try:
        started = time.perf_counter()
        bank = simulate_bank(ARRAY, depth_um=depth_um.tolist())
    except UserError:
        return "Gaussian bank", gaussian_bank(depth_um, (24, 48))
    seconds = time.perf_counter() - started
    print(f"PyMUST: {seconds / len(depth_um):.2f} s an echo, {len(depth_um)} echoes, once")
    return "PyMUST bank", bank


def gaussian_bank(depth_um: NDArray[np.float64], half: tuple[int, ...]) -> PsfBank:
    """Return the echoes of the formula as a bank, sampled at λ/8."""
    psf = PointSpread.typical(WAVELENGTH_UM)
    step = WAVELENGTH_UM / 8
    away = np.meshgrid(*(step * np.arange(-n, n + 1) for n in half), indexing="ij")
    echoes = []
    for depth in depth_um:
        lateral = psf.lateral_sigma_um + psf.lateral_growth * depth
        square = (away[0] / psf.axial_sigma_um) ** 2 + sum((a / lateral) ** 2 for a in away[1:])
        echoes.append(np.exp(-0.5 * square + 1j * psf.carrier_rad_um * away[0]))
    return PsfBank(depth_um, np.array(echoes, np.complex64), (step,) * len(half))


def best_rate(n_frames: int, run: Callable[[], object], repeats: int) -> float:
    """Return frames a second in the fastest of some runs, after one that compiles."""
    run()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return round(n_frames / min(seconds), 1)


def vessels_and_map(seed: int, shape: tuple[int, ...]) -> tuple[VesselGraph, FlowField]:
    """Return vessels, and the flow field inferred from a map of bubbles in them."""
    phantom = ultrasound_phantom(
        seed, n_frames=2000, shape=shape, mean_bubbles=100, wavelength_um=WAVELENGTH_UM
    )
    pixel_um = WAVELENGTH_UM / (10 if len(shape) == 2 else 4)
    edges = [np.arange(0, n * WAVELENGTH_UM / 2 + pixel_um, pixel_um) for n in shape]
    density = np.histogramdd(phantom.bubbles.position_um, edges)[0]
    speed = np.linalg.norm(phantom.bubbles.velocity_mm_s, axis=1)
    total = np.histogramdd(phantom.bubbles.position_um, edges, weights=speed)[0]
    mean_speed = total / np.maximum(density, 1)
    field = flow_field(density, mean_speed, pixel_um=(pixel_um,) * len(shape))
    return phantom.vessels, field


def parts(options: argparse.Namespace, name: str) -> Iterator[dict]:
    """Yield a row for each part and for whole acquisitions of one scene."""
    shape, mean_bubbles, n_frames = SCENES[name]
    n_frames = 100 if options.quick else n_frames
    repeats = 1 if options.quick else 5
    spacing_um = (WAVELENGTH_UM / 2,) * len(shape)
    grid = {"shape": shape, "spacing_um": spacing_um, "frame_rate_hz": FRAME_RATE_HZ}
    graph, field = vessels_and_map(options.seed, shape)
    flow = {
        "n_frames": n_frames,
        "frame_rate_hz": FRAME_RATE_HZ,
        "mean_bubbles": mean_bubbles,
        "seed": options.seed,
        "lifetime_s": 0.4,
        "block_frames": BLOCK_FRAMES,
    }
    bubbles = list(flow_blocks(graph, **flow))
    depth_um = np.linspace(0, shape[0] / 2 * WAVELENGTH_UM, 3)
    bank_name, bank = (
        bank_2d(shape) if len(shape) == 2 else ("Gaussian bank", gaussian_bank(depth_um, (20,) * 3))
    )
    psfs: dict[str, Psf] = {
        "formula": PointSpread.typical(WAVELENGTH_UM),
        bank_name: bank.stamps(spacing_um),
    }
    case = f"{name}, {' x '.join(map(str, shape))}, {mean_bubbles:.0f} bubbles a frame"

    def row(method: str, cores: int, run: Callable[[], object]) -> dict:
        rate = best_rate(n_frames, run, repeats)
        return {"case": case, "method": method, "cores": cores, "frames_per_s": rate}

    yield row("flow in vessels", 1, lambda: list(flow_blocks(graph, **flow)))
    yield row("flow on a map", 1, lambda: list(map_flow_blocks(field, **flow)))
    for psf_name, psf in psfs.items():
        yield row(f"echoes, {psf_name}", 1, lambda psf=psf: draw(bubbles, psf, grid))
    tissue = Tissue(
        shape,
        spacing_um=spacing_um,
        psf=psfs["formula"],
        frame_rate_hz=FRAME_RATE_HZ,
        motion=TissueMotion(),
        rng=np.random.default_rng(options.seed),
    )
    yield row("tissue", 1, lambda: [tissue.frame(i) for i in range(n_frames)])
    for kind, sigma_px in (("white", 0.0), ("smooth", 1.5)):
        yield row(
            f"noise, {kind}",
            1,
            lambda sigma_px=sigma_px: [
                complex_noise(shape, seed=options.seed, frame=i, sigma_px=sigma_px)
                for i in range(n_frames)
            ],
        )
    acquisition = {key: flow[key] for key in ("n_frames", "mean_bubbles", "block_frames")}
    for psf_name, psf in psfs.items():
        scanner = Scanner(**grid, psf=psf, seed=options.seed)
        for cores in (1, 2):
            yield row(
                f"all, {psf_name}",
                cores,
                lambda scanner=scanner, cores=cores: acquire(graph, scanner, acquisition, cores),
            )
        yield row(
            f"anew, to disk, {psf_name}", 2, lambda psf=psf: write_anew(psf, grid, acquisition)
        )


def draw(tables: list[BubbleTable], psf: Psf, grid: dict) -> None:
    for number, table in enumerate(tables):
        iq = np.zeros((BLOCK_FRAMES, *grid["shape"]), np.complex64)
        first = number * BLOCK_FRAMES
        add_echoes(iq, table, first_frame=first, spacing_um=grid["spacing_um"], psf=psf)


def acquire(graph: VesselGraph, scanner: Scanner, acquisition: dict, threads: int) -> None:
    """Make all frames from flow to noise, block by block, and let each go."""
    for _ in simulate_acquisition(graph, scanner, **acquisition, threads=threads):
        pass


def write_anew(psf: Psf, grid: dict, acquisition: dict) -> None:
    """Grow vessels, make a scanner and all frames, and write them and their truth."""
    field_um = np.multiply(grid["shape"], grid["spacing_um"])
    graph = artery_and_vein(field_um, rng=np.random.default_rng(0))
    scanner = Scanner(**grid, psf=psf, seed=0)
    blocks = simulate_acquisition(graph, scanner, **acquisition, threads=2)
    with tempfile.TemporaryDirectory() as folder:
        write_acquisition(
            Path(folder),
            ((iq, bubbles.columns()) for iq, bubbles in blocks),
            shape=(acquisition["n_frames"], *grid["shape"]),
        )


def memory(options: argparse.Namespace) -> dict:
    """Return by how much the process grows from a short acquisition to one 20 times as long."""
    shape, mean_bubbles, _ = SCENES["2-D"]
    graph, _ = vessels_and_map(options.seed, shape)
    scanner = Scanner(
        shape=shape,
        spacing_um=(WAVELENGTH_UM / 2,) * 2,
        frame_rate_hz=FRAME_RATE_HZ,
        psf=PointSpread.typical(WAVELENGTH_UM),
        seed=options.seed,
    )
    each = {"mean_bubbles": mean_bubbles, "block_frames": BLOCK_FRAMES}
    short = 500 if options.quick else 1000
    long = 2 * short if options.quick else 20 * short
    acquire(graph, scanner, {**each, "n_frames": short}, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    acquire(graph, scanner, {**each, "n_frames": long}, 2)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "case": f"memory, {short} and then {long} frames",
        "method": "all, formula",
        "cores": 2,
        "peak_mib": round(after / 1024),
        "grown_mib": round((after - before) / 1024, 1),
    }


def goals(rows: list[dict]) -> list[dict]:
    """Return the figures that were asked for, and whether they were met."""
    found = []
    for row in rows:
        if row["case"].startswith("2-D") and row["method"].startswith("anew"):
            rate = row["frames_per_s"]
            found.append(
                {
                    "name": f"frames/s of 78 x 118 on 2 cores, {row['method']}",
                    "value": rate,
                    "op": ">=",
                    "goal": GOAL_FRAMES_PER_S,
                    "met": rate >= GOAL_FRAMES_PER_S,
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    rows = [memory(options)]  # first: later parts leave a higher peak behind
    print(f"{rows[0]['case']}: peak {rows[0]['peak_mib']} MiB, grown {rows[0]['grown_mib']} MiB")
    for name in SCENES:
        for number, row in enumerate(parts(options, name)):
            if number == 0:
                print(f"\n{row['case']}\n{'':<32}{'cores':>6}{'frames/s':>12}")
            print(f"{row['method']:<32}{row['cores']:>6}{row['frames_per_s']:>12}", flush=True)
            rows.append(row)
    asked = goals(rows)
    for goal in asked:
        print(
            f"{'met' if goal['met'] else 'MISSED'}: {goal['name']}: {goal['value']} "
            f"{goal['op']} {goal['goal']}"
        )
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    print(
        json.dumps({"benchmark": "simulator", "machine": machine, "results": rows, "goals": asked})
    )


if __name__ == "__main__":
    main()
