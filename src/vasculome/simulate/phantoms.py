"""Ready-made phantoms: a light-sheet volume of cortex, and an ultrasound acquisition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vasculome.geometry import Box
from vasculome.simulate.acquisition import make_iq
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.capillaries import join_by_capillaries
from vasculome.simulate.echoes import PointSpread
from vasculome.simulate.flow import flow_on_graph
from vasculome.simulate.microscope import Microscope, expected_light, render
from vasculome.simulate.mosaic import grid_starts, take_tiles, vignette
from vasculome.simulate.rasterize import occupancy
from vasculome.simulate.trees import VesselGraph, grow_tree, merge


def cortex_network(domain_um: Sequence[float], *, rng: np.random.Generator) -> VesselGraph:
    """Grow two arteries and a vein from the top of a box, joined by capillaries of 3 µm."""
    size = np.asarray(domain_um, dtype=np.float64)
    # Leaves per volume as in a box of 0.23 mm³ with 340 of them.
    crowd = float(np.prod(size)) / 2.3e8
    trunks = [((0.0, 0.30, 0.26), 20.0, 120), ((0.0, 0.78, 0.81), 16.0, 70)]
    arteries = [
        grow_tree(
            size,
            n_terminals=max(1, round(n * crowd)),
            root_radius_um=radius,
            inlet_um=size * at,
            rng=rng,
        )
        for at, radius, n in trunks
    ]
    vein = grow_tree(
        size,
        n_terminals=max(1, round(150 * crowd)),
        root_radius_um=25.0,
        inlet_um=size * (0.0, 0.31, 0.78),
        rng=rng,
    )
    return join_by_capillaries(
        arteries, [vein], domain_um=size, cell_um=100.0, radius_um=3.0, rng=rng
    )


def microscope_phantom(
    seed: int,
    *,
    shape: tuple[int, int, int] = (96, 384, 384),
    spacing_um: tuple[float, float, float] = (4.0, 2.0, 2.0),
    microscope: Microscope | None = None,
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Return a light-sheet volume of cortical vessels (z, y, x) and the mask of true vessels."""
    rng = np.random.default_rng(seed)
    network = cortex_network(np.multiply(shape, spacing_um), rng=rng)
    lumen = occupancy(network, box=Box.of_shape(shape), spacing_um=spacing_um)
    volume = render(lumen, spacing_um=spacing_um, rng=rng, microscope=microscope)
    return volume, lumen > 0.5


@dataclass(frozen=True)
class MosaicPhantom:
    """A light-sheet sample seen in overlapping tiles, and what they truly show.

    Attributes
    ----------
    tiles
        Uint16 (z, y, x) each, with noise of its own.
    starts, nominal_starts
        First voxel of each tile in ``truth``, truly and as the stage says, float64 (tiles, 3).
    gains
        Brightness of each tile.
    truth
        Mask of true vessels.
    """

    tiles: list[NDArray[np.uint16]]
    starts: NDArray[np.float64]
    nominal_starts: NDArray[np.float64]
    gains: NDArray[np.float64]
    truth: NDArray[np.bool_]


def mosaic_phantom(
    seed: int,
    *,
    counts: tuple[int, int] = (2, 2),
    tile_shape: tuple[int, int, int] = (64, 256, 256),
    overlap: tuple[int, int] = (48, 48),
    jitter: tuple[float, float, float] = (2.0, 5.0, 5.0),
    vignetting: float = 0.0,
    gain_spread: float = 0.0,
    spacing_um: tuple[float, float, float] = (4.0, 2.0, 2.0),
    microscope: Microscope | None = None,
) -> MosaicPhantom:
    """Return a grid of tiles of cortical vessels, taken by a stage that errs.

    Parameters
    ----------
    seed
        Of vessels, stage and camera.
    counts
        Tiles along y and x.
    tile_shape
        Voxels (z, y, x) of a tile.
    overlap
        Voxels that neighbours nominally share along y and x.
    jitter
        Largest error of the stage along z, y, x, in voxels.
    vignetting
        Part of the light that is lost in a tile's corners.
    gain_spread
        Largest deviation of a tile's brightness from 1.
    spacing_um
        Voxel spacing.
    microscope
        Optics, camera and sample.
    """
    rng = np.random.default_rng(seed)
    scope = microscope or Microscope()
    starts, nominal = grid_starts(
        (1, *counts), tile_shape=tile_shape, overlap=(0, *overlap), jitter=jitter, rng=rng
    )
    shape = tuple(int(n) for n in np.ceil(starts.max(0) + tile_shape) + 1)
    lumen = occupancy(
        cortex_network(np.multiply(shape, spacing_um), rng=rng),
        box=Box.of_shape(shape),
        spacing_um=spacing_um,
    )
    light = expected_light(lumen, spacing_um=spacing_um, rng=rng, microscope=scope)
    gains = rng.uniform(1 - gain_spread, 1 + gain_spread, len(starts))
    tiles = take_tiles(
        light,
        starts,
        tile_shape=tile_shape,
        rng=rng,
        microscope=scope,
        shading=vignette(tile_shape[1:], vignetting),
        gains=gains,
    )
    return MosaicPhantom(tiles, starts, nominal, gains, lumen > 0.5)


def artery_and_vein(
    field_um: Sequence[float],
    *,
    rng: np.random.Generator,
    origin_um: Sequence[float] | None = None,
) -> VesselGraph:
    """Grow an artery and a vein that fill a field of view but for 6 % at each edge.

    Blood enters at up to 40 mm/s at the axis of the widest vessels; the vein's flow is that of an
    artery turned round, towards its root.

    Parameters
    ----------
    field_um
        Size of the field along z, [y,] x.
    origin_um
        Where the field begins; 0 by default.
    """
    field = np.asarray(field_um, dtype=np.float64)
    margin = 0.06 * field
    trees = []
    for side, n_terminals in ((0.32, 110), (0.71, 80)):
        inlet = (field - 2 * margin) / 2
        inlet[0], inlet[-1] = 0.0, side * (field - 2 * margin)[-1]
        tree = grow_tree(
            field - 2 * margin,
            n_terminals=n_terminals,
            root_radius_um=0.9 * n_terminals ** (1 / 3) * 16,
            inlet_um=inlet,
            root_speed_mm_s=20.0,
            tortuosity=0.4,
            segment_um=20.0,
            rng=rng,
        )
        start = margin if origin_um is None else margin + origin_um
        trees.append(replace(tree, positions_um=tree.positions_um + start))
    artery, vein = trees
    return merge([artery, replace(vein, edges=vein.edges[:, ::-1])])


@dataclass(frozen=True)
class UltrasoundPhantom:
    """A simulated acquisition: IQ to be read once, its truth, and what a header would say.

    Attributes
    ----------
    blocks
        Complex64 (frames, z, [y,] x) each.
    bubbles
        Where they truly were; the centre of pixel 0 is the origin.
    vessels
        What they flowed in.
    spacing_um, wavelength_um, frame_rate_hz, n_frames
        Acquisition metadata.
    """

    blocks: Iterator[NDArray[np.complex64]]
    bubbles: BubbleTable
    vessels: VesselGraph
    spacing_um: tuple[float, ...]
    wavelength_um: float
    frame_rate_hz: float
    n_frames: int


def ultrasound_phantom(
    seed: int,
    *,
    n_frames: int,
    shape: tuple[int, ...] = (128, 128),
    mean_bubbles: float = 50.0,
    wavelength_um: float = 98.56,
    frame_rate_hz: float = 1000.0,
    clutter_db: float = 30.0,
    noise_db: float = -20.0,
    block_frames: int = 100,
) -> UltrasoundPhantom:
    """Return bubbles in an artery and a vein, seen by a 15.6 MHz array at 1 kHz.

    Pixels are half a wavelength; ``shape`` may have two or three axes.
    """
    rng = np.random.default_rng(seed)
    spacing_um = (wavelength_um / 2,) * len(shape)
    vessels = artery_and_vein(np.multiply(shape, spacing_um), rng=rng)
    bubbles = flow_on_graph(
        vessels,
        n_frames=n_frames,
        frame_rate_hz=frame_rate_hz,
        mean_bubbles=mean_bubbles,
        lifetime_s=0.4,
        rng=rng,
    )
    blocks = make_iq(
        bubbles,
        shape=shape,
        n_frames=n_frames,
        spacing_um=spacing_um,
        frame_rate_hz=frame_rate_hz,
        psf=PointSpread.typical(wavelength_um),
        seed=seed,
        clutter_db=clutter_db,
        noise_db=noise_db,
        block_frames=block_frames,
    )
    return UltrasoundPhantom(
        blocks=blocks,
        bubbles=bubbles,
        vessels=vessels,
        spacing_um=spacing_um,
        wavelength_um=wavelength_um,
        frame_rate_hz=frame_rate_hz,
        n_frames=n_frames,
    )
