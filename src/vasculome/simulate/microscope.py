"""Light-sheet images of vessels, from staining to camera, and the tiles that they are cut into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Microscope:
    """A light-sheet microscope and its sample; light from the side along x, depth along z.

    Attributes
    ----------
    psf_sigma_um
        Standard deviation of the Gaussian point spread function along (z, y, x).
    photons
        Photons a voxel from a bright, evenly stained vessel.
    background
        Light of unstained tissue, as a part of a vessel's.
    texture
        Relative variation of the background from place to place.
    patchiness
        Relative variation of the staining along vessels.
    attenuation_um
        Depth over which light falls to 1/e.
    uneven_illumination
        Relative loss of light towards the sides of the field.
    tilt
        Relative change of light across the image along (z, y, x).
    stripes
        Standard deviation of the relative brightness of the light sheet's shadows.
    stripe_rows
        Width of the shadows: standard deviation of the Gaussian that smooths them along y.
    gain, offset, read_noise
        Grey levels a photon, at no light, and standard deviation of the camera's noise.
    bits
        Depth of the camera's scale, at most 16; brighter voxels saturate.
    """

    psf_sigma_um: tuple[float, float, float] = (4.0, 1.2, 1.2)
    photons: float = 300.0
    background: float = 0.12
    texture: float = 0.35
    patchiness: float = 0.2
    attenuation_um: float = 800.0
    uneven_illumination: float = 0.25
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)
    stripes: float = 0.06
    stripe_rows: float = 1.5
    gain: float = 8.0
    offset: float = 200.0
    read_noise: float = 6.0
    bits: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ValueError(f"bits must be 1 to 16, not {self.bits}")


def render(
    occupancy: NDArray[np.floating],
    *,
    spacing_um: Sequence[float],
    rng: np.random.Generator,
    microscope: Microscope | None = None,
) -> NDArray[np.uint16]:
    """Return the image that a light-sheet microscope takes of vessels.

    Parameters
    ----------
    occupancy
        Part of each voxel (z, y, x) that is vessel, 0 to 1.
    spacing_um
        Voxel size along (z, y, x).
    rng
        Source of staining, texture, shadows and noise.
    microscope
        Optics, camera and sample.

    Returns
    -------
    numpy.ndarray
        Uint16 of the same shape.
    """
    scope = microscope or Microscope()
    light = expected_light(occupancy, spacing_um=spacing_um, rng=rng, microscope=scope)
    return expose(light, rng=rng, microscope=scope)


def expected_light(
    occupancy: NDArray[np.floating],
    *,
    spacing_um: Sequence[float],
    rng: np.random.Generator,
    microscope: Microscope,
) -> Image:
    """Return what would be seen without noise, as a part of a bright vessel's light.

    Takes the same arguments as `render`, which exposes it.
    """
    scope, shape = microscope, occupancy.shape
    smooth = {
        scale_um: smooth_noise(shape, [scale_um / s for s in spacing_um], rng)
        for scale_um in (15.0, 40.0, 160.0)
    }
    staining = np.exp(scope.patchiness * smooth[40.0] - scope.patchiness**2 / 2)
    grain = (smooth[15.0] + smooth[40.0] + smooth[160.0]) / np.sqrt(3.0)
    tissue = scope.background * np.exp(scope.texture * grain - scope.texture**2 / 2)
    light = occupancy * staining + (1 - occupancy) * tissue
    light = gaussian_filter(
        light.astype(np.float32),
        [sigma / s for sigma, s in zip(scope.psf_sigma_um, spacing_um, strict=True)],
    )
    light *= illumination(shape, spacing_um, scope, rng)
    return light


def expose(light: Image, *, rng: np.random.Generator, microscope: Microscope) -> NDArray[np.uint16]:
    """Return one exposure of ``light`` (see `expected_light`), in grey levels."""
    scope = microscope
    counts = scope.gain * rng.poisson(scope.photons * light).astype(np.float32)
    counts += scope.offset + scope.read_noise * rng.standard_normal(light.shape, dtype=np.float32)
    return np.clip(np.rint(counts), 0, 2**scope.bits - 1).astype(np.uint16)


def smooth_noise(
    shape: tuple[int, ...], scale_voxels: Sequence[float], rng: np.random.Generator
) -> Image:
    """Return Gaussian noise of mean 0 and variance 1, smooth over ``scale_voxels``."""
    # Drawn on a grid just fine enough and enlarged, else wide blurs would cost more than all else.
    step = [max(1.0, scale / 3) for scale in scale_voxels]
    coarse = [int(np.ceil(n / c)) + 1 for n, c in zip(shape, step, strict=True)]
    sigma = [scale / c for scale, c in zip(scale_voxels, step, strict=True)]
    noise = gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), sigma, mode="wrap")
    noise = (noise - noise.mean()) / max(float(noise.std()), 1e-6)
    for axis, (n, c) in enumerate(zip(shape, step, strict=True)):
        below, weight = np.divmod(np.arange(n) / c, 1.0)
        at = below.astype(np.int64)
        weight = weight.astype(np.float32).reshape(
            [-1 if i == axis else 1 for i in range(len(shape))]
        )
        noise = noise.take(at, axis) * (1 - weight) + noise.take(at + 1, axis) * weight
    return noise


def illumination(
    shape: tuple[int, ...],
    spacing_um: Sequence[float],
    scope: Microscope,
    rng: np.random.Generator,
) -> Image:
    """Return the light that reaches each voxel and comes back, 1 at best."""
    depth_um = np.arange(shape[0]) * spacing_um[0]
    attenuation = np.exp(-depth_um / scope.attenuation_um)[:, None, None]
    y, x = (np.linspace(-1, 1, n) for n in shape[1:])
    sides = 1 - scope.uneven_illumination * (y[:, None] ** 2 + x[None, :] ** 2) / 2
    shadows = gaussian_filter1d(rng.standard_normal(shape[:2]), scope.stripe_rows, axis=1)
    shadows *= scope.stripes / max(float(shadows.std()), 1e-12)
    light = attenuation * sides * (1 + shadows[:, :, None])
    for axis, (n, change) in enumerate(zip(shape, scope.tilt, strict=True)):
        ramp = 1 + change * np.linspace(-0.5, 0.5, n)
        light *= ramp.reshape([-1 if i == axis else 1 for i in range(3)])
    return light.astype(np.float32)
