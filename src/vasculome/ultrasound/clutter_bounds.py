"""Where tissue ends and noise begins among the singular vectors of a block of frames.

Two signs tell tissue: its vectors are slow in time, and alike in space. One tells noise: its
singular values follow the law of random matrices. What is returned holds all that a figure needs to
show why the cut is where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasculome.ultrasound.clutter import decompose, spatial_vectors

_LAW_STEPS = 2000
_RATIOS = np.geomspace(1e-3, 1.0, 200)


@dataclass(frozen=True)
class ClutterBounds:
    """Evidence and cuts; vectors are counted from 1 in order of falling singular value.

    Attributes
    ----------
    singular_values
        Float64 (t,).
    centroid_hz
        Float64 (t,): mean absolute Doppler frequency of each temporal vector.
    similarity
        Float64 (n, n): correlation of the magnitudes of the leading spatial vectors.
    noise_value
        Largest singular value that noise alone would reach.
    keep_from_centroid
        First vector that is fast; None if none is.
    keep_from_similarity, keep_to_similarity
        First and last vector of the second block of the similarity matrix.
    keep_to_noise
        Last vector above the noise.
    """

    singular_values: NDArray[np.float64]
    centroid_hz: NDArray[np.float64]
    similarity: NDArray[np.float64]
    noise_value: float
    keep_from_centroid: int | None
    keep_from_similarity: int
    keep_to_similarity: int
    keep_to_noise: int


def find_bounds(
    iq_t: NDArray[np.complexfloating],
    *,
    frame_rate_hz: float,
    tissue_below_hz: float = 50.0,
    compared: int = 200,
) -> ClutterBounds:
    """Examine the singular vectors of a block of frames and propose where to cut.

    Parameters
    ----------
    iq_t
        Beamformed IQ, complex, shape (t, z, x) or (t, z, y, x).
    frame_rate_hz
        Frames a second.
    tissue_below_hz
        Temporal vectors of a lower spectral centroid are tissue.
    compared
        Leading vectors whose images are compared with each other; all, if there are fewer.

    Raises
    ------
    ValueError
        If the array is not IQ, or has fewer than 8 frames.
    """
    if len(iq_t) < 8:
        raise ValueError(f"{len(iq_t)} frames are too few to tell tissue from noise")
    values, vectors = decompose(iq_t)
    centroid = centroid_frequency_hz(vectors, frame_rate_hz=frame_rate_hz)
    fast = np.flatnonzero(centroid >= tissue_below_hz)
    similarity = spatial_similarity(spatial_vectors(iq_t, vectors[:, :compared]))
    first, last = two_blocks(similarity)
    noise = noise_value(values)
    return ClutterBounds(
        singular_values=values,
        centroid_hz=centroid,
        similarity=similarity,
        noise_value=noise,
        keep_from_centroid=int(fast[0]) + 1 if len(fast) else None,
        keep_from_similarity=first + 1,
        keep_to_similarity=last,
        keep_to_noise=int((values > noise).sum()),
    )


def centroid_frequency_hz(
    temporal: NDArray[np.complexfloating], *, frame_rate_hz: float
) -> NDArray[np.float64]:
    """Return the mean absolute frequency of each temporal vector, weighted by its power.

    Parameters
    ----------
    temporal
        Left singular vectors, shape (t, n).
    frame_rate_hz
        Frames a second.

    Returns
    -------
    float64 (n,).

    Notes
    -----
    Source: Baranger et al., IEEE Trans. Med. Imaging 37(7), 2018, doi:10.1109/TMI.2018.2789499.
    """
    power = np.abs(np.fft.fft(temporal, axis=0)) ** 2
    frequency = np.abs(np.fft.fftfreq(len(temporal), 1 / frame_rate_hz))
    return np.asarray(frequency @ power / power.sum(axis=0), np.float64)


def spatial_similarity(spatial: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """Return the correlation of the magnitudes of spatial vectors with each other.

    Parameters
    ----------
    spatial
        Right singular vectors, shape (n, voxels), to any scale.

    Returns
    -------
    float64 (n, n), 1 on the diagonal. Tissue's vectors show one anatomy and blood's one vascular
    tree: each makes a bright square along the diagonal.

    Notes
    -----
    Source: Baranger et al., IEEE Trans. Med. Imaging 37(7), 2018, doi:10.1109/TMI.2018.2789499.
    """
    image = np.abs(spatial)
    image -= image.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(image, axis=1, keepdims=True)
    image = np.divide(image, norm, out=np.zeros_like(image), where=norm > 0)
    return np.asarray(image @ image.T, np.float64)


def two_blocks(similarity: NDArray[np.float64]) -> tuple[int, int]:
    """Fit two squares along the diagonal, tissue then blood, to a similarity matrix.

    Returns
    -------
    Where the first square ends and the second begins, and where the second ends: those for which
    the matrix that is 1 in both squares and 0 elsewhere correlates best with the given one.

    Raises
    ------
    ValueError
        If there are fewer than three vectors.
    """
    n = len(similarity)
    if n < 3:
        raise ValueError(f"{n} vectors make no two squares")
    total = np.zeros((n + 1, n + 1))
    total[1:, 1:] = similarity.cumsum(axis=0).cumsum(axis=1)
    corner = np.diagonal(total)  # sum over the square that ends there
    first, last = np.triu_indices(n + 1, k=1)
    first, last = first[first > 0], last[first > 0]
    inside = 2 * corner[first] + corner[last] - total[first, last] - total[last, first]
    size = first**2.0 + (last - first) ** 2.0
    # Correlation of the matrix with zeros and ones; that of the matrix with itself is constant.
    fit = (inside - total[n, n] * size / n**2) / np.sqrt(size * (1 - size / n**2))
    best = int(np.argmax(fit))
    return int(first[best]), int(last[best])


def noise_value(singular_values: NDArray[np.floating]) -> float:
    """Return the largest singular value that noise alone would reach.

    The squares of the singular values of white noise follow the law of Marchenko and Pastur, which
    has two parameters: their mean and the ratio of frames to voxels. Noise of beamformed frames is
    correlated from voxel to voxel, which acts as if they were fewer, so that both are fitted, to
    the smaller half of the values, and the law's upper edge is returned.

    Parameters
    ----------
    singular_values
        All of a block, largest first, shape (t,).

    Notes
    -----
    Source: Marchenko and Pastur, Math. USSR Sbornik 1, 1967, doi:10.1070/SM1967v001n04ABEH001994.
    """
    squared = np.asarray(singular_values, np.float64) ** 2
    n = len(squared)
    tail = squared[n // 2 :]
    tail = tail[tail > 1e-12 * squared[0]]  # below it is rounding
    if not len(tail):
        return 0.0
    rank = 1 - (np.arange(n // 2, n // 2 + len(tail)) + 0.5) / n
    best, edge = np.inf, 0.0
    for ratio in _RATIOS:
        log_law = np.log(_law_quantiles(ratio, rank))
        scale = np.mean(np.log(tail) - log_law)
        misfit = float(np.mean((np.log(tail) - log_law - scale) ** 2))
        if misfit < best:
            best, edge = misfit, float(np.exp(scale)) * (1 + ratio**0.5) ** 2
    return edge**0.5


def _law_quantiles(ratio: float, probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return quantiles of the Marchenko–Pastur law of mean 1, ``ratio`` at most 1."""
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    # Equal steps of an angle, since the density has the edges of a circle's.
    angle = (np.arange(_LAW_STEPS) + 0.5) * np.pi / _LAW_STEPS
    value = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    weight = np.sin(angle) ** 2 / value
    return np.interp(probability, (np.cumsum(weight) - weight / 2) / weight.sum(), value)
