"""Clutter filter by singular vectors.

Tissue moves slowly and together and bubbles do not, so that tissue fills the few leading singular
vectors of the space-time matrix and bubbles the others.

Source: Demené et al., IEEE Trans. Med. Imaging 34(11), 2015, doi:10.1109/TMI.2015.2428634;
randomized: Song et al., IEEE Trans. Ultrason. Ferroelectr. Freq. Control 64(4), 2017,
doi:10.1109/TUFFC.2017.2665342, and Halko et al., SIAM Review 53(2), 2011, doi:10.1137/090771806.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, eigh, eigvalsh

_SINGLE_PRECISION_LIMIT = 1e5
"""Largest s1²/(s_k·s_k+1) at which the single-precision Gram matrix is trusted.

The Gram matrix is known to eps·s1², which turns the clutter vector k towards the first kept one
by eps·s1²/s_k² and so lets eps·s1²/(s_k·s_k+1) of the latter's amplitude through: under 1 %.
"""

_PIECE_VOXELS = 1 << 14

_FEW = 4
"""Frames for each vector that is found by random projection; more are found as fast exactly."""

_OVERSAMPLED = 10
_POWER_ITERATIONS = 2
"""Of the randomized decomposition.

Measured on 500 simulated frames of 78 × 118: what is left when the four strongest vectors of tissue
are removed differs from a full SVD in double precision by 6e-5 of its norm with two iterations,
2e-4 with one and 2e-2 with none; by the Gram matrix in double precision it is 5e-5, in single 1e-3.
"""


def svd_filter(
    iq_t: NDArray[np.complexfloating],
    *,
    keep_from: int,
    keep_to: int | None = None,
    randomized: bool = False,
    overwrite: bool = False,
) -> NDArray[np.complex64]:
    """Keep the singular vectors ``keep_from`` to ``keep_to`` of a block of frames.

    The block is read as a Casorati matrix, frames by voxels. Its left singular vectors are the
    eigenvectors of the frames-by-frames Gram matrix, which is small. Where only tissue is removed
    the Gram matrix is first taken in single precision (2.5 times faster), and again in double
    precision if the spectrum shows that this was not enough.

    Parameters
    ----------
    iq_t
        Beamformed IQ, complex, shape (t, z, x) or (t, z, y, x).
    keep_from
        First singular vector kept, counted from 1 in order of falling singular value: 1 removes
        nothing. The field uses 5 for the brain in 2-D and 12 in 3-D.
    keep_to
        Last singular vector kept, counted likewise and included; None keeps all to the last.
    randomized
        Find the leading vectors, where they are few, by random projection instead of the Gram
        matrix, whose cost grows with the square of the length of the block. Tissue is removed as
        exactly; where neighbouring singular values differ by a few per cent, as those of bubbles
        and noise do, it is a mixture of them that is cut. Of 800 simulated frames of 78 × 118 and
        eight vectors removed the exact way takes 1.2 s of one core and this one 0.15 s, and the
        bubbles found agree with the truth alike (Jaccard 0.588). The random numbers are always the
        same.
    overwrite
        Allow the result to take the place of ``iq_t``, where that is contiguous and complex64:
        half the memory, and a quarter faster in 3-D.

    Returns
    -------
    complex64 array of the shape of ``iq_t``.

    Raises
    ------
    ValueError
        If the array is not complex or not finite, has no time and space axes, or the bounds do not
        satisfy 1 <= keep_from <= keep_to <= t.
    """
    _check(iq_t)
    n_frames = iq_t.shape[0]
    last = n_frames if keep_to is None else keep_to
    if not 1 <= keep_from <= last <= n_frames:
        raise ValueError(
            f"cannot keep singular vectors {keep_from} to {last} of {n_frames} (counted from 1)"
        )
    casorati = _casorati(iq_t)
    if last == n_frames and keep_from == 1:
        return (casorati if overwrite else casorati.copy()).reshape(iq_t.shape)
    count = keep_from - 1 if last == n_frames else last
    if randomized and count + _OVERSAMPLED <= n_frames / _FEW:
        leading, spatial = _randomized_vectors(casorati, count)
        if last == n_frames:
            filtered = casorati if overwrite else casorati.copy()
            _subtract_product(leading, spatial, filtered)
        else:
            filtered = leading[:, keep_from - 1 :] @ spatial[keep_from - 1 :]
    elif last == n_frames:
        clutter = _clutter_vectors(casorati, keep_from - 1)
        filtered = casorati if overwrite else casorati.copy()
        _subtract_product(clutter, clutter.conj().T @ casorati, filtered)
    else:
        kept = _leading_vectors(_gram(casorati, np.complex128), keep_from, last)[1]
        filtered = (kept @ kept.conj().T).astype(np.complex64) @ casorati
    return filtered.reshape(iq_t.shape)


def decompose(
    iq_t: NDArray[np.complexfloating],
) -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """Return all singular values and temporal (left) singular vectors, largest first.

    Parameters
    ----------
    iq_t
        Beamformed IQ, complex, shape (t, z, x) or (t, z, y, x).

    Returns
    -------
    Values, float64 (t,), and vectors, complex128 (t, t), one a column. Values below 1e-7 of the
    largest are rounding.

    Raises
    ------
    ValueError
        If the array is not complex or not finite.
    """
    _check(iq_t)
    squared, vectors = _leading_vectors(_gram(_casorati(iq_t), np.complex128), 1, len(iq_t))
    return np.sqrt(np.maximum(squared, 0.0)), vectors


def spatial_vectors(
    iq_t: NDArray[np.complexfloating], temporal: NDArray[np.complexfloating]
) -> NDArray[np.complex64]:
    """Return the spatial (right) vectors of temporal ones, scaled by their singular values.

    Parameters
    ----------
    iq_t
        The block, shape (t, z, x) or (t, z, y, x).
    temporal
        Left singular vectors of it, shape (t, n).

    Returns
    -------
    complex64 (n, voxels).
    """
    return temporal.conj().T.astype(np.complex64) @ _casorati(iq_t)


def singular_values(iq_t: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """Return the singular values of a block of frames, largest first.

    Tissue stands out as the first steep fall: the clutter filter keeps what comes after it.

    Parameters
    ----------
    iq_t
        Beamformed IQ, complex, shape (t, z, x) or (t, z, y, x).

    Returns
    -------
    float64 array of shape (t,). Values below 1e-7 of the largest are rounding.
    """
    _check(iq_t)
    squared = eigvalsh(_gram(_casorati(iq_t), np.complex128), lower=True, check_finite=False)
    return np.sqrt(np.maximum(squared[::-1], 0.0))


def _check(iq_t: NDArray[np.complexfloating]) -> None:
    if iq_t.ndim < 2 or not np.iscomplexobj(iq_t):
        raise ValueError(
            f"IQ must be complex with axes (t, space...), not {iq_t.dtype} {iq_t.shape}"
        )


def _casorati(iq_t: NDArray[np.complexfloating]) -> NDArray[np.complex64]:
    return np.ascontiguousarray(iq_t, dtype=np.complex64).reshape(len(iq_t), -1)


def _gram(casorati: NDArray[np.complex64], dtype: type) -> NDArray[np.complexfloating]:
    """Return the lower triangle of the frames-by-frames Gram matrix in ``dtype``."""
    herk = blas.cherk if dtype is np.complex64 else blas.zherk
    n_frames, n_voxels = casorati.shape
    gram: NDArray[np.complexfloating] = np.zeros((n_frames, n_frames), dtype)
    # In pieces, so that the block is never held in double precision as a whole.
    for low in range(0, n_voxels, _PIECE_VOXELS):
        # BLAS takes Fortran arrays: the transposed piece, of which it returns the upper triangle
        # of the conjugate Gram matrix, whose transpose is the lower triangle of the matrix itself.
        piece = casorati[:, low : low + _PIECE_VOXELS].T.astype(dtype, order="F")
        gram += herk(1.0, piece, trans=2).T
    if not np.isfinite(np.diagonal(gram)).all():
        raise ValueError("IQ holds values that are not finite")
    return gram


def _leading_vectors(
    gram: NDArray[np.complexfloating], first: int, last: int
) -> tuple[NDArray[np.floating], NDArray[np.complexfloating]]:
    """Return eigenvalues and eigenvectors ``first`` to ``last`` (from 1), largest first."""
    n = len(gram)
    values, vectors = eigh(
        gram, subset_by_index=[n - last, n - first], lower=True, check_finite=False
    )
    return values[::-1], vectors[:, ::-1]


def _clutter_vectors(casorati: NDArray[np.complex64], count: int) -> NDArray[np.complex64]:
    """Return the ``count`` leading left singular vectors, shape (t, count)."""
    values, vectors = _leading_vectors(_gram(casorati, np.complex64), 1, count + 1)
    edge = float(values[-2]) * float(values[-1])
    if edge <= 0 or float(values[0]) > _SINGLE_PRECISION_LIMIT * edge**0.5:
        vectors = _leading_vectors(_gram(casorati, np.complex128), 1, count)[1]
    return np.ascontiguousarray(vectors[:, :count], dtype=np.complex64)


def _randomized_vectors(
    casorati: NDArray[np.complex64], count: int
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Return about the ``count`` leading left singular vectors, (t, count), and the right ones.

    The right ones, (count, voxels), are scaled by their singular values.

    Each iteration is made orthonormal before the next, so that single precision is enough: unlike
    in a Gram matrix no value is ever squared.
    """
    n_frames = len(casorati)
    size = min(count + _OVERSAMPLED, n_frames)
    rng = np.random.default_rng(0)
    probe = rng.standard_normal((2, n_frames, size), dtype=np.float32)
    basis = (probe[0] + 1j * probe[1]).astype(np.complex64)
    for _ in range(1 + _POWER_ITERATIONS):
        basis = np.linalg.qr(_times_gram(casorati, basis))[0]
    small = basis.conj().T @ casorati
    vectors = _leading_vectors(_gram(small, np.complex128), 1, count)[1].astype(np.complex64)
    return basis @ vectors, vectors.conj().T @ small


def _times_gram(
    casorati: NDArray[np.complex64], basis: NDArray[np.complex64]
) -> NDArray[np.complex64]:
    """Return the Gram matrix times ``basis``, without the Gram matrix; piece by piece of voxels."""
    product = np.zeros_like(basis)
    adjoint = np.ascontiguousarray(basis.conj().T)
    for low in range(0, casorati.shape[1], _PIECE_VOXELS):
        piece = casorati[:, low : low + _PIECE_VOXELS]
        product += piece @ (adjoint @ piece).conj().T
    return product


def _subtract_product(
    temporal: NDArray[np.complex64],
    spatial: NDArray[np.complex64],
    casorati: NDArray[np.complex64],
) -> None:
    """Subtract the product of ``temporal`` and ``spatial`` vectors, in place and in pieces."""
    for low in range(0, casorati.shape[1], _PIECE_VOXELS):
        part = slice(low, low + _PIECE_VOXELS)
        casorati[:, part] -= temporal @ spatial[:, part]
