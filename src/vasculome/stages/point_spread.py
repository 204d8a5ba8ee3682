"""The echo of a single bubble of a sample: estimated, by formula, simulated or from a file."""

from __future__ import annotations

import importlib.util
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.config import PsfConfig
from vasculome.errors import UserError
from vasculome.simulate.psf_pymust import LinearArray, simulate_echoes
from vasculome.ultrasound.columns import Table, axis_names
from vasculome.ultrasound.psf import DepthPsf, estimate_psf, given_psf
from vasculome.ultrasound.psf_gaussian import axial_turn, gaussian_psf
from vasculome.ultrasound.psf_width import fwhm_px

_SOUND_SPEED_M_S = 1540.0
"""With the wavelength it gives PyMUST the frequency; only their ratio matters."""

_ELEMENT_WIDTH = 0.9
"""Of the pitch; the rest is the kerf."""

_SPACING_TOLERANCE = 0.01
_DIRECTIONS = {"z": "axial", "x": "lateral", "y": "elevation"}


@dataclass(frozen=True)
class Pixels:
    """What an echo is drawn on.

    Attributes
    ----------
    spacing_um
        Distance of pixels along z, [y,] x.
    wavelength_um
        Wavelength at the centre frequency.
    first_depth_um
        Depth of the first row below the probe; None where it is not known.
    """

    spacing_um: tuple[float, ...]
    wavelength_um: float
    first_depth_um: float | None = None


def check_psf(chosen: PsfConfig, pixels: Pixels) -> None:
    """Raise UserError where an echo of this kind cannot be had for such an acquisition."""
    if chosen.source == "file":
        read_psf(Path(chosen.file or ""), spacing_um=pixels.spacing_um)
    if chosen.source != "simulated":
        return
    if importlib.util.find_spec("pymust") is None:
        raise UserError(
            "PyMUST, which simulates the echo of a bubble, is not installed",
            where="config: ultrasound.psf.source",
            fix="pip install pymust, or have it estimated",
        )
    if len(pixels.spacing_um) != 2:
        raise UserError(
            "the echo of a bubble is simulated for linear arrays only, not in 3-D",
            where="config: ultrasound.psf.source",
            fix="have it estimated, or give a file",
        )
    _first_depth_um(chosen, pixels)


def make_psf(
    chosen: PsfConfig, pixels: Pixels, *, iq_t: NDArray[np.complex64], bubbles: Table | None
) -> DepthPsf:
    """Return the echo of a bubble.

    Parameters
    ----------
    chosen
        Where it comes from.
    pixels
        What it is drawn on.
    iq_t
        Filtered frames (t, z, [y,] x).
    bubbles
        What was found in them, in voxels; needed if it is estimated.

    Raises
    ------
    UserError
        Too few bubbles are isolated, or as :func:`check_psf`.
    """
    if chosen.source == "file":
        return read_psf(Path(chosen.file or ""), spacing_um=pixels.spacing_um)
    if chosen.source == "simulated":
        return _simulated(chosen, pixels, n_rows=iq_t.shape[1])
    if chosen.source == "gaussian":
        axial, lateral = chosen.fwhm_wavelengths
        fwhm = (axial, *[lateral] * (iq_t.ndim - 2))
        return gaussian_psf(
            fwhm_px=[
                n * pixels.wavelength_um / step
                for n, step in zip(fwhm, pixels.spacing_um, strict=True)
            ],
            half_width=chosen.half_width_px,
            turn_rad=axial_turn(iq_t),
        )
    assert bubbles is not None
    return estimate_psf(
        iq_t,
        bubbles,
        half_width=chosen.half_width_px,
        bands=chosen.bands,
        min_bubbles=chosen.min_bubbles,
    )


def _simulated(chosen: PsfConfig, pixels: Pixels, *, n_rows: int) -> DepthPsf:
    z_um, x_um = pixels.spacing_um
    middles = (np.arange(chosen.bands) + 0.5) * n_rows / chosen.bands - 0.5
    offsets = np.arange(-chosen.half_width_px, chosen.half_width_px + 1)
    probe = chosen.probe
    echoes = simulate_echoes(
        LinearArray(
            frequency_hz=1e6 * _SOUND_SPEED_M_S / pixels.wavelength_um,
            bandwidth=probe.bandwidth,
            n_elements=probe.elements,
            pitch_um=probe.pitch_um,
            width_um=_ELEMENT_WIDTH * probe.pitch_um,
            angles_deg=probe.angles_deg,
            f_number=probe.f_number,
            sound_speed_m_s=_SOUND_SPEED_M_S,
        ),
        depth_um=(_first_depth_um(chosen, pixels) + z_um * middles).tolist(),
        offsets_um=(z_um * offsets, x_um * offsets),
    )
    return given_psf(echoes, depth_px=middles.tolist(), where="simulated PSF")


def _first_depth_um(chosen: PsfConfig, pixels: Pixels) -> float:
    given = chosen.probe.first_depth_um
    depth_um = pixels.first_depth_um if given is None else given
    if depth_um is None:
        raise UserError(
            "IQ does not tell how deep its first row is, which the simulated echo needs",
            where="config: ultrasound.psf.probe.first_depth_um",
            fix="give it, or have the echo estimated",
        )
    return depth_um


def read_psf(path: Path, *, spacing_um: tuple[float, ...]) -> DepthPsf:
    """Read the echo of a bubble that the user has, for pixels of this spacing.

    ``.npy`` holds one echo, (z, [y,] x), real or complex, odd along each axis with the bubble in
    the middle. ``.npz`` holds ``echoes`` and may hold ``depth_um``, below the first row, of each
    of them, and ``spacing_um``, which must then be the sample's.

    Raises
    ------
    UserError
        If it cannot be read or does not fit.
    """
    content = _load(path)
    if "echoes" not in content:
        raise _unfit(path, f"holds {', '.join(sorted(content)) or 'nothing'}, and no 'echoes'")
    echoes, depth_um = content["echoes"], content.get("depth_um")
    axes = echoes.ndim - (depth_um is not None)
    if axes != len(spacing_um):
        raise _unfit(path, f"an echo of {axes} axes for frames of {len(spacing_um)}")
    for name, array in content.items():
        if array.dtype.kind not in ("iufc" if name == "echoes" else "iuf"):
            raise _unfit(path, f"{name} holds {array.dtype} instead of numbers")
    its_own = content.get("spacing_um")
    if its_own is not None and not _alike(its_own, spacing_um):
        raise _unfit(path, f"is drawn on pixels of {its_own.tolist()} µm, not {list(spacing_um)}")
    depth_px = None if depth_um is None else (np.ravel(depth_um) / spacing_um[0]).tolist()
    return given_psf(echoes, depth_px=depth_px, where=str(path))


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by their names; the one of ``.npy`` is ``echoes``."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"echoes": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unfit(path, f"cannot be read: {error}") from None


def _alike(spacing_um: NDArray[Any], other_um: tuple[float, ...]) -> bool:
    return spacing_um.shape == (len(other_um),) and np.allclose(
        spacing_um, other_um, rtol=_SPACING_TOLERANCE
    )


def _unfit(path: Path, fault: str) -> UserError:
    return UserError(
        fault, where=path, fix="see ultrasound.psf.file in config/config.yaml, or have it estimated"
    )


def psf_arrays(psf: DepthPsf, pixels: Pixels) -> dict[str, NDArray[Any]]:
    """Return what is kept of an echo; :func:`read_psf` reads it too."""
    spacing = np.array(pixels.spacing_um)
    counted = {} if psf.bubbles is None else {"bubbles": psf.bubbles}
    return {
        "echoes": psf.echoes,
        "depth_um": psf.depth_px * spacing[0],
        "spacing_um": spacing,
        "wavelength_um": np.array(pixels.wavelength_um),
        "fwhm_um": fwhm_px(psf) * spacing,
        **counted,
    }


def psf_summary(kept: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return depth, bubbles and width of each band, from what is kept."""
    summary: dict[str, Any] = {}
    if "bubbles" in kept:
        summary["isolated_bubbles"] = int(kept["bubbles"].sum())
        summary["psf_bubbles"] = kept["bubbles"].tolist()
    summary["psf_depth_um"] = _rounded(kept["depth_um"])
    axes = axis_names(kept["fwhm_um"].shape[1])
    for axis, width_um in zip(axes, kept["fwhm_um"].T, strict=True):
        name = f"{_DIRECTIONS[axis]}_fwhm"
        summary[f"{name}_um"] = _rounded(width_um)
        summary[f"{name}_wavelengths"] = _rounded(width_um / kept["wavelength_um"])
    return summary


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 3) for value in values.tolist()]
