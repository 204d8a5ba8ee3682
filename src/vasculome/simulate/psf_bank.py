"""Point spread functions by depth, as tables, and bubbles' echoes placed with them.

A bank is what PyMUST simulates or what was measured: an echo at each of a few depths, finely
sampled. For a pixel size it becomes stamps: the echo shifted by each of a few fractions of a pixel,
its carrier taken off so that it changes slowly. A bubble between two depths and between the
fractions gets the linear mean of the stamps around it, and the carrier where it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter
from scipy.signal import fftconvolve


@dataclass(frozen=True, eq=False)
class PsfBank:
    """Echoes of a bubble at rising depths, as plain arrays.

    Attributes
    ----------
    depth_um
        Float64 (bands,): depths below the array, rising.
    echoes
        Complex64 (bands, z, [y,] x), odd along each spatial axis; the bubble is at the centre of
        the middle sample, where the echo is 1. The carrier is in it, as beamforming leaves it.
    step_um
        Sampling along each spatial axis; an eighth of a wavelength along z or finer.

    Raises
    ------
    ValueError
        If shapes do not fit, or depths do not rise.
    """

    depth_um: NDArray[np.float64]
    echoes: NDArray[np.complex64]
    step_um: tuple[float, ...]

    def __post_init__(self) -> None:
        shape = self.echoes.shape
        if len(shape) not in (3, 4) or any(n % 2 == 0 for n in shape[1:]):
            raise ValueError(f"echoes must be odd along 2 or 3 spatial axes, not {shape}")
        if self.depth_um.shape != shape[:1] or len(self.step_um) != len(shape) - 1:
            raise ValueError(f"depths and steps do not fit echoes of shape {shape}")
        if (np.diff(self.depth_um) <= 0).any():
            raise ValueError("depths must rise")

    @property
    def carrier_rad_um(self) -> float:
        """Radians that the phase turns in a micrometre along z, on average over the bank.

        It is less than 4π/λ where waves come back at an angle.
        """
        turn = np.vdot(self.echoes[:, :-1], self.echoes[:, 1:])
        return float(np.angle(turn) / self.step_um[0])

    def stamps(self, spacing_um: Sequence[float], *, fractions: int = 8) -> Stamps:
        """Return the bank for a pixel size.

        Parameters
        ----------
        spacing_um
            Pixel size along each axis.
        fractions
            Steps in which a pixel is divided. Placed between two, an echo keeps its centre but
            loses energy, at most (pixel / fractions)² / 8σ² for a Gaussian of σ along each axis:
            0.3 % for pixels of λ/2 and 8 fractions.

        Raises
        ------
        ValueError
            If the echoes do not reach a pixel, or axes do not fit.
        """
        ndim = self.echoes.ndim - 1
        if len(spacing_um) != ndim:
            raise ValueError(f"{len(spacing_um)} pixel sizes for echoes in {ndim}-D")
        half = [(n // 2) * s for n, s in zip(self.echoes.shape[1:], self.step_um, strict=True)]
        reach = [int(h / p) for h, p in zip(half, spacing_um, strict=True)]
        if min(reach) < 1:
            raise ValueError(f"echoes reach {half} µm, less than a pixel of {spacing_um}")
        carrier = self.carrier_rad_um
        along = self.step_um[0] * (np.arange(self.echoes.shape[1]) - self.echoes.shape[1] // 2)
        slow = self.echoes * np.exp(-1j * carrier * along).reshape(-1, *[1] * (ndim - 1))
        splines = [spline_filter(echo, order=3, output=np.complex128) for echo in slow]
        sizes = [2 * r + 2 for r in reach]
        parts = [fractions + 1] * ndim
        table = np.empty((len(slow), *parts, *sizes), np.complex64)
        for shift in itertools.product(range(fractions + 1), repeat=ndim):
            at = np.meshgrid(
                *(
                    (np.arange(-r, r + 2) - s / fractions) * p / step + n // 2
                    for r, s, p, step, n in zip(
                        reach, shift, spacing_um, self.step_um, slow.shape[1:], strict=True
                    )
                ),
                indexing="ij",
            )
            for band, spline in enumerate(splines):
                table[(band, *shift)] = map_coordinates(spline, at, order=3, prefilter=False)
        return Stamps(self.depth_um, table, tuple(map(float, spacing_um)), carrier)


@dataclass(frozen=True, eq=False)
class Stamps:
    """A bank for one pixel size: a `Psf` by table.

    Attributes
    ----------
    depth_um
        Float64 (bands,).
    table
        Complex64 (bands, fractions + 1 along each axis, pixels along each axis): the echo without
        its carrier, for a bubble that far behind the pixel of index ``pixels // 2 - 1``.
    spacing_um
        Pixel size along each axis.
    carrier_rad_um
        Radians that the phase turns in a micrometre along z.
    """

    depth_um: NDArray[np.float64]
    table: NDArray[np.complex64]
    spacing_um: tuple[float, ...]
    carrier_rad_um: float

    def speckle(
        self,
        shape: Sequence[int],
        *,
        spacing_um: Sequence[float],
        origin_um: Sequence[float],
        rng: np.random.Generator,
    ) -> NDArray[np.complex128]:
        """Return the image of a random scatterer in each pixel, (z, [y,] x).

        The echo is that of the depth where it is seen, between bands their linear mean.
        """
        self._check(spacing_um)
        ndim = len(shape)
        size = self.table.shape[-ndim:]
        scatterers = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        along = spacing_um[0] * (np.arange(size[0]) - (size[0] // 2 - 1))
        carrier = np.exp(1j * self.carrier_rad_um * along).reshape(-1, *[1] * (ndim - 1))
        middle = tuple(slice(n // 2 - 1, n // 2 - 1 + m) for n, m in zip(size, shape, strict=True))
        depth_um = origin_um[0] + spacing_um[0] * np.arange(shape[0])
        band, part = _between(self.depth_um, depth_um)
        image = np.zeros(shape, np.complex128)
        for number, shifted in enumerate(self.table):
            weight = np.where(band == number, 1 - part, 0) + np.where(band + 1 == number, part, 0)
            if weight.any():
                seen = fftconvolve(scatterers, shifted[(0,) * ndim] * carrier)[middle]
                image += weight.reshape(-1, *[1] * (ndim - 1)) * seen
        return image

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
        flat = self.table.ndim == 5
        self._check(spacing_um[[0, 2]] if flat else spacing_um)
        table = self.table[:, :, None, :, :, None, :] if flat else self.table
        band, part = _between(self.depth_um, position_um[:, 0] + depth_um)
        _stamp(
            frames, frame, position_um / spacing_um, amplitude, band, part,
            table.view(np.float32).reshape(*table.shape[:4], -1), np.array(table.shape[4:]),
            self.carrier_rad_um * float(spacing_um[0]),
        )  # fmt: skip

    def _check(self, spacing_um: Sequence[float] | NDArray[np.float64]) -> None:
        if tuple(map(float, spacing_um)) != self.spacing_um:
            raise ValueError(f"stamps for pixels of {self.spacing_um} µm, not {spacing_um}")


def _between(
    bands_um: NDArray[np.float64], depth_um: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the band above each depth and the part of the way to the next; ends hold."""
    place = np.interp(depth_um, bands_um, np.arange(len(bands_um)))
    band = np.minimum(place.astype(np.int64), max(len(bands_um) - 2, 0))
    return band, place - band


@njit(cache=True, nogil=True)
def _stamp(
    frames: NDArray[np.complex64],
    frame: NDArray[np.int64],
    position: NDArray[np.float64],
    amplitude: NDArray[np.float64],
    band: NDArray[np.int64],
    part: NDArray[np.float64],
    table: NDArray[np.float32],
    size: NDArray[np.int64],
    carrier: float,
) -> None:
    """Add to frames (t, z, y, x) the stamps (bands, fractions z, y, x, values) at pixels."""
    mean = np.empty(table.shape[4], np.float32)
    before, after = np.empty(4, np.int64), np.empty(4)
    start, low, high = np.empty(3, np.int64), np.empty(3, np.int64), np.empty(3, np.int64)
    for i in range(len(frame)):
        before[0], after[0] = band[i], part[i]
        for d in range(3):
            whole = np.floor(position[i, d])
            place = (position[i, d] - whole) * (table.shape[d + 1] - 1)
            before[d + 1] = int(place)
            after[d + 1] = place - before[d + 1]
            # A single slice has a single pixel in y, at the bubble.
            start[d] = int(whole) - (max(size[d] // 2, 1) - 1)
            low[d] = max(0, -start[d])
            high[d] = min(size[d], frames.shape[d + 1] - start[d])
        if (low >= high).any():
            continue
        mean[:] = 0
        for corner in range(16):
            weight = 1.0
            for d in range(4):
                weight *= after[d] if corner >> d & 1 else 1 - after[d]
            if weight > 0:
                stamp = table[
                    before[0] + (corner & 1),
                    before[1] + (corner >> 1 & 1),
                    before[2] + (corner >> 2 & 1),
                    before[3] + (corner >> 3 & 1),
                ]
                w = np.float32(weight)
                for k in range(len(mean)):
                    mean[k] += w * stamp[k]
        for z in range(low[0], high[0]):
            turn = carrier * (start[0] + z - position[i, 0])
            row = np.complex64(amplitude[i] * np.exp(1j * turn))
            for y in range(low[1], high[1]):
                line = frames[frame[i], start[0] + z, start[1] + y]
                first = (z * size[1] + y) * size[2]
                for x in range(low[2], high[2]):
                    value = np.complex64(complex(mean[2 * (first + x)], mean[2 * (first + x) + 1]))
                    line[start[2] + x] += row * value
