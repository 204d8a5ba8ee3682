"""Point spread functions simulated with PyMUST, for linear and matrix arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.errors import UserError
from vasculome.simulate.psf_bank import PsfBank

Float = NDArray[np.float64]
Complex = NDArray[np.complex128]

_SAMPLES_PER_PERIOD = 4
_FADE = 0.25  # part of the reach over which an echo fades out


@dataclass(frozen=True)
class LinearArray:
    """A linear array and its plane waves; by default an L22-14v at 15.625 MHz.

    Attributes
    ----------
    frequency_hz, bandwidth
        Centre frequency, and its relative bandwidth at −6 dB.
    n_elements, pitch_um, width_um
        Elements, their distance and their width.
    angles_deg
        Plane waves that are compounded.
    f_number
        Depth over the receive aperture of beamforming.
    sound_speed_m_s
        Speed of sound.
    """

    frequency_hz: float = 15.625e6
    bandwidth: float = 0.67
    n_elements: int = 128
    pitch_um: float = 100.0
    width_um: float = 80.0
    angles_deg: tuple[float, ...] = (-1.0, 0.0, 1.0)
    f_number: float = 1.0
    sound_speed_m_s: float = 1540.0

    ndim = 2

    @property
    def wavelength_um(self) -> float:
        """Wavelength at the centre frequency."""
        return 1e6 * self.sound_speed_m_s / self.frequency_hz

    @property
    def is_symmetric(self) -> bool:
        """Whether there is a plane wave to the left for each to the right."""
        return sorted(self.angles_deg) == sorted(-a for a in self.angles_deg)

    def echo(self, pymust: ModuleType, depth_um: float, axes_um: Sequence[Float]) -> Complex:
        """Return the compounded image (z, x) of a point at x = 0."""
        param = _param(pymust, self)
        param.Nelements = self.n_elements
        param.pitch = 1e-6 * self.pitch_um
        param.kerf = param.pitch - param.width
        param.fnumber = self.f_number
        z_m, x_m = (1e-6 * a for a in np.meshgrid(*axes_um, indexing="ij"))
        total = np.zeros(z_m.shape, np.complex128)
        for angle in np.deg2rad(self.angles_deg):
            delays = pymust.txdelay(param, angle)
            point = np.zeros(1), np.array([1e-6 * depth_um]), np.ones(1)
            rf, _ = pymust.simus(*point, delays, param, _options(pymust))
            iq = pymust.rf2iq(rf, param.fs, param.fc, param.bandwidth)
            matrix = pymust.dasmtx(1j * np.array(iq.shape), x_m, z_m, delays, param)
            total += (matrix @ iq.flatten(order="F")).reshape(z_m.shape, order="F")
        return total


@dataclass(frozen=True)
class MatrixArray:
    """A square matrix array and its plane waves; by default 32 x 32 elements at 7.8125 MHz.

    Attributes
    ----------
    frequency_hz, bandwidth
        Centre frequency, and its relative bandwidth at −6 dB.
    n_elements, pitch_um, width_um
        Elements along x and along y, their distance and their width.
    angles_deg
        Plane waves that are compounded: angle towards x, angle towards y.
    f_number
        Depth over the receive aperture of beamforming.
    sound_speed_m_s
        Speed of sound.
    """

    frequency_hz: float = 7.8125e6
    bandwidth: float = 0.67
    n_elements: int = 32
    pitch_um: float = 300.0
    width_um: float = 275.0
    angles_deg: tuple[tuple[float, float], ...] = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    f_number: float = 1.0
    sound_speed_m_s: float = 1540.0

    ndim = 3

    @property
    def wavelength_um(self) -> float:
        """Wavelength at the centre frequency."""
        return 1e6 * self.sound_speed_m_s / self.frequency_hz

    @property
    def is_symmetric(self) -> bool:
        """Whether the plane waves are the same seen from the left, and from behind."""
        waves = sorted(self.angles_deg)
        return waves == sorted((-x, y) for x, y in waves) == sorted((x, -y) for x, y in waves)

    def echo(self, pymust: ModuleType, depth_um: float, axes_um: Sequence[Float]) -> Complex:
        """Return the compounded image (z, y, x) of a point at x = y = 0."""
        param = _param(pymust, self)
        line = 1e-6 * self.pitch_um * (np.arange(self.n_elements) - (self.n_elements - 1) / 2)
        param.elements = np.stack([axis.ravel() for axis in np.meshgrid(line, line)])
        param.height = param.width
        param.fnumber = np.full(2, self.f_number)
        z_m, y_m, x_m = (1e-6 * axis for axis in axes_um)
        plane = np.meshgrid(y_m, x_m, indexing="ij")
        total = np.zeros((len(z_m), *plane[0].shape), np.complex128)
        for angles in np.deg2rad(self.angles_deg):
            delays = np.sin(angles) @ param.elements / param.c
            delays = (delays - delays.min())[None]
            point = np.zeros(1), np.zeros(1), np.array([1e-6 * depth_um]), np.ones(1)
            rf = pymust.simus3(*point, delays, param, _options(pymust))[0]
            iq = pymust.rf2iq(rf, param.fs, param.fc, param.bandwidth)
            # The matrix of a whole volume would take gigabytes.
            for z, depth in enumerate(z_m):
                grid = plane[1], plane[0], np.full(plane[0].shape, depth)
                matrix = pymust.dasmtx3(1j * np.array(iq.shape), *grid, delays, param)
                total[z] += (matrix @ iq.flatten(order="F")).reshape(plane[0].shape, order="F")
        return total


def simulate_echoes(
    array: LinearArray | MatrixArray, *, depth_um: Sequence[float], offsets_um: Sequence[Float]
) -> Complex:
    """Simulate a bubble at each depth below the middle of the array, and beamform its echo.

    Each plane wave is transmitted, its echo received (``simus``), demodulated (``rf2iq``), delayed
    and summed (``dasmtx``), and the waves are added up. A depth takes about half a second for a
    linear array; for a matrix array, a quarter of a minute to a quarter of an hour, by the pixels.

    Parameters
    ----------
    depth_um
        Depths below the array.
    offsets_um
        How far pixels are from the bubble along z, [y,] x.

    Returns
    -------
    numpy.ndarray
        Complex128 (depths, z, [y,] x).

    Raises
    ------
    UserError
        If PyMUST is not installed.

    Notes
    -----
    Source: Garcia, Computer Methods and Programs in Biomedicine 218, 106726, 2022,
    doi:10.1016/j.cmpb.2022.106726.
    """
    pymust = _pymust()
    z, *lateral = offsets_um
    return np.stack([array.echo(pymust, depth, [depth + z, *lateral]) for depth in depth_um])


def simulate_bank(
    array: LinearArray | MatrixArray,
    *,
    depth_um: Sequence[float],
    reach_wavelengths: tuple[float, float] = (3.0, 6.0),
    steps_per_wavelength: tuple[int, int] = (8, 4),
) -> PsfBank:
    """Return the echoes of :func:`simulate_echoes` as a bank.

    Parameters
    ----------
    depth_um
        Depths below the array, rising; echoes between them are interpolated.
    reach_wavelengths
        How far echoes are kept from their middle, axially and laterally; over the last quarter
        they fade out. In 3-D, less keeps stamps small.
    steps_per_wavelength
        Sampling of the bank, axially and laterally.

    Raises
    ------
    UserError
        If PyMUST is not installed.
    """
    lateral = array.ndim - 1
    steps = np.array([steps_per_wavelength[0], *[steps_per_wavelength[1]] * lateral])
    reach = np.array([reach_wavelengths[0], *[reach_wavelengths[1]] * lateral])
    half = np.rint(reach * steps).astype(int)
    step_um = array.wavelength_um / steps
    # To both sides of an array whose waves are alike to both sides, so is the image.
    mirrored = array.is_symmetric
    starts = [-half[0], *(0 if mirrored else -n for n in half[1:])]
    offsets_um = [s * np.arange(a, n + 1) for s, a, n in zip(step_um, starts, half, strict=True)]
    echoes = simulate_echoes(array, depth_um=depth_um, offsets_um=offsets_um)
    if mirrored:
        ends = [(0, 0), (0, 0), *((n, 0) for n in half[1:])]
        echoes = np.pad(echoes, ends, mode="reflect")
    echoes /= echoes[(..., *half)].reshape(-1, *[1] * array.ndim)
    for axis, n in enumerate(half):
        echoes *= _fade(n).reshape(-1, *[1] * (lateral - axis))
    return PsfBank(
        np.asarray(depth_um, np.float64), echoes.astype(np.complex64), tuple(step_um.tolist())
    )


def _fade(half: int) -> Float:
    """Return a window that is 1 in the middle and falls as a cosine to 0 beyond both ends."""
    away = np.abs(np.arange(-half, half + 1)) / (half + 1)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((away - 1) / _FADE + 1, 0, 1))


def _param(pymust: ModuleType, array: LinearArray | MatrixArray) -> Any:
    param = pymust.utils.Param()
    param.fc = array.frequency_hz
    param.bandwidth = 100 * array.bandwidth
    param.fs = _SAMPLES_PER_PERIOD * array.frequency_hz
    param.c = array.sound_speed_m_s
    param.width = 1e-6 * array.width_um
    return param


def _options(pymust: ModuleType) -> Any:
    options = pymust.utils.Options()
    options.ParPool = False
    options.WaitBar = False
    return options


def _pymust() -> ModuleType:
    try:
        import pymust  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            "PyMUST, which simulates the point spread function, is not installed",
            where="point spread function",
            fix="pip install pymust, or take another point spread function",
        ) from error
    return pymust
