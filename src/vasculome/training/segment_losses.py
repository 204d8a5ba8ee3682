"""What segmenters are trained to make small: of VpbSD, and of the methods it is compared with.

Logits are of vessel against background, (N, 1, z, y, x), targets of the same shape from 0 to 1;
every loss is a scalar. The methods speak of C classes: with two, softmax is the sigmoid of one
logit, and sums over classes are over p and 1 − p.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from vasculome.training.losses import soft_dice_loss

_EPS = 1e-6


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return 1 − 2|A ∩ B|/(|A| + |B|), softly, over all voxels of the batch (VpbSD, equation 7)."""
    truth = target.to(logits.dtype)
    return soft_dice_loss(torch.sigmoid(logits), truth, target_sum=truth.sum())


def soft_skeleton(mask: Tensor, *, iterations: int = 3) -> Tensor:
    """Return what thinning leaves of a soft mask (N, 1, z, y, x), by pooling.

    Shit et al. 2021, algorithm 1: what an opening takes away, at each of ``iterations`` erosions.
    Vessels with radii above that are not thinned to the end.
    """
    skeleton = functional.relu(mask - _opened(mask))
    for _ in range(iterations):
        mask = _eroded(mask)
        away = functional.relu(mask - _opened(mask))
        skeleton = skeleton + functional.relu(away - skeleton * away)
    return skeleton


def soft_cldice_loss(logits: Tensor, target: Tensor, *, iterations: int = 3) -> Tensor:
    """Return 1 − soft-clDice (Shit et al. 2021, algorithm 2).

    The harmonic mean of the part of the answer's skeleton that is in the target, and of the part
    of the target's skeleton that is in the answer.
    """
    said, truth = torch.sigmoid(logits), target.to(logits.dtype)
    of_said = soft_skeleton(said, iterations=iterations)
    of_truth = soft_skeleton(truth, iterations=iterations)
    precision = ((of_said * truth).sum() + 1) / (of_said.sum() + 1)
    sensitivity = ((of_truth * said).sum() + 1) / (of_truth.sum() + 1)
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


def labels_loss(logits: Tensor, target: Tensor, *, cldice: float) -> Tensor:
    """Return the Dice loss, of which soft-clDice takes the part ``cldice``."""
    loss = (1 - cldice) * dice_loss(logits, target)
    return loss + cldice * soft_cldice_loss(logits, target) if cldice else loss


def reconstruction_loss(image: Tensor, truth: Tensor, *, error: str = "squared") -> Tensor:
    """Return the mean ``squared`` or ``absolute`` error of images (VpbSD, equations 5 and 6).

    The paper says the one and prints the other.
    """
    if error not in {"squared", "absolute"}:
        raise ValueError(f"error must be squared or absolute, not {error!r}")
    return functional.mse_loss(image, truth) if error == "squared" else (image - truth).abs().mean()


def ramp(part: float) -> float:
    """Return exp(−5 (1 − t)²), t from 0 to 1 (Laine and Aila 2017; β of VpbSD, equation 10)."""
    return math.exp(-5 * (1 - min(max(part, 0.0), 1.0)) ** 2)


def match_features(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean |student − teacher| (VpbSD, equation 12: γ's factor).

    Features are (N, d, z, y, x); where the student's grid is finer, the mean of its features that
    lie in one of the teacher's voxels is taken, which the paper leaves open.
    """
    return functional.l1_loss(on_grid_of(student, teacher), teacher)


def on_grid_of(student: Tensor, teacher: Tensor) -> Tensor:
    """Return means of the student's features in each voxel of the teacher's grid.

    Raises
    ------
    ValueError
        The student's grid is not a multiple of the teacher's along each axis.
    """
    if any(a % b for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)):
        raise ValueError(f"grids do not fit: {student.shape[2:]} and {teacher.shape[2:]}")
    if student.shape[2:] == teacher.shape[2:]:
        return student
    return functional.adaptive_avg_pool3d(student, teacher.shape[2:])


def soft_label_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return T² KL(σ(teacher/T) ‖ σ(student/T)) of logits, mean over voxels.

    Hinton et al. 2015: soft targets; T² keeps the gradients' size whatever the temperature.
    """
    p, q = torch.sigmoid(teacher / temperature), student / temperature
    cross = functional.binary_cross_entropy_with_logits(q, p, reduction="none")
    return temperature**2 * (cross - entropy(p)).mean()


def hint_loss(regressed: Tensor, teacher: Tensor) -> Tensor:
    """Return ½‖teacher − r(student)‖² (Romero et al. 2015, equation 3), mean over elements."""
    return 0.5 * functional.mse_loss(regressed, teacher)


def variational_loss(mean: Tensor, raw_variance: Tensor, teacher: Tensor) -> Tensor:
    """Return −log q(teacher | student) without its constant, mean over elements.

    Ahn et al. 2019 (VID), equations 5 and 6: log σ_c + (t − μ)²/(2σ_c²), with a variance for each
    channel, log(1 + exp(α_c)) + ε.

    Parameters
    ----------
    mean, teacher
        μ(student) and the teacher's features, (N, C, z, y, x).
    raw_variance
        α, (C,).
    """
    variance = (functional.softplus(raw_variance) + 1e-5)[None, :, None, None, None]
    return (0.5 * (variance.log() + (teacher - mean).square() / variance)).mean()


def boundary_loss(student: Tensor, teacher: Tensor, *, margin: float = 1.0) -> Tensor:
    """Return how far the student's neurons are from firing where the teacher's do.

    Heo et al. 2019 (AB), equation 4: ‖ρ(t)·relu(μ − s) + (1 − ρ(t))·relu(μ + s)‖², ρ = 1 where
    t > 0; of what goes into the activation; mean over elements.
    """
    off = torch.where(teacher > 0, margin - student, margin + student)
    return functional.relu(off).square().mean()


def consistency_loss(student: Tensor, teacher: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Return the mean squared difference of probabilities, of logits and of a mean teacher's.

    Tarvainen and Valpola 2017; with a ``weight`` of each voxel, Yu et al. 2019 (UAMT), equation 3:
    Σ w‖p − p'‖²/Σ w. ``teacher`` holds probabilities.
    """
    apart = (torch.sigmoid(student) - teacher).square()
    if weight is None:
        return apart.mean()
    return (weight * apart).sum() / (weight.sum() + _EPS)


def is_certain(probability: Tensor, *, part: float) -> Tensor:
    """Return 1 where the entropy of a mean prediction is below H, else 0.

    Yu et al. 2019 (UAMT), equations 2 and 3: H rises from ¾ of the highest entropy, ln 2, to all
    of it, as :func:`ramp` of the ``part`` of the training that is done.
    """
    limit = (0.75 + 0.25 * ramp(part)) * math.log(2)
    return (entropy(probability) < limit).to(probability.dtype)


def entropy(probability: Tensor) -> Tensor:
    """Return −p ln p − (1 − p) ln(1 − p)."""
    return torch.special.entr(probability) + torch.special.entr(1 - probability)


def entropy_loss(logits: Tensor) -> Tensor:
    """Return the mean entropy over ln 2 (Vu et al. 2019, ADVENT, equations 2 and 3)."""
    # From logits: the entropy of probabilities has no gradient where they round to 0 or 1.
    p = torch.sigmoid(logits)
    own = functional.softplus(logits) - p * logits
    return own.mean() / math.log(2)


def _eroded(mask: Tensor) -> Tensor:
    along = [
        -functional.max_pool3d(-mask, kernel, 1, tuple(k // 2 for k in kernel))
        for kernel in ((3, 1, 1), (1, 3, 1), (1, 1, 3))
    ]
    return torch.minimum(torch.minimum(along[0], along[1]), along[2])


def _opened(mask: Tensor) -> Tensor:
    return functional.max_pool3d(_eroded(mask), 3, 1, 1)
