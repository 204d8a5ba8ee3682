"""What a segmentation network says of a part of a volume, however large the volume is."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vasculome.geometry import Box
from vasculome.models.windows import WindowPlan

_SAMPLE = 4
"""Of every so many voxels along each axis one tells what the background of a window is like."""

_DEVIATIONS = 6.0
"""Of the noise, beyond which a voxel is something else: of a window's 64³ noise alone takes 5."""

_DARK = 0.5
"""What is brighter throughout may be the inside of a large vessel."""


@dataclass(frozen=True)
class Part:
    """What a network says of a part of a volume.

    Attributes
    ----------
    probability
        Of a vessel in each voxel, float32 (z, y, x).
    windows, skipped
        How many windows bear on it, and how many of them hold nothing but background.
    """

    probability: NDArray[np.float32]
    windows: int
    skipped: int


def vessel_probability(
    network: nn.Module,
    read: Callable[[Box], NDArray[np.float32]],
    core: Box,
    plan: WindowPlan,
    *,
    batch_size: int = 1,
    background_contrast: float = 0.0,
) -> Part:
    """Return what a network in ``eval`` mode says of the voxels of ``core``.

    Windows go through the network layer by layer, while the next layer is read by a thread. The
    result depends on the plan, not on ``core``; on ``batch_size`` by rounding at the most.

    Parameters
    ----------
    network
        Whose answer has ``logits`` (N, 1, z, y, x); on any device. On CUDA it computes in half
        precision.
    read
        Returns the voxels of a box of the volume, from 0 to 1.
    core
        What is wanted.
    plan
        Windows of the volume.
    batch_size
        Windows that go through the network at once.
    background_contrast
        Windows in which no voxel differs from the median by more, nor by more than the noise
        explains, are background: the network is not asked about them. Where no other window sees
        a voxel, its probability is 0. With 0 only windows of one value are background.

    Returns
    -------
    Part

    Raises
    ------
    FloatingPointError
        The network says of a voxel what is no number.
    """
    device = next(network.parameters()).device
    layers = list(plan.layers(core))
    slabs = [_slab(layer, plan) for layer in layers]
    sums = _Sums(core, plan)
    skipped = 0
    with torch.inference_mode(), _precision(device), ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(read, slabs[0])
        for number, (layer, slab) in enumerate(zip(layers, slabs, strict=True)):
            image = waiting.result()
            if number + 1 < len(slabs):
                waiting = reader.submit(read, slabs[number + 1])
            bright = [
                window
                for window in layer
                if not _is_background(_seen(image, slab, window), background_contrast)
            ]
            skipped += len(layer) - len(bright)
            sums.count(bright)
            for batch in _batches(bright, batch_size):
                sums.add(batch, _said(network, image, slab, batch, device))
    probability = sums.mean()
    if not np.isfinite(probability).all():
        raise FloatingPointError("the network says of some voxels what is no number")
    return Part(probability, sum(map(len, layers)), skipped)


class _Sums:
    """What windows say of the voxels of a core, summed up."""

    def __init__(self, core: Box, plan: WindowPlan) -> None:
        self._core, self._plan = core, plan
        self._total = np.zeros(core.shape, np.float32)
        blends = plan.weights is not None
        self._weight = np.zeros(core.shape, np.float32) if blends else None

    def count(self, windows: Sequence[Box]) -> None:
        """Count windows that the network is asked about; the others have no say."""
        if self._weight is not None:
            for window in windows:
                self._add(self._weight, self._plan.weights, window)

    def add(self, windows: Sequence[Box], said: NDArray[np.float32]) -> None:
        """Add what was said of windows, (N, z, y, x), which is used up."""
        if self._plan.weights is not None:
            said *= self._plan.weights
        for window, values in zip(windows, said, strict=True):
            self._add(self._total, values, window)

    def mean(self) -> NDArray[np.float32]:
        if self._weight is not None:
            np.divide(self._total, self._weight, out=self._total, where=self._weight > 0)
        return self._total

    def _add(
        self, total: NDArray[np.float32], values: NDArray[np.float32] | None, window: Box
    ) -> None:
        shared = self._plan.own(window).intersect(self._core)
        if shared is not None and values is not None:
            here, there = shared.relative_to(self._core), shared.relative_to(window)
            total[here.slices] += values[there.slices]


def _precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    if device.type == "cuda":
        return torch.autocast("cuda", torch.float16)
    return contextlib.nullcontext()


def _slab(layer: Sequence[Box], plan: WindowPlan) -> Box:
    """Return the voxels of the volume that a layer of windows sees."""
    return _within(Box.of_shape(plan.volume), Box(layer[0].start, layer[-1].stop))


def _within(outer: Box, box: Box) -> Box:
    inside = outer.intersect(box)
    assert inside is not None
    return inside


def _is_background(image: NDArray[np.float32], contrast: float) -> bool:
    """Tell whether a window holds nothing that its own noise does not explain."""
    sample = image[::_SAMPLE, ::_SAMPLE, ::_SAMPLE]
    middle = np.median(sample)
    # Of a normal distribution; other than a median it tells of the noise of whole grey levels.
    deviation = math.sqrt(math.pi / 2) * np.abs(sample - middle).mean()
    limit = min(contrast, _DEVIATIONS * float(deviation))
    # Of windows that hold more than background a few planes are enough to tell. So asked, what is
    # no number is not background.
    return bool(middle < _DARK) and all(np.abs(plane - middle).max() <= limit for plane in image)


def _said(
    network: nn.Module,
    image: NDArray[np.float32],
    slab: Box,
    windows: Sequence[Box],
    device: torch.device,
) -> NDArray[np.float32]:
    """Return the probability of vessels in windows, (N, z, y, x)."""
    cut = [_cut(image, slab, window) for window in windows]
    # torch convolves a lone volume on one thread by a method three times slower than that of two.
    batch = np.stack(cut * 2 if device.type == "cpu" and len(cut) == 1 else cut)[:, None]
    x = torch.from_numpy(batch).to(device)
    if device.type == "cuda":
        x = x.to(memory_format=torch.channels_last_3d)
    logits = network(x).logits[: len(windows), 0]
    return torch.sigmoid(logits.float()).cpu().numpy()


def _cut(image: NDArray[np.float32], slab: Box, window: Box) -> NDArray[np.float32]:
    """Return what is in a window; beyond the volume the image is mirrored."""
    part = _seen(image, slab, window)
    beyond = [(0, b - a) for a, b in zip(part.shape, window.shape, strict=True)]
    return np.pad(part, beyond, mode="symmetric") if part.shape != window.shape else part


def _seen(image: NDArray[np.float32], slab: Box, window: Box) -> NDArray[np.float32]:
    """Return what a slab holds of a window."""
    return image[_within(slab, window).relative_to(slab).slices]


def _batches(windows: Sequence[Box], size: int) -> Iterator[Sequence[Box]]:
    """Yield batches of nearly one size, as few as can be."""
    count = -(-len(windows) // size)
    ends = [len(windows) * k // count for k in range(count + 1)] if count else []
    for begin, end in itertools.pairwise(ends):
        yield windows[begin:end]
