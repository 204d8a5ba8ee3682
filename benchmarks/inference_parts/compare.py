"""How far the stage's probabilities, before they are rounded to 255ths, are from MONAI's.

Where windows hold nothing but background ours are 0 by definition, and are not compared.
"""

from __future__ import annotations

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
    ours = tile_probability(
        image,
        Box.of_shape(image.spec.shape),
        segmenter_of(job, image.spec.shape),
        low=spread["low"],
        high=spread["high"],
    ).probability
    seen = ours > 0
    print(
        json.dumps(
            {
                "difference": float(np.abs(ours - theirs)[seen].max()),
                "compared": round(float(seen.mean()), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
