"""How well vessels are told from the rest: VpbSD, its competitors, its teacher, Frangi's filter.

Tables like 1 and 3 of the VpbSD paper, on rendered patches of vessels that no network has learnt
from, and on a real volume with a label where there is one (``--image``, ``--label``; by default
that of VesselExpress, in the folder that VASCULOME_DATA names). No network learns from that one
either; but masks that are ``brushed`` were made to be as smooth, and cut as low, as its label is.

- *Networks*: those under ``--weights``, trained by ``snakemake models``, or those that ship; as
  the stage `enhance` uses them, at the threshold that validation chose, on patches with masks of
  the kind that they have learnt. Of several trainings, seeds or folds, the mean and standard
  deviation are told. Networks that have learnt from the real volume are left out there.
- *Frangi*: with the scales and thresholds that are best on the very volumes it is measured on, once
  for the Dice index and once for clDice: better than anybody could know.
- *Gaussian threshold*, on the real volume: smoothed, and cut at the threshold of the best Dice
  index there: how much of the label brightness alone explains.
- *Measures*: Dice (DSC), clDice, HD95 in voxels, Jaccard, accuracy, skeleton distance (SMD; and as
  published), errors of Betti numbers; the mean over patches. Nothing removes
  small objects.

Goals whose networks are not there are told as not measured, with ``"met": null``. A real volume is
normalized as the workflow does it, up to the 99.5th percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import tifffile
import torch
from segmentation_parts import filters
from segmentation_parts.filters import Filter, best_settings
from segmentation_parts.goals import FRANGI, REAL, RENDERED, Row, goals, verdict
from segmentation_parts.measures import Mask, Volume, mean_of, measures, over_trainings
from segmentation_parts.methods import LABEL_KIND, Methods, shipped_networks, trained_networks
from segmentation_parts.pictures import draw_overlays

from vasculome.errors import UserError
from vasculome.training import vessel_scenes
from vasculome.training.vessel_patches import make_patch
from vasculome.training.vessel_scenes import LabelKind, VesselScene
from vasculome.vessels.normalize import intensity_histogram, intensity_range, rescale

GAUSSIAN = {"dice": "Gaussian threshold, best"}
DATA = Path(os.environ.get("VASCULOME_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
IMAGE, LABEL = (DATA / "microscopy" / "vesselexpress" / f"ve_{kind}.tif" for kind in ("raw", "bin"))
_UPPER_PERCENT = 99.5


@dataclass(frozen=True)
class Case:
    """Volumes, and what is compared on them; ``masks`` tells how their masks were made."""

    name: str
    masks: str
    volumes: list[Volume]
    methods: Methods


def rendered(options: argparse.Namespace, label: LabelKind, count: int) -> list[Volume]:
    """Return held-out patches of a scene with masks of a kind."""
    scene: VesselScene = getattr(vessel_scenes, options.scene)()
    look = replace(scene, label=label, large_vessels=options.large_vessels)
    patches = (make_patch(look, split="test", index=i, seed=options.seed) for i in range(count))
    return [Volume.of(patch.image, patch.mask, patch.spacing_um) for patch in patches]


def real(image: Path, label: Path) -> Volume:
    """Return a labelled volume; its voxels are taken for cubes."""
    raw = tifffile.imread(image)
    low, high = intensity_range(intensity_histogram(raw), upper_percent=_UPPER_PERCENT)
    mask = tifffile.imread(label) > 0
    return Volume.of(rescale(raw, low=low, high=high), mask, (1.0, 1.0, 1.0))


def compare(case: str, volumes: Sequence[Volume], found: Methods) -> Iterator[tuple[Row, Mask]]:
    """Yield the measures of each method, with its mask of the first volume."""
    for name, trained in found:
        try:
            yield _row(case, name, volumes, [network.segment for network in trained])
        except UserError as error:
            print(f"{case}: {name} is left out: {error}", flush=True)
    kinds = [(filters.FRANGI, FRANGI)] + [(filters.GAUSSIAN, GAUSSIAN)] * (case == REAL)
    for kind, names in kinds:
        yield from _best(case, volumes, kind, names)


def _best(
    case: str, volumes: Sequence[Volume], kind: Filter, names: dict[str, str]
) -> Iterator[tuple[Row, Mask]]:
    best = best_settings(kind, volumes)
    for by, name in names.items():
        settings = best[by]
        segment = partial(filters.segment, kind, settings=settings)
        row, mask = _row(case, name, volumes, [segment])
        chosen = {"scales_um": [round(float(s), 3) for s in settings.scales_um]}
        yield row | chosen | {"low": settings.low, "high": settings.high}, mask


def _row(
    case: str,
    name: str,
    volumes: Sequence[Volume],
    trained: Sequence[Callable[[Volume], Mask]],
) -> tuple[Row, Mask]:
    """Return the measures over all trainings of a method; ``seconds`` are those of one."""
    rows, seconds, first = [], 0.0, None
    for segment in trained:
        begin = time.perf_counter()
        masks = [segment(volume) for volume in volumes]
        seconds += time.perf_counter() - begin
        first = masks[0] if first is None else first
        rows.append(mean_of([measures(m, v) for m, v in zip(masks, volumes, strict=True)]))
    assert first is not None
    taken = {"seconds": round(seconds / len(trained), 2)}
    return {"case": case, "method": name, **over_trainings(rows), **taken}, first


def unseen(found: Methods, files: Sequence[Path]) -> Methods:
    """Return the methods of which no network has learnt from these files, or was chosen by them."""
    kept = []
    for name, trained in found:
        if any(network.has_seen(files) for network in trained):
            print(f"{REAL}: {name} is left out: it was trained with this volume", flush=True)
        else:
            kept.append((name, trained))
    return kept


def told(row: Row) -> None:
    """Print a row as it comes."""
    parts = []
    for name, value in row.items():
        if name in {"case", "method"} or name.endswith("_sd"):
            continue
        spread = f" ± {row[f'{name}_sd']}" if f"{name}_sd" in row else ""
        parts.append(f"{name} {value}{spread}")
    print(f"{row['case']}: {row['method']}: {', '.join(parts)}", flush=True)


def cases(options: argparse.Namespace, found: Methods) -> Iterator[Case]:
    """Yield patches with each kind of masks that networks have learnt, and the real volume."""
    count = min(options.patches, 2) if options.quick else options.patches
    if count:
        kinds = {name: options.label_kind or trained[0].label_kind for name, trained in found}
        for kind in sorted(set(kinds.values()) or {options.label_kind or LABEL_KIND}):
            volumes = rendered(options, kind, count)
            methods = [(name, trained) for name, trained in found if kinds[name] == kind]
            yield Case(RENDERED, kind, volumes, methods)
    files = [options.image, options.label]
    if all(file.exists() for file in files):
        yield Case(REAL, "manual", [real(*files)], unseen(found, files))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=7, help="of the held-out patches")
    parser.add_argument("--weights", type=Path, help="folder of networks, e.g. results/models")
    parser.add_argument("--only", nargs="*", default=(), help="networks of that folder")
    parser.add_argument("--scene", default="broad", help="light_sheet, two_photon or broad")
    parser.add_argument(
        "--label-kind",
        choices=get_args(LabelKind),
        help="of the masks of patches; else the kind that each network has learnt",
    )
    parser.add_argument("--patches", type=int, default=24, help="rendered; 0: none")
    parser.add_argument(
        "--large-vessels", type=float, default=0.0, help="part of them with an artery or a vein"
    )
    parser.add_argument("--image", type=Path, default=IMAGE, help="a real volume (TIFF)")
    parser.add_argument("--label", type=Path, default=LABEL, help="its vessels (TIFF, 0 is none)")
    parser.add_argument("--flips", action="store_true", help="also with mirror images averaged")
    parser.add_argument("--pictures", type=Path, help="folder for overlays")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    folder = options.weights
    found = shipped_networks() if folder is None else trained_networks(folder, only=options.only)
    if options.flips:
        found += [(f"{n}, flips", [replace(s, flips=True) for s in each]) for n, each in found]
    rows: list[Row] = []
    for case in cases(options, found):
        masks = {}
        for row, mask in compare(case.name, case.volumes, case.methods):
            rows.append(row | {"masks": case.masks})
            masks[row["method"]] = mask
            told(rows[-1])
        if options.pictures is not None:
            picture = options.pictures / f"{case.name}_{case.masks}.png"
            draw_overlays(picture, case.volumes[0], masks)
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "torch": torch.__version__}
    reached = goals(rows)
    for goal in reached:
        print(verdict(goal))
    print(
        json.dumps(
            {"benchmark": "segmentation", "machine": machine, "results": rows, "goals": reached}
        )
    )


if __name__ == "__main__":
    main()
