"""What a teacher says of patches; of those that come again, from memory.

A teacher takes ten times as long as its student and does not learn any more: where patches are few,
most of a distillation would be spent on asking it the same again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from vasculome.models.teacher import Teacher

MOST_REMEMBERED = 256
"""Patches; of 64³ they take 0.5 MB each."""

FeaturesAsked = Literal["none", "codebook", "encoder"]


@dataclass(frozen=True)
class Lesson:
    """What the teacher says of some patches.

    Attributes
    ----------
    logits
        Rounded to 16 bits, (N, 1, z, y, x), or None.
    features
        Codes or what its encoder says, (N, C, z/32, y/32, x/32), or None.
    """

    logits: Tensor | None
    features: Tensor | None


@dataclass
class Lessons:
    """A teacher that remembers what it has said.

    Attributes
    ----------
    teacher
        Fine-tuned; it is put into evaluation and does not learn.
    features
        Which of its features are asked for.
    most
        Patches that are remembered: the first ones.
    """

    teacher: Teacher
    features: FeaturesAsked = "none"
    most: int = MOST_REMEMBERED
    _said: dict[bytes, tuple[Tensor | None, Tensor | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.teacher.eval().requires_grad_(False)

    @torch.no_grad()
    def ask(self, images: Tensor, *, decodes: bool) -> Lesson:
        """Return what the teacher says of images (N, 1, z, y, x), on their device.

        Parameters
        ----------
        images
            From 0 to 1.
        decodes
            Whether logits are asked for; without them its decoder has no work.
        """
        keys = [_key(image, decodes=decodes) for image in images]
        fresh: dict[bytes, tuple[Tensor | None, Tensor | None]] = {}
        for i, key in enumerate(keys):
            if key not in self._said and key not in fresh:
                # One at a time: what it says may differ in the last bit with the patches beside,
                # and those depend on what is remembered, which a training that goes on has lost.
                fresh[key] = self._new(images[i : i + 1], decodes=decodes)
        said = [fresh[key] if key in fresh else self._said[key] for key in keys]
        for key, parts in list(fresh.items())[: max(self.most - len(self._said), 0)]:
            self._said[key] = (_kept(parts[0]), _kept(parts[1]))
        return Lesson(*(_together(parts, images) for parts in zip(*said, strict=True)))

    def _new(self, image: Tensor, *, decodes: bool) -> tuple[Tensor | None, Tensor | None]:
        """Return logits and features of an image (1, 1, z, y, x), each where asked for."""
        teacher = self.teacher.to(image.device)
        logits = None
        if decodes:
            answer = teacher(image)
            encoded = answer.encoded
            # What is remembered and what is not must be the same to the last bit.
            logits = answer.logits.to(torch.float16)
        elif self.features != "none":
            encoded = teacher.encode(image)
        if self.features == "none":
            return logits, None
        if self.features == "codebook":
            return logits, encoded.quantized.features
        return logits, encoded.deepest


def _key(image: Tensor, *, decodes: bool) -> bytes:
    content = image.detach().cpu().contiguous().numpy()
    return hashlib.blake2b(content, digest_size=16, key=bytes([decodes])).digest()


def _kept(part: Tensor | None) -> Tensor | None:
    return None if part is None else part.cpu().clone()


def _together(parts: tuple[Tensor | None, ...], like: Tensor) -> Tensor | None:
    rows = [part.to(like.device) for part in parts if part is not None]
    return torch.cat(rows).to(like.dtype) if rows else None
