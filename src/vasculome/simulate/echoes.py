"""Microbubbles' echoes by formula: a Gaussian pulse added at sub-pixel positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from vasculome.simulate.bubbles import BubbleTable

_REACH = 3.0  # standard deviations beyond which an echo is below 1.2 % and left out
_LOBE_AT, _LOBE_WIDTH = 2.8, 0.5  # standard deviations of the main lobe, for a sinc


@dataclass(frozen=True)
class PointSpread:
    """A Gaussian pulse on its carrier, wider to the sides the deeper it is.

    The echo of a bubble at (z0, x0) is
    exp(−(z − z0)²/2σz² − (x − x0)²/2σx² + 4πi (z − z0)/λ): delay-and-sum of IQ data leaves the
    two-way carrier in place, so that motion along z turns the phase of a pixel by −4π dz/λ.

    Attributes
    ----------
    wavelength_um
        Wavelength of the transmitted pulse.
    axial_sigma_um
        Standard deviation of the envelope along z.
    lateral_sigma_um
        Standard deviation along the other axes, at depth 0.
    lateral_growth
        Micrometres that it widens a micrometre of depth.
    side_lobe
        Height of the first side lobes over the peak, in opposite phase, along every lateral axis.
        An aperture without apodization has 0.217: its profile is sinc(x/λF) at f-number F, with a
        main lobe as wide as a Gaussian's of σ = 0.51 λF, and its side lobes at 1.43 λF = 2.8 σ.
    """

    wavelength_um: float
    axial_sigma_um: float
    lateral_sigma_um: float
    lateral_growth: float = 0.0
    side_lobe: float = 0.0

    @property
    def carrier_rad_um(self) -> float:
        """Radians that the phase turns in a micrometre along z."""
        return 4 * math.pi / self.wavelength_um

    @classmethod
    def typical(cls, wavelength_um: float) -> PointSpread:
        """Return about what a linear array gives: 1 λ long, 1.2 λ wide, 1.7 λ at 64 λ of depth."""
        return cls(
            wavelength_um=wavelength_um,
            axial_sigma_um=0.42 * wavelength_um,
            lateral_sigma_um=0.51 * wavelength_um,
            lateral_growth=0.0033,
        )

    def speckle(
        self,
        shape: Sequence[int],
        *,
        spacing_um: Sequence[float],
        origin_um: Sequence[float],
        rng: np.random.Generator,
    ) -> NDArray[np.complex128]:
        """Return noise with the grain and the carrier of an echo at mid-depth, (z, [y,] x)."""
        depth_um = np.arange(shape[0]) * spacing_um[0]
        lateral = self.lateral_sigma_um + self.lateral_growth * float(
            depth_um.mean() + origin_um[0]
        )
        sigma = [self.axial_sigma_um, *[lateral] * (len(shape) - 1)]
        voxels = [s / p for s, p in zip(sigma, spacing_um, strict=True)]
        grain = gaussian_filter(rng.normal(size=shape), voxels)
        grain = grain + 1j * gaussian_filter(rng.normal(size=shape), voxels)
        carrier = np.exp(4j * math.pi * depth_um / self.wavelength_um)
        return grain * carrier.reshape(-1, *[1] * (len(shape) - 1))

    def add(
        self,
        frames: NDArray[np.complex64],
        frame: NDArray[np.int64],
        position_um: NDArray[np.float64],
        amplitude: NDArray[np.float64],
        spacing_um: NDArray[np.float64],
        depth_um: float,
    ) -> None:
        """Add echoes to frames (t, z, y, x) at positions (n, 3) from the centre of voxel 0."""
        _add(
            frames, frame, position_um, amplitude, spacing_um, depth_um, self.axial_sigma_um,
            self.lateral_sigma_um, self.lateral_growth, self.side_lobe, self.carrier_rad_um,
        )  # fmt: skip


class Psf(Protocol):
    """How a bubble's echo looks: a formula (`PointSpread`) or a table (`psf_bank.Stamps`)."""

    @property
    def carrier_rad_um(self) -> float:
        """Radians that the phase turns in a micrometre along z."""

    def speckle(
        self,
        shape: Sequence[int],
        *,
        spacing_um: Sequence[float],
        origin_um: Sequence[float],
        rng: np.random.Generator,
    ) -> NDArray[np.complex128]:
        """Return the image of scatterers everywhere, (z, [y,] x)."""

    def add(
        self,
        frames: NDArray[np.complex64],
        frame: NDArray[np.int64],
        position_um: NDArray[np.float64],
        amplitude: NDArray[np.float64],
        spacing_um: NDArray[np.float64],
        depth_um: float,
    ) -> None:
        """Add echoes to frames (t, z, y, x) at positions (n, 3) from the centre of voxel 0."""


def add_echoes(
    iq: NDArray[np.complex64],
    bubbles: BubbleTable,
    *,
    first_frame: int,
    spacing_um: Sequence[float],
    psf: Psf,
    origin_um: Sequence[float] | None = None,
) -> None:
    """Add bubbles' echoes to frames, in place.

    Parameters
    ----------
    iq
        Complex64 (frames, z, [y,] x).
    bubbles
        Their positions; rows of frames outside ``iq`` are passed over.
    first_frame
        Number of the first frame of ``iq`` in ``bubbles``.
    spacing_um, origin_um
        Pixel size, and centre of pixel 0 (0 by default).
    psf
        Echo of a bubble of amplitude 1.
    """
    rows = bubbles.between(first_frame, first_frame + len(iq))
    # 2-D as a single slice in y, where everything lies at 0.
    axes = [0, 2] if rows.ndim == 2 else [0, 1, 2]
    position, spacing, origin = np.zeros((len(rows), 3)), np.ones(3), np.zeros(3)
    position[:, axes] = rows.position_um
    spacing[axes] = spacing_um
    if origin_um is not None:
        origin[axes] = origin_um
    frames = iq[:, :, None, :] if rows.ndim == 2 else iq
    psf.add(
        frames,
        rows.frame - first_frame,
        position - origin,
        rows.amplitude.astype(np.float64),
        spacing,
        float(origin[0]),
    )


@njit(cache=True, nogil=True)
def _add(
    frames: NDArray[np.complex64],
    frame: NDArray[np.int64],
    position: NDArray[np.float64],
    amplitude: NDArray[np.float64],
    spacing: NDArray[np.float64],
    depth_um: float,
    axial: float,
    lateral: float,
    growth: float,
    side_lobe: float,
    carrier: float,
) -> None:
    """Add each bubble's separable echo over the pixels within reach."""
    size = np.array(frames.shape[1:])
    low, high, sigma = np.empty(3, np.int64), np.empty(3, np.int64), np.empty(3)
    profile = np.empty((3, size.max()), dtype=np.complex128)
    for i in range(len(frame)):
        sigma[0] = axial
        sigma[1:] = lateral + growth * max(0.0, position[i, 0] + depth_um)
        for d in range(3):
            reach = _REACH * sigma[d]
            lobes = d > 0 and side_lobe != 0
            if lobes:
                reach += _LOBE_AT * sigma[d]
            low[d] = max(0, int(np.ceil((position[i, d] - reach) / spacing[d])))
            high[d] = min(size[d], int(np.floor((position[i, d] + reach) / spacing[d])) + 1)
            for k in range(low[d], high[d]):
                away = k * spacing[d] - position[i, d]
                profile[d, k] = np.exp(-0.5 * (away / sigma[d]) ** 2)
                if lobes:
                    off = (abs(away) / sigma[d] - _LOBE_AT) / _LOBE_WIDTH
                    profile[d, k] -= side_lobe * np.exp(-0.5 * off**2)
                if d == 0:
                    profile[d, k] *= amplitude[i] * np.exp(1j * carrier * away)
        for z in range(low[0], high[0]):
            for y in range(low[1], high[1]):
                row = profile[0, z] * profile[1, y]
                for x in range(low[2], high[2]):
                    frames[frame[i], z, y, x] += row * profile[2, x]
