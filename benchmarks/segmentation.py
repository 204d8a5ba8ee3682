"""How well vessels are told from the rest: VpbSD, its competitors, its teacher, Frangi's filter.

Tables like 1 and 3 of the VpbSD paper, on rendered patches of vessels that no network has learnt
from, and on a real volume with a label where there is one (``--image``, ``--label``; by default
that of VesselExpress, in the folder that VASCULOME_DATA names), which is used for nothing else.

- *Networks*: those under ``--weights``, trained by ``snakemake models``, or those that ship; as
  the stage `segment` uses them, at the threshold that validation chose. Of several seeds the mean
  and standard deviation are told.
- *Frangi*: with the scales and thresholds that are best on the very volumes it is measured on, once
  for the Dice index and once for clDice: better than anybody could know.
- *Measures*: Dice (DSC), clDice, HD95 in voxels, Jaccard, accuracy, skeleton distance (SMD; and as
  published), errors of Betti numbers; the mean over patches.

A real volume is normalized as the workflow does it, up to the 99.5th percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tifffile
import torch
from segmentation_parts.measures import Mask, Volume, mean_of, measures, over_seeds
from segmentation_parts.methods import Network, best_filter, networks
from segmentation_parts.pictures import draw_overlays

from vasculome.storage.weights import read_weights, shipped_weights
from vasculome.training import vessel_scenes
from vasculome.training.vessel_patches import make_patch
from vasculome.vessels.normalize import intensity_histogram, intensity_range, rescale

Row = dict[str, Any]

RENDERED, REAL = "rendered", "real"
BASELINE, OURS = "light_unet", "vpbsd"
COMPETITORS = ("kd", "fitnets", "vid", "ab", "mean_teacher", "uamt", "entropy")
FRANGI = {"dice": "Frangi, best Dice", "cldice": "Frangi, best clDice"}
DATA = Path(os.environ.get("VASCULOME_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
IMAGE, LABEL = (DATA / "microscopy" / "vesselexpress" / f"ve_{kind}.tif" for kind in ("raw", "bin"))
_UPPER_PERCENT = 99.5


def rendered(scene: str, count: int, *, seed: int) -> list[Volume]:
    """Return held-out patches."""
    look = getattr(vessel_scenes, scene)()
    patches = (make_patch(look, split="test", index=i, seed=seed) for i in range(count))
    return [Volume.of(patch.image, patch.mask, patch.spacing_um) for patch in patches]


def real(image: Path, label: Path) -> Volume:
    """Return a labelled volume; its voxels are taken for cubes."""
    raw = tifffile.imread(image)
    low, high = intensity_range(intensity_histogram(raw), upper_percent=_UPPER_PERCENT)
    mask = tifffile.imread(label) > 0
    return Volume.of(rescale(raw, low=low, high=high), mask, (1.0, 1.0, 1.0))


def compare(
    case: str, volumes: Sequence[Volume], found: Sequence[tuple[str, list[Network]]]
) -> Iterator[tuple[Row, Mask]]:
    """Yield the measures of each method, with its mask of the first volume."""
    for name, seeds in found:
        begin, rows, first = time.perf_counter(), [], None
        for network in seeds:
            masks = [network.segment(volume) for volume in volumes]
            first = masks[0] if first is None else first
            rows.append(_measured(masks, volumes))
        assert first is not None
        yield {"case": case, "method": name, **over_seeds(rows), **_took(begin)}, first
    for by, name in FRANGI.items():
        begin = time.perf_counter()
        chosen = best_filter(volumes, by=by)
        masks = [chosen.segment(volume) for volume in volumes]
        row = {"case": case, "method": name, **over_seeds([_measured(masks, volumes)])}
        yield row | {"low": chosen.low, "high": chosen.high, **_took(begin)}, masks[0]


def _measured(masks: Sequence[Mask], volumes: Sequence[Volume]) -> dict[str, float]:
    return mean_of([measures(m, v) for m, v in zip(masks, volumes, strict=True)])


def _took(begin: float) -> dict[str, float]:
    return {"seconds": round(time.perf_counter() - begin, 1)}


def found_networks(folder: Path | None, only: Sequence[str]) -> list[tuple[str, list[Network]]]:
    """Return the segmenters of a folder, or those that ship."""
    if folder is not None:
        return [(n, seeds) for n, seeds in networks(folder) if not only or n in only]
    kinds = ((path, read_weights(path)[1]["architecture"]) for path in shipped_weights())
    return [(p.stem, [Network(p.stem, p)]) for p, kind in kinds if kind in {"student", "teacher"}]


def goals(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the figures that were asked for, as far as the networks for them are there."""
    by = {(row["case"], row["method"]): row for row in rows}
    asked: list[tuple[str, float, str, float]] = []
    ours, baseline = by.get((RENDERED, OURS)), by.get((RENDERED, BASELINE))
    if ours and baseline:
        for name in ("dice", "cldice"):
            points = round(100 * (ours[name] - baseline[name]), 2)
            asked.append((f"rendered: points of {name} above the light U-Net", points, ">=", 1.5))
    others = [by[RENDERED, name] for name in COMPETITORS if (RENDERED, name) in by]
    if ours and others:
        for name in ("dice", "cldice"):
            worst = min(_beyond_spread(ours, other, name) for other in others)
            asked.append((f"rendered: {name} above competitors' less spread", worst, ">=", 0.0))
    student, frangi = by.get((REAL, "student")), by.get((REAL, FRANGI["cldice"]))
    if student and frangi:
        points = round(100 * (student["cldice"] - frangi["cldice"]), 2)
        asked.append(("real: student's points of clDice above Frangi's best", points, ">=", 5.0))
        asked.append(("real: student's Dice", student["dice"], ">=", 0.8))
    return [{"name": n, "value": v, "op": op, "goal": g, "met": v >= g} for n, v, op, g in asked]


def _beyond_spread(ours: Row, other: Row, name: str) -> float:
    """Return points above another method, and above the larger spread of both over seeds."""
    spread = max(ours.get(f"{name}_sd", 0.0), other.get(f"{name}_sd", 0.0))
    return round(100 * (ours[name] - other[name] + spread), 2)


def told(row: Row) -> None:
    """Print a row as it comes."""
    parts = []
    for name, value in row.items():
        if name in {"case", "method"} or name.endswith("_sd"):
            continue
        spread = f" ± {row[f'{name}_sd']}" if f"{name}_sd" in row else ""
        parts.append(f"{name} {value}{spread}")
    print(f"{row['case']}: {row['method']}: {', '.join(parts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=7, help="of the held-out patches")
    parser.add_argument("--weights", type=Path, help="folder of networks, e.g. results/models")
    parser.add_argument("--only", nargs="*", default=(), help="networks of that folder")
    parser.add_argument("--scene", default="broad", help="light_sheet, two_photon or broad")
    parser.add_argument("--patches", type=int, default=24, help="rendered; 0: none")
    parser.add_argument("--image", type=Path, default=IMAGE, help="a real volume (TIFF)")
    parser.add_argument("--label", type=Path, default=LABEL, help="its vessels (TIFF, 0 is none)")
    parser.add_argument("--flips", action="store_true", help="also with mirror images averaged")
    parser.add_argument("--pictures", type=Path, help="folder for overlays")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    found = found_networks(options.weights, options.only)
    if options.flips:
        found += [(f"{n}, flips", [replace(s, flips=True) for s in each]) for n, each in found]
    cases: list[tuple[str, list[Volume]]] = []
    count = min(options.patches, 2) if options.quick else options.patches
    if count:
        cases.append((RENDERED, rendered(options.scene, count, seed=options.seed)))
    if options.image.exists() and options.label.exists():
        cases.append((REAL, [real(options.image, options.label)]))
    rows: list[Row] = []
    for case, volumes in cases:
        masks = {}
        for row, mask in compare(case, volumes, found):
            rows.append(row)
            masks[row["method"]] = mask
            told(row)
        if options.pictures is not None:
            draw_overlays(options.pictures / f"{case}.png", volumes[0], masks)
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "torch": torch.__version__}
    reached = goals(rows)
    for goal in reached:
        verdict = "met" if goal["met"] else "MISSED"
        print(f"{goal['name']}: {goal['value']} {goal['op']} {goal['goal']}: {verdict}")
    print(
        json.dumps(
            {"benchmark": "segmentation", "machine": machine, "results": rows, "goals": reached}
        )
    )


if __name__ == "__main__":
    main()
