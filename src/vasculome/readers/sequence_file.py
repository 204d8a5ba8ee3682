"""The sequence file: a small YAML file that tells what RF in a plain array means.

A linear array and three plane waves::

    axes: seat                      # order in the array: samples, elements, transmits, frames (t)
    n_elements: 128                 # [n_y, n_x] of a matrix array
    pitch_um: 100                   # [y, x] of a matrix array; or element_positions_um
    sampling_frequency_hz: 62.5e6
    center_frequency_hz: 15.6e6
    bandwidth_hz: 10e6              # pulse-echo, at -6 dB
    speed_of_sound_m_s: 1540
    start_time_s: 2.0e-6            # time of the first sample; one, or one for each transmit
    angles_deg: [-5, 0, 5]          # or virtual_sources_um, or transmit_delays_s
    time_zero: first_element        # clock of start_time_s: first_element fires, or wave at origin
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from vasculome.errors import UserError
from vasculome.readers.files import unreadable
from vasculome.readers.sequence import (
    Sequence,
    Wave,
    array_elements,
    directions,
    firing_lead_s,
    refuse_implausible,
)

_WAVES: dict[str, Wave] = {
    "angles_deg": "plane",
    "virtual_sources_um": "diverging",
    "transmit_delays_s": "delays",
}
_KEYS = (
    "axes",
    "n_elements",
    "pitch_um",
    "fastest_axis",
    "element_positions_um",
    "element_width_um",
    "sampling_frequency_hz",
    "center_frequency_hz",
    "bandwidth_hz",
    "speed_of_sound_m_s",
    "start_time_s",
    *_WAVES,
    "time_zero",
    "samples_per_transmit",
)


@dataclass(frozen=True, eq=False)
class SequenceFile:
    """What a sequence file tells.

    Attributes
    ----------
    sequence
        Probe and transmits.
    axes
        Order of the axes in the array: s (samples), e (elements), t (frames), a (transmits);
        without a, the transmits of a frame follow each other along s.
    samples_per_transmit
        Samples of each transmit where they follow each other; None where a is an axis.
    """

    sequence: Sequence
    axes: str
    samples_per_transmit: int | None


def read_sequence(path: Path) -> SequenceFile:
    """Return what a sequence file tells; the module's text shows one.

    Raises
    ------
    UserError
        No such file, no YAML, unknown or missing keys, values of the wrong kind, or values that
        contradict each other: names the key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"is not YAML ({first})", where=path, fix="correct it") from error
    if not isinstance(content, dict):
        raise UserError("holds no keys", where=path, fix=f"give {', '.join(_KEYS)}")
    return _File(path, content).parse()


class _File:
    """The keys of one file, and complaints about them."""

    def __init__(self, path: Path, content: Mapping[Any, Any]) -> None:
        self._path, self._content = path, content
        for key in content:
            if key not in _KEYS:
                raise UserError(
                    f"unknown key {str(key)!r}", where=path, fix=f"keys are {', '.join(_KEYS)}"
                )

    def parse(self) -> SequenceFile:
        elements = self._elements()
        speed = self._positive("speed_of_sound_m_s")
        wave, values = self._waves(elements)
        sequence = Sequence(
            elements_um=elements,
            wave=wave,
            wave_values=values,
            start_time_s=self._start_times(elements, wave, values, speed_of_sound_m_s=speed),
            sampling_frequency_hz=self._positive("sampling_frequency_hz"),
            center_frequency_hz=self._positive("center_frequency_hz"),
            bandwidth_hz=self._positive("bandwidth_hz"),
            speed_of_sound_m_s=speed,
            element_width_um=(
                self._positive("element_width_um") if "element_width_um" in self._content else None
            ),
        )
        refuse_implausible(sequence, where=str(self._path))
        axes, samples = self._layout(len(values))
        return SequenceFile(sequence, axes, samples)

    def _elements(self) -> npt.NDArray[np.float64]:
        listed, regular = "element_positions_um", ("n_elements", "pitch_um")
        given = [key for key in (listed, *regular) if key in self._content]
        if given == [listed]:
            value = self._content[listed]
            rows = self._table(value) if isinstance(value, str) else self._array(listed)
            if rows.ndim != 2 or rows.shape[1] not in (2, 3):
                raise self._fault(f"{listed} has shape {rows.shape}", "give [z, x] or [z, y, x]")
            return rows
        if given != list(regular):
            raise self._fault(
                f"has {' and '.join(given) or 'no elements'}",
                f"give {' and '.join(regular)}, or {listed}",
            )
        counts = tuple(np.atleast_1d(self._array("n_elements")).tolist())
        pitch = tuple(np.atleast_1d(self._array("pitch_um")).tolist())
        if (
            len(counts) not in (1, 2)
            or len(pitch) != len(counts)
            or any(n < 1 or not float(n).is_integer() for n in counts)
            or any(p <= 0 for p in pitch)
        ):
            raise self._fault(
                f"n_elements {counts} and pitch_um {pitch} make no array",
                "give one number each for a linear array, [y, x] each for a matrix array",
            )
        fastest = self._content.get("fastest_axis", "x" if len(counts) == 1 else None)
        if fastest not in ("x", "y") or (len(counts) == 1 and fastest != "x"):
            raise self._fault(
                f"fastest_axis is {fastest!r}",
                "give the axis, x or y, along which the next element has the next number",
            )
        return array_elements(tuple(int(n) for n in counts), pitch, fastest_axis=fastest)

    def _waves(self, elements: npt.NDArray[np.float64]) -> tuple[Wave, npt.NDArray[np.float64]]:
        given = [key for key in _WAVES if key in self._content]
        if len(given) != 1:
            raise self._fault(
                f"has {' and '.join(given) or 'no transmits'}", f"give one of {', '.join(_WAVES)}"
            )
        key = given[0]
        wave, ndim = _WAVES[key], elements.shape[1]
        width = {"plane": ndim - 1, "diverging": ndim, "delays": len(elements)}[wave]
        values = self._array(key, gaps=wave == "delays")
        if wave == "plane" and ndim == 2:
            values = values.reshape(-1, 1) if values.ndim < 2 else values
        if values.ndim != 2 or values.shape[1] != width or len(values) == 0:
            what = {"plane": "[azimuth, elevation]", "diverging": "[z, x] or [z, y, x]"}.get(
                wave, f"{width} delays, .nan for a silent element,"
            )
            raise self._fault(
                f"{key} has shape {values.shape}",
                f"give {'an angle' if width == 1 else what} for each transmit",
            )
        if wave == "plane":
            radians = np.deg2rad(values)
            if (np.abs(radians) >= np.pi / 2).any():
                raise self._fault(f"{key} reach 90 degrees", "give angles from the z axis")
            return wave, directions(radians[:, 0], radians[:, 1] if ndim == 3 else None)
        if wave == "diverging" and (values[:, 0] > 0).any():
            raise self._fault(
                f"{key} lie in front of the probe: converging waves are not beamformed",
                "give sources with z of 0 or less; beamform focused transmits elsewhere",
            )
        if wave == "delays" and np.isnan(values).all(axis=1).any():
            raise self._fault(f"{key} has a transmit without elements", "give its delays")
        return wave, values

    def _start_times(
        self,
        elements: npt.NDArray[np.float64],
        wave: Wave,
        values: npt.NDArray[np.float64],
        *,
        speed_of_sound_m_s: float,
    ) -> npt.NDArray[np.float64]:
        start = np.atleast_1d(self._array("start_time_s"))
        if start.shape not in ((1,), (len(values),)):
            raise self._fault(
                f"start_time_s has {start.size} values for {len(values)} transmits",
                "give one, or one for each transmit",
            )
        start = np.broadcast_to(start, (len(values),)).copy()
        clock = self._content.get("time_zero")
        if wave == "delays":
            if clock is not None:
                raise self._fault("time_zero does nothing with transmit_delays_s", "remove it")
            return start
        lead = firing_lead_s(elements, wave, values, speed_of_sound_m_s=speed_of_sound_m_s)
        if clock is None and not np.allclose(lead, 0, atol=1e-12):
            raise self._fault(
                "does not tell the clock of start_time_s",
                "give time_zero: first_element (fires at 0) or origin (the wave passes it at 0)",
            )
        if clock not in (None, "first_element", "origin"):
            raise self._fault(f"time_zero is {clock!r}", "give first_element or origin")
        return start - lead if clock == "first_element" else start

    def _layout(self, n_transmits: int) -> tuple[str, int | None]:
        axes = self._content.get("axes")
        if not isinstance(axes, str) or sorted(axes) not in (sorted("set"), sorted("seat")):
            raise self._fault(
                f"axes is {axes!r}",
                "give s (samples), e (elements), a (transmits) and t (frames) in the array's order",
            )
        if "a" in axes:
            if "samples_per_transmit" in self._content:
                raise self._fault("samples_per_transmit does nothing with axis a", "remove it")
            return axes, None
        if "samples_per_transmit" not in self._content and n_transmits > 1:
            raise self._fault(
                f"does not tell where the {n_transmits} transmits are",
                "name their axis a in axes, or give samples_per_transmit if they follow each "
                "other along s",
            )
        if "samples_per_transmit" not in self._content:
            return axes, None
        samples = self._positive("samples_per_transmit")
        if not samples.is_integer():
            raise self._fault(f"samples_per_transmit is {samples}", "give a whole number")
        return axes, int(samples)

    def _positive(self, key: str) -> float:
        value = self._array(key)
        if value.shape != () or value <= 0:
            raise self._fault(f"{key} is {self._content[key]!r}", "give one positive number")
        return float(value)

    def _array(self, key: str, *, gaps: bool = False) -> npt.NDArray[np.float64]:
        if self._content.get(key) is None:
            raise self._fault(f"has no {key}", f"add {key}")
        try:
            # YAML takes 5e6 for a string, NumPy does not; and true is no 1.
            given = np.asarray(self._content[key], object)
            if any(isinstance(number, bool) for number in given.flat):
                raise TypeError
            value = given.astype(np.float64)
        except (TypeError, ValueError):
            value = np.array(np.nan)
            gaps = False
        if np.isinf(value).any() or (np.isnan(value).any() and not gaps):
            raise self._fault(f"{key} is {str(self._content[key])[:40]!r}", "give numbers")
        return value

    def _table(self, name: str) -> npt.NDArray[np.float64]:
        """Return element positions from a CSV file beside the sequence file."""
        path = self._path.parent / name
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except OSError as error:
            raise unreadable(path, error) from error
        names = [n for n in ("z_um", "y_um", "x_um") if rows and n in rows[0]]
        try:
            if "z_um" not in names or "x_um" not in names:
                raise ValueError
            positions = np.array([[float(row[n]) for n in names] for row in rows])
            if not np.isfinite(positions).all():
                raise ValueError
            return positions
        except (TypeError, ValueError):
            raise UserError(
                "is no table of element positions",
                where=path,
                fix="give columns z_um, x_um, and y_um in 3-D, with numbers",
            ) from None

    def _fault(self, what: str, fix: str) -> UserError:
        return UserError(what, where=self._path, fix=fix)
