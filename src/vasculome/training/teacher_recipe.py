"""How the teacher learns: images first, which it builds with codes, then labels.

VpbSD, section 3.3: reconstruction + 0.1 × codebook loss, then Dice. The paper does not say what
becomes of the codes in the second part, in which it hardly changes the network (learning rate
1e-5). Here the codebook loss stays, so that features do not leave the codes that are to stand for
them; which codes there are was learnt from images alone.
"""

from __future__ import annotations

import functools
import logging
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vasculome.models.codebook import gumbel_temperature, perplexity
from vasculome.models.teacher import Teacher, TeacherDesign
from vasculome.training import segment_losses as losses
from vasculome.training.patch_source import (
    LabelledPatch,
    PatchBatch,
    PatchSource,
    images_of,
    labelled_batch,
)
from vasculome.training.segment_scores import SCORES, probability_of, score_of

log = logging.getLogger(__name__)

_LOG_EVERY = 100
"""Steps: as many batches as the shares of the codes are a mean over."""

CODEBOOK_WEIGHT = 0.1
"""α of equation 4."""


@dataclass(frozen=True)
class TeacherRecipe:
    """See :class:`vasculome.training.loop.Recipe`.

    Attributes
    ----------
    design, source
        Network, and what it is to see.
    pretrain_steps
        Steps in which it learns from images, before labels.
    batch_size, validation_patches
        Patches a step, and for the score.
    reconstruction
        ``squared``, as the paper says, or ``absolute``, as its equation 6 has it.
    cldice
        Part of soft-clDice in the loss on labels; the rest is Dice. Beyond the paper.
    """

    design: TeacherDesign
    source: PatchSource
    pretrain_steps: int
    batch_size: int = 2
    validation_patches: int = 16
    reconstruction: Literal["squared", "absolute"] = "squared"
    cldice: float = 0.0

    def network(self) -> nn.Module:
        """Return a new network."""
        return Teacher(self.design)

    def batch(self, step: int) -> PatchBatch:
        """Return the patches of a step: without labels as long as there is no use for them."""
        indices = range(step * self.batch_size, (step + 1) * self.batch_size)
        if step >= self.pretrain_steps:
            return labelled_batch(self.source, indices)
        images = images_of([self.source.unlabelled(i) for i in indices])
        return PatchBatch(images, torch.zeros_like(images, dtype=torch.bool))

    def loss(self, network: nn.Module, batch: PatchBatch, step: int) -> Tensor:
        """Return the loss of a batch: on images (equation 4) or labels (7), and of codes (9)."""
        assert isinstance(network, Teacher)
        batch = batch.to(next(network.parameters()).device)
        if step < self.pretrain_steps:
            temperature = gumbel_temperature(step / self.pretrain_steps)
            answer = network(batch.images, learning=True, temperature=temperature)
            if (step + 1) % _LOG_EVERY == 0:
                log.info(
                    "step %d: perplexity of the codes lately drawn %.1f, restarted %d",
                    step + 1,
                    float(perplexity(network.codebook.share)),
                    network.codebook.restarted,
                )
            built = losses.reconstruction_loss(
                answer.image, batch.images, error=self.reconstruction
            )
            return built + CODEBOOK_WEIGHT * answer.encoded.quantized.loss
        network.fine_tuned.fill_(True)
        answer = network(batch.images)
        loss = losses.labels_loss(answer.logits, batch.masks, cldice=self.cldice)
        return loss + CODEBOOK_WEIGHT * answer.encoded.quantized.loss

    def score(self, network: nn.Module) -> dict[str, float]:
        """Return what `score_of` does, and the use of the codebook.

        ``perplexity`` is of the codes of the validation patches, of which there are one for 32³
        voxels: it cannot be above their number. ``training_perplexity`` is of those that were
        drawn in the last hundred or so batches of pretraining.

        Before labels have been shown the score is the reconstruction error below zero: whatever
        comes after is better.
        """
        assert isinstance(network, Teacher)
        device = next(network.parameters()).device
        counts = torch.zeros(self.design.n_codes, device=device)
        errors, said = [], []
        for image, _ in self._validation:
            x = images_of([image]).to(device)
            answer = network(x)
            used = answer.encoded.quantized.index.flatten()
            counts += torch.bincount(used, minlength=len(counts))
            off = losses.reconstruction_loss(answer.image, x, error=self.reconstruction)
            errors.append(float(off))
            said.append(probability_of(answer.logits))
        error = sum(errors) / len(errors)
        found = {
            "perplexity": float(perplexity(counts)),
            "training_perplexity": float(perplexity(network.codebook.share)),
            "reconstruction_error": error,
        }
        if not network.fine_tuned:
            return {**dict.fromkeys(SCORES, math.nan), "score": -error, **found}
        return {**score_of(said, [mask for _, mask in self._validation]), **found}

    @functools.cached_property
    def _validation(self) -> list[LabelledPatch]:
        return [self.source.validation(i) for i in range(self.validation_patches)]
