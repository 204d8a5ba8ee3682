"""The vessel-pattern codebook: features become the nearest of a few learnt vectors.

VpbSD, equations 2, 3, 8 and 9 (after van den Oord et al. 2017, VQ-VAE, and Baevski et al. 2020,
vq-wav2vec). Which codes there are at first, and what becomes of those that nothing chooses, the
paper leaves open. Here features pass as they are until codes begin as some of them, and dead codes
begin again from features at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

COMMITMENT = 0.25
"""λ of equation 9, as in VQ-VAE; the paper does not say."""

CodeScores = Literal["relative", "squared_distance", "distance"]
"""What codes are drawn by while they are learnt: minus the squared distance from the feature, as in
a mixture of Gaussians, over twice the variance of features about their nearest codes, so that the
scale of features does not matter; minus the squared distance itself, as if that variance were ½; or
minus the distance, as equation 8 of VpbSD prints it. Where features lie closer together than 1, as
they do in the beginning, by the last two any code is drawn almost as often as the nearest, and the
network learns to do without codes. Afterwards the nearest code is the same."""

_KEEP = 0.9
"""Of the mean share of codes, from one batch to the next."""

_TINY = 1e-12

_DEAD = 0.1
"""Part of an even share below which a code is dead: not chosen in the last 22 batches."""


@dataclass(frozen=True)
class Quantized:
    """Features after the codebook.

    Attributes
    ----------
    features
        The chosen codes, (N, d, z, y, x).
    index
        Which they are, (N, z, y, x) int64.
    loss
        Equation 9; mean over features, not their sum.
    perplexity
        Of the codes chosen in this batch.
    """

    features: Tensor
    index: Tensor
    loss: Tensor
    perplexity: Tensor


class Codebook(nn.Module):
    """N vectors of d numbers.

    Parameters
    ----------
    n_codes, width
        N and d.
    commitment
        λ of equation 9.
    scores
        See :data:`CodeScores`.

    Attributes
    ----------
    restarted
        Dead codes that began again since the network was made.
    """

    share: Tensor

    def __init__(
        self,
        n_codes: int,
        width: int,
        *,
        commitment: float = COMMITMENT,
        scores: CodeScores = "relative",
    ) -> None:
        super().__init__()
        if n_codes < 2 or width < 1:
            raise ValueError(f"a codebook of {n_codes} vectors of {width} is none")
        if scores not in get_args(CodeScores):
            raise ValueError(f"scores must be one of {get_args(CodeScores)}, not {scores!r}")
        self.scores = scores
        self.restarted = 0
        self.codes = nn.Parameter(torch.randn(n_codes, width))
        self.commitment = commitment
        # Nothing has been chosen yet, nor should be: of codes drawn at random, which may lie far
        # away, all features would have the same nearest one.
        self.register_buffer("share", torch.zeros(n_codes))

    @property
    def begun(self) -> bool:
        """Whether codes stand for features; before :meth:`restart_dead` none does."""
        return bool(self.share.any())

    def forward(
        self,
        x: Tensor,
        *,
        learning: bool = False,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Quantized:
        """Return the code of each feature; before codes have begun, the feature as it is.

        While the codes are learnt they are drawn (Gumbel-softmax: the hard choice forwards, the
        soft one backwards) and dead ones begin again. Otherwise, and in evaluation, each is the
        nearest; gradients go past it to the features, as in VQ-VAE.

        Parameters
        ----------
        x
            Features, (N, d, z, y, x).
        learning
            Whether the codes are learnt.
        temperature
            τ of the Gumbel-softmax: what is drawn does not depend on it; the gradients do, which
            are truer and noisier the lower it is.
        generator
            Of what is drawn; None: torch's.

        Raises
        ------
        ValueError
            The features have another width, or τ is not positive.
        """
        if x.shape[1] != self.codes.shape[1]:
            raise ValueError(f"features of width {x.shape[1]}, codes of {self.codes.shape[1]}")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        rows = x.movedim(1, -1).reshape(-1, x.shape[1])
        if not self.begun:
            none = rows.new_zeros(())
            return Quantized(x, none.long().expand(x.shape[0], *x.shape[2:]), none, none + 1)
        learning = learning and self.training
        if learning:
            # Before the codes are used: what autograd holds must not change any more.
            revived = self.restart_dead(rows.detach(), generator=generator)
        scores = -squared_distances(rows, self.codes)
        if learning:
            # Not yet those that are features of this very batch: nothing would be lost by them, and
            # the network would learn to do without codes that stand for anything else.
            scores = scores.index_fill(1, revived, -math.inf)
        if self.scores == "distance":
            # The root has no gradient at 0.
            scores = -(_TINY - scores).sqrt()
        elif self.scores == "relative":
            variance = -scores.detach().amax(1).mean() / rows.shape[1]
            scores = scores / (2 * variance).clamp(min=_TINY)
        if learning:
            choice = gumbel_softmax(scores, temperature=temperature, generator=generator)
            index, chosen = choice.argmax(1), choice @ self.codes
        else:
            index = scores.argmax(1)
            chosen = self.codes[index].detach() + (rows - rows.detach())
        counts = torch.bincount(index, minlength=len(self.codes))
        if learning:
            self.share.lerp_(counts / counts.sum(), 1 - _KEEP)
        grid = (x.shape[0], *x.shape[2:])
        return Quantized(
            chosen.reshape(*grid, -1).movedim(-1, 1),
            index.reshape(grid),
            codebook_loss(rows, self.codes[index], commitment=self.commitment),
            perplexity(counts),
        )

    @torch.no_grad()
    def restart_dead(self, rows: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Put features in the place of codes that are hardly chosen any more; return which, (k,).

        At first that is all of them.

        Parameters
        ----------
        rows
            Features to choose from at random, (n, d); each serves once at the most.
        generator
            Of what is drawn; None: torch's.
        """
        dead = torch.nonzero(self.share < _DEAD / len(self.share))[:, 0]
        # On the processor whatever the device, so that a seed draws the same everywhere.
        order = torch.randperm(len(rows), generator=generator)[: len(dead)].to(rows.device)
        revived = dead[: len(order)]
        self.codes[revived] = rows[order].to(self.codes.dtype)
        self.share[revived] = 1 / len(self.share)
        self.restarted += len(revived)
        return revived


def squared_distances(rows: Tensor, codes: Tensor) -> Tensor:
    """Return ‖rowᵢ − codeⱼ‖², (n, N), of rows (n, d) and codes (N, d)."""
    crossed = rows @ codes.T
    return (rows.square().sum(1)[:, None] + codes.square().sum(1) - 2 * crossed).clamp(min=0)


def gumbel_softmax(
    scores: Tensor, *, temperature: float, generator: torch.Generator | None = None
) -> Tensor:
    """Return a one-hot draw from softmax(scores), (n, N), with gradients of the soft one.

    Jang et al. 2017, equation 1 and the straight-through estimator.
    """
    uniform = torch.rand(scores.shape, generator=generator, dtype=scores.dtype)
    tiny = torch.finfo(scores.dtype).tiny
    noise = -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
    soft = torch.softmax((scores + noise.to(scores.device)) / temperature, dim=1)
    hard = nn.functional.one_hot(soft.argmax(1), scores.shape[1]).to(soft.dtype)
    return hard + (soft - soft.detach())


def codebook_loss(rows: Tensor, chosen: Tensor, *, commitment: float) -> Tensor:
    """Return ‖sg(row) − code‖² + λ‖row − sg(code)‖² (equation 9), mean over rows and channels.

    Parameters
    ----------
    rows, chosen
        Features and their codes, (n, d).
    commitment
        λ.
    """
    to_codes = (rows.detach() - chosen).square().mean()
    to_rows = (rows - chosen.detach()).square().mean()
    return to_codes + commitment * to_rows


def perplexity(counts: Tensor) -> Tensor:
    """Return the number of codes that, evenly chosen, would be as various: exp(−Σ p log p).

    Parameters
    ----------
    counts
        How often each was chosen, (N,); at least one of them.
    """
    share = counts / counts.sum()
    return torch.exp(torch.special.entr(share).sum())


def gumbel_temperature(part: float, *, highest: float = 1.0, lowest: float = 0.1) -> float:
    """Return τ after a part (0 to 1) of the training: from highest to lowest, exponentially."""
    return highest * math.exp(min(max(part, 0.0), 1.0) * math.log(lowest / highest))
