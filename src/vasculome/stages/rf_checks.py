"""Whether images can be made of RF: refuses what sampling, decimation or a focus would spoil.

What needs torch is imported as in `rf_images`: only where it is used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vasculome.config import BeamformConfig
from vasculome.errors import UserError
from vasculome.readers.sequence import Sequence
from vasculome.ultrasound.transmit import FiredElements

_UM_PER_M = 1e6
_LINEAR_SAMPLES = 3
"""Samples a second that linear interpolation needs after decimation, in bandwidths."""

_WRONG_WAVELENGTHS = 1 / 8
"""By how much of the wavelength the first arrival may miss a wave."""

_DEEPER = 1.2
"""How much deeper is looked for a focus: that of wide apertures is found up to 15 % too deep."""


def check_band(of: Sequence, bandwidth_hz: float, *, told_by: Path) -> None:
    """Raise UserError where RF is sampled so slowly that the band meets its mirror image."""
    from vasculome.ultrasound.demodulate import free_bandwidth_hz  # noqa: PLC0415

    room_hz = free_bandwidth_hz(
        sampling_frequency_hz=of.sampling_frequency_hz,
        center_frequency_hz=of.center_frequency_hz,
    )
    if bandwidth_hz > room_hz:
        raise UserError(
            f"a band of {bandwidth_hz:g} Hz around {of.center_frequency_hz:g} Hz meets its mirror "
            f"image at a sampling frequency of {of.sampling_frequency_hz:g} Hz",
            where=told_by,
            fix=f"correct the frequencies, or give a bandwidth of at most {room_hz:g} Hz",
        )


def check_decimation(
    of: Sequence, bandwidth_hz: float, chosen: BeamformConfig, *, name: str
) -> None:
    """Raise UserError where decimation leaves too few samples for the band, or for lines."""
    from vasculome.ultrasound.demodulate import least_sampling_frequency_hz  # noqa: PLC0415

    decimation, where = chosen.decimation, f"config: ultrasound.beamform.decimation, for {name}"
    left_hz = of.sampling_frequency_hz / decimation
    least_hz = least_sampling_frequency_hz(bandwidth_hz)
    if left_hz < least_hz:
        raise UserError(
            f"a band of {bandwidth_hz:g} Hz needs {least_hz:g} samples a second, and decimation "
            f"by {decimation} leaves {left_hz:g}",
            where=where,
            fix="lower it, or correct bandwidth_hz in the sequence file",
        )
    if decimation > 1 and chosen.interpolation == "linear":
        least_hz = _LINEAR_SAMPLES * bandwidth_hz
        if left_hz < least_hz:
            raise UserError(
                f"linear interpolation of a band of {bandwidth_hz:g} Hz needs {least_hz:g} samples "
                f"a second, and decimation by {decimation} leaves {left_hz:g}",
                where=where,
                fix="give ultrasound.beamform.interpolation: cubic, or lower decimation",
            )


def check_focus(of: Sequence, waves: FiredElements, deepest_um: float, *, told_by: Path) -> None:
    """Raise UserError where delays focus a wave, behind which its first arrival is not the wave."""
    speed_m_s = of.speed_of_sound_m_s
    ahead_um = waves.first_arrival_lead_um(_DEEPER * deepest_um, speed_of_sound_m_s=speed_m_s)
    allowed_um = _WRONG_WAVELENGTHS * speed_m_s / of.center_frequency_hz * _UM_PER_M
    focused = np.flatnonzero(ahead_um > allowed_um)
    if len(focused):
        raise UserError(
            f"transmit {focused[0]} of transmit_delays_s, counted from 0, has a focus above "
            f"{_DEEPER * deepest_um:.0f} µm; behind it waves are not beamformed",
            where=told_by,
            fix="end ultrasound.beamform.depth_um well above the focus, or beamform elsewhere and "
            "give the IQ",
        )
