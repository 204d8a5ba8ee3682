"""The resolution of a map, from two halves of its data: Fourier ring and shell correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fftfreq, fftn
from scipy.signal.windows import hann


@dataclass(frozen=True)
class FourierCorrelation:
    """How alike two images are at each spatial frequency.

    Attributes
    ----------
    frequency_per_um
        Middle of each ring or shell, cycles per micrometre, rising.
    correlation
        Their correlation there, in [−1, 1].
    samples
        Independent Fourier coefficients in each: half of all, the others being their conjugates.
    """

    frequency_per_um: NDArray[np.float64]
    correlation: NDArray[np.float64]
    samples: NDArray[np.float64]

    def threshold(self, criterion: str = "half_bit") -> NDArray[np.float64]:
        """Return the least correlation that counts as signal at each frequency.

        ``"half_bit"``: half a bit of information a coefficient, more where few are averaged (van
        Heel and Schatz, Journal of Structural Biology 151, 2005, doi:10.1016/j.jsb.2005.05.009).
        ``"one_seventh"``: 1/7 throughout, the 0.143 of Rosenthal and Henderson
        (Journal of Molecular Biology 333, 2003, doi:10.1016/j.jmb.2003.07.013).

        Raises
        ------
        ValueError
            If the criterion is not known.
        """
        if criterion == "one_seventh":
            return np.full(len(self.samples), 1 / 7)
        if criterion != "half_bit":
            raise ValueError(f"criterion must be half_bit or one_seventh, not {criterion!r}")
        root = np.sqrt(self.samples)
        return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)

    def resolution_um(self, criterion: str = "half_bit") -> float:
        """Return the length at which the correlation first falls below the threshold.

        Between shells the crossing is interpolated. Where the curve never falls below, the
        voxels and not the data limit the resolution: then the shortest period measured. Where
        it starts below, nothing is resolved: infinity.
        """
        excess = self.correlation - self.threshold(criterion)
        below = np.flatnonzero(excess < 0)
        if len(below) == 0:
            return float(1 / self.frequency_per_um[-1])
        last = below[0]
        if last == 0:
            return math.inf
        part = excess[last - 1] / (excess[last - 1] - excess[last])
        low, high = self.frequency_per_um[last - 1 : last + 1]
        return float(1 / (low + part * (high - low)))


def fourier_correlation(
    first: NDArray[np.floating], second: NDArray[np.floating], *, spacing_um: Sequence[float]
) -> FourierCorrelation:
    """Correlate two images of the same object ring by ring (2-D) or shell by shell (3-D).

    The images must be made of different data, such as every other track; each then holds half of
    it, and the resolution of the whole is somewhat better than what comes out here.

    Parameters
    ----------
    first, second
        Images on the same grid, of any number of axes.
    spacing_um
        Voxel size along each axis.

    Returns
    -------
    FourierCorrelation
        From the first ring after the mean to the lowest of the axes' Nyquist frequencies; a ring
        is as wide as the coarsest of the axes' frequency steps.

    Raises
    ------
    ValueError
        If shapes differ or do not fit the spacing.

    Notes
    -----
    Source: Nieuwenhuizen et al., Nature Methods 10, 557-562, 2013, doi:10.1038/nmeth.2448; for
    ULM, Hingot et al., IEEE Trans. Med. Imaging 40(12), 2021, doi:10.1109/TMI.2021.3097150.
    """
    if first.shape != second.shape or first.ndim != len(spacing_um):
        raise ValueError(
            f"images {first.shape} and {second.shape} do not fit each other and {spacing_um}"
        )
    spectra = [fftn(_windowed(image)) for image in (first, second)]
    step = max(1 / (n * s) for n, s in zip(first.shape, spacing_um, strict=True))
    shells = math.floor(min(1 / (2 * s) for s in spacing_um) / step + 1e-9)
    square = np.zeros(first.shape)
    for axis, (n, s) in enumerate(zip(first.shape, spacing_um, strict=True)):
        along = fftfreq(n, s) ** 2
        square += along.reshape([-1 if a == axis else 1 for a in range(first.ndim)])
    shell = np.rint(np.sqrt(square) / step).astype(np.int64).ravel()
    cross, power_1, power_2 = (
        np.bincount(shell, weights=values.ravel())[1 : shells + 1]
        for values in (
            (spectra[0] * spectra[1].conj()).real,
            np.abs(spectra[0]) ** 2,
            np.abs(spectra[1]) ** 2,
        )
    )
    power = np.sqrt(power_1 * power_2)
    return FourierCorrelation(
        frequency_per_um=step * np.arange(1, shells + 1),
        correlation=np.divide(cross, power, out=np.zeros(shells), where=power > 0),
        samples=np.bincount(shell)[1 : shells + 1] / 2,
    )


def _windowed(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the image under a Hann window, as its edges do not meet.

    A Tukey window of an eighth at either end, which is also in use, puts the known cut-off of
    strong band-limited noise four rings too high, this one two.
    """
    windowed = image.astype(np.float64)
    for axis, n in enumerate(image.shape):
        window = hann(n)
        windowed *= window.reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    return windowed
