"""Simulated correlation movies that networks learn from: any one at any time, from its number."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vasculome.simulate.acquisition import Scanner
from vasculome.simulate.bubbles import BubbleSizes, BubbleTable, rank
from vasculome.simulate.echoes import Psf
from vasculome.simulate.flow import flow_on_graph
from vasculome.training.paths import fine_paths
from vasculome.training.point_spread import assumed_echo, point_spread
from vasculome.training.scenes import UlmScene, broad_2d, broad_3d, paper_2d, paper_3d
from vasculome.training.splits import SPLITS, Split
from vasculome.training.vasculature import cortex, enlarged, part_within
from vasculome.ultrasound.correlate import correlation_map

__all__ = [
    "Split", "UlmMovie", "UlmScene", "broad_2d", "broad_3d", "fine_paths", "make_movie", "paper_2d",
    "paper_3d", "path_target",
]  # fmt: skip

_MOVIES_PER_NETWORK = 32


@dataclass(frozen=True)
class UlmMovie:
    """A movie and its truth.

    Attributes
    ----------
    iq, correlation
        Complex64 (t, z, [y,] x): what the clutter filter leaves, and its local correlation with
        the echo of a bubble.
    bubbles
        Those in the field of view; the centre of pixel 0 is the origin. One that leaves it and
        comes back is another one then.
    spacing_um
        Pixel size along z, [y,] x.
    wavelength_um, frame_rate_hz
        Of this movie.
    """

    iq: NDArray[np.complex64]
    correlation: NDArray[np.complex64]
    bubbles: BubbleTable
    spacing_um: tuple[float, ...]
    wavelength_um: float
    frame_rate_hz: float

    @property
    def positions_px(self) -> NDArray[np.float64]:
        """Where the bubbles are, (rows, z, [y,] x); the centre of pixel 0 is 0."""
        return self.bubbles.position_um / self.spacing_um


def make_movie(scene: UlmScene, *, split: Split, index: int, seed: int) -> UlmMovie:
    """Return one movie; the same arguments give the same bytes.

    Splits show different vessels, and so do any 32 training movies and the next 32, which see
    theirs turned, mirrored and cut out at random. A 2-D movie shows a slice of the vessels.

    Parameters
    ----------
    scene
        What it shows.
    split
        What it is for.
    index
        Its number, from 0.
    seed
        Of all movies.
    """
    rng = np.random.default_rng([seed, SPLITS[split], index])
    spacing_um = tuple(scene.wavelength_um * rng.uniform(*scene.spacing, scene.n_dims))
    rate_hz = rng.uniform(*scene.frame_rate_hz)
    bubbles = _bubbles(scene, split, index, seed, spacing_um, rate_hz, rng)
    psf = point_spread(scene, spacing_um, rng)
    iq = _echoes(scene, bubbles, psf, spacing_um, rate_hz, rng)
    wrong = 1 + scene.psf_error * rng.uniform(-1, 1, 2)
    pixel = bubbles.position_um / spacing_um
    inside = ((pixel >= -0.5) & (pixel < np.array(scene.shape_px) - 0.5)).all(axis=1)
    return UlmMovie(
        iq=iq,
        correlation=correlation_map(iq, assumed_echo(psf, spacing_um, wrong=wrong)),
        bubbles=_visits(bubbles.take(inside)),
        spacing_um=spacing_um,
        wavelength_um=scene.wavelength_um,
        frame_rate_hz=rate_hz,
    )


def path_target(movie: UlmMovie, *, factor: int, chunk_frames: int) -> NDArray[np.bool_]:
    """Return where a movie's bubbles went: :func:`fine_paths` of them."""
    return fine_paths(
        movie.bubbles.track,
        movie.bubbles.frame,
        movie.positions_px,
        shape_px=movie.correlation.shape[1:],
        n_frames=len(movie.correlation),
        factor=factor,
        chunk_frames=chunk_frames,
    )


def _bubbles(
    scene: UlmScene,
    split: Split,
    index: int,
    seed: int,
    spacing_um: tuple[float, ...],
    rate_hz: float,
    rng: np.random.Generator,
) -> BubbleTable:
    """Let bubbles flow through the movie's vessels; in 2-D return those in its slice."""
    alone = scene.one_test_network and split != "train"
    field_um = np.multiply(scene.shape_px, spacing_um)
    scale = field_um.max() / rng.uniform(*scene.tissue_um)
    flat = scene.n_dims == 2
    box_um, start_um = field_um, -0.5 * np.array(spacing_um)
    if flat:
        box_um = np.insert(box_um, 1, scale * rng.uniform(*scene.slice_um))
        start_um = np.insert(start_um, 1, 0.0)
    vessels = enlarged(
        cortex(seed, SPLITS[split], 0 if alone else index // _MOVIES_PER_NETWORK),
        box_um=box_um,
        start_um=start_um,
        scale=scale,
        speed=rng.uniform(*scene.root_speed_mm_s),
        rng=None if alone else rng,
    )
    part = part_within(vessels, start_um=start_um, box_um=box_um)
    bubbles = flow_on_graph(
        vessels,
        n_frames=scene.n_frames,
        frame_rate_hz=rate_hz,
        mean_bubbles=rng.uniform(*scene.bubbles) / part,
        sizes=BubbleSizes(log_spread=scene.log_spread),
        rng=rng,
    )
    if not flat:
        return bubbles
    across = bubbles.position_um[:, 1]
    rows = bubbles.take((across >= 0) & (across < box_um[1]))
    return replace(
        rows,
        position_um=rows.position_um[:, [0, 2]],
        velocity_mm_s=rows.velocity_mm_s[:, [0, 2]],
    )


def _visits(bubbles: BubbleTable) -> BubbleTable:
    """Renumber tracks from 0, one for each uninterrupted visit."""
    order = np.lexsort((bubbles.frame, bubbles.track))
    begins = np.diff(bubbles.track[order], prepend=-1) != 0
    begins |= np.diff(bubbles.frame[order], prepend=-2) != 1
    visit = np.empty(len(bubbles), np.int64)
    visit[order] = np.cumsum(begins)
    _, first, number = np.unique(visit, return_index=True, return_inverse=True)
    return replace(bubbles, track=rank(first)[number])


def _echoes(
    scene: UlmScene,
    bubbles: BubbleTable,
    psf: Psf,
    spacing_um: tuple[float, ...],
    rate_hz: float,
    rng: np.random.Generator,
) -> NDArray[np.complex64]:
    """Return IQ: bubbles, noise, and what is left of the tissue."""
    noise_db = rng.uniform(*scene.noise_db)
    clutter_db = rng.uniform(*scene.clutter_db)
    dirty = rng.random() < scene.cluttered
    grainy = rng.random() < scene.grainy
    scanner = Scanner(
        shape=scene.shape_px,
        spacing_um=spacing_um,
        frame_rate_hz=rate_hz,
        psf=psf,
        seed=int(rng.integers(2**31)),
        clutter_db=clutter_db if dirty else -math.inf,
        noise_db=-math.inf if grainy else noise_db,
    )
    iq = scanner.frames(bubbles, 0, scene.n_frames)
    if grainy:
        origin_um = (0.0,) * scene.n_dims
        for i in range(len(iq)):
            noise = psf.speckle(scene.shape_px, spacing_um=spacing_um, origin_um=origin_um, rng=rng)
            noise *= 10 ** (noise_db / 20) / np.sqrt(np.mean(np.abs(noise) ** 2))
            iq[i] += noise
    return iq
