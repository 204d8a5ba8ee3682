"""multiview-stitcher's part of `stitching.py`, run by an interpreter that has it.

Needs nothing of vasculome. Given a task as JSON and the path for its answer; the settings are
those found fastest here, where the documentation leaves a choice: tiles held in memory, tasks on
threads (processes would import everything anew), and chunks of 64 x 256 x 256 voxels, written by
as many threads as cores.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path

import dask
import multiview_stitcher
import numpy as np
from multiview_stitcher import fusion, io, misc_utils, msi_utils, registration

AXES = "zyx"
STAGE, REGISTERED = "stage", "registered"
CHUNK = {"z": 64, "y": 256, "x": 256}


def open_tiles(folder: str, spacing_um: list[float], positions_um: np.ndarray | None = None):
    """Return the tiles of a folder as images, and where they are; by the stage if not given."""
    with (Path(folder) / "tiles.tsv").open() as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    if positions_um is None:
        positions_um = np.array([[float(row[f"{axis}_um"]) for axis in AXES] for row in rows])
    images = [
        io.read_tif_into_msim(
            Path(folder) / row["file"],
            dims=tuple(AXES),
            scale=dict(zip(AXES, spacing_um, strict=True)),
            translation=dict(zip(AXES, at_um.tolist(), strict=True)),
            transform_key=STAGE,
            array_backend="numpy",
        )
        for row, at_um in zip(rows, positions_um, strict=True)
    ]
    return images, positions_um


def register(folders: list[str], *, spacing_um: list[float], binning: int, cores: int) -> dict:
    """Register and place the tiles of each folder; return seconds and starts in voxels."""
    runs = []
    for folder in folders:
        started, cpu = time.perf_counter(), time.process_time()
        images, positions_um = open_tiles(folder, spacing_um)
        params = registration.register(
            images,
            transform_key=STAGE,
            new_transform_key=REGISTERED,
            reg_channel_index=0,
            registration_binning=dict.fromkeys(AXES, binning),
            n_parallel_pairwise_regs=cores,
        )
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
        moved_um = np.array([np.asarray(p).reshape(-1, 4, 4)[0, :3, 3] for p in params])
        starts = (positions_um + moved_um) / spacing_um
        runs.append({"seconds": seconds, "cpu_s": cpu_s, "starts": starts.tolist()})
    return {"runs": runs}


def fuse(folder: str, *, positions_um: list, spacing_um: list[float], out: str, cores: int) -> dict:
    """Fuse tiles at known positions into an OME-Zarr with its pyramid; return seconds and size."""
    started, cpu = time.perf_counter(), time.process_time()
    images, _ = open_tiles(folder, spacing_um, np.array(positions_um))
    fused = fusion.fuse(
        images,
        transform_key=STAGE,
        output_chunksize=CHUNK,
        output_zarr_url=out,
        zarr_options={"ome_zarr": True, "ngff_version": "0.5"},
        batch_options={
            "batch_func": misc_utils.process_batch_using_dask,
            "n_batch": 4 * cores,
            "batch_func_kwargs": {"compute_kwargs": {"num_workers": cores}},
        },
    )
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    image = msi_utils.get_sim_from_msim(fused)
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "megabytes": float(np.prod(image.shape)) * image.dtype.itemsize / 1e6,
    }


def main() -> None:
    if sys.argv[1] == "--version":
        print(multiview_stitcher.__version__)
        return
    task = json.loads(sys.argv[1])
    with dask.config.set(scheduler="threads", num_workers=task["cores"]):
        answer = {"register": register, "fuse": fuse}[task.pop("task")](**task)
    Path(sys.argv[2]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
