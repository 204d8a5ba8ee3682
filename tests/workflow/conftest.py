"""Tiny real runs: raw files on disk, the real Snakefile, a real `snakemake` process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from vasculome.simulate.phantoms import microscope_phantom, ultrasound_phantom

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
    "axes",
    "variable",
    "frame_rate_hz",
    "wavelength_um",
)
BRAIN = {
    "sample": "brain",
    "modality": "microscopy",
    "path": "raw/brain",
    "format": "tiff_planes",
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


@dataclass(frozen=True)
class Project:
    """A folder with raw data, configuration and sample sheet, run through Snakemake."""

    folder: Path

    def write_config(self, changes: dict | None = None) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **(changes or {})}))

    def write_samples(self, *rows: dict[str, str]) -> None:
        lines = [COLUMNS, *([row.get(c, "") for c in COLUMNS] for row in rows)]
        (self.folder / "samples.tsv").write_text("\n".join("\t".join(line) for line in lines))

    def command(self, *options: str) -> list[str]:
        return [
            sys.executable,
            *("-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
            *("--directory", str(self.folder), "--configfile", str(self.folder / "config.yaml")),
            *("--cores", "2", *options),
        ]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*options),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )

    def results(self) -> dict[str, str]:
        """Checksums of all results but for what holds times: reports, logs, benchmarks."""
        folder = self.folder / "results"
        files = [p for p in folder.rglob("*") if p.is_file()]
        return {
            str(p.relative_to(folder)): hashlib.blake2b(p.read_bytes()).hexdigest()
            for p in sorted(files)
            if not {"logs", "benchmarks"} & set(p.relative_to(folder).parts)
            and p.suffix not in {".html", ".jsonl"}
        }


def write_raw(folder: Path) -> None:
    """Write one small light-sheet volume as planes, and one small IQ acquisition."""
    volume, _ = microscope_phantom(seed=1, shape=(40, 96, 96), spacing_um=(4.0, 2.0, 2.0))
    (folder / "raw/brain").mkdir(parents=True)
    for z, plane in enumerate(volume):
        tifffile.imwrite(folder / f"raw/brain/plane_{z:03d}.tif", plane)
    blocks, _, _ = ultrasound_phantom(seed=1, n_frames=180, shape=(48, 48), bubbles_per_frame=8)
    np.save(folder / "raw/mouse.npy", np.concatenate(list(blocks)))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A project that has run to the end, uninterrupted; not to be changed."""
    project = Project(tmp_path_factory.mktemp("finished"))
    write_raw(project.folder)
    project.write_config()
    project.write_samples(BRAIN, MOUSE)
    done = project.run()
    assert done.returncode == 0, done.stderr[-4000:]
    return project
