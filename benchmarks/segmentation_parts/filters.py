"""Filters with those settings that are best where they are tested, which favours them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from segmentation_parts.measures import Mask, Volume
from skimage.morphology import skeletonize

from vasculome.vessels.components import label_block, measure
from vasculome.vessels.enhance import frangi, hysteresis_classes

Floats = NDArray[np.float32]

BY = ("dice", "cldice")
"""What settings are chosen by."""

_FINER = 16


@dataclass(frozen=True)
class Filter:
    """An answer to an image, above thresholds with hysteresis.

    Attributes
    ----------
    respond
        Returns the answer to a volume at some scales, in micrometres.
    scales_voxels
        Those that are tried, in the smallest edge of voxels.
    lows, highs
        Thresholds that are tried, rising; without highs there is no hysteresis.
    refined
        Of how many scales, the best ones, lows are looked for more finely.
    """

    respond: Callable[[Volume, tuple[float, ...]], Floats]
    scales_voxels: tuple[tuple[float, ...], ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...] = ()
    refined: int = 2


@dataclass(frozen=True)
class Settings:
    """What was best: scales in micrometres, and thresholds; ``high`` is ``low`` without hysteresis.

    ``score`` is the mean over volumes.
    """

    scales_um: tuple[float, ...]
    low: float
    high: float
    score: float


def _frangi(volume: Volume, scales_um: tuple[float, ...]) -> Floats:
    return frangi(volume.image, scales_um=scales_um, spacing_um=volume.spacing_um)


def _smoothed(volume: Volume, scales_um: tuple[float, ...]) -> Floats:
    (scale,) = scales_um
    return gaussian_filter(volume.image, [scale / step for step in volume.spacing_um])


def _steps(first: float, last: float, count: int) -> tuple[float, ...]:
    return tuple(round(float(step), 5) for step in np.geomspace(first, last, count))


_LADDER = (1.0, 1.5, 2.0, 3.0, 5.0)
FRANGI = Filter(
    _frangi,
    tuple(_LADDER[a:b] for a, b in itertools.combinations(range(len(_LADDER) + 1), 2)),
    _steps(0.0003, 0.6, 16),
    _steps(0.0003, 0.95, 70),
)
GAUSSIAN = Filter(_smoothed, ((1.0,), (1.5,), (2.0,)), tuple(k / 40 for k in range(1, 40, 2)))


def segment(kind: Filter, volume: Volume, settings: Settings) -> Mask:
    """Return the mask with some settings."""
    answer = kind.respond(volume, settings.scales_um)
    return hysteresis(answer, low=settings.low, high=settings.high)


def best_settings(kind: Filter, volumes: Sequence[Volume]) -> dict[str, Settings]:
    """Return those with the highest mean Dice, and the highest mean clDice, over volumes.

    All scales, low and high thresholds are tried with each other, and then, with the best scales,
    more low ones between those beside the best.
    """
    finest = float(np.median([min(volume.spacing_um) for volume in volumes]))
    coarse = [
        _best_thresholds(kind, volumes, tuple(scale * finest for scale in voxels), kind.lows)
        for voxels in kind.scales_voxels
    ]
    best: dict[str, Settings] = {}
    for by in BY:
        ranked = sorted((found[by] for found in coarse), key=lambda one: -one.score)
        finer = [
            _best_thresholds(kind, volumes, one.scales_um, _around(kind.lows, one.low))[by]
            for one in ranked[: kind.refined]
        ]
        best[by] = max([*ranked, *finer], key=lambda one: one.score)
    return best


def _best_thresholds(
    kind: Filter, volumes: Sequence[Volume], scales_um: tuple[float, ...], lows: Sequence[float]
) -> dict[str, Settings]:
    best: dict[str, Settings] = {}
    answers = [kind.respond(volume, scales_um) for volume in volumes]
    for low in lows:
        highs = (low, *(high for high in kind.highs if high > low))
        each = [
            hysteresis_scores(answer, volume, low=low, highs=highs)
            for answer, volume in zip(answers, volumes, strict=True)
        ]
        for by, scores in zip(BY, np.mean(each, axis=0), strict=True):
            place = int(scores.argmax())
            if by not in best or scores[place] > best[by].score:
                best[by] = Settings(scales_um, low, highs[place], float(scores[place]))
    return best


def _around(lows: Sequence[float], low: float) -> list[float]:
    """Return thresholds between those before and after one."""
    place = lows.index(low)
    ends = lows[max(0, place - 1)], lows[min(len(lows) - 1, place + 1)]
    return [round(float(step), 5) for step in np.geomspace(*ends, _FINER)[1:-1]]


def hysteresis_scores(
    answer: Floats, volume: Volume, *, low: float, highs: Sequence[float]
) -> NDArray[np.float64]:
    """Return Dice and clDice of `hysteresis` with each high threshold, (2, highs).

    Objects do not touch, so that each is thinned as if it were alone: all is counted by object
    once, and a high threshold only tells which objects count.
    """
    above = answer > low
    objects = label_block(above).astype(np.int64)
    count = int(objects.max(initial=0))
    line = volume.skeleton if volume.skeleton.any() else volume.mask
    # The rest has nothing to count.
    owner = objects[above] - 1
    peaks = np.zeros(count, answer.dtype)
    np.maximum.at(peaks, owner, answer[above])
    thinned = (skeletonize(above) > 0)[above] if count else np.zeros(0, bool)
    truth, line_here = volume.mask[above], line[above]
    parts = (np.ones(len(owner), bool), truth, thinned, thinned & truth, line_here)
    sums = np.stack([np.bincount(owner[part], minlength=count) for part in parts])
    kept = peaks > np.asarray(highs, answer.dtype)[:, None]
    size, right, length, right_length, found = sums @ kept.T
    # A mask whose skeleton is empty stands for it.
    length, right_length = (
        np.where(length > 0, line_of, all_of)
        for line_of, all_of in ((length, size), (right_length, right))
    )
    both = size + volume.mask.sum()
    overlap = np.where(both, 2 * right / np.maximum(both, 1), 1.0)
    precision = right_length / np.maximum(length, 1)
    sensitivity = found / max(1, int(line.sum()))
    together = precision + sensitivity
    centreline = 2 * precision * sensitivity / np.where(together, together, 1.0)
    return np.stack([overlap, np.where(both, centreline, 1.0)])


def hysteresis(answer: Floats, *, low: float, high: float) -> Mask:
    """Return the objects above ``low`` that hold a voxel above ``high``, as the chain does.

    A ``high`` that is no higher asks for nothing more.
    """
    classes = hysteresis_classes(answer, low=low, high=max(low, high))
    labels = label_block(classes > 0)
    objects, _ = measure(labels, classes)
    return objects.wanted(need_strong=True)[labels]
