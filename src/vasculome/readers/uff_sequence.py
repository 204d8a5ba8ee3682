"""Probe and sequence of the channel data in a UFF file.

Source: the classes of the UltraSound ToolBox (USTB) and of its Python package pyuff_ustb: the first
sample of a wave is recorded at the initial time plus the wave's delay after the wave passed the
origin.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.readers.iq_arrays import readable
from vasculome.readers.sequence import (
    Sequence,
    Wave,
    array_elements,
    directions,
    refuse_implausible,
)
from vasculome.readers.uff import CHANNEL_DATA, objects, open_uff, scalar, waves

_PLANE, _SPHERICAL = 0, 1
_WIDEST_RELATIVE = 2
_PULSE = ("pulse/center_frequency", "pulse/fractional_bandwidth")
_UM_PER_M = 1e6
_FLAT_UM, _FLAT = 1e-3, 1e-6
"""What counts as 0 along y, of positions and of directions: what sines and cosines round to."""


def find_channel_data(path: Path, variable: str | None) -> str:
    """Return the name of the channel data in a file: ``variable``, or the only ones there are.

    Raises
    ------
    UserError
        None, or several and no ``variable``.
    """
    with readable(path), open_uff(path) as file:
        found = [(name, kind) for name, kind, _ in objects(file)]
    names = [name for name, kind in found if kind == CHANNEL_DATA]
    if variable is not None and variable in names:
        return variable
    if variable is None and len(names) == 1:
        return names[0]
    there = ", ".join(f"{name} ({kind})" for name, kind in found) or "no object of UFF"
    if not names:
        raise UserError(
            f"has no {CHANNEL_DATA}; it has {there}",
            where=path,
            fix="save channel data in it, give beamformed data as format iq, or name .h5 what is "
            "plain HDF5",
        )
    raise UserError(
        f"has no channel data {variable!r}; it has {there}"
        if variable is not None
        else f"holds several channel data: {', '.join(names)}",
        where=path,
        fix="name one of its channel data as variable in the sample sheet",
    )


def read_uff_sequence(path: Path, name: str) -> Sequence:
    """Return probe and sequence of the channel data ``name``.

    Raises
    ------
    UserError
        A damaged file, a missing field, or what is not supported: waves other than plane and
        diverging ones, walking apertures.
    """
    with readable(path), open_uff(path) as file:
        group = file[name]
        _require(group, path)
        elements, width_um = _elements(group["probe"], path)
        wave, values = _waves(group, path)
        off_plane = np.abs(values[:, 1]).max() / (_FLAT if wave == "plane" else _FLAT_UM)
        is_flat = off_plane < 1 and np.abs(elements[:, 1]).max() < _FLAT_UM
        axes = [0, 2] if is_flat else [0, 1, 2]
        delays = np.array([scalar(w, "delay", 0.0) for w in waves(group)])
        baseband_hz = scalar(group, "modulation_frequency")
        is_complex = isinstance(group["data"], h5py.Group)
        if is_complex != (baseband_hz != 0):
            raise UserError(
                f"{name} is {'complex' if is_complex else 'real'}, but its modulation_frequency "
                f"is {baseband_hz:g} Hz",
                where=path,
                fix="give real RF with 0, or baseband data with the frequency",
            )
        bandwidth_hz, center_hz = _bandwidth_hz(group, path, needed=not is_complex), baseband_hz
        if not is_complex:
            center_hz = scalar(group, "pulse/center_frequency")
        sequence = Sequence(
            elements_um=elements[:, axes],
            wave=wave,
            wave_values=values[:, axes],
            start_time_s=scalar(group, "initial_time") + delays,
            sampling_frequency_hz=scalar(group, "sampling_frequency"),
            center_frequency_hz=center_hz,
            bandwidth_hz=bandwidth_hz,
            speed_of_sound_m_s=scalar(group, "sound_speed"),
            element_width_um=width_um,
            is_baseband=is_complex,
        )
    refuse_implausible(sequence, where=str(path))
    return sequence


def _bandwidth_hz(group: h5py.Group, path: Path, *, needed: bool) -> float | None:
    """Return the bandwidth of the pulse; None where it is not told and not needed."""
    if not all(field in group for field in _PULSE):
        return None
    center_hz, relative = (scalar(group, field) for field in _PULSE)
    if 0 < relative <= _WIDEST_RELATIVE and center_hz > 0:
        return relative * center_hz
    if not needed:
        return None
    raise UserError(
        f"the pulse has a center_frequency of {center_hz:g} Hz and a fractional_bandwidth of "
        f"{relative:g}",
        where=path,
        fix="correct them; the fractional bandwidth is that at -6 dB over the centre frequency",
    )


def _require(group: h5py.Group, path: Path) -> None:
    """Raise UserError that names the first field that is missing."""
    fields = [
        "data",
        "sampling_frequency",
        "initial_time",
        "sound_speed",
        "modulation_frequency",
        "probe",
        "sequence",
    ]
    if isinstance(group.get("data"), h5py.Dataset):
        fields += ["pulse", *_PULSE]
    for field in fields:
        if field not in group:
            raise UserError(
                f"{group.name.strip('/')} has no {field}", where=path, fix=f"write {field}"
            )


def _elements(probe: h5py.Group, path: Path) -> tuple[npt.NDArray[np.float64], float | None]:
    """Return the elements (z, y, x) in micrometres, and their width."""
    if "geometry" in probe:
        # Rows x, y, z, azimuth, elevation, width, height; one column an element.
        geometry = np.asarray(probe["geometry"][()], np.float64)
        geometry = geometry.reshape(geometry.shape[0], -1)
        if len(geometry) != 7:
            raise UserError(
                f"the probe's geometry has {len(geometry)} rows", where=path, fix="write 7 rows"
            )
        width_um = float(geometry[5, 0]) * _UM_PER_M
        return geometry[[2, 1, 0]].T * _UM_PER_M, width_um or None
    if "pitch" not in probe or "N" not in probe or "radius" in probe:
        raise UserError("the probe has no geometry", where=path, fix="write the probe's geometry")
    pitch_um = scalar(probe, "pitch") * _UM_PER_M
    line = array_elements((int(scalar(probe, "N")),), (pitch_um,))
    return np.insert(line, 1, 0.0, axis=1), None


def _waves(group: h5py.Group, path: Path) -> tuple[Wave, npt.NDArray[np.float64]]:
    """Return the waves' kind, and directions or sources (transmits, (z, y, x))."""
    kinds: set[Wave] = set()
    values = []
    for wave in waves(group):
        source = wave["source"]
        distance = scalar(source, "distance", 0.0)
        azimuth, elevation = (np.array([scalar(source, n, 0.0)]) for n in ("azimuth", "elevation"))
        front = int(scalar(wave, "wavefront", float(_SPHERICAL)))
        if "origin" in wave and scalar(wave["origin"], "distance", 0.0) != 0:
            raise UserError(
                "waves of a walking aperture are not supported",
                where=path,
                fix="give waves whose origin is the probe's",
            )
        direction = directions(azimuth, elevation)[0]
        if front == _PLANE or (front == _SPHERICAL and np.isinf(distance)):
            kinds.add("plane")
            values.append(direction)
        elif front == _SPHERICAL and (distance == 0 or direction[0] * distance <= 1e-9):
            kinds.add("diverging")
            values.append(direction * distance * _UM_PER_M)
        else:
            raise UserError(
                "holds waves that are neither plane nor diverging",
                where=path,
                fix="beamform it elsewhere and give the IQ",
            )
    if len(kinds) != 1:
        raise UserError(
            "mixes plane and diverging waves", where=path, fix="give a file for each kind"
        )
    return kinds.pop(), np.array(values)
