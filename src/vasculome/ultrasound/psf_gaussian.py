"""A Gaussian point spread function, with the carrier that the IQ has."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vasculome.ultrasound.detect import widths
from vasculome.ultrasound.psf import DepthPsf, given_psf

_SIGMAS_PER_FWHM = 1 / math.sqrt(8 * math.log(2))


def gaussian_psf(
    *, fwhm_px: Sequence[float], half_width: int | Sequence[int], turn_rad: float = 0.0
) -> DepthPsf:
    """Return a Gaussian echo, the same at all depths.

    Parameters
    ----------
    fwhm_px
        Full width at half of the maximum along z, [y,] x, in voxels.
    half_width
        Voxels that the echo reaches from its middle, one for all axes or one for each.
    turn_rad
        By how much its phase turns from a row to the next (:func:`axial_turn`).
    """
    ndim = len(fwhm_px)
    reach = [n for n in widths(half_width, ndim) if n]
    echo = np.ones((1,) * ndim, np.complex128)
    for axis, (width, n) in enumerate(zip(fwhm_px, reach, strict=True)):
        away = np.arange(-n, n + 1)
        line = np.exp(-0.5 * (away / (width * _SIGMAS_PER_FWHM)) ** 2).astype(np.complex128)
        if axis == 0:
            line *= np.exp(1j * turn_rad * away)
        echo = echo * line.reshape([-1 if a == axis else 1 for a in range(ndim)])
    return given_psf(echo)


def axial_turn(iq_t: NDArray[np.complexfloating]) -> float:
    """Return by how much the phase of echoes turns from a row to the next: the carrier.

    It is the mean over all frames (t, z, [y,] x), in which strong echoes count more; delay-and-sum
    leaves 4π/λ a micrometre, demodulated in depth it is none.
    """
    ahead = sum(complex(np.vdot(frame[:-1], frame[1:])) for frame in iq_t)
    return float(np.angle(ahead))
