"""Acquisition metadata of IQ: what the files tell, what the sample sheet tells, one answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vasculome.errors import UserError

Quantity = tuple[float, ...]

METADATA_NAMES = (
    "frame_rate_hz",
    "wavelength_um",
    "center_frequency_hz",
    "speed_of_sound_m_s",
    "spacing_um",
)
"""Names under which files and sample sheet give what the acquisition was."""

_TOLERANCE = 0.01


@dataclass(frozen=True)
class AcquisitionMeta:
    """What the chain must know of an acquisition.

    Attributes
    ----------
    frame_rate_hz
        Compounded frames a second.
    wavelength_um
        Wavelength at the centre frequency.
    spacing_um
        Distance between pixels, (z, x) or (z, y, x).
    """

    frame_rate_hz: float
    wavelength_um: float
    spacing_um: tuple[float, ...]


def parse_metadata(places: Iterable[Mapping[str, Any]], *, where: Path) -> dict[str, Quantity]:
    """Return the quantities found in a file, from all places in it.

    Parameters
    ----------
    places
        Raw values under the names of `METADATA_NAMES`, arrays or scalars.
    where
        The file, for messages.

    Raises
    ------
    UserError
        A value is no positive number, or two places differ by more than 1 %.
    """
    found: dict[str, Quantity] = {}
    for place in places:
        for name, value in place.items():
            quantity = _quantity(name, value, where=where)
            if name in found:
                _check_agree(name, found[name], quantity, where=where, other="another place in it")
            found.setdefault(name, quantity)
    return found


def resolve_metadata(
    found: Mapping[str, Any], given: Mapping[str, Any], *, spatial_axes: int, where: Path
) -> AcquisitionMeta:
    """Return the acquisition's metadata from file and sample sheet, which must agree.

    The wavelength may be given as such, or as the speed of sound over the centre frequency.

    Parameters
    ----------
    found, given
        What the file and the sample sheet give under the names of `METADATA_NAMES`; None is
        nothing. Where both do, they may differ by 1 % and the sample sheet's is taken.
    spatial_axes
        2 or 3: the number of values of ``spacing_um``.
    where
        The file, for messages.

    Raises
    ------
    UserError
        A contradiction, or a quantity that neither gives: names the column to fill.
    """
    sheet = {n: _quantity(n, v, where=where) for n, v in given.items() if v is not None}
    file = {n: _quantity(n, v, where=where) for n, v in found.items()}
    both = file | sheet
    for name in file.keys() & sheet.keys():
        _check_agree(name, file[name], sheet[name], where=where, other="the sample sheet")
    if "center_frequency_hz" in both and "speed_of_sound_m_s" in both:
        derived = both["speed_of_sound_m_s"][0] / both["center_frequency_hz"][0] * 1e6
        wavelength = both.setdefault("wavelength_um", (derived,))
        _check_agree(
            "wavelength_um",
            wavelength,
            (derived,),
            where=where,
            other="speed of sound over centre frequency",
        )
    for name in ("frame_rate_hz", "wavelength_um", "spacing_um"):
        if name not in both:
            instead = (
                " (or center_frequency_hz and speed_of_sound_m_s)"
                if name == "wavelength_um"
                else ""
            )
            raise UserError(
                f"the file does not tell {name}",
                where=where,
                fix=f"fill the column {name}{instead} of the sample sheet",
            )
    if len(both["spacing_um"]) != spatial_axes:
        raise UserError(
            f"spacing_um has {len(both['spacing_um'])} values for {spatial_axes} axes",
            where=where,
            fix="give z,x or z,y,x in micrometres",
        )
    return AcquisitionMeta(
        both["frame_rate_hz"][0], both["wavelength_um"][0], tuple(both["spacing_um"])
    )


def _quantity(name: str, value: Any, *, where: Path) -> Quantity:
    try:
        numbers = np.atleast_1d(np.asarray(value, np.float64)).ravel()
    except (TypeError, ValueError):
        numbers = np.empty(0)
    single = name == "spacing_um" or numbers.size == 1
    if numbers.size == 0 or not single or not (np.isfinite(numbers) & (numbers > 0)).all():
        raise UserError(
            f"{name} is {str(value)[:40]!r}, not a positive number",
            where=where,
            fix="correct it in the file or the sample sheet",
        )
    return tuple(float(n) for n in numbers)


def _check_agree(name: str, one: Quantity, two: Quantity, *, where: Path, other: str) -> None:
    if len(one) != len(two) or not np.allclose(one, two, rtol=_TOLERANCE, atol=0):
        raise UserError(
            f"{name} is {_text(one)}, but {_text(two)} by {other}",
            where=where,
            fix="find out which is right and correct the other",
        )


def _text(quantity: Quantity) -> str:
    return ",".join(f"{n:g}" for n in quantity)
