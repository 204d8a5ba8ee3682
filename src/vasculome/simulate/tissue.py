"""What glows beside vessels: tissue of uneven texture, cells, specks, and its surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from vasculome.simulate.microscope import smooth_noise

Image = NDArray[np.float32]

_SPECK_SPREAD = 0.8  # of the logarithm of the cells' light: few are far brighter than most


@dataclass(frozen=True)
class Tissue:
    """Light of unstained tissue, as a part of a bright vessel's.

    Attributes
    ----------
    level
        Mean without cells.
    texture
        Standard deviation of its logarithm.
    grain_um
        Scale of its finest structure; the coarsest is five times that.
    cells_per_mm3
        Density of the cells that glow or are dark.
    cell_um
        Standard deviation of a cell's picture.
    cell_light
        Median light at a cell's middle, over ``level``; negative: darker than the tissue.
    """

    level: float = 0.1
    texture: float = 0.3
    grain_um: float = 10.0
    cells_per_mm3: float = 0.0
    cell_um: float = 4.0
    cell_light: float = 1.0


def autofluorescence(
    shape: tuple[int, int, int],
    *,
    spacing_um: Sequence[float],
    tissue: Tissue,
    rng: np.random.Generator,
) -> Image:
    """Return the light of tissue without vessels, float32 of ``shape``, not negative."""
    fine, coarse = (
        smooth_noise(shape, [max(scale_um / s, 0.35) for s in spacing_um], rng)
        for scale_um in (tissue.grain_um, 5 * tissue.grain_um)
    )
    grain = (fine + coarse) * np.float32(np.sqrt(0.5))
    light = np.exp(tissue.texture * grain - np.float32(tissue.texture**2 / 2))
    if tissue.cells_per_mm3 > 0:
        light += cells(shape, spacing_um=spacing_um, tissue=tissue, rng=rng)
    return np.maximum(tissue.level * light, 0.0, dtype=np.float32)


def cells(
    shape: tuple[int, int, int],
    *,
    spacing_um: Sequence[float],
    tissue: Tissue,
    rng: np.random.Generator,
) -> Image:
    """Return round cells at random places, in parts of the tissue's level; few are very bright."""
    voxels = np.prod(shape)
    count = int(rng.poisson(tissue.cells_per_mm3 * 1e-9 * float(np.prod(spacing_um)) * voxels))
    sigma = np.maximum(tissue.cell_um / np.asarray(spacing_um), 0.35)
    points = np.zeros(shape, np.float32)
    light = tissue.cell_light * rng.lognormal(0.0, _SPECK_SPREAD, count)
    peak = float(np.prod(np.maximum(np.sqrt(2 * np.pi) * sigma, 1.0)))
    np.add.at(points.reshape(-1), rng.integers(voxels, size=count), light * peak)
    return gaussian_filter(points, sigma, mode="constant", truncate=3.0)


def inside_surface(
    shape: tuple[int, int, int],
    *,
    spacing_um: Sequence[float],
    roughness_um: float,
    rng: np.random.Generator,
) -> Image:
    """Return which part of each voxel lies in the tissue, whose rough surface cuts the image.

    The surface is a plane of any direction through a place in the middle half of the image, raised
    and lowered by ``roughness_um``.
    """
    normal = rng.standard_normal(3)
    normal /= np.linalg.norm(normal)
    extent = np.asarray(shape) * spacing_um
    through = extent * rng.uniform(0.25, 0.75, 3)
    axes = [np.arange(n) * s for n, s in zip(shape, spacing_um, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    height = normal[0] * (z - through[0]) + normal[1] * (y - through[1])
    height = height + normal[2] * (x - through[2])
    scale = [float(extent.max()) / 6 / s for s in spacing_um]
    height = height + roughness_um * smooth_noise(shape, scale, rng)
    return np.clip(0.5 + height / min(spacing_um), 0.0, 1.0).astype(np.float32)
