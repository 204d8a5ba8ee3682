"""Where segmenters get what they learn from: rendered vessels or somebody's volumes, all alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vasculome.training.splits import Split
from vasculome.training.vessel_patches import make_patch
from vasculome.training.vessel_scenes import VesselScene
from vasculome.training.vessel_sources import Sources

LabelledPatch = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Image, from 0 to 1, and vessels, both (z, y, x)."""


_Voxel = TypeVar("_Voxel", bound=np.generic)

_UNLABELLED = 1 << 20
"""First index of the patches without labels: no training reads so many with them."""

_MOST_REMEMBERED = 512
"""Patches that come again: rendering one takes longer than a student needs to learn from it. Of
64³ they take 1.3 MB each."""


class PatchSource(Protocol):
    """Patches of one shape, the same whenever they are asked for; called in threads."""

    def labelled(self, index: int) -> LabelledPatch:
        """Return a patch for training with its vessels; any index from 0."""

    def unlabelled(self, index: int) -> NDArray[np.float32]:
        """Return a patch for training whose vessels nobody has drawn; any index from 0."""

    def validation(self, index: int) -> LabelledPatch:
        """Return a patch that is never learnt from; any index from 0."""


@dataclass(frozen=True)
class RenderedPatches:
    """Simulated vessels: see :class:`PatchSource`.

    Attributes
    ----------
    scene, seed
        What they show, and of what draw.
    labels
        Number of labelled patches, after which they come again, mirrored and turned about z;
        None: there is no end of them.
    others
        Number of patches without labels, after which they come again as they are, so that what a
        teacher said of them can be remembered; None: there is no end of them.
    sources
        Users' volumes that some of them are rendered with.
    """

    scene: VesselScene
    seed: int
    labels: int | None = None
    others: int | None = None
    sources: Sources | None = None
    _kept: dict[int, LabelledPatch] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def labelled(self, index: int) -> LabelledPatch:
        """Return a patch for training with its vessels."""
        if self.labels is None:
            return self._patch("train", index)
        image, mask = self._remembered(index % self.labels)
        turn = np.random.default_rng([self.seed, index]).integers(2, size=4, dtype=np.int8)
        return _turned(image, turn), _turned(mask, turn)

    def unlabelled(self, index: int) -> NDArray[np.float32]:
        """Return a patch of vessels that no labelled one shows."""
        if self.others is None:
            return self._patch("train", _UNLABELLED + index)[0]
        return self._remembered(_UNLABELLED + index % self.others)[0]

    def validation(self, index: int) -> LabelledPatch:
        """Return a patch of vessels that no other split shows."""
        return self._patch("validation", index)

    def _remembered(self, index: int) -> LabelledPatch:
        """Return a patch for training that comes again; whether it was kept shows in time alone."""
        found = self._kept.get(index)
        if found is None:
            found = self._patch("train", index)
            if len(self._kept) < _MOST_REMEMBERED:
                self._kept[index] = found
        return found

    def _patch(self, split: Split, index: int) -> LabelledPatch:
        patch = make_patch(
            self.scene, split=split, index=index, seed=self.seed, sources=self.sources
        )
        return patch.image, patch.mask


@dataclass(frozen=True)
class PatchBatch:
    """What is learnt from in a step.

    Attributes
    ----------
    images, masks
        Labelled, (N, 1, z, y, x) float32 and bool.
    others
        Images without labels, (M, 1, z, y, x), or None.
    """

    images: Tensor
    masks: Tensor
    others: Tensor | None = None

    def to(self, device: torch.device) -> PatchBatch:
        """Return the batch on a device."""
        others = None if self.others is None else self.others.to(device)
        return PatchBatch(self.images.to(device), self.masks.to(device), others)


def images_of(images: Sequence[NDArray[np.float32]]) -> Tensor:
    """Return images (z, y, x) as networks take them, (N, 1, z, y, x) float32."""
    return torch.from_numpy(np.stack(images)[:, None].astype(np.float32))


def labelled_batch(source: PatchSource, indices: Sequence[int]) -> PatchBatch:
    """Return a batch of labelled patches."""
    patches = [source.labelled(i) for i in indices]
    masks = np.stack([mask for _, mask in patches])[:, None]
    return PatchBatch(images_of([image for image, _ in patches]), torch.from_numpy(masks))


def _turned(volume: NDArray[_Voxel], turn: NDArray[np.int8]) -> NDArray[_Voxel]:
    """Return a volume mirrored along z, y and x, and with y and x exchanged, where ``turn`` is 1.

    Its z is left alone otherwise: microscopes see worse along it.
    """
    flipped = np.flip(volume, tuple(axis for axis in range(3) if turn[axis]))
    square = volume.shape[1] == volume.shape[2]
    return np.ascontiguousarray(flipped.swapaxes(1, 2) if turn[3] and square else flipped)
