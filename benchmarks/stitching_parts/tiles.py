"""Tiles at known places between voxels, of a rendered sample and of real planes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from vasculome.geometry import Box
from vasculome.simulate.microscope import Microscope, expected_light
from vasculome.simulate.mosaic import grid_starts, sample_at, take_tiles, vignette
from vasculome.simulate.phantoms import cortex_network
from vasculome.simulate.rasterize import occupancy
from vasculome.storage.raw_files import write_tiff_tiles

PHANTOM_UM, PLANES_UM = (4.0, 2.0, 2.0), (5.0, 2.0, 2.0)
JITTER = (2.0, 5.0, 5.0)
OVERLAP = (0, 52, 52)
VIGNETTING, GAIN_SPREAD = 0.3, 0.15

Image = NDArray[np.float32]
Pixels = NDArray[np.uint16]
Expose = Callable[[Image, NDArray[np.float64], tuple[int, ...], np.random.Generator], list[Pixels]]


@dataclass(frozen=True)
class Mosaic:
    """A folder of tiles, where they truly start in voxels, and the voxels' size."""

    folder: Path
    starts: NDArray[np.float64]
    spacing_um: tuple[float, ...]

    def rms_px(self, found: Any) -> float:
        """Return how far tiles are from where they should be, once all are moved alike."""
        apart = np.asarray(found) - self.starts
        return float(np.sqrt(np.square(apart - apart.mean(0)).sum(1).mean()))


def needed(counts: Sequence[int], tile_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the voxels in which a grid of tiles lies, however the stage errs."""
    steps = np.subtract(tile_shape, OVERLAP) * np.subtract(counts, 1)
    return tuple((steps + tile_shape + 2 * np.ceil(JITTER).astype(int) + 1).tolist())


def phantom_light(shape: tuple[int, ...], seed: int) -> Image:
    """Render the light of a sample of cortical vessels."""
    rng = np.random.default_rng(seed)
    network = cortex_network(np.multiply(shape, PHANTOM_UM), rng=rng)
    lumen = occupancy(network, box=Box.of_shape(shape), spacing_um=PHANTOM_UM)
    return expected_light(lumen, spacing_um=PHANTOM_UM, rng=rng, microscope=Microscope())


def read_planes(folder: Path) -> Image:
    return np.stack([tifffile.imread(f) for f in sorted(folder.glob("*.tif"))]).astype(np.float32)


def photograph(
    light: Image, starts: NDArray[np.float64], shape: tuple[int, ...], rng: np.random.Generator
) -> list[Pixels]:
    """Take tiles of a rendered sample."""
    return take_tiles(light, starts, tile_shape=shape, rng=rng, microscope=Microscope())


def cut_planes(
    planes: Image, starts: NDArray[np.float64], shape: tuple[int, ...], rng: np.random.Generator
) -> list[Pixels]:
    """Cut tiles out of planes, each with shot noise of its own, as strong as the planes have it.

    Noise that two tiles share would tell their offset; smoothing takes it out of the planes first,
    and what cannot be sampled between voxels with it.
    """
    smooth = gaussian_filter(planes, (0, 1, 1))
    noise = np.abs(planes - smooth) / np.sqrt(np.maximum(smooth, 1))
    strength = np.float32(1.4826 * np.median(noise))
    tiles = []
    for start in starts:
        tile = np.maximum(sample_at(smooth, start, shape), 0)
        tile += strength * np.sqrt(tile) * rng.standard_normal(shape, dtype=np.float32)
        tiles.append(np.clip(np.rint(tile), 0, 65535).astype(np.uint16))
    return tiles


def cut_mosaic(
    folder: Path, light: Image, spacing_um: tuple[float, ...], *, expose: Expose, seed: int
) -> Mosaic:
    """Write a grid of 2 x 2 tiles that fill ``light``, as far as the stage's errors let them."""
    rng = np.random.default_rng(seed)
    room = np.subtract(light.shape, 2 * np.ceil(JITTER).astype(int) + 1)
    shape = tuple(((room + OVERLAP) // (1, 2, 2)).tolist())
    starts, nominal = grid_starts(
        (1, 2, 2), tile_shape=shape, overlap=OVERLAP, jitter=JITTER, rng=rng
    )
    write_tiff_tiles(folder, expose(light, starts, shape, rng), (nominal * spacing_um).tolist())
    return Mosaic(folder, starts, spacing_um)


def unevenly_lit_mosaic(
    folder: Path, light: Image, *, counts: tuple[int, int], shape: tuple[int, ...], seed: int
) -> Mosaic:
    """Write a grid of tiles with vignetting and gains; the sample is ``light`` and its mirrors."""
    rng = np.random.default_rng(seed)
    beyond = np.maximum(np.subtract(needed((1, *counts), shape), light.shape), 0)
    sample = np.pad(light, [(0, int(n)) for n in beyond], mode="symmetric")
    starts, nominal = grid_starts(
        (1, *counts), tile_shape=shape, overlap=OVERLAP, jitter=JITTER, rng=rng
    )
    tiles = take_tiles(
        sample,
        starts,
        tile_shape=shape,
        rng=rng,
        microscope=Microscope(),
        shading=vignette(shape[1:], VIGNETTING),
        gains=rng.uniform(1 - GAIN_SPREAD, 1 + GAIN_SPREAD, len(starts)),
    )
    write_tiff_tiles(folder, tiles, (nominal * PHANTOM_UM).tolist())
    return Mosaic(folder, starts, PHANTOM_UM)


def part_of(mosaic: Mosaic, folder: Path, kept: NDArray[np.int_]) -> Mosaic:
    """Return some tiles of a mosaic as one of its own; their files are linked, not copied."""
    folder.mkdir(parents=True)
    head, *rows = (mosaic.folder / "tiles.tsv").read_text().splitlines()
    lines = [head, *(rows[k] for k in kept)]
    (folder / "tiles.tsv").write_text("\n".join(lines) + "\n")
    for line in lines[1:]:
        name = line.split("\t")[0]
        os.link(mosaic.folder / name, folder / name)
    return Mosaic(folder, mosaic.starts[kept], mosaic.spacing_um)
