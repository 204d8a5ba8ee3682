"""Ultrasound File Format (UFF of the UltraSound ToolBox): arrays in HDF5, read in pieces.

MATLAB's axes are reversed in the file: channel data [time, channel, wave, frame] are stored as
(frame, wave, channel, time), without the leading axes where these have length 1.

Source: the classes of the UltraSound ToolBox (USTB) and of its Python package pyuff_ustb.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.readers.files import natural_key
from vasculome.readers.iq_arrays import Index, StoredArray, readable

CHANNEL_AXES = "taes"
CHANNEL_DATA, BEAMFORMED_DATA = "uff.channel_data", "uff.beamformed_data"


@dataclass(frozen=True)
class UffChannels:
    """Channel data of UFF files, (frames, transmits, elements, samples)."""

    loads_whole: ClassVar[bool] = False
    drops_ones: ClassVar[bool] = False

    def arrays(self, path: Path) -> tuple[StoredArray, ...]:
        """Return the channel data, and what else there is by its class."""
        with readable(path), open_uff(path) as file:
            return tuple(
                _stored(name, _reversed_shape(group, 4), group)
                if kind == CHANNEL_DATA
                else StoredArray(name, (), kind, 0)
                for name, kind, group in objects(file)
            )

    def load(self, path: Path, name: str, index: Index) -> npt.NDArray[Any]:
        """Return a piece; baseband phase is turned to count from time 0 of each wave.

        UFF counts it from the wave's delay, by which its recording starts later.
        """
        with readable(path), open_uff(path) as file:
            group = file[name]
            n_missing = 4 - len(_parts(group)[0].shape)
            values = _load(group, index[n_missing:])
            values = values.reshape((1,) * n_missing + values.shape)
            if not np.iscomplexobj(values):
                return values
            late_s = np.array([scalar(wave, "delay", 0.0) for wave in waves(group)])[index[1]]
            turn = np.exp(-2j * np.pi * scalar(group, "modulation_frequency") * late_s)
        return np.asarray(values * turn[:, None, None]).astype(values.dtype)

    def metadata(self, path: Path, name: str) -> list[dict[str, Any]]:
        """Return nothing: the sequence tells it."""
        return []


@dataclass(frozen=True)
class UffImages:
    """Beamformed data of UFF files on a linear scan, (frames, z, x)."""

    loads_whole: ClassVar[bool] = False
    drops_ones: ClassVar[bool] = False

    def arrays(self, path: Path) -> tuple[StoredArray, ...]:
        """Return the beamformed data, and what else there is by its class."""
        with readable(path), open_uff(path) as file:
            found = []
            for name, kind, group in objects(file):
                if kind == BEAMFORMED_DATA:
                    z_m, x_m = _linear_scan(group, path)
                    shape = (_image_layout(group, len(z_m) * len(x_m), path)[1], len(z_m), len(x_m))
                    found.append(_stored(name, shape, group))
                else:
                    found.append(StoredArray(name, (), kind, 0))
            return tuple(found)

    def load(self, path: Path, name: str, index: Index) -> npt.NDArray[Any]:
        """Return whole frames; pixels run along z first."""
        with readable(path), open_uff(path) as file:
            group = file[name]
            z_m, x_m = _linear_scan(group, path)
            frames_first, n_frames = _image_layout(group, len(z_m) * len(x_m), path)
            where = (slice(None),) * 3
            if n_frames == 1:
                values = _load(group, ()).reshape(1, -1)
            elif frames_first:
                values = _load(group, (index[0], *where))
            else:
                values = _load(group, (*where, index[0])).T
        frames = values.reshape(-1, len(x_m), len(z_m)).transpose(0, 2, 1)
        return frames[:, index[1], index[2]]

    def metadata(self, path: Path, name: str) -> list[dict[str, Any]]:
        """Return the spacing of the scan, and the centre frequency of the pulse if there is one."""
        with readable(path), open_uff(path) as file:
            group = file[name]
            place: dict[str, Any] = {}
            if all(len(axis) > 1 for axis in _linear_scan(group, path)):
                steps = [_step_um(axis, path) for axis in _linear_scan(group, path)]
                place["spacing_um"] = steps
            if "pulse" in group and "center_frequency" in group["pulse"]:
                place["center_frequency_hz"] = scalar(group["pulse"], "center_frequency")
        return [place]


def open_uff(path: Path) -> h5py.File:
    """Open a UFF file; network file systems may lack the locks that HDF5 asks for."""
    return h5py.File(path, "r", locking="best-effort")


def objects(file: h5py.File) -> list[tuple[str, str, h5py.Group]]:
    """Return name, class and group of the objects at the top of a file and in its folders."""
    found: list[tuple[str, str, h5py.Group]] = []

    def walk(group: h5py.Group, at: str) -> None:
        for key, item in group.items():
            if isinstance(item, h5py.Group):
                kind = _class_of(item)
                if kind.startswith("uff."):
                    found.append((at + key, kind, item))
                elif not kind:
                    walk(item, f"{at}{key}/")

    walk(file, "")
    return found


def waves(channel_data: h5py.Group) -> list[h5py.Group]:
    """Return the waves of the sequence in their order; a single one is not in a list."""
    sequence = channel_data["sequence"]
    if "wavefront" in sequence or "source" in sequence:
        return [sequence]
    return [sequence[key] for key in sorted(sequence, key=natural_key)]


def scalar(group: h5py.Group, name: str, default: float | None = None) -> float:
    """Return a number of a group; raises KeyError where it is missing and has no default."""
    if name not in group and default is not None:
        return default
    return float(np.squeeze(group[name][()]))


def _class_of(item: h5py.Group) -> str:
    label = item.attrs.get("class", "")
    return label.decode() if isinstance(label, bytes) else str(label)


def _parts(group: h5py.Group) -> list[h5py.Dataset]:
    """Return the dataset of real data, or those of real and imaginary parts."""
    data = group["data"]
    return [data["real"], data["imag"]] if isinstance(data, h5py.Group) else [data]


def _reversed_shape(group: h5py.Group, n_axes: int) -> tuple[int, ...]:
    shape = tuple(int(n) for n in _parts(group)[0].shape)
    return (1,) * (n_axes - len(shape)) + shape


def _stored(name: str, shape: tuple[int, ...], group: h5py.Group) -> StoredArray:
    parts = _parts(group)
    n_bytes = sum(part.size * part.dtype.itemsize for part in parts)
    kind = "complex" if len(parts) == 2 else "real"
    return StoredArray(name, shape, kind, n_bytes, str(parts[0].dtype.newbyteorder("=")))


def _load(group: h5py.Group, index: Index) -> npt.NDArray[Any]:
    values = [np.asarray(part[index]) for part in _parts(group)]
    if len(values) == 1:
        return values[0]
    dtype = np.complex64 if values[0].dtype.itemsize <= 4 else np.complex128
    joined = np.empty(values[0].shape, dtype)
    joined.real, joined.imag = values
    return joined


def _linear_scan(
    group: h5py.Group, path: Path
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the z and x axes of the scan, in metres."""
    scan = group["scan"]
    if _class_of(scan) != "uff.linear_scan":
        raise UserError(
            f"holds beamformed data on a {_class_of(scan)}; only uff.linear_scan is read",
            where=path,
            fix="give its channel data as format rf, or save the images as an HDF5 array",
        )
    return np.ravel(scan["z_axis"][()]), np.ravel(scan["x_axis"][()])


def _image_layout(group: h5py.Group, n_pixels: int, path: Path) -> tuple[bool, int]:
    """Return whether frames are the first axis, and how many there are.

    MATLAB's [pixel, channel, wave, frame] is stored reversed, but the Python writer stores what it
    is given.
    """
    shape = tuple(int(n) for n in _parts(group)[0].shape)
    if int(np.prod(shape)) == n_pixels:
        return True, 1
    if len(shape) == 4 and shape[1:3] == (1, 1) and n_pixels in (shape[0], shape[3]):
        frames_first = shape[3] == n_pixels
        if shape[0] != shape[3]:
            return frames_first, shape[0] if frames_first else shape[3]
    raise UserError(
        f"holds beamformed data of shape {shape} for {n_pixels} pixels",
        where=path,
        fix="save [pixel, 1, 1, frame], with channels and waves summed",
    )


def _step_um(axis_m: npt.NDArray[np.float64], path: Path) -> float:
    steps = np.diff(axis_m)
    if (steps <= 0).any() or not np.allclose(steps, steps.mean(), rtol=1e-3):
        raise UserError(
            "has a scan with uneven steps", where=path, fix="beamform on a regular grid"
        )
    return float(steps.mean() * 1e6)
