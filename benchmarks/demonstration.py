r"""How well the vessels of the demonstration's light-sheet sample are found: masks beside truth.

Give the folders of results of runs whose light-sheet sample is that of the demonstration: its own
run segments with the student, another one with what you tell it, as with Frangi's filter:

    make demo
    snakemake --cores all all_mask --configfile config/demo/config.yaml --config \
        results=demo/frangi 'microscopy={segment: {segmenter: frangi, low_threshold: 0.12}}'
    make bench NAME=demonstration ARGS="demo/results demo/frangi"

The truth are the lumina. What tiles are stitched into begins elsewhere, and somewhat smaller or
larger than the truth: mask and truth are laid on each other where they share the most voxels, and
compared where both are. That is a whole number of voxels, so that up to half a voxel of shift
remains, for all methods alike. Beside Dice and clDice is told which part of the truth's centreline
lies in the mask, which part of the mask's in the truth, and how much of the volume each of them is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from skimage.morphology import skeletonize

from vasculome.geometry import Box
from vasculome.metrics.segmentation import cldice, dice
from vasculome.stages.mask import MASK
from vasculome.storage.omezarr import open_image

SAMPLE = "lightsheet"
MOST_SHIFT = 32
"""Voxels along each axis."""

Mask = NDArray[np.bool_]


def best_shift(mask: Mask, truth: Mask) -> tuple[int, ...]:
    """Return where the first voxel of ``mask`` lies in ``truth``, so that they share the most."""
    shape = [
        fft.next_fast_len(max(sides) + MOST_SHIFT, real=True)
        for sides in zip(mask.shape, truth.shape, strict=True)
    ]
    seen, true = (fft.rfftn(each.astype(np.float32), shape) for each in (mask, truth))
    shared = fft.irfftn(true * seen.conj(), shape)
    near = np.ix_(*[np.arange(-MOST_SHIFT, MOST_SHIFT + 1)] * mask.ndim)
    peak = np.unravel_index(shared[near].argmax(), [2 * MOST_SHIFT + 1] * mask.ndim)
    return tuple(int(place) - MOST_SHIFT for place in peak)


def common(mask: Mask, truth: Mask, shift: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Return the part of both where both are."""
    placed = Box.of_shape(mask.shape).translate(shift)
    both = placed.intersect(Box.of_shape(truth.shape))
    assert both is not None
    return mask[both.relative_to(placed).slices], truth[both.slices]


def measures(mask: Mask, truth: Mask) -> dict[str, float]:
    lines = {"mask_skeleton": skeletonize(mask) > 0, "reference_skeleton": skeletonize(truth) > 0}
    found = {
        "dice": dice(mask, truth),
        "cldice": cldice(mask, truth, **lines),
        "length_found": float(mask[lines["reference_skeleton"]].mean()),
        "length_true": float(truth[lines["mask_skeleton"]].mean()),
        "mask_percent": 100 * float(mask.mean()),
        "truth_percent": 100 * float(truth.mean()),
    }
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="*", type=Path, default=[Path("demo/results")])
    parser.add_argument("--truth", type=Path, default=Path("demo/raw/lightsheet_truth.npy"))
    options = parser.parse_args()
    truth = np.load(options.truth) > 0
    rows = []
    for folder in options.results:
        image = open_image(folder / SAMPLE / MASK)
        mask = image.read(Box.of_shape(image.spec.shape)) > 0
        shift = best_shift(mask, truth)
        row = {"run": str(folder), "shift": shift, **measures(*common(mask, truth, shift))}
        print("  ".join(f"{name}: {value}" for name, value in row.items()), flush=True)
        rows.append(row)
    print(json.dumps({"benchmark": "demonstration", "results": rows}))


if __name__ == "__main__":
    main()
