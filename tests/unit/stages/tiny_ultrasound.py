"""A simulated acquisition, and the stages of ultrasound on it."""

import numpy as np

from vasculome.config import RunConfig, Sample
from vasculome.metrics.localization import score_localization
from vasculome.stages import job
from vasculome.stages.job import Job
from vasculome.storage.tables import read_parts
from vasculome.ultrasound.columns import positions

N_FRAMES, BLOCK, SHAPE = 240, 80, (72, 60)
SPACING_UM, WAVELENGTH_UM = (49.28, 49.28), 98.56
BASE = {"clutter": {"block_frames": BLOCK}}


def ingested(phantom, folder):
    np.save(folder / "iq.npy", np.concatenate(list(phantom.blocks)))
    job.execute(job_of(folder, "ingest_iq"))
    return folder


def job_of(folder, stage, ultrasound=None):
    parts = {name: {**BASE.get(name, {}), **part} for name, part in (ultrasound or {}).items()}
    config = RunConfig(
        results=str(folder / "results"),
        compute={"scheduler": "inline"},
        ultrasound={**BASE, **parts},
    )
    sample = Sample(
        sample="mouse",
        modality="ultrasound",
        path=str(folder / "iq.npy"),
        format="iq",
        spacing_um=SPACING_UM,
        axes="tzx",
        frame_rate_hz=1000.0,
        wavelength_um=WAVELENGTH_UM,
    )
    return Job(stage, config, sample)


def run(folder, *stages, **ultrasound):
    """Run stages; return the last job and its summary."""
    for stage in stages:
        done = job_of(folder, stage, ultrasound)
        job.execute(done)
    return done, done.manifest(stages[-1])["summary"]


def both(folder, **ultrasound):
    """Run `calibrate` and `localize`; return the folder of the sample and what was found."""
    _, found = run(folder, "calibrate", **ultrasound)
    done, _ = run(folder, "localize", **ultrasound)
    return done.folder, found


def scores(sample_folder, phantom):
    found = read_parts(sample_folder / "detections")
    return score_localization(
        found["frame"],
        positions(found) / WAVELENGTH_UM,
        phantom.bubbles.frame,
        phantom.bubbles.position_um / WAVELENGTH_UM,
        pair_distance=1 / 2,
        true_positive_distance=1 / 4,
    )


def table_of(sample_folder):
    return read_parts(sample_folder / "detections")
