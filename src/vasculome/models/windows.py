"""The windows that a network sees a volume through: one fixed grid, whoever computes which part.

Networks that normalize by the statistics of what they see, or whose transformer has windows of its
own, say something else of a voxel in every window. Where windows lie therefore follows from the
volume alone, never from the tiles that workers take: the result is the same however it is cut.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vasculome.geometry import Box

Blend = Literal["gaussian", "crop"]

_SIGMA = 0.125
"""Of the Gaussian, as a part of the window."""

_LEAST_WEIGHT = 1e-3
"""So that corners count where nothing else does."""


@dataclass(frozen=True)
class WindowPlan:
    """Where the windows of a volume lie, and what each of them counts.

    Windows begin at multiples of ``stride``, so that a network which halves voxels halves the same
    ones in all of them. The last one along an axis may stick out of the volume by less than that.

    Attributes
    ----------
    volume
        Voxels of the volume, (z, y, x).
    window
        Edge of a window, a multiple of ``stride``; cut to the volume where that is shorter.
    overlap
        Voxels that neighbours share, at least.
    stride
        Of the network: what windows are multiples of.
    blend
        ``gaussian``: windows are averaged with weights that fall off from their middle, those of
        MONAI's ``sliding_window_inference``. ``crop``: each window says what is in its middle,
        and the halves of the overlaps are thrown away.
    least
        Shortest window that the network takes along an axis.
    aligned
        With ``blend`` crop: what windows have a say in begins at multiples of ``window - overlap``,
        so that tiles of such edges ask about no window twice. Else windows do.
    """

    volume: tuple[int, ...]
    window: int
    overlap: int
    stride: int
    blend: Blend = "gaussian"
    least: int = 1
    aligned: bool = False

    def __post_init__(self) -> None:
        if self.window % self.stride or self.window < self.least:
            raise ValueError(
                f"window {self.window} must be a multiple of {self.stride}, {self.least} at least"
            )
        if not 0 <= self.overlap <= self.window - self.stride:
            raise ValueError(f"windows of {self.window} cannot share {self.overlap} voxels")
        if self.aligned and (self.blend != "crop" or self.overlap % (2 * self.stride)):
            raise ValueError(f"windows that share {self.overlap} voxels cannot be cropped evenly")

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Voxels of every window, (z, y, x)."""
        return tuple(
            min(self.window, max(_up(n, self.stride), _up(self.least, self.stride)))
            for n in self.volume
        )

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """Where windows begin along each axis."""
        margin = self.overlap // 2 if self.aligned else 0
        return tuple(
            _starts(n, length, self.overlap, self.stride, margin)
            for n, length in zip(self.volume, self.shape, strict=True)
        )

    @cached_property
    def owned(self) -> tuple[dict[int, tuple[int, int]], ...]:
        """What each window has a say in along each axis, first and end, by where it begins."""
        return tuple(
            {start: self._own(axis, place) for place, start in enumerate(starts)}
            for axis, starts in enumerate(self.starts)
        )

    def layers(self, core: Box) -> Iterator[list[Box]]:
        """Yield the windows that bear on ``core``, those of one z together, in order.

        They may stick out of the volume at its end.
        """
        z, y, x = (self._touching(axis, core) for axis in range(3))
        for first in z:
            corners = itertools.product((first,), y, x)
            yield [
                Box(corner, tuple(a + n for a, n in zip(corner, self.shape, strict=True)))
                for corner in corners
            ]

    def own(self, window: Box) -> Box:
        """Return the voxels of a window that it has a say in; they may stick out of the volume."""
        ends = [owned[start] for owned, start in zip(self.owned, window.start, strict=True)]
        return Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))

    @cached_property
    def weights(self) -> NDArray[np.float32] | None:
        """What each voxel of a window counts, float32 (z, y, x); None where windows are cropped."""
        if self.blend == "crop":
            return None
        axes = []
        for length in self.shape:
            distance = np.arange(length) - (length - 1) / 2
            axes.append(np.exp(-0.5 * (distance / (_SIGMA * length)) ** 2))
        z, y, x = np.ix_(*axes)
        return np.maximum(z * y * x, _LEAST_WEIGHT).astype(np.float32)

    def _own(self, axis: int, place: int) -> tuple[int, int]:
        """Return the voxels along an axis that a window has a say in, first and end."""
        starts, length = self.starts[axis], self.shape[axis]
        start, stop = starts[place], starts[place] + length
        if self.blend == "gaussian":
            return start, stop
        if place > 0:
            start = self._border(axis, place)
        if place < len(starts) - 1:
            stop = self._border(axis, place + 1)
        return start, stop

    def _border(self, axis: int, place: int) -> int:
        """Return where a window that is not the first takes over from the one before."""
        starts, margin = self.starts[axis], self.overlap // 2
        if not self.aligned:
            return (starts[place] + starts[place - 1] + self.shape[axis]) // 2
        # The last window is moved back.
        return _up(starts[place] + margin, self.window - self.overlap)

    def _touching(self, axis: int, core: Box) -> list[int]:
        owned = self.owned[axis].items()
        return [s for s, (a, b) in owned if a < core.stop[axis] and b > core.start[axis]]


def seen_plane_voxels(core: Sequence[int], plan: WindowPlan) -> int:
    """Return how many voxels of a plane (y, x) the windows around a core see at most.

    Parameters
    ----------
    core
        Shape of a tile, wherever it lies, (z, y, x).
    plan
        Of the volume.
    """
    edges = []
    for n, length, owned in list(zip(core, plan.shape, plan.owned, strict=True))[1:]:
        starts, own = np.array(list(owned)), np.array(list(owned.values()))
        # The first window may have a say in no more than the first voxel of the core.
        end = np.searchsorted(own[:, 0], own[:, 1] + n - 1)
        edges.append(int((starts[end - 1] + length - starts).max()))
    return math.prod(edges)


def _starts(n: int, length: int, overlap: int, stride: int, margin: int) -> tuple[int, ...]:
    """Return where windows begin along an axis, the inner ones ``margin`` before a step."""
    step = max(stride, (length - overlap) // stride * stride)
    last = _up(max(0, n - length), stride)
    steps = range(0, last + margin, step)
    return tuple(sorted({0, last} | {at - margin for at in steps if at > margin}))


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
