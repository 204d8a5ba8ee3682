"""How dyes show vessels: brighter and dimmer ones, patchy ones, walls around a dark lumen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from vasculome.simulate.trees import Float, Int

_WAVES = 24


@dataclass(frozen=True)
class Staining:
    """How much light vessels give.

    Attributes
    ----------
    spread
        Standard deviation of the logarithm of the light from vessel to vessel.
    patchiness
        The same along vessels.
    patch_um
        Length over which it changes.
    gaps
        Part of the vessels' length that is stained badly.
    gap_light
        Its light over what it would have been.
    hollow
        Part of the vessels of which the wall is stained and not the lumen.
    lumen
        Light of the lumen of those, over the wall's.
    wall_um
        Thickness of the wall.
    """

    spread: float = 0.0
    patchiness: float = 0.0
    patch_um: float = 40.0
    gaps: float = 0.0
    gap_light: float = 0.3
    hollow: float = 0.0
    lumen: float = 0.2
    wall_um: float = 1.5


def stain(
    middle_um: Float, vessel: Int, *, staining: Staining, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return how bright places along vessels are, 1 on average, and which are hollow.

    Parameters
    ----------
    middle_um
        Places (n, 3).
    vessel
        Number of each one's vessel (n,).
    staining
        Of the sample.
    rng
        Draws it.

    Returns
    -------
    light, hollow
        Float32 and bool (n,).
    """
    n_vessels = int(vessel.max(initial=-1)) + 1
    own = rng.standard_normal(n_vessels)
    hollow = rng.random(n_vessels) < staining.hollow
    log = staining.spread * own[vessel] - staining.spread**2 / 2
    along = smooth_field(middle_um, scale_um=staining.patch_um, rng=rng)
    log += staining.patchiness * along - staining.patchiness**2 / 2
    light = np.exp(log)
    if staining.gaps > 0:
        weak = smooth_field(middle_um, scale_um=staining.patch_um / 2, rng=rng)
        # From 1 to 0 over a fifth of the field's spread: stain fades, it is not cut.
        edge = 1 / (1 + np.exp((weak - _quantile(staining.gaps)) / 0.1))
        light *= 1 - (1 - staining.gap_light) * edge
    return light.astype(np.float32), hollow[vessel]


def vessel_light(
    depth_um: NDArray[np.float32],
    light: NDArray[np.float32],
    hollow: NDArray[np.bool_],
    *,
    voxel_um: float,
    staining: Staining,
) -> NDArray[np.float32]:
    """Return the light of voxels, from how deep they lie in a vessel.

    Parameters
    ----------
    depth_um
        Inside the wall, as of `vasculome.simulate.rasterize.nearest_wall`.
    light, hollow
        Of the vessel there, as of `stain`.
    voxel_um
        Width of a voxel: the wall's surface is a ramp as wide, of height ½ at depth 0.
    """
    filled = np.clip(0.5 + depth_um / voxel_um, 0.0, 1.0)
    # A wall thinner than a voxel is drawn as thick as one, else it would be missed between them.
    wall = max(staining.wall_um, voxel_um)
    inner = np.clip(0.5 + (depth_um - wall) / voxel_um, 0.0, 1.0)
    share = np.where(hollow, 1 - (1 - staining.lumen) * inner, 1.0)
    return (filled * share * light).astype(np.float32)


def smooth_field(at_um: Float, *, scale_um: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random field of mean 0 and variance 1 at places (n, 3), smooth over ``scale_um``.

    A sum of plane waves whose wave vectors are normal, so that its correlation is
    exp(−r² / (2 scale²)) as their number grows.
    """
    waves = rng.standard_normal((_WAVES, at_um.shape[1])) / scale_um
    phase = rng.uniform(0, 2 * math.pi, _WAVES)
    return math.sqrt(2 / _WAVES) * np.cos(at_um @ waves.T + phase).sum(axis=1)


def _quantile(part: float) -> float:
    """Return the value below which ``part`` of a normal distribution lies."""
    return float(ndtri(part))
