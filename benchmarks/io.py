"""How fast and in how much memory raw planes become a sharded pyramid, against the machine.

In one run: our ingest stage, pyramid included; reading the same TIFFs by tifffile and discarding
them; writing the same voxels from memory by tensorstore alone, with the same codec and shards,
without pyramid; and what these two give one after the other, the most to be had where each keeps
all cores busy. Each by the same number of cores, files in the page cache, worker processes
already started. Then the stage's peak memory on three stack sizes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorstore as ts
import tifffile
from scipy import ndimage

from vasculome.compute.cluster import Cluster, open_cluster
from vasculome.compute.device import peak_rss_bytes
from vasculome.config import RunConfig, Sample, parse_config
from vasculome.stages import ingest_image
from vasculome.stages.job import Job
from vasculome.storage.metadata import array_metadata

GOAL_RATIO = 0.6
GOAL_GROWTH = 1.1
ENCODINGS = {"raw": {}, "deflate": {"compression": "zlib", "predictor": True}}


@dataclass(frozen=True)
class Size:
    """Planes and edge of a stack."""

    planes: int
    edge: int

    @property
    def megabytes(self) -> float:
        return self.planes * self.edge**2 * 2 / 1e6


def write_planes(folder: Path, size: Size, *, encoding: str, seed: int) -> None:
    """Write planes as a light-sheet camera gives them: a smooth background under shot noise."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(size.edge, size.edge)), size.edge / 50)
    expected = 200 + 150 * (smooth - smooth.min()) / np.ptp(smooth)
    drawn = [rng.poisson(expected).astype("uint16") for _ in range(4)]
    folder.mkdir(parents=True)
    for z in range(size.planes):
        plane = np.roll(drawn[z % 4], 37 * z, axis=1)
        tifffile.imwrite(folder / f"plane_{z:05d}.tif", plane, **ENCODINGS[encoding])


@dataclass(frozen=True)
class WarmJob(Job):
    """A job on workers that run already."""

    running: Cluster | None = None

    def cluster(self) -> AbstractContextManager[Cluster]:
        return contextlib.nullcontext(self.running) if self.running else super().cluster()


def ingest(raw: Path, results: Path, *, workers: int, cluster: Cluster | None) -> float:
    """Run the ingest stage on a folder of planes; return seconds."""
    shutil.rmtree(results, ignore_errors=True)
    config: RunConfig = parse_config(
        {"results": str(results), "compute": {"scheduler": "local", "workers": workers}},
        where="benchmark",
    )
    sample = Sample(
        sample="bench",
        modality="microscopy",
        path=str(raw),
        format="tiff_planes",
        spacing_um=(2.0, 2.0, 2.0),
    )
    started = time.perf_counter()
    ingest_image.run(WarmJob("ingest_image", config, sample, workers, running=cluster))
    return time.perf_counter() - started


def read_and_discard(files: list[Path]) -> None:
    for file in files:
        tifffile.imread(file)


def read_alone(raw: Path, *, workers: int, cluster: Cluster) -> float:
    """Read the planes by tifffile, shared out among the workers; return seconds."""
    files = sorted(raw.glob("*.tif"))
    started = time.perf_counter()
    parts = [cluster.submit(read_and_discard, files[i::workers]) for i in range(workers)]
    for part in parts:
        part.result()
    return time.perf_counter() - started


def write_from_memory(raw: Path, folder: Path, *, workers: int) -> float:
    """Write the planes' voxels by tensorstore's own file driver; return seconds, reading apart."""
    shutil.rmtree(folder, ignore_errors=True)
    voxels = np.stack([tifffile.imread(file) for file in sorted(raw.glob("*.tif"))])
    storage = RunConfig().storage
    metadata = array_metadata(
        shape=voxels.shape,
        dtype=str(voxels.dtype),
        chunk=storage.chunk_zyx,
        shard=storage.shard_zyx,
        axes=None,
    )
    context = ts.Context(
        {
            "data_copy_concurrency": {"limit": workers},
            "file_io_concurrency": {"limit": max(4, workers)},
        }
    )
    started = time.perf_counter()
    array = ts.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{folder}/"},
            "metadata": metadata,
        },
        create=True,
        context=context,
    ).result()
    array.write(voxels).result()
    return time.perf_counter() - started


def write_alone(raw: Path, folder: Path, *, workers: int, cluster: Cluster) -> float:
    """Write on one worker process, with as many threads as there are workers; return seconds."""
    work = functools.partial(write_from_memory, raw, folder, workers=workers)
    seconds: float = cluster.submit(work).result()
    return seconds


def throughput(folder: Path, size: Size, *, seed: int, rounds: int, workers: int) -> list[dict]:
    """Measure the three ways on each encoding, in turn, and return medians in MB/s."""
    rows = []
    compute = RunConfig().compute.model_copy(update={"workers": workers})
    with open_cluster(compute) as cluster:
        for encoding in ENCODINGS:
            raw = folder / encoding
            write_planes(raw, size, encoding=encoding, seed=seed)
            seconds: dict[str, list[float]] = {"read": [], "write": [], "ingest": []}
            # The first round warms up: imports on the workers, memory, files in the cache.
            for number in range(rounds + 1):
                took = {
                    "read": read_alone(raw, workers=workers, cluster=cluster),
                    "write": write_alone(raw, folder / "alone", workers=workers, cluster=cluster),
                    "ingest": ingest(raw, folder / "out", workers=workers, cluster=cluster),
                }
                for method, value in took.items():
                    if number > 0:
                        seconds[method].append(value)
            speed = {m: size.megabytes / statistics.median(s) for m, s in seconds.items()}
            slower = min(speed["read"], speed["write"])
            # Where both keep all cores busy, nothing that does the one and then the other for
            # each voxel can be faster than this.
            speed["in turn"] = 1 / (1 / speed["read"] + 1 / speed["write"])
            rows += [
                {
                    "case": encoding,
                    "method": method,
                    "mb_per_s": round(speed[method], 1),
                    "ratio": round(speed[method] / slower, 3),
                }
                for method in speed
            ]
            shutil.rmtree(raw)
    return rows


def memory(folder: Path, sizes: list[Size], *, seed: int, workers: int) -> list[dict]:
    """Return the peak of the main process and of its largest worker on each stack size."""
    rows = []
    for size in sizes:
        raw = folder / "stack"
        write_planes(raw, size, encoding="raw", seed=seed)
        command = [sys.executable, __file__, "--peak-of", str(raw), str(folder / "out")]
        # A process of its own, since peaks only rise.
        done = subprocess.run(
            [*command, "--workers", str(workers)], check=True, capture_output=True, text=True
        )
        peaks = json.loads(done.stdout.splitlines()[-1])
        rows.append({"case": f"{size.megabytes:.0f} MB", "method": "ingest", **peaks})
        shutil.rmtree(raw)
    return rows


def peak_of(raw: Path, results: Path, *, workers: int) -> dict[str, float]:
    """Ingest once and return the peaks of this process and of its largest worker, in MB."""
    ingest(raw, results, workers=workers, cluster=None)
    unit = 1 if sys.platform == "darwin" else 1024
    main = peak_rss_bytes() / 1e6
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e6
    return {"peak_mb_main": round(main, 1), "peak_mb_worker": round(worker, 1)}


def goals(speeds: list[dict], peaks: list[dict]) -> Iterator[dict]:
    for row in speeds:
        if row["method"] == "ingest":
            value = row["ratio"]
            yield {
                "name": f"{row['case']}: ingest / slower of read and write",
                "value": value,
                "op": ">=",
                "goal": GOAL_RATIO,
                "met": value >= GOAL_RATIO,
            }
    largest, smallest = peaks[-1], peaks[0]
    names = ("peak_mb_main", "peak_mb_worker")
    growth = round(sum(largest[n] for n in names) / sum(smallest[n] for n in names), 3)
    yield {
        "name": "peak memory, largest / smallest stack",
        "value": growth,
        "op": "<=",
        "goal": GOAL_GROWTH,
        "met": growth <= GOAL_GROWTH,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="where to put files (a disk, not a RAM disk)")
    parser.add_argument("--peak-of", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print(json.dumps(peak_of(*options.peak_of, workers=options.workers)))
        return
    size = Size(256, 256) if options.quick else Size(512, 1024)
    sizes = [Size(size.planes * n, size.edge) for n in (1, 2, 3)]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        run = {"seed": options.seed, "workers": options.workers}
        rounds = 1 if options.quick else 5
        speeds = throughput(Path(name), size, rounds=rounds, **run)
        peaks = memory(Path(name), sizes, **run)
    reached = list(goals(speeds, peaks))
    print(f"{'case':<10} {'method':<8} {'MB/s':>8} {'ratio':>7}   ({size.megabytes:.0f} MB)")
    for row in speeds:
        print(f"{row['case']:<10} {row['method']:<8} {row['mb_per_s']:>8} {row['ratio']:>7}")
    print(f"\n{'stack':<10} {'main, MB':>9} {'largest worker, MB':>19}")
    for row in peaks:
        print(f"{row['case']:<10} {row['peak_mb_main']:>9} {row['peak_mb_worker']:>19}")
    print()
    for goal in reached:
        verdict = "met" if goal["met"] else "MISSED"
        print(f"{goal['name']}: {goal['value']} {goal['op']} {goal['goal']}: {verdict}")
    machine = {
        "cores": os.cpu_count(),
        "workers": options.workers,
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    print(
        json.dumps(
            {
                "benchmark": "io",
                "machine": machine,
                "results": [*speeds, *peaks],
                "goals": reached,
            }
        )
    )


if __name__ == "__main__":
    main()
