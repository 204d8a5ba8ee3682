"""A tiny project on disk, run by a real `snakemake`, or stage by stage in own processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml

from vasculome.config import parse_config, parse_samples
from vasculome.report.build import report_sample
from vasculome.simulate.phantoms import microscope_phantom, mosaic_phantom, ultrasound_phantom
from vasculome.stages.job import check_sample, run_logged, run_stage
from vasculome.storage.raw_files import write_tiff_tiles

ROOT = Path(__file__).parents[2]

CONFIG = {
    "samples": "samples.tsv",
    "results": "results",
    "compute": {"scheduler": "inline"},
    "storage": {"chunk_zyx": [16, 32, 32], "shard_zyx": [32, 64, 64]},
    "microscopy": {
        "segment": {"scales_um": [2.0, 4.0]},
        "skeleton": {"max_radius_um": 16.0},
        "maps": {"voxel_um": 20.0},
    },
    "ultrasound": {"clutter": {"block_frames": 60}, "track": {"min_length_frames": 5}},
}
COLUMNS = (
    "sample",
    "modality",
    "path",
    "format",
    "spacing_um",
    "channel",
    "axes",
    "variable",
    "frame_rate_hz",
    "wavelength_um",
    "center_frequency_hz",
    "speed_of_sound_m_s",
    "pose_mm",
)
BRAIN = {
    "sample": "brain",
    "modality": "microscopy",
    "path": "raw/brain",
    "format": "tiff_planes",
    "spacing_um": "4,2,2",
}
MOSAIC = {
    "sample": "mosaic",
    "modality": "microscopy",
    "path": "raw/mosaic",
    "format": "tiff_tiles",
    "spacing_um": "4,2,2",
}
MOUSE = {
    "sample": "mouse",
    "modality": "ultrasound",
    "path": "raw/mouse.npy",
    "format": "iq",
    "spacing_um": "49.28,49.28",
    "axes": "tzx",
    "frame_rate_hz": "1000",
    "wavelength_um": "98.56",
}
# Times differ from run to run, and pages and journals tell of them.
_TIMED = ({"logs", "benchmarks"}, {".html", ".jsonl"})

_NOBODY = 65534

# Children of a server that has everything imported start in a tenth of a second.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["tiny_project", "vasculome.stages.enhance", "vasculome.stages.ingest_iq"]
)


@dataclass(frozen=True)
class Ended:
    """How a process of its own ended."""

    code: int
    log: str
    stderr: str


@dataclass(frozen=True)
class Project:
    """A folder with raw data, configuration and sample sheet."""

    folder: Path

    def write_config(self, changes: Mapping[str, Any] | None = None) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **(changes or {})}))

    def write_samples(self, *rows: Mapping[str, str]) -> None:
        columns = [*COLUMNS, *dict.fromkeys(name for row in rows for name in row)]
        columns = list(dict.fromkeys(columns))
        lines = [columns, *([row.get(c, "") for c in columns] for row in rows)]
        (self.folder / "samples.tsv").write_text("\n".join("\t".join(line) for line in lines))

    def command(self, *options: str, cores: int | None = 2) -> list[str]:
        return [
            sys.executable,
            *("-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
            *("--directory", str(self.folder), "--configfile", str(self.folder / "config.yaml")),
            *(("--cores", str(cores)) if cores else ()),
            *options,
        ]

    def run(self, *options: str, cores: int | None = 2) -> subprocess.CompletedProcess[str]:
        """Run Snakemake to its end."""
        return subprocess.run(
            self.command(*options, cores=cores),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )

    def run_stage(
        self, stage: str, sample: str, *, file_limit: int | None = None, as_nobody: bool = False
    ) -> Ended:
        """Run one stage as its workflow script does, in a process of its own.

        Parameters
        ----------
        file_limit
            Largest file in bytes that the process may write.
        as_nobody
            Without the rights of root, to whom nothing is forbidden.
        """
        arguments = self.folder, stage, sample, file_limit, as_nobody
        process = _FORKS.Process(target=_work, args=arguments)
        process.start()
        process.join(timeout=200)
        log, stderr = self.folder / "stage.log", self.folder / "stage.err"
        assert process.exitcode is not None, "the stage does not end"
        return Ended(process.exitcode, log.read_text() if log.exists() else "", stderr.read_text())

    def results(self) -> dict[str, str]:
        """Checksums of all results but for what tells of times."""
        folder = self.folder / "results"
        folders, suffixes = _TIMED
        return {
            str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            and not folders & set(path.relative_to(folder).parts)
            and path.suffix not in suffixes
        }

    def shards(self, sample: str) -> dict[Path, int]:
        """Inodes of all files of data of a sample: a file written again has another."""
        folder = self.folder / "results" / sample
        kinds = {".parquet", ".npz"}
        return {
            path: path.stat().st_ino
            for path in folder.rglob("*")
            if path.is_file() and ("c" in path.parts or path.suffix in kinds)
        }


def _work(folder: Path, stage: str, sample: str, file_limit: int | None, as_nobody: bool) -> None:
    os.chdir(folder)
    error = os.open("stage.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(error, 2)
    sys.stderr = os.fdopen(error, "w", buffering=1)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if as_nobody and os.geteuid() == 0:
        os.setuid(_NOBODY)
    content = yaml.safe_load(Path("config.yaml").read_text())
    if stage == "sample_report":
        page = f"results/{sample}/report.html"
        run_logged(report_sample, config=content, sample=sample, out=page, log_path="stage.log")
    else:
        run_stage(stage, config=content, sample=sample, threads=1, log_path="stage.log")


def told_by(ended: Ended) -> str:
    """Return the one line in which a stage that failed says why."""
    assert ended.code == 1, f"ended with {ended.code}: {ended.log}"
    assert "Traceback" not in ended.log + ended.stderr, ended.log + ended.stderr
    lines = [line for line in ended.log.splitlines() if " ERROR " in line]
    assert len(lines) == 1, ended.log
    assert ended.stderr.count(lines[0]) == 1
    return lines[0]


def told_by_snakemake(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line in which a workflow says why it does not even begin."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("vasculome: ")
    return line


def check_line(line: str, *parts: str) -> None:
    """Check that a line names what is wrong, and ends with what to do about it."""
    for part in parts:
        assert part in line
    assert re.search(r": .+ \(.+\)$", line), line


def check_raw_files(project: Project) -> None:
    """Check the raw files of the last sample, as the Snakefile does before anything runs."""
    sheet = (project.folder / "samples.tsv").read_text()
    *_, sample = parse_samples(sheet, where="samples.tsv")
    check_sample(parse_config({}, where="config"), sample)


def copy_of(project: Project, folder: Path) -> Project:
    """Return a copy of a project, so that the original stays as it is."""
    shutil.copytree(project.folder, folder, symlinks=True, dirs_exist_ok=True)
    return Project(folder)


def write_raw(folder: Path) -> None:
    """Write a small light-sheet volume as planes, one as tiles, and a small IQ acquisition."""
    volume, _ = microscope_phantom(seed=1, shape=(40, 96, 96), spacing_um=(4.0, 2.0, 2.0))
    write_planes(folder / "raw/brain", volume)
    mosaic = mosaic_phantom(
        seed=2,
        tile_shape=(24, 64, 64),
        overlap=(28, 28),
        jitter=(1.0, 2.0, 2.0),
        spacing_um=(4.0, 2.0, 2.0),
    )
    positions_um = mosaic.nominal_starts * (4.0, 2.0, 2.0)
    write_tiff_tiles(folder / "raw/mosaic", mosaic.tiles, positions_um.tolist())
    phantom = ultrasound_phantom(seed=1, n_frames=180, shape=(48, 48), mean_bubbles=8.0)
    np.save(folder / "raw/mouse.npy", np.concatenate(list(phantom.blocks)))


def write_planes(folder: Path, volume: np.ndarray) -> None:
    """Write a volume as one TIFF a plane."""
    folder.mkdir(parents=True)
    for z, plane in enumerate(volume):
        tifffile.imwrite(folder / f"plane_{z:03d}.tif", plane, photometric="minisblack")
