"""How one patch looks: values drawn from a scene's ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vasculome.simulate.microscope import Microscope
from vasculome.simulate.optics import PointSpread
from vasculome.simulate.staining import Staining
from vasculome.simulate.tissue import Tissue
from vasculome.training.scenes import Range
from vasculome.training.vessel_scenes import VesselScene


@dataclass(frozen=True)
class Look:
    """Everything of a patch but its vessels.

    Attributes
    ----------
    spacing_um
        Voxel size (z, y, x).
    magnify
        Of the vessels.
    spread, staining, tissue, scope
        Optics, dye, what glows beside vessels, camera and light.
    smoothing
        In voxels, after the exposure; 0 for none.
    on_surface
        Whether the tissue's surface goes through the patch.
    from_label, on_plane
        Whether users' volumes are used, where there are any.
    upper_percent, upper, lower
        Of the normalization.
    """

    spacing_um: tuple[float, float, float]
    magnify: float
    spread: PointSpread
    staining: Staining
    tissue: Tissue
    scope: Microscope
    smoothing: float
    on_surface: bool
    from_label: bool
    on_plane: bool
    upper_percent: float
    upper: float
    lower: float

    @property
    def seen_um(self) -> tuple[float, float, float]:
        """Standard deviation of all blurring along (z, y, x)."""
        z, y, x = (
            math.hypot(sigma, self.smoothing * s)
            for sigma, s in zip(self.spread.sigma_um, self.spacing_um, strict=True)
        )
        return (z, y, x)


def draw_look(scene: VesselScene, rng: np.random.Generator) -> Look:
    """Return the look of one patch."""
    across_um = _log_uniform(rng, scene.spacing_um)
    along_um = across_um * rng.uniform(*scene.anisotropy)
    spacing_um = (max(across_um, min(along_um, scene.most_spacing_um)), across_um, across_um)
    z_most, y_most = scene.most_blur_um
    sigma_um = min(across_um * _log_uniform(rng, scene.sharpness), y_most)
    magnify = _log_uniform(rng, scene.magnify)
    spread = PointSpread(
        sigma_um=(min(sigma_um * rng.uniform(*scene.axial), z_most), sigma_um, sigma_um),
        halo=rng.uniform(*scene.halo),
        rings=rng.uniform(*scene.rings),
    )
    # The light of a thin vessel spreads over the area of the blur.
    radius_um = magnify * sum(scene.beds.capillary_um) / 2
    thin = min(1.0, radius_um**2 / (2 * spread.sigma_um[0] * spread.sigma_um[1]))
    tissue = _tissue(scene, thin, rng)
    return Look(
        spacing_um=spacing_um,
        magnify=magnify,
        spread=spread,
        staining=_staining(scene, rng),
        tissue=tissue,
        scope=_microscope(scene, tissue.level / thin, thin, rng),
        smoothing=_sometimes(rng, scene.smoothed) * rng.uniform(*scene.smoothing),
        on_surface=_sometimes(rng, scene.surface),
        from_label=_sometimes(rng, scene.from_labels),
        on_plane=_sometimes(rng, scene.on_planes),
        upper_percent=100 - _log_uniform(rng, _rest(scene.upper_percent)),
        upper=_log_uniform(rng, scene.upper),
        lower=rng.uniform(*scene.lower),
    )


@dataclass(frozen=True)
class LargeVessel:
    """An artery or a vein that goes through a patch.

    Attributes
    ----------
    radius_um
        Of it.
    weight
        Grey level that becomes 1: from 0, that of the patch without the vessel, as if the volume
        had hardly any like it, to 1, that of the patch with it.
    seed
        Of its course and staining.
    """

    radius_um: float
    weight: float
    seed: int


def draw_large_vessel(scene: VesselScene, rng: np.random.Generator) -> LargeVessel | None:
    """Return the large vessel of one patch, None if it has none."""
    if not _sometimes(rng, scene.large_vessels):
        return None
    radius_um = _log_uniform(rng, scene.large_um)
    return LargeVessel(radius_um, rng.random(), int(rng.integers(2**63)))


def _log_uniform(rng: np.random.Generator, span: Range) -> float:
    low, high = span
    return low * float(high / low) ** rng.random()


def _rest(percent: Range) -> Range:
    low, high = percent
    return 100 - low, 100 - high


def _sometimes(rng: np.random.Generator, part: float) -> bool:
    return bool(rng.random() < part)


def _staining(scene: VesselScene, rng: np.random.Generator) -> Staining:
    return Staining(
        spread=rng.uniform(*scene.spread),
        patchiness=rng.uniform(*scene.patchiness),
        patch_um=_log_uniform(rng, scene.patch_um),
        gaps=_sometimes(rng, scene.with_gaps) * rng.uniform(*scene.gaps),
        gap_light=rng.uniform(*scene.gap_light),
        hollow=_sometimes(rng, scene.with_hollow) * rng.uniform(*scene.hollow),
        lumen=rng.uniform(*scene.lumen),
        wall_um=rng.uniform(*scene.wall_um),
    )


def _tissue(scene: VesselScene, thin: float, rng: np.random.Generator) -> Tissue:
    density = _log_uniform(rng, scene.cells_per_mm3)
    level = _log_uniform(rng, scene.background)
    most = (1 - level) / (scene.least_contrast * level)
    return Tissue(
        level=level * thin,
        texture=min(rng.uniform(*scene.texture), most),
        grain_um=rng.uniform(*scene.grain_um),
        cells_per_mm3=_sometimes(rng, scene.cellular) * density,
        cell_um=rng.uniform(*scene.cell_um),
        cell_light=rng.uniform(*scene.cell_light),
    )


def _microscope(
    scene: VesselScene, level: float, thin: float, rng: np.random.Generator
) -> Microscope:
    """Return camera and light; ``thin`` is a capillary's light over that of a wide vessel."""
    bits = int(rng.choice(scene.bits))
    scale = 2**bits - 1
    photons, read_noise = _log_uniform(rng, scene.photons), rng.uniform(*scene.read_noise)
    # Of a capillary: (1 − level) p photons over the noise √(level p + read noise²).
    needed = scene.least_contrast / (1 - level)
    least = needed * (needed * level + math.sqrt(needed**2 * level**2 + 4 * read_noise**2)) / 2
    wide = max(photons, least) / thin
    gain = _log_uniform(rng, scene.exposure) * scale / (wide * math.sqrt(thin))
    z, y, x = (float(rng.choice([-1, 1])) * rng.uniform(*scene.tilt) for _ in range(3))
    return Microscope(
        photons=wide,
        attenuation_um=_log_uniform(rng, scene.attenuation_um),
        uneven_illumination=0.0,
        tilt=(z, y, x),
        stripes=_sometimes(rng, scene.striped) * rng.uniform(*scene.stripes),
        stripe_rows=rng.uniform(*scene.stripe_rows),
        gain=gain,
        offset=rng.uniform(*scene.offset) * scale,
        read_noise=gain * read_noise,
        bits=bits,
    )
