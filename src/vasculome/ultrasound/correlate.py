"""Local complex correlation of IQ with the point spread function: what the networks are given."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.ultrasound.psf import DepthPsf


def correlation_map(iq_t: NDArray[np.complexfloating], psf: DepthPsf) -> NDArray[np.complex64]:
    """Correlate every neighbourhood of every frame with the echo of a bubble at its depth.

    c(p) = Σ h*(u) f(p + u) / (‖h‖ · √Σ |f(p + u)|²), both sums over the extent of the echo h, with
    zeros beyond the frame. By Cauchy and Schwarz |c| ≤ 1, and 1 only where the neighbourhood is
    an echo: however bright, and its phase is the bubble's. Where all is 0, so is c.

    The sums are taken directly, so that the echo can change with every row. On one core that makes
    5,700 frames of 78 × 118 a second with an echo of 7 × 7, where Fourier transforms make 3,300 and
    ``torch.nn.functional.conv2d`` 1,000; with 7 × 7 × 7 it makes 18 volumes of 64 × 64 × 96 and
    Fourier transforms 21.

    Parameters
    ----------
    iq_t
        Clutter-filtered IQ, complex, shape (t, z, x) or (t, z, y, x).
    psf
        With as many spatial axes.

    Returns
    -------
    complex64 array of the shape of ``iq_t``.

    Raises
    ------
    ValueError
        If the axes of IQ and echo do not fit.
    """
    if iq_t.ndim != psf.echoes.ndim:
        raise ValueError(f"echoes {psf.echoes.shape} do not fit IQ {iq_t.shape}")
    flat = iq_t.ndim == 3
    frames = np.asarray(iq_t[:, :, None] if flat else iq_t, np.complex64)
    echoes = psf.at_depths(frames.shape[1])
    echoes = np.ascontiguousarray(echoes[:, :, None] if flat else echoes)
    result = np.empty(frames.shape, np.complex64)
    _correlate(np.ascontiguousarray(frames), echoes, result)
    return result.reshape(iq_t.shape)


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _correlate(
    frames: NDArray[np.complex64], echoes: NDArray[np.complex64], result: NDArray[np.complex64]
) -> None:  # pragma: no cover - compiled
    count, nz, ny, nx = frames.shape
    _, sz, sy, sx = echoes.shape
    rz, ry, rx = sz // 2, sy // 2, sx // 2
    # Real and imaginary parts apart, with a rim of zeros: the innermost loop is then one of plain
    # products over a row.
    real = np.zeros((nz + 2 * rz, ny + 2 * ry, nx + 2 * rx), np.float32)
    imag = np.zeros_like(real)
    sum_real, sum_imag = np.empty(nx, np.float32), np.empty(nx, np.float32)
    energy = np.empty(nx, np.float32)
    for t in range(count):
        real[rz : rz + nz, ry : ry + ny, rx : rx + nx] = frames[t].real
        imag[rz : rz + nz, ry : ry + ny, rx : rx + nx] = frames[t].imag
        for z in range(nz):
            for y in range(ny):
                sum_real[:] = 0
                sum_imag[:] = 0
                energy[:] = 0
                for k in range(sz):
                    for j in range(sy):
                        for i in range(sx):
                            a, b = echoes[z, k, j, i].real, echoes[z, k, j, i].imag
                            for x in range(nx):
                                f, g = real[z + k, y + j, x + i], imag[z + k, y + j, x + i]
                                sum_real[x] += a * f + b * g
                                sum_imag[x] += a * g - b * f
                                energy[x] += f * f + g * g
                for x in range(nx):
                    scale = np.sqrt(max(energy[x], sum_real[x] ** 2 + sum_imag[x] ** 2))
                    if scale > 0:
                        result[t, z, y, x] = complex(sum_real[x] / scale, sum_imag[x] / scale)
                    else:
                        result[t, z, y, x] = 0
