"""The voxel spacing that files tell against the one in the sample sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vasculome.errors import UserError

TOLERANCE = 0.01
"""Relative difference above which files and sheet contradict each other."""


def check_spacing(
    told_um: Sequence[float | None], *, spacing_um: Sequence[float], where: Path
) -> None:
    """Raise UserError if a file tells another voxel spacing (z, y, x) than the sample sheet.

    Parameters
    ----------
    told_um
        As the file tells it; None for an axis of which it tells nothing.
    spacing_um
        As in the sample sheet.
    where
        The file.
    """
    for axis, told, given in zip("zyx", told_um, spacing_um, strict=True):
        if told is not None and abs(told - given) > TOLERANCE * given:
            raise UserError(
                f"says that voxels are {told:g} µm apart along {axis} where spacing_um says "
                f"{given:g}",
                where=where,
                fix="correct spacing_um (z,y,x) in the sample sheet",
            )
