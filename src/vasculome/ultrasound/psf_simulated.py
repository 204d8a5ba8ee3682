"""The point spread function of a linear array, simulated with PyMUST."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from vasculome.errors import UserError
from vasculome.ultrasound.psf import DepthPsf, given_psf

_SAMPLES_PER_PERIOD = 4


def simulate_psf(
    *,
    depth_um: Sequence[float],
    spacing_um: tuple[float, float],
    origin_depth_um: float,
    half_width: int | tuple[int, int],
    frequency_hz: float,
    n_elements: int,
    pitch_um: float,
    bandwidth: float = 0.7,
    f_number: float = 0.0,
    angles_deg: Sequence[float] = (0.0,),
    sound_speed_m_s: float = 1540.0,
) -> DepthPsf:
    """Simulate a bubble below the middle of a linear array, beamform its echo and cut it out.

    Each plane wave is transmitted, its echo received (PyMUST's ``simus``), demodulated (``rf2iq``)
    and delayed and summed (``dasmtx``); the waves are then averaged.

    Parameters
    ----------
    depth_um
        Depths below the array, rising: one echo each.
    spacing_um
        Voxel size along z and x.
    origin_depth_um
        Depth of the centre of voxel 0 below the array.
    half_width
        Voxels that the echo reaches from its middle, one for both axes or one for each.
    frequency_hz, bandwidth
        Centre frequency, and its relative bandwidth at −6 dB.
    n_elements, pitch_um
        The array.
    f_number
        Depth over the receive aperture that beamforming uses; 0 takes all elements.
    angles_deg
        Plane waves that are compounded.
    sound_speed_m_s
        Speed of sound.

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
    reach_z, reach_x = (half_width,) * 2 if isinstance(half_width, int) else half_width
    param = pymust.utils.Param()
    param.fc = frequency_hz
    param.bandwidth = 100 * bandwidth
    param.Nelements = n_elements
    param.pitch = 1e-6 * pitch_um
    param.kerf = 0.1 * param.pitch
    param.fs = _SAMPLES_PER_PERIOD * frequency_hz
    param.c = sound_speed_m_s
    param.fnumber = f_number
    x_m, z_m = np.meshgrid(
        1e-6 * spacing_um[1] * np.arange(-reach_x, reach_x + 1),
        1e-6 * spacing_um[0] * np.arange(-reach_z, reach_z + 1),
    )
    echoes = [
        sum(
            _echo(pymust, param, np.deg2rad(angle), x_m, z_m + 1e-6 * depth, 1e-6 * depth)
            for angle in angles_deg
        )
        for depth in depth_um
    ]
    depth_px = (np.asarray(depth_um, np.float64) - origin_depth_um) / spacing_um[0]
    return given_psf(np.stack(echoes), depth_px=depth_px.tolist(), where="simulated PSF")


def _echo(
    pymust: ModuleType,
    param: object,
    angle_rad: float,
    x_m: NDArray[np.float64],
    z_m: NDArray[np.float64],
    depth_m: float,
) -> NDArray[np.complex128]:
    """Return the beamformed IQ around a point at x = 0 from one plane wave."""
    delays = pymust.txdelay(param, angle_rad)
    options = pymust.utils.Options()
    options.ParPool = False
    options.WaitBar = False
    rf, _ = pymust.simus(np.zeros(1), np.array([depth_m]), np.ones(1), delays, param, options)
    iq = pymust.rf2iq(rf, param.fs, param.fc, param.bandwidth)
    matrix = pymust.dasmtx(1j * np.array(iq.shape), x_m, z_m, delays, param)
    beamformed: NDArray[np.complex128] = (matrix @ iq.flatten(order="F")).reshape(
        x_m.shape, order="F"
    )
    return beamformed


def _pymust() -> ModuleType:
    try:
        import pymust  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            "PyMUST, which simulates the point spread function, is not installed",
            where="point spread function",
            fix="pip install pymust, or have it estimated from the data",
        ) from error
    return pymust
