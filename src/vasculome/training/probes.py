"""Echoes that real probes make, simulated once and stored: for movies like those of the paper.

Run as a program, with PyMUST, it simulates them anew, half an hour long:
``python -m vasculome.training.probes``. Nothing else here needs PyMUST.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from vasculome.simulate.psf_bank import PsfBank, Stamps
from vasculome.simulate.psf_pymust import LinearArray, MatrixArray, simulate_bank

PROBES: dict[int, LinearArray | MatrixArray] = {
    2: LinearArray(),
    3: MatrixArray(angles_deg=((-2, 0), (-1, 0), (0, 0), (1, 0), (2, 0))),
}
"""The probes and plane waves of Rauby et al. (sparse Deep-stULM), by number of axes."""

DEPTHS = {2: (20.0, 40.0, 60.0, 80.0), 3: (32.0, 64.0)}
"""Where their echoes are simulated, in wavelengths below the probe."""

_REACH = {2: (4.0, 8.0), 3: (4.0, 6.0)}  # wavelengths
_FRACTIONS = {2: 8, 3: 4}


@functools.cache
def bank(n_dims: int) -> PsfBank:
    """Return the echoes that come with the package; all lengths are in wavelengths."""
    with np.load(_path(n_dims), allow_pickle=False) as stored:
        part = stored["echoes"].astype(np.float32)
        depth, step = stored["depth"], stored["step"]
    # Both sides are alike.
    ends = [(0, 0), (0, 0), *((n - 1, 0) for n in part.shape[2:-1])]
    echoes = np.pad(part[..., 0] + 1j * part[..., 1], ends, mode="reflect")
    return PsfBank(depth, echoes.astype(np.complex64), tuple(step.tolist()))


@functools.lru_cache(maxsize=4)
def echo_at(depth: float, *, wavelength_um: float, spacing_um: tuple[float, ...]) -> Stamps:
    """Return the echo of a probe, the same at all depths of a movie.

    Parameters
    ----------
    depth
        One of `DEPTHS`.
    wavelength_um
        Of the pulse; the probe is that much larger or smaller.
    spacing_um
        Pixel size along z, [y,] x.
    """
    n_dims = len(spacing_um)
    everywhere = bank(n_dims)
    (band,) = np.flatnonzero(everywhere.depth_um == depth)
    here = replace(
        everywhere,
        depth_um=everywhere.depth_um[[band]] * wavelength_um,
        echoes=everywhere.echoes[[band]],
        step_um=tuple(wavelength_um * step for step in everywhere.step_um),
    )
    return here.stamps(spacing_um, fractions=_FRACTIONS[n_dims])


def _path(n_dims: int) -> Path:
    return Path(str(files("vasculome.training"))) / "echoes" / f"probe_{n_dims}d.npz"


def _simulate(n_dims: int) -> PsfBank:
    probe = PROBES[n_dims]
    return simulate_bank(
        probe,
        depth_um=[probe.wavelength_um * depth for depth in DEPTHS[n_dims]],
        reach_wavelengths=_REACH[n_dims],
    )


def _store(n_dims: int, found: PsfBank) -> None:
    """Store the echoes of a probe: half precision, one of two alike sides."""
    sides = tuple(slice(n // 2, None) for n in found.echoes.shape[2:])
    part = found.echoes[(slice(None), slice(None), *sides)]
    np.savez_compressed(
        _path(n_dims),
        depth=np.array(DEPTHS[n_dims]),
        echoes=np.stack([part.real, part.imag], axis=-1).astype(np.float16),
        step=np.array(found.step_um) / PROBES[n_dims].wavelength_um,
    )


if __name__ == "__main__":
    for axes in PROBES:
        _store(axes, _simulate(axes))
