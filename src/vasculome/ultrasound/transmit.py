"""Transmitted waves: when the wavefront of each transmit passes a point.

Clocks: plane and diverging waves pass the origin of coordinates at time 0, and fired elements have
the clock of their delays. All positions are (z, x) or (z, y, x) in micrometres, z away from the
probe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

_UM_PER_M = 1e6


@dataclass(frozen=True, eq=False)
class PlaneWaves:
    """Plane waves by their direction of travel.

    Attributes
    ----------
    directions
        Unit vectors, float, shape (transmits, d).

    Source: Montaldo et al., IEEE Trans. Ultrason. Ferroelectr. Freq. Control 56(3), 2009,
    doi:10.1109/TUFFC.2009.1067.
    """

    directions: NDArray[np.floating]

    def __post_init__(self) -> None:
        if not np.allclose(np.linalg.norm(self.directions, axis=1), 1.0, rtol=1e-6):
            raise ValueError("directions of plane waves must be unit vectors")

    def __len__(self) -> int:
        return len(self.directions)

    def arrival_s(
        self, points_um: NDArray[np.floating], *, speed_of_sound_m_s: float
    ) -> NDArray[np.float64]:
        """Return when each wave passes each point, float64, shape (transmits, points)."""
        return (
            np.asarray(self.directions, np.float64) @ points_um.T / (speed_of_sound_m_s * _UM_PER_M)
        )


@dataclass(frozen=True, eq=False)
class DivergingWaves:
    """Spherical waves that seem to come from points behind the probe or on it.

    Attributes
    ----------
    sources_um
        Virtual sources, float, shape (transmits, d), z not above 0.

    Source: Papadacci et al., IEEE Trans. Ultrason. Ferroelectr. Freq. Control 61(2), 2014,
    doi:10.1109/TUFFC.2014.6722614.
    """

    sources_um: NDArray[np.floating]

    def __post_init__(self) -> None:
        if (self.sources_um[:, 0] > 0).any():
            raise ValueError("virtual sources in front of the probe make converging waves")

    def __len__(self) -> int:
        return len(self.sources_um)

    def arrival_s(
        self, points_um: NDArray[np.floating], *, speed_of_sound_m_s: float
    ) -> NDArray[np.float64]:
        """Return when each wave passes each point, float64, shape (transmits, points)."""
        sources = np.asarray(self.sources_um, np.float64)
        path_um = _distances(sources, points_um) - np.linalg.norm(sources, axis=1)[:, None]
        return path_um / (speed_of_sound_m_s * _UM_PER_M)


@dataclass(frozen=True, eq=False)
class FiredElements:
    """Waves of any shape by the moment at which each element fires.

    The wavefront is the first wavelet to arrive (Huygens), so that elements should not be much
    farther apart than a wavelength.

    Attributes
    ----------
    elements_um
        Element centres, float, shape (elements, d).
    delays_s
        When each element fires, float, shape (transmits, elements); NaN for one that does not.
    """

    elements_um: NDArray[np.floating]
    delays_s: NDArray[np.floating]

    def __post_init__(self) -> None:
        if self.delays_s.shape[1:] != (len(self.elements_um),):
            raise ValueError(
                f"{self.delays_s.shape} delays do not fit {len(self.elements_um)} elements"
            )
        if np.isnan(self.delays_s).all(axis=1).any():
            raise ValueError("a transmit fires no element")

    def __len__(self) -> int:
        return len(self.delays_s)

    def arrival_s(
        self, points_um: NDArray[np.floating], *, speed_of_sound_m_s: float
    ) -> NDArray[np.float64]:
        """Return when each wave passes each point, float64, shape (transmits, points)."""
        arrivals = np.empty((len(self), len(points_um)))
        for arrival, delays in zip(arrivals, self.delays_s, strict=True):
            fired = np.isfinite(delays)
            path_s = _distances(self.elements_um[fired], points_um) / (
                speed_of_sound_m_s * _UM_PER_M
            )
            arrival[:] = (path_s + delays[fired, None]).min(axis=0)
        return arrivals

    def first_arrival_lead_um(
        self, depth_um: float, *, speed_of_sound_m_s: float
    ) -> NDArray[np.float64]:
        """Return by how much the first arrival at a depth lies ahead of a focused wave.

        Behind a focus, wavelets from the rim of the aperture come before the wave itself. The
        delays are taken as a parabola: ``s (1 - F / z)`` with its sag s and the focus F; 0 for
        waves without a focus before that depth.

        Returns
        -------
        float64, shape (transmits,), in micrometres.
        """
        lateral = self.elements_um[:, 1:]
        # When the front passes z = 0, of probes that are not flat.
        late_um = self.delays_s * speed_of_sound_m_s * _UM_PER_M - self.elements_um[:, 0]
        return np.array(
            [_lead_um(lateral[f], d[f], depth_um) for d in late_um for f in [np.isfinite(d)]]
        )


Waves = PlaneWaves | DivergingWaves | FiredElements


def _lead_um(
    lateral_um: NDArray[np.floating], late_um: NDArray[np.floating], depth_um: float
) -> float:
    """Return by how much the rim is ahead at a depth, of a wave that leaves z = 0 late."""
    size_um = float(np.ptp(lateral_um, axis=0).max()) or 1.0
    at = (lateral_um - lateral_um.mean(axis=0)) / size_um
    n = at.shape[1]
    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    terms = [np.ones(len(at)), *at.T, *(at[:, i] * at[:, j] for i, j in pairs)]
    fit = np.linalg.lstsq(np.stack(terms, axis=1), late_um, rcond=1e-9)[0]
    slope = fit[1 : 1 + n] / size_um
    bend = np.zeros((n, n))
    for (i, j), value in zip(pairs, fit[1 + n :] / size_um**2, strict=True):
        bend[i, j] += value
        bend[j, i] += value
    steep = float(slope @ slope)
    if steep >= 1:  # no wave travels along the probe, and wavelets that do are no wave
        return 0.0
    # A wave to a focus at distance r bends by -(1 - slope slope') / r.
    curvatures, ways = eigh(bend, np.eye(n) - np.outer(slope, slope))
    lead_um = 0.0
    for curvature, way in zip(curvatures, ways.T, strict=True):
        if curvature < 0:
            focus_um = math.sqrt(1 - steep) / -curvature
            unit = way / np.linalg.norm(way)
            half_um = float(np.ptp(lateral_um @ unit)) / 2
            sag_um = -float(unit @ bend @ unit) * half_um**2 / 2
            lead_um = max(lead_um, sag_um * (1 - focus_um / depth_um))
    return lead_um


def _distances(
    origins_um: NDArray[np.floating], points_um: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the distance of each point from each origin, float64, shape (origins, points)."""
    squared = np.zeros((len(origins_um), len(points_um)))
    for axis in range(points_um.shape[1]):
        squared += np.subtract.outer(origins_um[:, axis], points_um[:, axis]) ** 2
    return np.sqrt(squared)
