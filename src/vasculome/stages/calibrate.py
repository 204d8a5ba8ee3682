"""What the first block of frames tells of how to process all: the clutter cut, a bubble's echo."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.cluster import open_cluster
from vasculome.compute.memory import MemoryBound
from vasculome.config import ClutterConfig, LocalizeConfig, PsfConfig, RunConfig, UltrasoundConfig
from vasculome.errors import UserError
from vasculome.geometry import Tile
from vasculome.readers.iq import RawIQ
from vasculome.stages.bubbles import bright_bubbles
from vasculome.stages.calibration import BOUNDS, CALIBRATION, PSF, UNKNOWN
from vasculome.stages.clutter_filter import (
    Cut,
    check_band,
    choose_cut,
    filter_bytes,
    filtered_block,
    frame_blocks,
    judge,
    judge_bytes,
    read_block,
    shortest_block,
)
from vasculome.stages.ingest_iq import IQ, acquisition, open_raw
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.stages.point_spread import (
    Pixels,
    check_psf,
    make_psf,
    psf_arrays,
    psf_summary,
)
from vasculome.storage.arrays import ShardedArray, open_array
from vasculome.storage.bundles import write_bundle
from vasculome.storage.shards import checksum
from vasculome.ultrasound.clutter_bounds import ClutterBounds
from vasculome.ultrasound.psf import estimate_bytes


def settings(config: RunConfig) -> tuple[ClutterConfig, LocalizeConfig, PsfConfig]:
    """Return the settings that the output depends on."""
    chosen = config.ultrasound
    return chosen.clutter, chosen.localize.without_network(), chosen.psf


def raw_fingerprint(job: Job) -> str | None:
    """Return a checksum of the echo that the user gives; None where none is given."""
    file = job.config.ultrasound.psf.file
    try:
        return None if file is None else checksum(Path(file).read_bytes())
    except OSError:
        return "cannot be read"


def check(job: Job) -> None:
    """Raise UserError where the filter does not fit the frame rate, or no echo can be had."""
    raw = open_raw(job)
    known = acquisition(job, raw)
    first_depth_um = None if isinstance(raw, RawIQ) else raw.start_um[0]
    chosen = job.config.ultrasound
    check_band(chosen.clutter, frame_rate_hz=known.frame_rate_hz)
    check_psf(chosen.psf, Pixels(known.spacing_um, known.wavelength_um, first_depth_um))


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: a block with copies of the filter, and patches of bubbles."""
    raw = open_raw(job)
    shape, frame_rate_hz = raw.shape, acquisition(job, raw).frame_rate_hz
    chosen = job.config.ultrasound
    (frames,) = frame_blocks(
        shape[0], chosen.clutter, frames_per_run=job.sample.frames_per_run
    ).core_shape
    block = (frames, *shape[1:])
    patches = estimate_bytes(
        chosen.psf.half_width_px, ndim=len(shape) - 1, min_bubbles=chosen.psf.min_bubbles
    )
    filtering = filter_bytes(block, chosen.clutter, frame_rate_hz=frame_rate_hz)
    return MemoryBound(max(filtering, judge_bytes(block, chosen.clutter)) + patches, 1)


def run(job: Job) -> Outcome:
    """Write the evidence for the cut and the echo of a bubble; the summary tells both."""
    iq = open_array(job.folder / IQ)
    chosen = job.config.ultrasound
    grid = frame_blocks(iq.shape[0], chosen.clutter, frames_per_run=job.sample.frames_per_run)
    folder = job.folder / CALIBRATION
    work = functools.partial(
        _calibrate,
        iq=iq,
        chosen=chosen,
        shortest=shortest_block(iq.shape[0], grid),
        first_depth_um=job.manifest("ingest_iq")["summary"].get("first_depth_um"),
        folder=folder,
    )
    # One block: more workers would have nothing to do.
    with open_cluster(job.config.compute.model_copy(update={"workers": 1})) as cluster:
        results = map_tiles(
            work,
            [next(iter(grid))],
            total=1,
            store=folder,
            digest=job.digest(),
            cluster=cluster,
            label="calibrate",
        )
    (found,) = results.values()
    return Outcome(content_of(results.values()), found.record, (CALIBRATION,))


def _calibrate(
    tile: Tile,
    *,
    iq: ShardedArray,
    chosen: UltrasoundConfig,
    shortest: int,
    first_depth_um: float | None,
    folder: Path,
) -> TileResult:
    """Judge one block of frames, filter it, and learn the echo of a bubble from it."""
    known = iq.attributes
    files, record = {BOUNDS: ""}, {}
    cut = None
    if chosen.clutter.method == "svd":
        bounds = judge(read_block(iq, tile), chosen.clutter, frame_rate_hz=known["frame_rate_hz"])
        files[BOUNDS] = write_bundle(folder / BOUNDS, _evidence(bounds, chosen.clutter))
        cut = choose_cut(chosen.clutter, bounds, shortest=shortest)
        record = _cuts(cut, bounds)
    else:
        (folder / BOUNDS).unlink(missing_ok=True)
    filtered = filtered_block(iq, tile, chosen.clutter, cut)
    pixels = Pixels(tuple(known["spacing_um"]), known["wavelength_um"], first_depth_um)
    checked, told = _write_psf(filtered, chosen, pixels, folder / PSF)
    return TileResult(files | {PSF: checked}, record | told)


def _evidence(bounds: ClutterBounds, clutter: ClutterConfig) -> dict[str, NDArray[Any]]:
    """Return what the report draws."""
    return {
        "singular_values": bounds.singular_values,
        "centroid_hz": bounds.centroid_hz,
        "similarity": bounds.similarity.astype(np.float32),
        "noise_value": np.array(bounds.noise_value),
        "tissue_below_hz": np.array(clutter.band_hz[0]),
    }


def _cuts(cut: Cut, bounds: ClutterBounds) -> dict[str, int | None]:
    """Return the cut, and what each sign proposes."""
    return {
        "keep_from": cut.keep_from,
        "keep_to": cut.keep_to,
        "keep_from_centroid": bounds.keep_from_centroid,
        "keep_from_similarity": bounds.keep_from_similarity,
        "keep_to_similarity": bounds.keep_to_similarity,
        "keep_to_noise": bounds.keep_to_noise,
    }


def _write_psf(
    filtered: NDArray[np.complex64], chosen: UltrasoundConfig, pixels: Pixels, path: Path
) -> tuple[str, dict[str, Any]]:
    """Write the echo of a bubble; return the checksum of its file, and what to tell of it.

    Where too few bubbles are isolated it is not known, which is told: it ends nothing here, since
    much can be done without.
    """
    source = chosen.psf.source
    how = chosen.localize.without_network()
    found = bright_bubbles(np.abs(filtered), how) if source == "estimated" else None
    try:
        psf = make_psf(chosen.psf, pixels, iq_t=filtered, bubbles=found)
    except UserError as error:
        if source != "estimated":
            raise
        path.unlink(missing_ok=True)
        return "", {"psf": UNKNOWN, "psf_unknown_because": error.what}
    kept = psf_arrays(psf, pixels)
    return write_bundle(path, kept), {"psf": source, **psf_summary(kept)}
