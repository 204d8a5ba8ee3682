"""How the teacher learns: images first, which it builds with codes, then labels.

VpbSD, section 3.3: reconstruction + 0.1 × codebook loss, then Dice. Beyond the paper, codes alone
tell a coarse image (see :mod:`vasculome.models.teacher`), and begin as features after a third of
the first part, when features already differ.

In the second part the paper hardly changes the network (learning rate 1e-5). At the rates at which
a short training learns to segment, features would leave the codes that are to stand for them, and
soon all have the same: so the transformer and the codes stay what images have made of them, and
the rest learns.
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

_LOG_EVERY = 50
"""Steps."""

CODEBOOK_WEIGHT = 0.1
"""α of equation 4."""

COARSE_WEIGHT = 1.0
"""Of the squared error of the coarse image."""

_BEGIN_CODES = 1 / 3
"""Part of pretraining after which features are codes."""


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
        """Return the loss of a batch: on images and codes (equation 4), or on labels (7)."""
        assert isinstance(network, Teacher)
        batch = batch.to(next(network.parameters()).device)
        codebook = network.codebook
        if step < self.pretrain_steps:
            if not codebook.begun and step + 1 > _BEGIN_CODES * self.pretrain_steps:
                self._begin_codes(network)
            temperature = gumbel_temperature(step / self.pretrain_steps)
            answer = network(batch.images, learning=True, temperature=temperature)
            if codebook.begun and (step + 1) % _LOG_EVERY == 0:
                log.info(
                    "step %d: perplexity of the codes lately drawn %.1f, restarted %d",
                    step + 1,
                    float(perplexity(codebook.share)),
                    codebook.restarted,
                )
            built = losses.reconstruction_loss(
                answer.image, batch.images, error=self.reconstruction
            )
            told = nn.functional.mse_loss(answer.coarse, network.coarse(batch.images))
            codes = CODEBOOK_WEIGHT * answer.encoded.quantized.loss
            return built + codes + COARSE_WEIGHT * told
        if codebook.begun:
            network.keep_codes()
        network.fine_tuned.fill_(True)
        answer = network(batch.images)
        return losses.labels_loss(answer.logits, batch.masks, cldice=self.cldice)

    @torch.no_grad()
    def _begin_codes(self, network: Teacher) -> None:
        """Let codes begin as features of as many images as it takes."""
        device = next(network.parameters()).device
        rows: list[Tensor] = []
        while sum(map(len, rows)) < self.design.n_codes:
            x = images_of([self.source.unlabelled(len(rows))]).to(device)
            rows.append(network.encode(x).aligned[0].flatten(1).T)
        network.codebook.restart_dead(torch.cat(rows))

    def score(self, network: nn.Module) -> dict[str, float]:
        """Return what `score_of` does, and the use of the codebook.

        ``perplexity`` is of the codes of the validation patches, of which there are one for 32³
        voxels: it cannot be above their number. ``training_perplexity`` is of those that were
        drawn in the last ten or so batches of pretraining. ``coarse_error`` is the part of the
        variance of coarse images that codes do not tell: 1 is as good as their mean.

        Before labels have been shown the score is the reconstruction error below zero: whatever
        comes after is better.
        """
        assert isinstance(network, Teacher)
        device = next(network.parameters()).device
        counts = torch.zeros(self.design.n_codes, device=device)
        errors, said, told, coarse = [], [], [], []
        for image, _ in self._validation:
            x = images_of([image]).to(device)
            answer = network(x)
            used = answer.encoded.quantized.index.flatten()
            counts += torch.bincount(used, minlength=len(counts))
            off = losses.reconstruction_loss(answer.image, x, error=self.reconstruction)
            errors.append(float(off))
            told.append(answer.coarse.flatten())
            coarse.append(network.coarse(x).flatten())
            said.append(probability_of(answer.logits))
        error, truth = sum(errors) / len(errors), torch.cat(coarse)
        found = {
            "perplexity": float(perplexity(counts)),
            "training_perplexity": float(perplexity(network.codebook.share)),
            "reconstruction_error": error,
            "coarse_error": float(nn.functional.mse_loss(torch.cat(told), truth) / truth.var()),
        }
        if not network.fine_tuned:
            return {**dict.fromkeys(SCORES, math.nan), "score": -error, **found}
        return {**score_of(said, [mask for _, mask in self._validation]), **found}

    @functools.cached_property
    def _validation(self) -> list[LabelledPatch]:
        return [self.source.validation(i) for i in range(self.validation_patches)]
