"""What a student learns: labels alone, or with the help of a teacher or of unlabelled images.

VpbSD and the methods that its paper compares it with (tables 1 and 3), as weights of terms of one
loss. Whatever a method has beside the student (regressors, a mean of past students) learns with it
and is left behind at the end.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from vasculome.models.student import Student, StudentAnswer, StudentDesign
from vasculome.training import segment_losses as losses
from vasculome.training.lessons import FeaturesAsked, Lessons
from vasculome.training.patch_source import PatchBatch

Features = Literal["none", "codebook", "aligned", "hint", "variational", "boundary"]

_MEAN_DECAY = 0.99
"""Of the mean of past students (Yu et al. 2019)."""

_NOISE, _MOST_NOISE = 0.1, 0.2
"""Standard deviation and limit of what is added to the images that it sees (Yu et al. 2019)."""

_LOOKS = 8
"""Noisy images from which its uncertainty is told (Yu et al. 2019)."""

_SOFT_TEMPERATURE = 4.0


@dataclass(frozen=True)
class Method:
    """Weights of the terms beside the Dice loss on labels.

    Attributes
    ----------
    unlabelled
        Whether images without labels are shown as well.
    pseudo_labels
        Of the Dice loss on what the teacher says of them (β is this times the ramp).
    features
        What the student's deepest features are to tell of the teacher's: its ``codebook`` vectors
        (VpbSD), or its encoder's own: ``aligned`` (VpbSD's L_mid), ``hint`` (FitNets),
        ``variational`` (VID), ``boundary`` (AB).
    features_weight
        Of that (γ).
    soft_labels
        Of the teacher's probabilities, on labelled images (Hinton et al. 2015).
    consistency
        Of agreement with the mean of past students on unlabelled images, times the ramp.
    only_certain
        Whether voxels of which that mean is uncertain are left out (UAMT).
    entropy
        Of the student's uncertainty on unlabelled images, times the ramp.
    cldice
        Part of soft-clDice in the loss on labels; the rest is Dice. Beyond the paper.
    """

    unlabelled: bool = False
    pseudo_labels: float = 0.0
    features: Features = "none"
    features_weight: float = 1.0
    soft_labels: float = 0.0
    consistency: float = 0.0
    only_certain: bool = False
    entropy: float = 0.0
    cldice: float = 0.0

    def __post_init__(self) -> None:
        if (self.pseudo_labels or self.consistency or self.entropy) and not self.unlabelled:
            raise ValueError("the method needs images without labels")
        if self.only_certain and not self.consistency:
            raise ValueError("only_certain belongs to consistency")

    @property
    def needs_teacher(self) -> bool:
        """Whether a trained teacher is asked."""
        return bool(self.pseudo_labels or self.soft_labels or self.features != "none")

    @property
    def features_asked(self) -> FeaturesAsked:
        """Which features a teacher is asked for."""
        return self.features if self.features in {"none", "codebook"} else "encoder"


_VPBSD = Method(unlabelled=True, pseudo_labels=1.0, features="codebook")

METHODS: dict[str, Method] = {
    "vpbsd": _VPBSD,
    "light_unet": Method(),
    "kd": Method(soft_labels=1.0),
    "fitnets": Method(features="hint"),
    "vid": Method(features="variational"),
    "ab": Method(features="boundary"),
    "mean_teacher": Method(unlabelled=True, consistency=0.1),
    "uamt": Method(unlabelled=True, consistency=0.1, only_certain=True),
    "entropy": Method(unlabelled=True, entropy=0.1),
    "without_distillation": replace(_VPBSD, features="none"),
    "without_semi": replace(_VPBSD, pseudo_labels=0.0),
    # Of the paper's section 4.3.1: as without_semi and vpbsd, but for whose features are learnt.
    "mid": replace(_VPBSD, pseudo_labels=0.0, features="aligned"),
    "semi_mid": replace(_VPBSD, features="aligned"),
}
"""By the name that a configuration gives."""


class Distillation(nn.Module):
    """A student, with what it only needs to learn.

    Attributes
    ----------
    student
        What is kept at the end.
    regressor
        From its deepest features to those of the teacher, or nothing.
    mean
        Of past students, or nothing.
    """

    def __init__(self, design: StudentDesign, method: Method, *, teacher_width: int | None) -> None:
        super().__init__()
        self.student = Student(design)
        self.regressor: nn.Module | None = None
        self.mean: Student | None = None
        if method.features in _REGRESSORS:
            if teacher_width is None:
                raise ValueError(f"features {method.features} need a teacher")
            self.regressor = _REGRESSORS[method.features](design.widths[-1], teacher_width)
        if method.consistency:
            self.mean = copy.deepcopy(self.student).requires_grad_(False)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Let the mean follow the student; before it learns from the batch of a step."""
        if self.mean is None:
            return
        part = 1 - min(1 - 1 / (step + 1), _MEAN_DECAY)
        now = self.student.state_dict()
        for name, kept in self.mean.state_dict().items():
            if kept.is_floating_point():
                kept.lerp_(now[name], part)


def distillation_loss(
    network: Distillation,
    method: Method,
    batch: PatchBatch,
    *,
    lessons: Lessons | None,
    part: float,
) -> Tensor:
    """Return L = Dice(labels) + β Dice(pseudo-labels) + γ L1(features), or another method's.

    VpbSD, equations 10 to 12.

    Parameters
    ----------
    network, method
        What learns, and how.
    batch
        On the device of the network.
    lessons
        Of the teacher; None if the method needs none.
    part
        Of the training that is done, from 0 to 1.
    """
    images, others = batch.images, batch.others if method.unlabelled else None
    n = len(images)
    answer = network.student(images if others is None else torch.cat([images, others]))
    own, free = answer.logits[:n], answer.logits[n:]
    loss = losses.labels_loss(own, batch.masks, cldice=method.cldice)
    if method.needs_teacher:
        if lessons is None:
            raise ValueError("the method needs a teacher")
        loss = loss + _taught_loss(network, method, batch, answer, lessons=lessons, part=part)
    if network.mean is not None:
        assert others is not None
        agreed = _agreement(network.mean, method, free, others, part=part)
        loss = loss + method.consistency * losses.ramp(part) * agreed
    if method.entropy:
        loss = loss + method.entropy * losses.ramp(part) * losses.entropy_loss(free)
    return loss


def _taught_loss(
    network: Distillation,
    method: Method,
    batch: PatchBatch,
    answer: StudentAnswer,
    *,
    lessons: Lessons,
    part: float,
) -> Tensor:
    """Return the terms that a teacher is asked for; its decoder only where it is needed."""
    n = len(batch.images)
    loss = answer.logits.new_zeros(())
    of_images = lessons.ask(batch.images, decodes=method.soft_labels > 0)
    if method.soft_labels:
        assert of_images.logits is not None
        soft = losses.soft_label_loss(
            answer.logits[:n], of_images.logits, temperature=_SOFT_TEMPERATURE
        )
        loss = loss + method.soft_labels * soft
    taught = [of_images.features]
    if method.unlabelled:
        assert batch.others is not None
        of_others = lessons.ask(batch.others, decodes=method.pseudo_labels > 0)
        taught.append(of_others.features)
        if method.pseudo_labels:
            assert of_others.logits is not None
            beta = method.pseudo_labels * losses.ramp(part)
            loss = loss + beta * losses.dice_loss(answer.logits[n:], of_others.logits > 0)
    if method.features != "none":
        features = torch.cat([each for each in taught if each is not None])
        apart = _features_loss(network, method.features, answer.deepest, features)
        loss = loss + method.features_weight * apart
    return loss


def _features_loss(
    network: Distillation, features: Features, student: Tensor, teacher: Tensor
) -> Tensor:
    if features == "codebook":
        return losses.match_features(student, teacher)
    assert network.regressor is not None
    said = network.regressor(losses.on_grid_of(student, teacher))
    if features == "aligned":
        # L_mid = L1(DA(Z_stu), Z_tea), section 4.3.1; DA is a 1×1 convolution (3.3).
        return losses.match_features(said, teacher)
    if features == "hint":
        return losses.hint_loss(said, teacher)
    if features == "boundary":
        return losses.boundary_loss(said, teacher)
    assert isinstance(network.regressor, _Variational)
    return losses.variational_loss(said, network.regressor.raw_variance, teacher)


def _agreement(
    mean: Student, method: Method, logits: Tensor, images: Tensor, *, part: float
) -> Tensor:
    """Return how far the student is from the mean of past students, which sees noisy images."""
    with torch.no_grad():
        looks = [
            torch.sigmoid(mean(_noisy(images)).logits)
            for _ in range(_LOOKS if method.only_certain else 1)
        ]
        said = looks[0]
        certain = None
        if method.only_certain:
            certain = losses.is_certain(torch.stack(looks).mean(0), part=part)
    return losses.consistency_loss(logits, said, weight=certain)


def _noisy(images: Tensor) -> Tensor:
    noise = _NOISE * torch.randn(images.shape, device=images.device)
    return images + noise.clamp(-_MOST_NOISE, _MOST_NOISE)


class _Variational(nn.Sequential):
    """The mean of the teacher's features given the student's, and a variance for each channel."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__(
            nn.Conv3d(inner, outer, 1),
            nn.ReLU(),
            nn.Conv3d(outer, outer, 1),
            nn.ReLU(),
            nn.Conv3d(outer, outer, 1),
        )
        # The variance begins as 5, as in the authors' code.
        self.raw_variance = nn.Parameter(torch.full((outer,), 5.0).expm1().log())


def _aligned(inner: int, outer: int) -> nn.Module:
    return nn.Conv3d(inner, outer, 1)


def _boundary(inner: int, outer: int) -> nn.Module:
    return nn.Sequential(nn.Conv3d(inner, outer, 1), nn.BatchNorm3d(outer))


_REGRESSORS = {
    "aligned": _aligned,
    "hint": _aligned,
    "variational": _Variational,
    "boundary": _boundary,
}
