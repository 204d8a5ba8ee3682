"""What a segmentation network says of a part of a volume, however large the volume is."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vasculome.geometry import Box
from vasculome.models.student import Student
from vasculome.models.student_engine import StudentEngine
from vasculome.models.window_sums import Take, WindowSums
from vasculome.models.windows import WindowPlan

Read = Callable[[Box], NDArray[np.float32]]

_SAMPLE = 4
"""Of every so many voxels along each axis one tells what the background of a window is like."""

_DEVIATIONS = 6.0
"""Of the noise, beyond which a voxel is something else: of a window's 64³ noise alone takes 5."""

_DARK = 0.5
"""What is brighter throughout may be the inside of a large vessel."""

_MIRRORS = tuple(
    tuple(slice(None, None, step) for step in steps)
    for steps in itertools.product((1, -1), repeat=3)
)
"""The eight mirror images of a window, itself first; each undoes itself."""


@dataclass(frozen=True)
class Seen:
    """How many windows bear on a part of a volume, and how many of them hold only background."""

    windows: int
    skipped: int


@dataclass(frozen=True)
class Part(Seen):
    """What a network says of a part of a volume: float32 (z, y, x), from 0 to 1."""

    probability: NDArray[np.float32]


def vessel_probability(
    network: nn.Module, read: Read, core: Box, plan: WindowPlan, **how: Any
) -> Part:
    """Return what `scan_probability`, which takes the same, says of all voxels of ``core``."""
    probability = np.empty(core.shape, np.float32)

    def take(first: int, planes: NDArray[np.float32]) -> None:
        probability[first : first + len(planes)] = planes

    seen = scan_probability(network, read, core, plan, take, **how)
    return Part(seen.windows, seen.skipped, probability)


def scan_probability(
    network: nn.Module,
    read: Read,
    core: Box,
    plan: WindowPlan,
    take: Take,
    *,
    batch_size: int = 1,
    background_contrast: float = 0.0,
    planes_together: int = 1,
    flips: bool = False,
) -> Seen:
    """Tell what a network in ``eval`` mode says of the voxels of ``core``, plane by plane.

    Windows go through the network layer by layer, while planes of the next layer are read by a
    thread. The result depends on the plan, not on ``core``; on ``batch_size`` by rounding at the
    most.

    Parameters
    ----------
    network
        Whose answer has ``logits`` (N, 1, z, y, x); on any device. On CUDA it computes in half
        precision. A student on a processor is asked by `models.student_engine`, one window for each
        of torch's threads at once.
    read
        Returns the voxels of a box of the volume, from 0 to 1.
    core
        What is wanted.
    plan
        Windows of the volume.
    take
        Is given planes of the core, in order: see `models.window_sums.Take`.
    batch_size
        Windows that go through torch at once.
    background_contrast
        Windows in which no voxel differs from the median by more, nor by more than the noise
        explains, are background: the network is not asked about them. Where no other window sees
        a voxel, its probability is 0. With 0 only windows of one value are background.
    planes_together
        Planes are read up to multiples of this, such as the depth of a chunk on disk.
    flips
        Whether the network sees all eight mirror images of each window, of which the mean
        probability counts: eight times the work.

    Raises
    ------
    FloatingPointError
        The network says of a voxel what is no number.
    """
    device = next(network.parameters()).device
    layers = list(plan.layers(core))
    mirrors = _MIRRORS if flips else _MIRRORS[:1]
    sums = WindowSums(core, plan, take, answers=len(mirrors))
    skipped = 0
    with torch.inference_mode(), _precision(device), _asked(network, device, batch_size) as ask:
        for layer, (slab, image) in zip(
            layers, _slabs(read, layers, plan, planes_together), strict=True
        ):
            sums.finish(layer[0].start[0])
            bright = [
                window
                for window in layer
                if not _is_background(_seen(image, slab, window), background_contrast)
            ]
            skipped += len(layer) - len(bright)
            for batch in _batches(bright, ask.size):
                images = [_cut(image, slab, window) for window in batch]
                for mirror in mirrors:
                    said = ask([np.ascontiguousarray(image[mirror]) for image in images])
                    for window, logits in zip(batch, said, strict=True):
                        sums.add(window, np.ascontiguousarray(logits[mirror]))
        sums.finish(core.stop[0])
    return Seen(sum(map(len, layers)), skipped)


class _Torch:
    """Asks any network, several windows at once."""

    def __init__(self, network: nn.Module, device: torch.device, size: int) -> None:
        self._network, self._device, self.size = network, device, size

    def __call__(self, images: Sequence[NDArray[np.float32]]) -> Sequence[NDArray[np.float32]]:
        # torch convolves a lone volume on one thread by a method three times slower than that of
        # two.
        twice = self._device.type == "cpu" and len(images) == 1 and torch.get_num_threads() == 1
        x = torch.from_numpy(np.stack([*images] * 2 if twice else images)[:, None])
        x = x.to(self._device)
        if self._device.type == "cuda":
            x = x.to(memory_format=torch.channels_last_3d)
        said: NDArray[np.float32] = self._network(x).logits[:, 0].float().cpu().numpy()
        return said[: len(images)]


class _Engines:
    """Asks a student on a processor: one window for each thread."""

    def __init__(self, network: Student, threads: ThreadPoolExecutor, size: int) -> None:
        self._engines, self._threads, self.size = _engines(network, size), threads, size

    def __call__(self, images: Sequence[NDArray[np.float32]]) -> Sequence[NDArray[np.float32]]:
        if len(images) == 1:
            return [self._engines[0](images[0])]
        return list(self._threads.map(lambda ask, x: ask(x), self._engines, images))


def _engines(network: Student, size: int) -> list[StudentEngine]:
    return [StudentEngine(network) for _ in range(size)]


@contextlib.contextmanager
def _asked(
    network: nn.Module, device: torch.device, batch_size: int
) -> Iterator[_Torch | _Engines]:
    if device.type == "cpu" and isinstance(network, Student):
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            yield _Engines(network, pool, threads)
    else:
        yield _Torch(network, device, batch_size)


def _slabs(
    read: Read, layers: Sequence[Sequence[Box]], plan: WindowPlan, together: int
) -> Iterator[tuple[Box, NDArray[np.float32]]]:
    """Yield what layers of windows see, and where; each plane is read once."""
    slabs = [_slab(layer, plan) for layer in layers]
    ends = [min(-(-s.stop[0] // together) * together, slabs[-1].stop[0]) for s in slabs]
    with ThreadPoolExecutor(1) as reader:

        def begin(first: int, end: int) -> Future[NDArray[np.float32]] | None:
            _, *start = slabs[0].start
            _, *stop = slabs[0].stop
            box = Box((first, *start), (end, *stop)) if end > first else None
            return reader.submit(read, box) if box else None

        waiting = begin(slabs[0].start[0], ends[0])
        image, first = np.empty((0, *slabs[0].shape[1:]), np.float32), slabs[0].start[0]
        for number, slab in enumerate(slabs):
            planes = [image[slab.start[0] - first :], *([waiting.result()] if waiting else [])]
            # What one worker reads in full is taken as it is.
            image = np.concatenate(planes) if len(planes[0]) else planes[-1]
            first = slab.start[0]
            waiting = begin(ends[number], ends[number + 1]) if number + 1 < len(slabs) else None
            yield slab, image[: slab.shape[0]]


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


def _cut(image: NDArray[np.float32], slab: Box, window: Box) -> NDArray[np.float32]:
    """Return what is in a window; beyond the volume the image is mirrored."""
    part = _seen(image, slab, window)
    beyond = [(0, b - a) for a, b in zip(part.shape, window.shape, strict=True)]
    if part.shape != window.shape:
        part = np.pad(part, beyond, mode="symmetric")
    return np.ascontiguousarray(part)


def _seen(image: NDArray[np.float32], slab: Box, window: Box) -> NDArray[np.float32]:
    """Return what a slab holds of a window."""
    return image[_within(slab, window).relative_to(slab).slices]


def _batches(windows: Sequence[Box], size: int) -> Iterator[Sequence[Box]]:
    """Yield batches of nearly one size, as few as can be."""
    count = -(-len(windows) // size)
    ends = [len(windows) * k // count for k in range(count + 1)] if count else []
    for begin, end in itertools.pairwise(ends):
        yield windows[begin:end]
