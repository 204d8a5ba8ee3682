"""How a bubble looks in a movie, and how it is thought to look by what looks for bubbles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import PointSpread, Psf, add_echoes
from vasculome.simulate.psf_bank import Stamps
from vasculome.training.probes import DEPTHS, echo_at
from vasculome.training.scenes import UlmScene
from vasculome.ultrasound.psf import DepthPsf, given_psf

_REACH = (1.0, 1.5)
"""Wavelengths that the echo of a probe reaches in correlation, along z and across."""


def point_spread(scene: UlmScene, spacing_um: tuple[float, ...], rng: np.random.Generator) -> Psf:
    """Draw the echo of a movie: the same at all its depths.

    Raises
    ------
    ValueError
        If no echo of a probe is known at the scene's depths.
    """
    if rng.random() < scene.from_probe:
        low, high = scene.depth
        depths = [depth for depth in DEPTHS[scene.n_dims] if low <= depth <= high]
        if not depths:
            raise ValueError(f"no echo is known {low} to {high} wavelengths below the probe")
        depth = float(rng.choice(depths))
        return echo_at(depth, wavelength_um=scene.wavelength_um, spacing_um=spacing_um)
    typical = PointSpread.typical(scene.wavelength_um)
    depth_um = scene.wavelength_um * rng.uniform(*scene.depth)
    lateral = typical.lateral_sigma_um + typical.lateral_growth * depth_um
    return PointSpread(
        wavelength_um=scene.wavelength_um,
        axial_sigma_um=typical.axial_sigma_um * rng.uniform(*scene.width),
        lateral_sigma_um=lateral * rng.uniform(*scene.width),
        side_lobe=rng.uniform(*scene.side_lobe),
    )


def assumed_echo(
    psf: Psf, spacing_um: tuple[float, ...], *, wrong: NDArray[np.float64]
) -> DepthPsf:
    """Return the echo that movies are correlated with, for a bubble in the middle of a voxel.

    Parameters
    ----------
    psf
        Of :func:`point_spread`.
    wrong
        How many times as long, and as wide, it is thought to be.
    """
    if isinstance(psf, Stamps):
        return given_psf(_cut_out(psf, wrong))
    if not isinstance(psf, PointSpread):
        raise TypeError(f"no echo of a {type(psf).__name__}")
    assumed = replace(
        psf,
        axial_sigma_um=psf.axial_sigma_um * wrong[0],
        lateral_sigma_um=psf.lateral_sigma_um * wrong[1],
    )
    return given_psf(_drawn(assumed, spacing_um))


def _drawn(psf: PointSpread, spacing_um: tuple[float, ...]) -> NDArray[np.complex64]:
    """Return an echo by formula, 2 standard deviations to each side."""
    sigma_um = [psf.axial_sigma_um] + [psf.lateral_sigma_um] * (len(spacing_um) - 1)
    reach = [max(2, round(2 * s / p)) for s, p in zip(sigma_um, spacing_um, strict=True)]
    image = np.zeros((1, *(2 * r + 1 for r in reach)), np.complex64)
    middle_um = np.multiply([reach], spacing_um)
    bubble = BubbleTable(
        track=np.zeros(1, np.int64),
        frame=np.zeros(1, np.int64),
        position_um=middle_um,
        velocity_mm_s=np.zeros_like(middle_um),
        amplitude=np.ones(1, np.float32),
    )
    add_echoes(image, bubble, first_frame=0, spacing_um=spacing_um, psf=psf)
    return np.asarray(image[0])


def _cut_out(psf: Stamps, wrong: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the middle of a probe's echo, stretched under its carrier."""
    n_dims = len(psf.spacing_um)
    # Angles and bandwidth leave a little less of the carrier than 4π/λ.
    wavelength_um = 4 * np.pi / psf.carrier_rad_um
    whole = psf.table[(0,) * (1 + n_dims)]
    offsets = [
        np.arange(-r, r + 1)
        for r in (
            max(2, round(reach * wavelength_um / p))
            for reach, p in zip(_REACH[:1] + _REACH[1:] * (n_dims - 1), psf.spacing_um, strict=True)
        )
    ]
    at = np.meshgrid(
        *(
            size // 2 - 1 + away / factor
            for size, away, factor in zip(
                whole.shape, offsets, [wrong[0]] + [wrong[1]] * (n_dims - 1), strict=True
            )
        ),
        indexing="ij",
    )
    carrier = np.exp(1j * psf.carrier_rad_um * psf.spacing_um[0] * offsets[0])
    slow = map_coordinates(whole, at, order=3)
    return np.asarray(slow * carrier.reshape(-1, *[1] * (n_dims - 1)), np.complex128)
