"""The stage as the workflow runs it; with one worker also how long it is outside the network."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from dataclasses import dataclass
from typing import Any

from vasculome.compute.cluster import Cluster, open_cluster
from vasculome.compute.device import peak_rss_bytes
from vasculome.config import RunConfig, Sample
from vasculome.models import vessel_tiles
from vasculome.stages import enhance
from vasculome.stages.job import Job, execute

CANDIDATES, PROBABILITY = "candidates.ome.zarr", "vessel_probability.ome.zarr"


@dataclass(frozen=True)
class Warm(Job):
    """A job whose workers run already."""

    running: Cluster | None = None

    def cluster(self) -> Any:
        return contextlib.nullcontext(self.running)


def job_of(task: dict[str, Any]) -> Job:
    inline = task.get("workers", 1) == 1
    config = RunConfig(
        results=f"{task['folder']}/results",
        compute={"scheduler": "inline"}
        if inline
        else {"scheduler": "local", "workers": task["workers"]},
        storage={"shard_zyx": (task["shard"],) * 3},
        microscopy={
            "segment": {"segmenter": task["weights"], "network": {"device": task["device"]}}
        },
    )
    sample = Sample(
        sample="volume",
        modality="microscopy",
        path=f"{task['folder']}/raw",
        format="tiff_planes",
        spacing_um=task["spacing_um"],
    )
    return Job("enhance", config, sample, task.get("workers", 1))


class Clock:
    """Counts the seconds that a network takes, on a GPU with the way there and back."""

    seconds = 0.0


def timed(asks: type) -> type:
    """Return a class of what asks a network that counts its seconds."""

    def call(self: Any, *args: Any) -> Any:
        begin = time.perf_counter()
        answer = asks.__call__(self, *args)
        Clock.seconds += time.perf_counter() - begin
        return answer

    return type(f"Timed{asks.__name__}", (asks,), {"__call__": call})


def forget(job: Job) -> None:
    """Remove what the stage has written, so that it is done anew."""
    for name in (CANDIDATES, PROBABILITY):
        for path in job.folder.glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with contextlib.suppress(FileNotFoundError):
        job.manifest_path("enhance").unlink()


def run(task: dict[str, Any]) -> dict[str, Any]:
    job = job_of(task)
    bound = job.bound()
    if task["workers"] == 1:
        for name in ("StudentEngine", "_Torch"):
            setattr(vessel_tiles, name, timed(getattr(vessel_tiles, name)))
    with open_cluster(job.config.compute) as cluster:
        warm = Warm(job.stage, job.config, job.sample, job.threads, cluster)
        for _ in range(2):  # The first time workers import what they need.
            forget(job)
            Clock.seconds = 0.0
            begin = time.perf_counter()
            outcome = enhance.run(warm)
            seconds = time.perf_counter() - begin
        peak = peak_rss_bytes()
    answer = {
        "seconds": round(seconds, 3),
        "windows": outcome.summary["windows"],
        "windows_of_background": outcome.summary["windows_of_background"],
        "bound_mb": bound.total_mb,
        "peak_mb": round(peak / 1e6),
        "memory_over_bound": round(peak / bound.total_bytes, 3),
    }
    if task["workers"] == 1:
        answer["outside_network"] = round(1 - Clock.seconds / seconds, 3)
    return answer


def main() -> None:
    task = json.loads(sys.argv[1])
    if task["do"] == "prepare":
        job = job_of(task)
        for stage in ("ingest_image", "normalize"):
            execute(Job(stage, job.config, job.sample))
        print(json.dumps({}))
    else:
        print(json.dumps(run(task)))


if __name__ == "__main__":
    main()
