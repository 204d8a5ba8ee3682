"""How wide the border must be that patches of superresolve are shown with.

A movie of a wide field goes through a trained network whole, and in patches with borders of several
widths that are cut off again. Fine pixels are vessels above a probability of 0.5; told is how many
are so in only one of both maps, over the vessels of the whole, and what that makes in the patches
of the stage: what changes lies along the cuts, so it goes with their length over the area.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vasculome.geometry import Box, TileGrid
from vasculome.models.stulm import UPSCALING, Stulm
from vasculome.models.stulm_movies import vessel_probability
from vasculome.stages.network_load import load_network
from vasculome.stages.superresolve import KEEP_PROBABILITY
from vasculome.stages.vessel_grid import HALO_PX, PATCH_PX
from vasculome.storage.weights import read_card
from vasculome.training.movies import make_movie, paper_2d
from vasculome.ultrasound.sparsify import above

HALOS_PX = (0, 4, 8, 12, 16)


def found_in_patches(
    network: Stulm, correlation: NDArray[np.complex64], *, patch: int, halo: int, threshold: float
) -> NDArray[np.bool_]:
    """Return fine pixels of vessels of a movie (t, z, x), seen patch by patch."""
    field = correlation.shape[1:]
    found = np.zeros([UPSCALING * n for n in field], np.bool_)
    for tile in TileGrid(Box.of_shape(field), (patch, patch), (halo, halo)):
        movie = correlation[:, *tile.outer.slices]
        probability = vessel_probability(network, movie, above(movie, threshold=threshold))
        fine, inner = (
            tuple(slice(UPSCALING * s.start, UPSCALING * s.stop) for s in where)
            for where in (tile.core.slices, tile.core_in_outer)
        )
        found[fine] = probability[inner] > KEEP_PROBABILITY
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--weights", type=Path, required=True, help="of a sparse 2-D stulm")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    card = read_card(options.weights)
    network = load_network(options.weights, sha256=card["sha256"], device="cpu")
    assert isinstance(network, Stulm)
    field, patch, movies = (32, 16, 1) if options.quick else (96, 32, 2)
    wide = replace(
        paper_2d(5.0 * (field / 32) ** 2),
        shape_px=(field, field),
        n_frames=card["data"]["n_frames"],
    )
    threshold = float(card["settings"]["threshold"])
    shown = [
        make_movie(wide, split="test", index=i, seed=options.seed).correlation
        for i in range(movies)
    ]
    whole = [
        found_in_patches(network, movie, patch=field, halo=0, threshold=threshold)
        for movie in shown
    ]
    vessels = sum(int(np.count_nonzero(w)) for w in whole)
    print(f"vessels on {vessels / sum(w.size for w in whole):.1%} of the fine pixels")
    rows = []
    for halo in HALOS_PX:
        changed = 0
        for movie, all_at_once in zip(shown, whole, strict=True):
            found = found_in_patches(network, movie, patch=patch, halo=halo, threshold=threshold)
            changed += int(np.count_nonzero(found != all_at_once))
        percent = 100 * changed / vessels
        # Cuts between patches: their number along an axis, over the field.
        cuts_per_px = (field // patch - 1) / field
        rows.append(
            {
                "case": f"{field} pixels in patches of {patch}",
                "method": f"border of {halo} pixels",
                "changed_percent": round(percent, 3),
                "in_stage_percent": round(percent / cuts_per_px / PATCH_PX[2], 3),
            }
        )
        print(", ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    (chosen,) = (row for row in rows if row["method"] == f"border of {HALO_PX} pixels")
    value = chosen["in_stage_percent"]
    goal = {"name": "vessels changed by the border of the stage, %", "value": value}
    print(
        json.dumps(
            {
                "benchmark": "superresolve_halo",
                "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
                "results": rows,
                "goals": [{**goal, "op": "<=", "goal": 1.0, "met": value <= 1.0}],
            }
        )
    )


if __name__ == "__main__":
    main()
