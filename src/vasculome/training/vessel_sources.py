"""Users' volumes that rendered patches are made with: labels as vessels, images as background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_PARTS = {"train": (0.0, 0.7), "validation": (0.7, 0.85), "test": (0.85, 1.0)}
"""Of the longest axis."""

_ANTIALIAS = 0.7  # voxels; rounds the stairs of a label


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """A label volume, whose vessels patches show.

    Attributes
    ----------
    mask
        Bool (z, y, x).
    spacing_um
        Voxel size.
    """

    mask: NDArray[np.bool_]
    spacing_um: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Background:
    """An image of tissue without stained vessels, which patches have as background.

    Attributes
    ----------
    image
        Any real type, (z, y, x).
    middle
        Its median: tissue of average light.
    """

    image: NDArray[np.generic]
    middle: float


@dataclass(frozen=True, eq=False)
class Sources:
    """Users' volumes; with none of them all is drawn."""

    labels: tuple[LabelVolume, ...] = ()
    backgrounds: tuple[Background, ...] = ()


def background_of(image: NDArray[np.generic]) -> Background:
    """Return an image as background; raises ValueError if half of it is dark."""
    middle = float(np.median(image))
    if not middle > 0:
        raise ValueError("half of the image is dark: it has no tissue to be a background")
    return Background(image, middle)


def label_light(
    volume: LabelVolume,
    *,
    split: str,
    shape: Sequence[int],
    spacing_um: Sequence[float],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return which part of each voxel of a grid is vessel, 0 to 1, in a random piece of a label.

    Splits are parts of the longest axis. The piece is mirrored, and y and x change places, at
    random; where a part is too small it is mirrored at its end.
    """
    swap = rng.random() < 0.5
    turned = volume.mask.swapaxes(1, 2) if swap else volume.mask
    own = np.asarray(volume.spacing_um)[[0, 2, 1] if swap else [0, 1, 2]]
    need = [
        int(np.ceil((n - 1) * s / o)) + 2 for n, s, o in zip(shape, spacing_um, own, strict=True)
    ]
    # Chosen before y and x change places: of square planes both are longest.
    longest = int(np.argmax(volume.mask.shape))
    if swap:
        longest = (0, 2, 1)[longest]
    crop = _crop(turned, need, split=split, longest=longest, rng=rng)
    soft = gaussian_filter(crop.astype(np.float32), _ANTIALIAS, mode="nearest")
    for axis, (n, s, o) in enumerate(zip(shape, spacing_um, own, strict=True)):
        below, weight = np.divmod(np.arange(n) * s / o, 1.0)
        at = below.astype(np.int64)
        weight = weight.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        soft = soft.take(at, axis) * (1 - weight) + soft.take(at + 1, axis) * weight
    return soft


def background_light(
    background: Background, *, split: str, shape: Sequence[int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a random piece of a background, voxel for voxel, 1 where its light is the median."""
    longest = int(np.argmax(background.image.shape))
    crop = _crop(background.image, shape, split=split, longest=longest, rng=rng)
    return crop.astype(np.float32) / np.float32(background.middle)


def mirrored(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return indices into an axis of ``size`` that is mirrored at its ends, again and again."""
    turned = index % (2 * size)
    return np.where(turned < size, turned, 2 * size - 1 - turned)


def _crop(
    volume: NDArray[np.generic],
    shape: Sequence[int],
    *,
    split: str,
    longest: int,
    rng: np.random.Generator,
) -> NDArray[np.generic]:
    """Return a random piece of ``shape`` from the split's part, mirrored at random."""
    rows = []
    for axis, (n, size) in enumerate(zip(shape, volume.shape, strict=True)):
        low, high = 0, size
        if axis == longest:
            low, high = (round(part * size) for part in _PARTS[split])
        room = high - low
        index = int(rng.integers(max(room - n, 0) + 1)) + np.arange(n)
        index = low + mirrored(index, room)
        rows.append(index[::-1] if rng.random() < 0.5 else index)
    return volume[np.ix_(*rows)]
