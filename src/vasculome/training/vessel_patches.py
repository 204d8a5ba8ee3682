"""Rendered patches of vessels that segmenters learn from: any one at any time, from its number."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from vasculome.geometry import Box
from vasculome.simulate.microscope import expose, illumination
from vasculome.simulate.optics import FineGrid, brightest, fine_grid, photograph
from vasculome.simulate.rasterize import nearest_wall
from vasculome.simulate.refine import blended
from vasculome.simulate.staining import stain, vessel_light
from vasculome.simulate.tissue import autofluorescence, inside_surface
from vasculome.training.splits import SPLITS, Split
from vasculome.training.vessel_beds import (
    VascularBed,
    joined,
    large_vessel,
    piece_of,
    vascular_bed,
)
from vasculome.training.vessel_looks import LargeVessel, Look, draw_large_vessel, draw_look
from vasculome.training.vessel_scenes import VesselScene
from vasculome.training.vessel_sources import Sources, background_light, label_light
from vasculome.vessels.normalize import rescale

_PATCHES_PER_BED = {"train": 16, "validation": 4, "test": 4}

_HALF_MAXIMUM = math.sqrt(2 * math.log(2))  # of a Gaussian, in standard deviations
_UNBROKEN = math.sqrt(3) / 2  # of a voxel's edges: such an ellipsoid always holds a voxel's centre
_SURFACE_UM = 10.0
_BLENDING_PASSES = 4

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class VesselPatch:
    """A picture of vessels and its truth.

    Attributes
    ----------
    image
        Float32 (z, y, x) in [0, 1], normalized as volumes are.
    mask
        Bool of the same shape: vessels.
    spacing_um
        Voxel size (z, y, x).
    raw
        Uint16: the camera's grey levels.
    bits
        Depth of its scale.
    """

    image: Image
    mask: Mask
    spacing_um: tuple[float, float, float]
    raw: NDArray[np.uint16]
    bits: int


def make_patch(
    scene: VesselScene, *, split: Split, index: int, seed: int, sources: Sources | None = None
) -> VesselPatch:
    """Return one patch; the same arguments give the same bytes.

    Splits show different vessels, and so do any 16 patches (4 for validation and tests) and the
    next 16, which see theirs turned, mirrored, magnified and cut out at random.

    Parameters
    ----------
    scene
        What it shows.
    split
        What it is for.
    index
        Its number, from 0.
    seed
        Of all patches.
    sources
        Users' volumes that some patches are made with.
    """
    number = (seed, SPLITS[split], index)
    rng = np.random.default_rng([*number, 3])
    look = draw_look(scene, rng)
    given = sources or Sources()
    bed = large = None
    if not (look.from_label and given.labels):
        which = index // _PATCHES_PER_BED[split]
        bed = vascular_bed(scene.beds, seed=seed, split=SPLITS[split], number=which)
        large = draw_large_vessel(scene, np.random.default_rng([*number, 4]))
    exposed = partial(_exposed, scene, look, bed, given, split)
    raw, mask = exposed(None, deepcopy(rng))
    darkest, brightest = _range(raw, look)
    if large is not None:
        raw, mask = exposed(large, rng)
        # Inside a large vessel all is bright; the volume around is as it would be without it.
        low, high = _range(raw, look)
        darkest, brightest = min(low, darkest), brightest + large.weight * (high - brightest)
    low = darkest - look.lower * (brightest - darkest)
    high = darkest + look.upper * (brightest - darkest)
    image = rescale(raw, low=low, high=high)
    return VesselPatch(image, mask, look.spacing_um, raw, look.scope.bits)


def _exposed(
    scene: VesselScene,
    look: Look,
    bed: VascularBed | None,
    given: Sources,
    split: Split,
    large: LargeVessel | None,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint16], Mask]:
    """Return grey levels and mask; without a bed vessels are those of a label."""
    grid = fine_grid(scene.shape, spacing_um=look.spacing_um, sigma_um=look.spread.sigma_um)
    if bed is None:
        light, mask = _labelled(scene, look, given, split, grid, rng)
    else:
        light, mask = _grown(scene, look, bed, large, grid, rng)
    light = photograph(
        light, grid=grid, shape=scene.shape, spacing_um=look.spacing_um, spread=look.spread
    )
    light += _around(scene, look, given, split, rng)
    if look.on_surface:
        inside = inside_surface(
            scene.shape, spacing_um=look.spacing_um, roughness_um=_SURFACE_UM, rng=rng
        )
        light *= inside
        mask &= inside > 0.5
    light *= illumination(scene.shape, look.spacing_um, look.scope, rng)
    raw = expose(np.maximum(light, 0, out=light), rng=rng, microscope=look.scope)
    if look.smoothing > 0:
        smooth = gaussian_filter(raw.astype(np.float32), look.smoothing)
        raw = np.rint(smooth).astype(np.uint16)
    return raw, mask


@dataclass(frozen=True, eq=False)
class _Stained:
    """Vessels that reach into a patch; of edges, how bright they are and which are hollow."""

    piece: VascularBed
    brightness: Image
    hollow: Mask

    def with_large(self, other: _Stained) -> _Stained:
        return _Stained(
            joined(self.piece, other.piece),
            np.concatenate([self.brightness, other.brightness]),
            np.concatenate([self.hollow, other.hollow]),
        )


def _grown(
    scene: VesselScene,
    look: Look,
    bed: VascularBed,
    large: LargeVessel | None,
    grid: FineGrid,
    rng: np.random.Generator,
) -> tuple[Image, Mask]:
    """Return the light of vessels on the fine grid, above the tissue's, and the mask."""
    start = np.array(grid.start_um)
    stop = start + np.multiply(grid.shape, grid.spacing_um)
    piece = piece_of(bed, start_um=start, stop_um=stop, magnify=look.magnify, rng=rng)
    vessels = _Stained(
        piece, *stain(piece.middle_um, piece.vessel, staining=look.staining, rng=rng)
    )
    mask, wide = _marked(scene, look, piece), np.zeros(scene.shape, np.bool_)
    if large is not None:
        artery = _large(large, look, start, stop)
        wide = _marked(scene, look, artery.piece)
        vessels = vessels.with_large(artery)
    voxel_um = math.prod(grid.spacing_um) ** (1 / 3)
    depth, edge = nearest_wall(
        vessels.piece.graph,
        box=Box.of_shape(grid.shape),
        spacing_um=grid.spacing_um,
        origin_um=grid.start_um,
        margin_um=voxel_um / 2,
    )
    brightness = blended(vessels.piece.graph, vessels.brightness, passes=_BLENDING_PASSES)
    light = np.zeros(grid.shape, np.float32)
    drawn = edge >= 0
    owner, depth = edge[drawn], depth[drawn]
    bright = brightness.astype(np.float32)[owner]
    shine = vessel_light(
        depth, bright, vessels.hollow[owner], voxel_um=voxel_um, staining=look.staining
    )
    # Where a vessel is, no tissue is.
    filled = np.clip(0.5 + depth / voxel_um, 0, 1)
    light[drawn] = shine - (np.float32(look.tissue.level) * filled).astype(np.float32)
    if scene.label in {"painted", "brushed"}:
        # Annotators fill the lumen of hollow vessels. A large one, which would outshine the others,
        # is no measure of what is bright.
        full = np.zeros(grid.shape, np.float32)
        full[drawn] = filled * bright * (owner < len(piece.vessel))
        mask = _painted(scene, look, full, mask & ~wide, grid)
    return light, mask | wide


def _large(
    large: LargeVessel, look: Look, start_um: NDArray[np.float64], stop_um: NDArray[np.float64]
) -> _Stained:
    """Return a large vessel, stained."""
    rng = np.random.default_rng(large.seed)
    artery = large_vessel(start_um=start_um, stop_um=stop_um, radius_um=large.radius_um, rng=rng)
    staining = look.staining
    if 2 * large.radius_um > (stop_um - start_um).min():
        # Nothing but the dark inside might be seen.
        staining = replace(staining, hollow=0.0)
    light, hollow = stain(artery.middle_um, artery.vessel, staining=staining, rng=rng)
    # What hardly stands out would teach that uneven tissue is a vessel.
    return _Stained(artery, np.maximum(light, (1 + np.float32(look.tissue.level)) / 2), hollow)


def _painted(scene: VesselScene, look: Look, full: Image, typical: Mask, grid: FineGrid) -> Mask:
    """Return where the light of filled vessels is bright beside the median of typical places.

    Brushed, it is smoothed first. Without such places all is dark.
    """
    if not typical.any():
        return typical
    light = photograph(
        full, grid=grid, shape=scene.shape, spacing_um=look.spacing_um, spread=look.spread
    )
    level = scene.painted_level
    if scene.label == "brushed":
        light = gaussian_filter(light, scene.brush_voxels, mode="nearest")
        level = scene.brushed_level
    painted: Mask = light > level * np.median(light[typical])
    return painted


def _marked(scene: VesselScene, look: Look, piece: VascularBed) -> Mask:
    """Return the mask of a bed's vessels.

    As seen, a vessel ends where its light falls to half: at its wall if it is wide, and if it is
    thin where the sum of its variance (r²/4 across) and the blur's has it.
    """
    radius = piece.graph.radius_um
    blur = (0.0, 0.0, 0.0) if scene.label == "lumen" else look.seen_um
    z, y = (
        np.maximum.reduce(
            [
                radius,
                _HALF_MAXIMUM * np.sqrt(blur[axis] ** 2 + radius**2 / 4) * (blur[axis] > 0),
                np.full_like(radius, _UNBROKEN * look.spacing_um[axis]),
            ]
        )
        for axis in (0, 1)
    )
    depth, _ = nearest_wall(
        replace(piece.graph, radius_um=y),
        box=Box.of_shape(scene.shape),
        spacing_um=look.spacing_um,
        margin_um=look.spacing_um[1] / 2,
        stretch=z / y,
    )
    return depth > 0


def _labelled(
    scene: VesselScene,
    look: Look,
    given: Sources,
    split: Split,
    grid: FineGrid,
    rng: np.random.Generator,
) -> tuple[Image, Mask]:
    """Return what `_grown` does, for vessels of a label volume; they are never hollow."""
    chosen = given.labels[int(rng.integers(len(given.labels)))]
    filled = label_light(
        chosen,
        split=split,
        shape=grid.shape,
        spacing_um=np.divide(grid.spacing_um, look.magnify),
        rng=rng,
    )
    drawn = filled > 0.05
    at_um = np.argwhere(drawn) * np.array(grid.spacing_um)
    one_vessel = np.zeros(len(at_um), np.int64)
    brightness, _ = stain(at_um, one_vessel, staining=look.staining, rng=rng)
    light = np.zeros(grid.shape, np.float32)
    light[drawn] = filled[drawn] * (brightness - np.float32(look.tissue.level))
    # A label marks what was seen already.
    return light, brightest(filled, grid=grid, shape=scene.shape) > 0.5


def _around(
    scene: VesselScene, look: Look, given: Sources, split: Split, rng: np.random.Generator
) -> Image:
    """Return the light of the tissue."""
    if look.on_plane and given.backgrounds:
        chosen = given.backgrounds[int(rng.integers(len(given.backgrounds)))]
        piece = background_light(chosen, split=split, shape=scene.shape, rng=rng)
        return np.float32(look.tissue.level) * piece
    return autofluorescence(scene.shape, spacing_um=look.spacing_um, tissue=look.tissue, rng=rng)


def _range(raw: NDArray[np.uint16], look: Look) -> tuple[float, float]:
    """Return the darkest voxel, and the percentile that becomes 1."""
    high = np.percentile(raw, look.upper_percent, method="inverted_cdf")
    return float(raw.min()), float(high)
