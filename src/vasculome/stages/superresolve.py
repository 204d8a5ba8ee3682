"""IQ → probability of vessels on a grid 8 times finer, by Deep-stULM; bubbles are not localized.

First the blocks of frames: clutter filter and correlation with the echo of a bubble, of which the
pixels that the network is given are kept. Then the field in patches: of each the movies of all
blocks go through the network one by one, each with a border that is cut off again.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.cluster import Cluster
from vasculome.compute.device import pick_device
from vasculome.compute.memory import PROCESS_BYTES, TORCH_BYTES, MemoryBound
from vasculome.config import ClutterConfig, RunConfig, SuperresolveConfig
from vasculome.errors import UserError
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.calibration import cut_of, psf_of
from vasculome.stages.clutter_filter import Cut, filter_bytes, filtered_block, frame_blocks
from vasculome.stages.digest import digest_of
from vasculome.stages.ingest_iq import IQ, acquisition, open_raw
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.stages.vessel_grid import (
    AXES,
    fine_spec,
    movies_of,
    network_shape,
    seen_for,
    widest_seen,
)
from vasculome.stages.vessel_weights import (
    VesselFinder,
    movie_bytes,
    vessel_finder_for,
    vessel_weights_digest,
)
from vasculome.stages.volume import Built, build_maps
from vasculome.storage.arrays import ShardedArray, create_array, open_array
from vasculome.storage.omezarr import ImageSpec
from vasculome.ultrasound.psf import DepthPsf
from vasculome.ultrasound.sparsify import above
from vasculome.ultrasound.upsample import correlating_bytes, fine_correlation

CORRELATION = "correlation.zarr"
PROBABILITY, MOVIES = "vessel_probability", "vessel_movies"

KEEP_PROBABILITY = 0.5
"""Above it a movie shows a vessel."""

_CHUNK_PX = {2: 16, 3: 8}
_SHARD_CHUNKS = 4

_MAP_BYTES = 4 + 4 + 4 + 4 + 1
"""Of a fine pixel: both maps, what a movie adds, and what is made of it."""


def settings(config: RunConfig) -> tuple[ClutterConfig, SuperresolveConfig]:
    """Return the settings that the output depends on."""
    return config.ultrasound.clutter, config.ultrasound.superresolve


def raw_fingerprint(job: Job) -> str:
    """Return a digest of the weights."""
    chosen = job.config.ultrasound.superresolve
    return vessel_weights_digest(chosen, n_dims=len(open_raw(job).shape) - 1)


def check(job: Job) -> None:
    """Raise UserError where the weights of the network are no good, or not for such a sample."""
    _finder_of(job)


def _finder_of(job: Job) -> VesselFinder:
    known = acquisition(job, open_raw(job))
    return vessel_finder_for(
        job.config.ultrasound.superresolve,
        spacing_um=known.spacing_um,
        wavelength_um=known.wavelength_um,
    )


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: a block with its correlation, or a movie in the network."""
    raw, finder = open_raw(job), _finder_of(job)
    clutter = job.config.ultrasound.clutter
    (length,) = _blocks(job, raw.shape[0]).core_shape
    block = (length, *raw.shape[1:])
    filtering = filter_bytes(block, clutter, frame_rate_hz=acquisition(job, raw).frame_rate_hz)
    frame_px = network_shape(raw.shape[1:], finder.factors)
    # The correlation of the block twice: as made, and as it is written.
    correlating = 8 * math.prod(block) + 16 * length * math.prod(frame_px)
    correlating += correlating_bytes(length, math.prod(frame_px))
    outer, patch = widest_seen(frame_px)
    seeing = movie_bytes((min(length, finder.n_frames), *outer), finder)
    seeing += _MAP_BYTES * math.prod(patch)
    return MemoryBound(
        max(filtering, correlating, seeing), job.workers, base_bytes=PROCESS_BYTES + TORCH_BYTES
    )


def _blocks(job: Job, n_frames: int) -> TileGrid:
    return frame_blocks(
        n_frames, job.config.ultrasound.clutter, frames_per_run=job.sample.frames_per_run
    )


def run(job: Job) -> Outcome:
    """Write the correlation that the network sees, and what it makes of it: two maps."""
    iq = open_array(job.folder / IQ)
    finder = _finder_of(job)
    pick_device(finder.device)
    blocks = _blocks(job, iq.shape[0])
    with job.cluster() as cluster:
        correlation, seen = _write_correlation(job, iq, blocks, finder, cluster)
        sites = sum(result.record["sites"] for result in seen.values())
        if sites == 0:
            raise UserError(
                "nothing in any block looks like a bubble to the network",
                where=f"sample {job.sample.sample}",
                fix="lower ultrasound.superresolve.threshold or ultrasound.clutter.keep_from",
            )
        built, spec = _write_maps(job, iq, correlation, blocks, finder, cluster)
    totals = built.totals("found")
    return Outcome(
        digest_of([content_of(seen.values()), built.content]),
        {
            "map_shape": list(spec.shape),
            "pixel_um": [round(size, 4) for size in spec.spacing_um],
            "origin_um": [round(start, 4) for start in spec.origin_um or ()],
            "movies": sum(1 for _ in movies_of(blocks, finder.n_frames)),
            "threshold": finder.threshold,
            "upsampled": list(finder.factors),
            "active_sites_percent": round(100 * sites / math.prod(correlation.shape), 2),
            "vessels_percent": round(100 * totals["found"] / math.prod(spec.shape), 3),
        },
        (CORRELATION, *built.stores),
    )


def _write_correlation(
    job: Job, iq: ShardedArray, blocks: TileGrid, finder: VesselFinder, cluster: Cluster
) -> tuple[ShardedArray, dict[str, TileResult]]:
    """Write the correlation above the threshold, block by block; elsewhere it is 0."""
    shape = network_shape(iq.shape[1:], finder.factors)
    (length,) = blocks.core_shape
    chunk = _CHUNK_PX[len(shape)]
    correlation = create_array(
        job.folder / CORRELATION,
        (iq.shape[0], *shape),
        "complex64",
        (length, *[chunk] * len(shape)),
        (length, *[_SHARD_CHUNKS * chunk] * len(shape)),
        {"threshold": finder.threshold, "upsampled": list(finder.factors)},
        axes=("t", *AXES[len(shape)]),
    )
    work = functools.partial(
        _correlate,
        iq=iq,
        target=correlation,
        clutter=job.config.ultrasound.clutter,
        cut=cut_of(job),
        psf=psf_of(job),
        finder=finder,
    )
    results = map_tiles(
        work,
        blocks,
        total=len(blocks),
        store=correlation.path,
        digest=job.digest(),
        cluster=cluster,
        label="correlate",
        bytes_per_tile=8 * length * math.prod(iq.shape[1:]),
    )
    return correlation, results


def _correlate(
    tile: Tile,
    *,
    iq: ShardedArray,
    target: ShardedArray,
    clutter: ClutterConfig,
    cut: Cut | None,
    psf: DepthPsf,
    finder: VesselFinder,
) -> TileResult:
    """Filter one block, and write its correlation."""
    filtered = filtered_block(iq, tile, clutter, cut)
    kept = np.zeros((len(filtered), *target.shape[1:]), np.complex64)
    for begin, _, correlation in fine_correlation(filtered, psf, finder.factors):
        mask = above(correlation, threshold=finder.threshold)
        kept[begin : begin + len(mask)][mask] = correlation[mask]
    frames = Box((*tile.core.start, *[0] * (kept.ndim - 1)), (*tile.core.stop, *target.shape[1:]))
    return TileResult(target.write(frames, kept), {"sites": int(np.count_nonzero(kept))})


def _write_maps(
    job: Job,
    iq: ShardedArray,
    correlation: ShardedArray,
    blocks: TileGrid,
    finder: VesselFinder,
    cluster: Cluster,
) -> tuple[Built, ImageSpec]:
    """Write the maps, patch by patch: each is a shard of both."""
    spec = fine_spec(
        iq.shape[1:],
        spacing_um=iq.attributes["spacing_um"],
        origin_um=iq.attributes["origin_um"],
        factors=finder.factors,
        name=PROBABILITY,
    )
    movies = dataclasses.replace(
        spec,
        name=MOVIES,
        dtype="uint32",
        unit_attributes={"quantity": "movies that show a vessel", "unit": "1"},
    )
    work = functools.partial(
        _map_patch,
        correlation=correlation,
        movies=list(movies_of(blocks, finder.n_frames)),
        finder=finder,
    )
    grid = TileGrid(Box.of_shape(spec.shape), spec.shard, (0,) * len(spec.shape))
    specs = {PROBABILITY: spec, MOVIES: movies}
    built = build_maps(job, specs, work, grid, cluster=cluster, ledger_of=PROBABILITY)
    return built, spec


def _map_patch(
    tile: Tile, *, correlation: ShardedArray, movies: list[tuple[int, int]], finder: VesselFinder
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Show the network all movies of one patch, one by one."""
    # It imports torch, which the workflow does without.
    from vasculome.stages.vessel_network import movie_vessels  # noqa: PLC0415

    outer, inside = seen_for(tile.core, correlation.shape[1:])
    highest = np.zeros(tile.core.shape, np.float32)
    count = np.zeros(tile.core.shape, np.uint32)
    for first, end in movies:
        movie = correlation.read(Box((first, *outer.start), (end, *outer.stop)))
        probability = movie_vessels(movie, finder)
        if probability is not None:
            np.maximum(highest, probability[inside], out=highest)
            count += probability[inside] > KEEP_PROBABILITY
    return {PROBABILITY: highest, MOVIES: count}, {"found": int(np.count_nonzero(count))}
