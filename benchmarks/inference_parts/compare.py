"""How far the stage's probabilities, before they are rounded to 255ths, are from MONAI's.

Here no window is skipped but those of one value: MONAI skips none.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
from stage import job_of

from vasculome.geometry import Box
from vasculome.stages.segment import segmenter_of
from vasculome.stages.segment_network import tile_probability
from vasculome.storage.omezarr import open_image


def main() -> None:
    task = json.loads(sys.argv[1])
    job = job_of(task)
    image = open_image(job.folder / "image.ome.zarr")
    spread = job.manifest("normalize")["summary"]
    theirs = np.load(Path(task["folder"]) / "monai.npy")
    ours = np.empty(image.spec.shape, np.float32)

    def take(first: int, planes: np.ndarray) -> None:
        ours[first : first + len(planes)] = planes

    tile_probability(
        image,
        Box.of_shape(image.spec.shape),
        dataclasses.replace(segmenter_of(job, image.spec.shape), background_contrast=0.0),
        take,
        low=spread["low"],
        high=spread["high"],
    )
    seen = ours > 0
    print(
        json.dumps(
            {
                "difference": float(np.abs(ours - theirs)[seen].max(initial=0)),
                "compared": round(float(seen.mean()), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
