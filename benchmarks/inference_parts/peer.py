"""MONAI's sliding_window_inference on the volume that the stage reads, in memory."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from stage import job_of
from student_on import half_precision

from vasculome.geometry import Box
from vasculome.stages.network_load import load_network
from vasculome.storage.omezarr import open_image
from vasculome.storage.weights import read_card
from vasculome.vessels.normalize import rescale


def main() -> None:
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    job = job_of(task)
    how = job.config.microscopy.segment.network
    image = open_image(job.folder / "image.ome.zarr")
    spread = job.manifest("normalize")["summary"]
    volume = image.read(Box.of_shape(image.spec.shape))
    volume = torch.from_numpy(rescale(volume, low=spread["low"], high=spread["high"]))
    weights = Path(task["weights"])
    network = load_network(weights, sha256=read_card(weights)["sha256"], device=task["device"])
    with torch.inference_mode(), half_precision(task["device"]):
        # The first time libraries look for the best way to convolve.
        for part in (volume[:, :64, :64], volume):
            begin = time.perf_counter()
            found = sliding_window_inference(
                part[None, None],
                (how.window,) * 3,
                32 if task["device"] == "cuda" else 4,
                lambda x: torch.sigmoid(network(x).logits.float()),
                overlap=how.overlap,
                mode="gaussian",
                sw_device=task["device"],
                device="cpu",
            )
            seconds = time.perf_counter() - begin
    np.save(Path(task["folder"]) / "monai.npy", found[0, 0].numpy())
    print(json.dumps({"seconds": round(seconds, 3)}))


if __name__ == "__main__":
    main()
