"""What the stage `calibrate` has found, for the stages after it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vasculome.config import ClutterConfig
from vasculome.errors import UserError
from vasculome.geometry import Tile
from vasculome.stages.clutter_filter import Cut, filtered_block
from vasculome.stages.job import Job
from vasculome.storage.arrays import ShardedArray
from vasculome.storage.bundles import read_bundle
from vasculome.ultrasound.correlate import correlation_map
from vasculome.ultrasound.psf import DepthPsf

CALIBRATION = "calibration"
BOUNDS = "bounds.npz"
PSF = "psf.npz"
UNKNOWN = "unknown"


def cut_of(job: Job) -> Cut | None:
    """Return where the clutter filter cuts; None for one that knows no singular vectors."""
    found = job.manifest("calibrate")["summary"]
    return Cut(found["keep_from"], found["keep_to"]) if "keep_from" in found else None


def psf_of(job: Job) -> DepthPsf:
    """Return the echo of a bubble in the sample of ``job``.

    Raises
    ------
    UserError
        If it is not known.
    """
    found = job.manifest("calibrate")["summary"]
    if found["psf"] == UNKNOWN:
        raise UserError(
            f"the echo of a single bubble is not known: {found['psf_unknown_because']}",
            where=f"sample {job.sample.sample}",
            fix="lower ultrasound.psf.min_bubbles, or give another ultrasound.psf.source",
        )
    kept = read_bundle(job.folder / CALIBRATION / PSF)
    return DepthPsf(kept["depth_um"] / kept["spacing_um"][0], kept["echoes"])


def filtered_and_correlated(
    iq: ShardedArray, tile: Tile, *, clutter: ClutterConfig, cut: Cut | None, psf: DepthPsf
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Return a block of frames without tissue, and its local correlation with a bubble's echo."""
    filtered = filtered_block(iq, tile, clutter, cut)
    return filtered, correlation_map(filtered, psf)
