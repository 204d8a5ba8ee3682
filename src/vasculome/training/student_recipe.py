"""How the student learns: Dice on labels, and what the chosen method adds."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from torch import Tensor, nn

from vasculome.models.student import StudentDesign
from vasculome.models.teacher import Teacher
from vasculome.training.distill import METHODS, Distillation, Method, distillation_loss
from vasculome.training.lessons import Lessons
from vasculome.training.patch_source import (
    LabelledPatch,
    PatchBatch,
    PatchSource,
    images_of,
    labelled_batch,
)
from vasculome.training.segment_scores import probability_of, score_of


@dataclass(frozen=True)
class StudentRecipe:
    """See :class:`vasculome.training.loop.Recipe`; the network is a :class:`Distillation`.

    Attributes
    ----------
    design, source
        Network, and what it is to see.
    steps
        Of the whole training: the weights of what is not labelled rise over them.
    method
        Of :data:`vasculome.training.distill.METHODS`, or another one.
    teacher
        Fine-tuned, if the method needs one; it does not learn any more.
    batch_size
        Labelled patches a step, and as many without labels if the method shows any.
    validation_patches
        Patches that the score is taken on.
    """

    design: StudentDesign
    source: PatchSource
    steps: int
    method: Method = field(default_factory=lambda: METHODS["light_unet"])
    teacher: Teacher | None = None
    batch_size: int = 2
    validation_patches: int = 16

    def __post_init__(self) -> None:
        if not self.method.needs_teacher:
            return
        if self.teacher is None:
            raise ValueError("the method needs a teacher")
        codes, own = self.teacher.design.student_width, self.design.widths[-1]
        if self.method.features == "codebook" and codes != own:
            raise ValueError(f"codes of {codes} channels are not for a student of {own}")

    def network(self) -> nn.Module:
        """Return a new student, with what else learns."""
        width = None if self.teacher is None else self.teacher.design.encoded_width
        return Distillation(self.design, self.method, teacher_width=width)

    def batch(self, step: int) -> PatchBatch:
        """Return the patches of a step."""
        indices = range(step * self.batch_size, (step + 1) * self.batch_size)
        batch = labelled_batch(self.source, indices)
        if not self.method.unlabelled:
            return batch
        others = images_of([self.source.unlabelled(i) for i in indices])
        return PatchBatch(batch.images, batch.masks, others)

    def loss(self, network: nn.Module, batch: PatchBatch, step: int) -> Tensor:
        """Return the loss of a batch."""
        assert isinstance(network, Distillation)
        device = next(network.parameters()).device
        network.follow(step)
        return distillation_loss(
            network, self.method, batch.to(device), lessons=self._lessons, part=step / self.steps
        )

    def score(self, network: nn.Module) -> dict[str, float]:
        """Return what `score_of` says of the student: mean Dice is the score."""
        assert isinstance(network, Distillation)
        device = next(network.parameters()).device
        said = [
            probability_of(network.student(images_of([image]).to(device)).logits)
            for image, _ in self._validation
        ]
        return score_of(said, [mask for _, mask in self._validation])

    @functools.cached_property
    def _lessons(self) -> Lessons | None:
        if self.teacher is None or not self.method.needs_teacher:
            return None
        return Lessons(self.teacher, self.method.features_asked)

    @functools.cached_property
    def _validation(self) -> list[LabelledPatch]:
        return [self.source.validation(i) for i in range(self.validation_patches)]


def student_alone(network: nn.Module) -> nn.Module:
    """Return what is kept of a training: the student of a distillation, else the network."""
    return network.student if isinstance(network, Distillation) else network
