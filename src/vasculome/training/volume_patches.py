"""Patches of users' volumes that segmenters learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vasculome.training.patch_source import LabelledPatch, PatchSource
from vasculome.training.splits import SPLITS, Split
from vasculome.training.vessel_sources import mirrored

Shape = tuple[int, int, int]

_Voxel = TypeVar("_Voxel", bound=np.generic)

_ON_VESSELS = 0.5  # part of the labelled patches: elsewhere many a patch would hold none


@dataclass(frozen=True, eq=False)
class GivenVolume:
    """A volume of a user.

    Attributes
    ----------
    image
        Float32 (z, y, x) in [0, 1], normalized.
    mask
        Bool of the same shape: vessels; None where nobody has drawn them.
    spacing_um
        Voxel size (z, y, x).
    """

    image: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    spacing_um: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.mask is not None and self.mask.shape != self.image.shape:
            raise ValueError(f"mask {self.mask.shape} and image {self.image.shape} differ")


@dataclass(frozen=True, eq=False)
class VolumePatches:
    """Patches of volumes: see :class:`vasculome.training.patch_source.PatchSource`.

    A patch comes from a random place of a random volume, larger ones more often, mirrored at
    random; y and x change places where a voxel is as long along both. Half of the labelled ones
    have a vessel in their middle. Volumes smaller than a patch are mirrored at their ends.

    Attributes
    ----------
    training, validating
        Volumes; those with masks of the first are learnt from, with masks; all of the first,
        without; those with masks of the second are validated on.
    shape
        Of a patch.
    seed
        Of all patches.
    """

    training: tuple[GivenVolume, ...]
    validating: tuple[GivenVolume, ...]
    shape: Shape
    seed: int
    _vessels: dict[int, NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.training:
            raise ValueError("there is no volume to learn from")
        for number, volume in enumerate((*self.training, *self.validating)):
            if volume.mask is not None:
                # Found here once: threads draw patches later.
                self._vessels[number] = np.flatnonzero(volume.mask)

    def labelled(self, index: int) -> LabelledPatch:
        """Return a patch for training with its vessels."""
        return self._labelled("train", self.training, 0, index)

    def unlabelled(self, index: int) -> NDArray[np.float32]:
        """Return a patch for training, of any volume."""
        rng = np.random.default_rng([self.seed, index, 5])
        volume = self.training[_chosen([v.image.size for v in self.training], rng)]
        corner = _any_corner(volume.image.shape, self.shape, rng)
        return _cut(volume.image, _Cut.draw(volume, corner, self.shape, rng))

    def validation(self, index: int) -> LabelledPatch:
        """Return a patch that is never learnt from."""
        return self._labelled("validation", self.validating, len(self.training), index)

    def _labelled(
        self, split: Split, volumes: tuple[GivenVolume, ...], first: int, index: int
    ) -> LabelledPatch:
        if all(volume.mask is None for volume in volumes):
            raise ValueError(f"there is no volume with a mask for {split}")
        rng = np.random.default_rng([self.seed, index, 6, SPLITS[split]])
        number = _chosen([v.image.size * (v.mask is not None) for v in volumes], rng)
        volume, vessels = volumes[number], self._vessels[first + number]
        assert volume.mask is not None
        corner = _any_corner(volume.image.shape, self.shape, rng)
        if rng.random() < _ON_VESSELS and len(vessels):
            middle = np.unravel_index(vessels[rng.integers(len(vessels))], volume.image.shape)
            room = np.maximum(np.subtract(volume.image.shape, self.shape), 0)
            corner = np.clip(np.subtract(middle, np.array(self.shape) // 2), 0, room)
        cut = _Cut.draw(volume, corner, self.shape, rng)
        return _cut(volume.image, cut), _cut(volume.mask, cut)


@dataclass(frozen=True)
class AdaptedPatches:
    """Labelled patches of one source, and those without labels of volumes that nobody has drawn.

    See :class:`vasculome.training.patch_source.PatchSource`.

    Attributes
    ----------
    labelling
        Rendered patches, for instance; validated on, too.
    volumes
        Where patches without labels come from.
    """

    labelling: PatchSource
    volumes: VolumePatches

    def labelled(self, index: int) -> LabelledPatch:
        """Return a patch for training with its vessels."""
        return self.labelling.labelled(index)

    def unlabelled(self, index: int) -> NDArray[np.float32]:
        """Return a patch of the volumes."""
        return self.volumes.unlabelled(index)

    def validation(self, index: int) -> LabelledPatch:
        """Return a patch that is never learnt from."""
        return self.labelling.validation(index)


@dataclass(frozen=True)
class MixedPatches:
    """Patches of two sources by turns: see :class:`vasculome.training.patch_source.PatchSource`.

    Attributes
    ----------
    often, seldom
        Users' volumes, for instance, and rendered ones; validated on is ``often`` alone.
    part_seldom
        Part of the patches that are of ``seldom``.
    """

    often: PatchSource
    seldom: PatchSource
    part_seldom: float

    def labelled(self, index: int) -> LabelledPatch:
        """Return a patch for training with its vessels."""
        source, rank = self._source(index)
        return source.labelled(rank)

    def unlabelled(self, index: int) -> NDArray[np.float32]:
        """Return a patch for training."""
        source, rank = self._source(index)
        return source.unlabelled(rank)

    def validation(self, index: int) -> LabelledPatch:
        """Return a patch that is never learnt from."""
        return self.often.validation(index)

    def _source(self, index: int) -> tuple[PatchSource, int]:
        """Return the source of a patch, and how many came from it before.

        With the patch's own number most of what a source can make would never be asked for.
        """
        # Evenly among each other: after n patches n · part are of the second, rounded down.
        before, after = int(index * self.part_seldom), int((index + 1) * self.part_seldom)
        return (self.seldom, before) if after > before else (self.often, index - before)


@dataclass(frozen=True, eq=False)
class _Cut:
    """Which voxels make a patch, along each axis of it, and whether y and x change places."""

    index: tuple[NDArray[np.int64], ...]
    swapped: bool

    @classmethod
    def draw(
        cls, volume: GivenVolume, corner: NDArray[np.int64], shape: Shape, rng: np.random.Generator
    ) -> _Cut:
        """Return a cut at a corner, mirrored and turned at random."""
        alike = volume.spacing_um[1] == volume.spacing_um[2] and shape[1] == shape[2]
        index = tuple(
            mirrored(c + np.arange(n), size)[:: 1 if rng.random() < 0.5 else -1]
            for c, n, size in zip(corner, shape, volume.image.shape, strict=True)
        )
        return cls(index, bool(alike and rng.random() < 0.5))


def _cut(volume: NDArray[_Voxel], cut: _Cut) -> NDArray[_Voxel]:
    patch = volume[np.ix_(*cut.index)]
    return np.ascontiguousarray(patch.swapaxes(1, 2)) if cut.swapped else patch


def _chosen(weights: Sequence[int], rng: np.random.Generator) -> int:
    """Return a number by chance, in proportion to its weight."""
    total = np.cumsum(weights)
    return int(np.searchsorted(total, rng.integers(total[-1]), side="right"))


def _any_corner(size: tuple[int, ...], shape: Shape, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.integers(np.maximum(np.subtract(size, shape), 0) + 1)
