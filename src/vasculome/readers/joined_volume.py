"""One volume whose planes lie in several stacks, one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.files import fingerprint
from vasculome.readers.tiff_volume import RawVolume, check_inside


@dataclass(frozen=True)
class JoinedVolume:
    """Volumes of one width, height and type, joined along z; reads like a `RawVolume`.

    Attributes
    ----------
    parts
        The volumes, by rising z.
    """

    parts: tuple[RawVolume, ...]

    def __post_init__(self) -> None:
        first = self.parts[0]
        for part in self.parts:
            if (part.shape[1:], part.dtype) != (first.shape[1:], first.dtype):
                raise UserError(
                    f"is {part.shape[1]}×{part.shape[2]} {part.dtype} where the first block is "
                    f"{first.shape[1]}×{first.shape[2]} {first.dtype}",
                    where=part.files[0],
                    fix="export all blocks of a tile with one shape and pixel type",
                )

    @property
    def files(self) -> Sequence[Path]:
        """Files of all parts."""
        return tuple(file for part in self.parts for file in part.files)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (z, y, x)."""
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self.parts[0].dtype

    @property
    def missing(self) -> tuple[int, ...]:
        """Planes that no file holds, rising; they are read as zeros."""
        starts = np.cumsum([0, *(part.shape[0] for part in self.parts)])
        return tuple(
            int(start) + z
            for start, part in zip(starts, self.parts, strict=False)
            for z in part.missing
        )

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the voxels of ``box``; parameters and errors as `RawVolume.read`."""
        check_inside(box, self.shape)
        out = np.empty(box.shape, self.dtype)
        begin = 0
        for part in self.parts:
            inside = box.intersect(Box.of_shape(part.shape).translate((begin, 0, 0)))
            if inside:
                voxels = part.read(inside.translate((-begin, 0, 0)))
                out[inside.relative_to(box).slices] = voxels
            begin += part.shape[0]
        return out

    def fingerprint(self) -> str:
        """Return the identity of the input: a digest of the parts' identities."""
        return fingerprint((), detail=repr([part.fingerprint() for part in self.parts]))
