"""The student on a processor, window by window: what `Student.forward` says, in less time.

torch's convolutions are made for many channels; the student has five where it has most voxels.
Here loops are written for so few (`models.student_kernels`), no memory is taken from window to
window, and activation, norm and what goes past are one pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vasculome.models.student import Student
from vasculome.models.student_kernels import (
    LANES,
    TOGETHER,
    Floats,
    activate,
    activate_with_past,
    convolve,
    mix,
    moments,
    pool,
    split,
    upsample,
)


class StudentEngine:
    """A student in ``eval`` mode that sees one window after another; one thread at a time.

    Parameters
    ----------
    network
        Whose weights are copied; what is learnt later does not count.
    """

    def __init__(self, network: Student) -> None:
        design = network.design
        self._design = design
        self._down = [_Block.of(block) for block in network.down]
        self._up = [_Block.of(block) for block in network.up]
        self._narrow = [_matrix(layer.weight) for layer in network.narrow]
        self._head, self._bias = _matrix(network.head.weight), network.head.bias.item()
        # Of the shape at hand; the last window of a small volume may have another.
        self._space = lru_cache(maxsize=1)(self._new_space)

    def __call__(self, image: Floats) -> Floats:
        """Return the logits of a window.

        Parameters
        ----------
        image
            From 0 to 1, float32 (z, y, x), multiples of the design's stride.

        Returns
        -------
        ndarray
            float32 (z, y, x); overwritten by the next call.
        """
        space = self._space(image.shape)
        finest, *coarser = space.levels
        if self._design.gamma != 1:
            image = image**self._design.gamma
        split(finest.below.volume, image, self._design.stem_stride)
        self._down[0](finest, finest.below, finest.skip)
        before = finest
        for block, level in zip(self._down[1:], coarser, strict=True):
            pool(level.below.volume, before.skip)
            block(level, level.below, level.skip)
            before = level
        volume = before.skip
        for narrow, block, level in zip(self._narrow, self._up, space.levels[-2::-1], strict=True):
            mix(level.low, volume, narrow, 0.0)
            upsample(level.joined.volume, level.low, 1, self._design.skip == "add")
            block(level, level.joined, level.answer)
            volume = level.answer
        mix(space.said, volume, self._head, self._bias)
        if self._design.stem_stride == 2:
            upsample(space.logits, space.said, 0, False)
        return space.logits[0]

    def _new_space(self, shape: tuple[int, ...]) -> _Space:
        design = self._design
        if any(n % design.stride for n in shape):
            raise ValueError(f"windows must be multiples of {design.stride}, not {shape}")
        joined = 2 if design.skip == "concatenate" else 1
        levels: list[_Level] = []
        inner, stride = design.stem_stride**3, design.stem_stride
        for channels in design.widths:
            shape_here = levels[-1].shape if levels else shape
            zyx = tuple(n // (2 if levels else stride) for n in shape_here)
            levels.append(_Level(zyx, inner, channels, joined * channels, stride=stride))
            inner, stride = channels, 1
        said = np.empty((1, *levels[0].shape), np.float32)
        logits = said if design.stem_stride == 1 else np.empty((1, *shape), np.float32)
        return _Space(levels, said, logits)


class _Padded:
    """An activation with a border of zeros, (C, z + 2, y + 2, x + 2), as it is and flat."""

    def __init__(self, channels: int, shape: Sequence[int], *, stride: int = 1) -> None:
        padded = (channels, *(n + 2 for n in shape))
        # Runs are rounded up, and look two voxels ahead.
        self.flat = np.zeros(math.prod(padded) + 2 * LANES, np.float32)
        self.volume = self.flat[: math.prod(padded)].reshape(padded)
        self.rows = (_rows_by_phase if stride == 2 else _rows)(self.volume)


class _Level:
    """What is kept of one level of the network; memory is taken once."""

    def __init__(
        self, shape: tuple[int, ...], inner: int, channels: int, joined: int, *, stride: int
    ) -> None:
        z, y, x = shape
        self.shape = shape
        self.below = _Padded(inner, shape, stride=stride)
        self.inside = _Padded(channels, shape)
        self.joined = _Padded(joined, shape)
        self.raw = np.empty((channels, z, -(-y * (x + 2) // LANES) * LANES), np.float32)
        # What was seen on the way down is where what comes up is joined to it.
        self.skip = self.joined.volume[joined - channels :]

    @cached_property
    def answer(self) -> Floats:
        """What comes up, an activation; the coarsest level has none."""
        return _Padded(self.raw.shape[0], self.shape).volume

    @cached_property
    def low(self) -> Floats:
        """What comes from the next level, before it is interpolated."""
        return np.empty((self.raw.shape[0], *(n // 2 for n in self.shape)), np.float32)


@dataclass(frozen=True)
class _Space:
    levels: list[_Level]
    said: Floats
    logits: Floats


@dataclass(frozen=True)
class _Norm:
    """A norm over all channels together, or one with what training has learnt."""

    weight: Floats
    bias: Floats
    learnt: bool
    eps: float

    @classmethod
    def of(cls, norm: nn.Module) -> _Norm:
        weight, bias = _array(norm.weight), _array(norm.bias)
        if isinstance(norm, nn.GroupNorm):
            return cls(weight, bias, False, norm.eps)
        assert isinstance(norm, nn.BatchNorm3d)
        assert norm.running_mean is not None and norm.running_var is not None
        weight = weight / np.sqrt(_array(norm.running_var) + np.float32(norm.eps))
        return cls(weight, bias - _array(norm.running_mean) * weight, True, norm.eps)

    def __call__(self, level: _Level) -> tuple[Floats, Floats]:
        """Return factors and summands of each channel."""
        if self.learnt:
            return self.weight, self.bias
        total, squares = moments(level.raw, *level.shape[1:])
        count = math.prod(level.shape) * len(level.raw)
        mean = total / count
        over = 1 / math.sqrt(max(0.0, squares / count - mean * mean) + self.eps)
        scale = self.weight * np.float32(over)
        return scale, self.bias - np.float32(mean) * scale


@dataclass(frozen=True)
class _Block:
    """Two convolutions, and what goes past them."""

    first: tuple[Floats, Floats]
    first_norm: _Norm
    second: tuple[Floats, Floats]
    second_norm: _Norm
    past: Floats

    @classmethod
    def of(cls, block: Any) -> _Block:
        first = _array(block.first.weight)
        outer = first.shape[0]
        straight = isinstance(block.past, nn.Identity)
        return cls(
            _packed(_by_phase(first) if block.first.stride[0] == 2 else _by_row(first)),
            _Norm.of(block.first_norm),
            _packed(_by_row(_array(block.second.weight))),
            _Norm.of(block.second_norm),
            np.eye(outer, dtype=np.float32) if straight else _matrix(block.past.weight),
        )

    def __call__(self, level: _Level, source: _Padded, target: Floats) -> None:
        convolve(level.raw, source.flat, source.rows, *self.first)
        activate(level.inside.volume, level.raw, *self.first_norm(level))
        convolve(level.raw, level.inside.flat, level.inside.rows, *self.second)
        before = source.volume[: self.past.shape[1]]
        activate_with_past(target, level.raw, *self.second_norm(level), before, self.past)


def _rows(volume: Floats) -> NDArray[np.int64]:
    """Return where the rows of 3 × 3 × 3 neighbours begin, and the voxels of a plane."""
    channel, plane, row = (n // volume.itemsize for n in volume.strides[:3])
    places = [
        c * channel + z * plane + y * row
        for c in range(len(volume))
        for z in range(3)
        for y in range(3)
    ]
    return np.array([*places, plane])


# Of the voxels before, at and after an even one: are they odd, and a voxel after the padded place?
_PHASES = ((1, 0), (0, 1), (1, 1))


def _rows_by_phase(volume: Floats) -> NDArray[np.int64]:
    """Return what `_rows` does, where every second voxel is a channel of its own."""
    channel, plane, row = (n // volume.itemsize for n in volume.strides[:3])
    places = [
        (4 * z_odd + 2 * y_odd + x_odd) * channel + z * plane + y * row
        for z_odd, z in _PHASES
        for y_odd, y in _PHASES
        for x_odd in (0, 1)
    ]
    return np.array([*places, plane])


def _by_row(weight: Floats) -> Floats:
    """Return (C, rows / 3, 9) weights of a convolution, in the order of `_rows`."""
    return weight.reshape(len(weight), -1, 9)


def _by_phase(weight: Floats) -> Floats:
    """Return (C, rows / 3, 9) weights of a step of 2, in the order of `_rows_by_phase`."""
    rows = weight.reshape(len(weight), 9, 3)
    by_phase = np.zeros((len(weight), 9, 2, 3), np.float32)
    by_phase[:, :, 0, 1] = rows[:, :, 1]
    by_phase[:, :, 1, :2] = rows[:, :, ::2]
    return by_phase.reshape(len(weight), 6, 9)


def _packed(weight: Floats) -> tuple[Floats, Floats]:
    """Return the weights of channels that are summed together, and of those that are left."""
    channels, groups, _ = weight.shape
    fives = channels // TOGETHER
    together = weight[: fives * TOGETHER].reshape(fives, TOGETHER, groups, 9).swapaxes(1, 2)
    return (
        np.ascontiguousarray(together).reshape(fives, groups, 9 * TOGETHER),
        np.ascontiguousarray(weight[fives * TOGETHER :]),
    )


def _matrix(weight: Tensor) -> Floats:
    return np.ascontiguousarray(_array(weight).reshape(weight.shape[:2]))


def _array(tensor: Any) -> Floats:
    return np.array(tensor.detach().cpu().numpy(), np.float32)
