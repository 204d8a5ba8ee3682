"""Probe and transmit sequence of channel data: what a beamformer must know to make images of RF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError

Wave = Literal["plane", "diverging", "delays"]

_UM_PER_M = 1e6
_LOWEST_HZ, _LATEST_S = 1e5, 0.01
_SLOWEST_M_S, _FASTEST_M_S = 300, 10_000
_NARROWEST, _WIDEST = 0.002, 20
"""Width of a probe for each element, in wavelengths; of 32 × 32 elements a 32nd of their pitch."""


@dataclass(frozen=True, eq=False)
class Sequence:
    """Probe, medium and transmits of an acquisition. Positions are (z, x) or (z, y, x).

    Attributes
    ----------
    elements_um
        Centres of the elements, float64 (elements, d).
    wave
        ``plane``: waves by direction; ``diverging``: by virtual source; ``delays``: by the moment
        at which each element fires.
    wave_values
        Unit vectors (transmits, d), sources in micrometres (transmits, d), or delays in seconds
        (transmits, elements), NaN for a silent element.
    start_time_s
        Time of the first sample of each transmit, float64 (transmits,); plane and diverging waves
        pass the origin at time 0, and delays have their own clock.
    sampling_frequency_hz, center_frequency_hz
        Of the channel data.
    bandwidth_hz
        Pulse-echo bandwidth at -6 dB; None of data that are mixed down and do not tell it.
    speed_of_sound_m_s
        Of the medium.
    element_width_um
        Width of an element, if known.
    is_baseband
        Whether the channel data are mixed down already.
    """

    elements_um: npt.NDArray[np.float64]
    wave: Wave
    wave_values: npt.NDArray[np.float64]
    start_time_s: npt.NDArray[np.float64]
    sampling_frequency_hz: float
    center_frequency_hz: float
    bandwidth_hz: float | None
    speed_of_sound_m_s: float
    element_width_um: float | None = None
    is_baseband: bool = False

    @property
    def n_transmits(self) -> int:
        """Transmits that make one frame."""
        return len(self.wave_values)

    @property
    def n_elements(self) -> int:
        """Receiving elements."""
        return len(self.elements_um)

    @property
    def ndim(self) -> int:
        """Spatial axes of the images: 2 or 3."""
        return int(self.elements_um.shape[1])


def array_elements(
    n_elements: tuple[int, ...], pitch_um: tuple[float, ...], *, fastest_axis: str = "x"
) -> npt.NDArray[np.float64]:
    """Return the elements of a regular flat array around the origin, float64 (elements, d).

    Parameters
    ----------
    n_elements, pitch_um
        One number for a linear array along x; two for a matrix array, along y and x.
    fastest_axis
        Along which axis of a matrix array the neighbour has the next number: ``"x"`` or ``"y"``.
    """
    lines = [(np.arange(n) - (n - 1) / 2) * p for n, p in zip(n_elements, pitch_um, strict=True)]
    mesh = np.meshgrid(*lines, indexing="ij")
    order = "C" if fastest_axis == "x" else "F"
    flat = [axis.ravel(order=order) for axis in mesh]
    return np.stack([np.zeros(len(flat[0])), *flat], axis=1)


def directions(
    azimuth_rad: npt.NDArray[np.float64], elevation_rad: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64]:
    """Return the unit vectors of plane waves, (z, x), or (z, y, x) where there is elevation.

    Azimuth turns from z to x, elevation from there to y, as in UFF.
    """
    if elevation_rad is None:
        return np.stack([np.cos(azimuth_rad), np.sin(azimuth_rad)], axis=1)
    flat = np.cos(elevation_rad)
    return np.stack(
        [np.cos(azimuth_rad) * flat, np.sin(elevation_rad), np.sin(azimuth_rad) * flat], axis=1
    )


def firing_lead_s(
    elements_um: npt.NDArray[np.float64],
    wave: Wave,
    wave_values: npt.NDArray[np.float64],
    *,
    speed_of_sound_m_s: float,
) -> npt.NDArray[np.float64]:
    """Return how long before a wave passes the origin its first element fires, (transmits,)."""
    if wave == "plane":
        path_um = wave_values @ elements_um.T
    else:
        path_um = np.linalg.norm(wave_values[:, None] - elements_um, axis=2)
        path_um -= np.linalg.norm(wave_values, axis=1)[:, None]
    return np.asarray(-path_um.min(axis=1) / (speed_of_sound_m_s * _UM_PER_M))


def refuse_implausible(sequence: Sequence, *, where: str) -> None:
    """Raise UserError for values that are not finite, or that only a wrong unit makes."""

    def fault(what: str, fix: str) -> UserError:
        return UserError(what, where=where, fix=fix)

    gaps = np.isnan(sequence.wave_values) if sequence.wave == "delays" else False
    for name, values in (
        ("positions of elements", sequence.elements_um),
        ("waves", np.where(gaps, 0.0, sequence.wave_values)),
        ("start_time_s", sequence.start_time_s),
    ):
        if not np.isfinite(values).all():
            raise fault(f"{name}: some values are not finite", "correct them")
    for name in ("sampling_frequency_hz", "center_frequency_hz", "bandwidth_hz"):
        value = getattr(sequence, name)
        if value is not None and not _LOWEST_HZ <= value < np.inf:
            raise fault(f"{name} is {value:g}", "give it in Hz, not MHz")
    if not _SLOWEST_M_S < sequence.speed_of_sound_m_s < _FASTEST_M_S:
        raise fault(f"speed_of_sound_m_s is {sequence.speed_of_sound_m_s:g}", "give it in m/s")
    latest_s = np.abs(sequence.start_time_s).max()
    if latest_s > _LATEST_S:
        raise fault(f"start_time_s is {latest_s:g}", "give it in seconds, not microseconds")
    wavelength_um = sequence.speed_of_sound_m_s / sequence.center_frequency_hz * _UM_PER_M
    n_elements, width_um = sequence.n_elements, float(np.ptp(sequence.elements_um, axis=0).max())
    narrow, wide = (n * wavelength_um * n_elements for n in (_NARROWEST, _WIDEST))
    if n_elements > 1 and not narrow < width_um < wide:
        raise fault(
            f"{n_elements} elements over {width_um:g} µm do not fit a wavelength of "
            f"{wavelength_um:.4g} µm",
            "give pitch and positions in micrometres, or metres in UFF, and frequencies in Hz",
        )
    element_um = sequence.element_width_um
    if element_um is not None and not _NARROWEST < element_um / wavelength_um < _WIDEST:
        raise fault(
            f"elements {element_um:g} µm wide do not fit a wavelength of {wavelength_um:.4g} µm",
            "give element_width_um in micrometres, or metres in UFF",
        )
