"""What is compared: trained networks as the stage `segment` uses them, and Frangi's filter."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from segmentation_parts.measures import Mask, Volume

from vasculome.geometry import Box
from vasculome.metrics.segmentation import cldice, dice
from vasculome.models.build import build
from vasculome.models.teacher import STRIDE as TEACHER_STRIDE
from vasculome.models.vessel_tiles import vessel_probability
from vasculome.models.windows import WindowPlan
from vasculome.storage.weights import read_weights
from vasculome.vessels.enhance import frangi

WINDOW, OVERLAP = 64, 16
_BACKGROUND_CONTRAST = 0.1
_LOW = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.55)
_HIGH_OVER_LOW = (2.0, 4.0)
_SCALES_VOXELS = ((1.0,), (1.0, 2.0), (1.0, 2.0, 4.0), (1.5, 3.0), (2.0, 4.0))


@dataclass(frozen=True)
class Network:
    """Weights of one training.

    Attributes
    ----------
    name, path
        What they are called, and where they are.
    flips
        Whether the mean over the eight mirror images of a volume is taken.
    """

    name: str
    path: Path
    flips: bool = False

    def segment(self, volume: Volume) -> Mask:
        """Return the mask at the threshold of the card, which validation chose."""
        _, card = self._loaded()
        threshold = card["metrics"]["threshold"]
        return self.probability(volume) > (0.5 if threshold is None else threshold)

    def probability(self, volume: Volume) -> NDArray[np.float32]:
        """Return what the network says of each voxel."""
        ways = itertools.product((1, -1), repeat=3) if self.flips else [(1, 1, 1)]
        said = []
        for way in ways:
            turn = tuple(slice(None, None, step) for step in way)
            said.append(self._said(np.ascontiguousarray(volume.image[turn]))[turn])
        return np.mean(said, axis=0, dtype=np.float32)

    def _said(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        network, card = self._loaded()
        is_student = card["architecture"] == "student"
        stride = network.design.stride if is_student else TEACHER_STRIDE
        least = stride if is_student else WINDOW
        plan = WindowPlan(image.shape, WINDOW, OVERLAP, stride, least=least)

        def read(box: Box) -> NDArray[np.float32]:
            return image[box.slices]

        return vessel_probability(
            network,
            read,
            Box.of_shape(image.shape),
            plan,
            batch_size=2,
            background_contrast=_BACKGROUND_CONTRAST,
        ).probability

    def _loaded(self) -> tuple[Any, dict[str, Any]]:
        if self.path not in _LOADED:
            _LOADED.clear()
            tensors, card = read_weights(self.path)
            network = build(card["architecture"], card["arguments"])
            network.load_state_dict(tensors)
            _LOADED[self.path] = network.eval().requires_grad_(False), card
        return _LOADED[self.path]


_LOADED: dict[Path, tuple[Any, dict[str, Any]]] = {}


def networks(folder: Path) -> Iterator[tuple[str, list[Network]]]:
    """Yield the segmenters of a folder that `snakemake models` filled, each with its seeds."""
    for card in sorted(folder.glob("*/*.json")):
        name = card.parent.name
        if card.stem != name or not card.with_suffix(".safetensors").exists():
            continue
        _, told = read_weights(card.with_suffix(".safetensors"))
        if told["architecture"] not in {"student", "teacher"}:
            continue
        seeds = sorted(card.parent.glob("seed-*/*.safetensors")) or [
            card.with_suffix(".safetensors")
        ]
        yield name, [Network(name, path) for path in seeds]


@dataclass(frozen=True)
class BestFilter:
    """Frangi's filter with those settings that are best where it is tested, which favours it.

    Attributes
    ----------
    scales_um, low, high
        Of the filter and of the thresholds with hysteresis.
    """

    scales_um: tuple[float, ...]
    low: float
    high: float

    def segment(self, volume: Volume) -> Mask:
        answer = frangi(volume.image, scales_um=self.scales_um, spacing_um=volume.spacing_um)
        return hysteresis(answer, low=self.low, high=self.high)


def best_filter(volumes: Sequence[Volume], *, by: str) -> BestFilter:
    """Return the filter whose mean ``dice`` or ``cldice`` over volumes is highest.

    Scales and one threshold are looked for together, then the higher threshold.
    """
    finest = float(np.median([min(volume.spacing_um) for volume in volumes]))
    best, chosen, best_answers = -1.0, BestFilter((finest,), 0.0, 0.0), []
    for voxels in _SCALES_VOXELS:
        scales = tuple(scale * finest for scale in voxels)
        answers = [frangi(v.image, scales_um=scales, spacing_um=v.spacing_um) for v in volumes]
        for low in _LOW:
            value = _mean_score(answers, volumes, low=low, high=low, by=by)
            if value > best:
                best, chosen, best_answers = value, BestFilter(scales, low, low), answers
    for over in _HIGH_OVER_LOW:
        low, high = chosen.low, over * chosen.low
        value = _mean_score(best_answers, volumes, low=low, high=high, by=by)
        if value > best:
            best, chosen = value, replace(chosen, high=high)
    return chosen


def _mean_score(
    answers: Sequence[NDArray[np.float32]],
    volumes: Sequence[Volume],
    *,
    low: float,
    high: float,
    by: str,
) -> float:
    scores = [
        _SCORES[by](hysteresis(answer, low=low, high=high), volume)
        for answer, volume in zip(answers, volumes, strict=True)
    ]
    return float(np.mean(scores))


def hysteresis(answer: NDArray[np.float32], *, low: float, high: float) -> Mask:
    """Return the objects above ``low`` that hold a voxel above ``high``, as the chain does."""
    above = answer > low
    if high <= low:
        return above
    objects, count = label(above, np.ones((3, 3, 3)))
    kept = np.zeros(count + 1, bool)
    kept[objects[answer > high]] = True
    kept[0] = False
    return kept[objects]


def _dice(mask: Mask, volume: Volume) -> float:
    return dice(mask, volume.mask)


def _cldice(mask: Mask, volume: Volume) -> float:
    return cldice(mask, volume.mask, reference_skeleton=volume.skeleton)


_SCORES: dict[str, Callable[[Mask, Volume], float]] = {"dice": _dice, "cldice": _cldice}
