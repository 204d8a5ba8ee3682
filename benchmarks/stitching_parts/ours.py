"""vasculome's part of `stitching.py`, run in a process of its own.

Given a task as JSON and the path for its answer, as the peer's part is.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vasculome.config import RunConfig, Sample, parse_config
from vasculome.readers.acquisition import open_acquisition
from vasculome.stages.catalog import stages_of
from vasculome.stages.job import Job, execute
from vasculome.stages.raw_tiles import LazyTile, nominal_starts, shapes_of
from vasculome.stitching.place import place
from vasculome.stitching.register import Pair, find_pairs, register

FUSE = "ingest_image"


def register_all(folders: list[str], *, spacing_um: list[float], cores: int) -> dict[str, Any]:
    """Register and place the tiles of each folder; return seconds and starts in voxels."""
    runs = []
    for folder in folders:
        started, cpu = time.perf_counter(), time.process_time()
        starts = place_tiles(Path(folder), tuple(spacing_um), cores=cores)
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
        runs.append({"seconds": seconds, "cpu_s": cpu_s, "starts": starts})
    return {"runs": runs}


def place_tiles(folder: Path, spacing_um: tuple[float, ...], *, cores: int) -> list[list[float]]:
    """Return where tiles start, in voxels, by the library's default settings."""
    tiles = open_acquisition(folder, format="tiff_tiles", spacing_um=spacing_um).tiles(
        None, where=folder
    )
    nominal = nominal_starts(tiles, spacing_um)
    search_um = RunConfig().microscopy.stitch.pairs.search_um
    search = [math.ceil(s / d) for s, d in zip(search_um, spacing_um, strict=True)]
    lazy = [LazyTile(volume) for volume in tiles.volumes]
    pairs = [
        Pair(i, j, lazy[i], lazy[j], tuple((nominal[j] - nominal[i]).tolist()))
        for i, j in find_pairs(nominal, shapes_of(tiles))
    ]
    edges = register(pairs, search=search, threads=cores)
    starts: list[list[float]] = place(
        edges, nominal, stage_sigma=[n / 2 for n in search]
    ).starts.tolist()
    return starts


def prepare(folder: str, **where: Any) -> dict[str, Any]:
    """Run all stages before fusion; return the seconds that each took, workers started and all."""
    first = job(folder, stage=FUSE, **where)
    stages = stages_of(first.sample)
    return {
        stage: _timed(job(folder, stage=stage, **where))[0]
        for stage in stages[: stages.index(FUSE)]
    }


def fuse(folder: str, **where: Any) -> dict[str, Any]:
    """Fuse as the workflow does; return seconds, workers started and all, and the result's size."""
    seconds, summary = _timed(job(folder, stage=FUSE, **where))
    return {"seconds": seconds, "megabytes": summary["megabytes"]}


def _timed(work: Job) -> tuple[float, dict[str, Any]]:
    started = time.perf_counter()
    summary = execute(work).summary
    return time.perf_counter() - started, summary


def job(folder: str, *, stage: str, out: str, spacing_um: Sequence[float], cores: int) -> Job:
    """Return a stage of the sample in ``folder``, under the default settings."""
    compute = {"scheduler": "local", "workers": cores}
    config = parse_config({"results": out, "compute": compute}, where="benchmark")
    sample = Sample(
        sample="bench",
        modality="microscopy",
        path=folder,
        format="tiff_tiles",
        spacing_um=tuple(spacing_um),
    )
    return Job(stage, config, sample, cores)


def main() -> None:
    task = json.loads(sys.argv[1])
    work = {"register": register_all, "prepare": prepare, "fuse": fuse}[task.pop("task")]
    Path(sys.argv[2]).write_text(json.dumps(work(**task)))


if __name__ == "__main__":
    main()
