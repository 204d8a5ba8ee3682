"""2-D slices of one volume: the rows of a sample sheet that belong together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vasculome.errors import UserError

if TYPE_CHECKING:
    from vasculome.config.samples import Sample

_SAME = 0.01
"""Spacings and wavelengths may differ by this part."""


@dataclass(frozen=True)
class SliceStack:
    """A volume that 2-D slices make together; in a run it stands beside the samples.

    Attributes
    ----------
    sample
        Name of the volume, and of the folder of its results.
    slices
        The rows of its slices, from the lowest elevation to the highest.
    """

    sample: str
    slices: tuple[Sample, ...]

    modality: ClassVar[str] = "slices"
    tiled: ClassVar[bool] = False

    @property
    def elevation_um(self) -> tuple[float, ...]:
        """Position of each slice's plane along y, in micrometres; they rise."""
        return tuple(1000.0 * (row.elevation_mm or 0.0) for row in self.slices)

    def row(self) -> dict[str, Any]:
        """Return what the sheet tells of the volume, for its report."""
        planes = {row.sample: row.elevation_mm for row in self.slices}
        return {"sample": self.sample, "modality": self.modality, "elevation_mm": planes}

    def identity(self) -> dict[str, Any]:
        """Return what the volume depends on besides the maps of its slices."""
        return self.row()


def stacks_of(samples: Sequence[Sample]) -> tuple[SliceStack, ...]:
    """Return the volumes that the rows of a checked sample sheet name, in their order."""
    return tuple(
        SliceStack(
            name,
            tuple(
                sorted(
                    (row for row in samples if row.volume == name),
                    key=lambda row: row.elevation_mm or 0.0,
                )
            ),
        )
        for name in dict.fromkeys(row.volume for row in samples if row.volume is not None)
    )


def differing(values: Mapping[str, float]) -> tuple[str, str] | None:
    """Return two names whose values differ too much to be of one volume; None where all agree."""
    lowest, highest = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    if values[highest] <= values[lowest] * (1 + _SAME):
        return None
    return lowest, highest


def check_stacks(samples: Sequence[Sample], lines: Mapping[str, int], *, where: str) -> None:
    """Raise UserError where slices of a volume do not fit together.

    Parameters
    ----------
    samples
        All rows of the sheet.
    lines
        Line of the sheet of each sample.
    where
        The sheet.
    """
    for stack in stacks_of(samples):
        first = stack.slices[0]
        at = f"{where}, line {lines[first.sample]}"
        if stack.sample in lines:
            raise UserError(
                f"volume: {stack.sample!r} is the name of a sample as well",
                where=at,
                fix="give the volume a name of its own",
            )
        if len(stack.slices) == 1:
            raise UserError(
                f"volume: {stack.sample!r} has this slice only",
                where=at,
                fix="name the volume in the rows of its other slices, or leave the cell empty",
            )
        _check_elevations(stack, lines, where=where)
        _check_spacings(stack, lines, where=where)


def _check_elevations(stack: SliceStack, lines: Mapping[str, int], *, where: str) -> None:
    for row, other in itertools.pairwise(stack.slices):
        if row.elevation_mm == other.elevation_mm:
            first, last = sorted((row.sample, other.sample), key=lines.__getitem__)
            raise UserError(
                f"elevation_mm: {row.elevation_mm} is that of {first!r} (line {lines[first]}) in "
                f"volume {stack.sample!r} too",
                where=f"{where}, line {lines[last]}",
                fix="give each slice its own elevation",
            )


def _check_spacings(stack: SliceStack, lines: Mapping[str, int], *, where: str) -> None:
    for axis, name in enumerate("zx"):
        spacing_um = {row.sample: row.spacing_um[axis] for row in stack.slices}
        pair = differing(spacing_um)
        if pair is not None:
            first, last = sorted(pair, key=lines.__getitem__)
            raise UserError(
                f"spacing_um: {spacing_um[last]:g} along {name}, but {spacing_um[first]:g} in "
                f"{first!r} (line {lines[first]}), a slice of the same volume",
                where=f"{where}, line {lines[last]}",
                fix="put slices of one spacing into a volume",
            )
