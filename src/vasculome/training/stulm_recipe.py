"""How Deep-stULM learns: simulated movies, soft Dice at one or four levels, Dice of angiograms."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from torch import Tensor, nn

from vasculome.models.site_finder import SiteFinder
from vasculome.models.stulm import CHUNK_FRAMES, LEVELS, UPSCALING, Stulm, StulmDesign
from vasculome.models.stulm_movies import on_device, stulm_input, vessel_probability
from vasculome.training.losses import soft_dice_loss
from vasculome.training.movies import UlmMovie, UlmScene, make_movie, path_target
from vasculome.training.site_recipe import find_sites
from vasculome.ultrasound.sparsify import above, strongest

KEEP_PROBABILITY = 0.5


@dataclass(frozen=True)
class Sparsify:
    """Which sites a sparse network is given; of a dense one all but these are set to 0.

    Attributes
    ----------
    method
        ``threshold`` of |c|², ``top_k`` a movie, ``cnn``: where a network finds bubbles, or
        ``none``: all of a dense movie.
    value
        Threshold, number of sites, or least probability.
    finder
        The network, for ``cnn``.
    """

    method: Literal["threshold", "top_k", "cnn", "none"] = "threshold"
    value: float = 0.1
    finder: SiteFinder | None = None

    def __post_init__(self) -> None:
        if (self.method == "cnn") != (self.finder is not None):
            raise ValueError("a finder goes with the method cnn, and only with it")

    def mask(self, correlation: NDArray[np.complex64]) -> NDArray[np.bool_]:
        """Return the sites, (t, z, [y,] x)."""
        if self.finder is not None:
            return find_sites(self.finder, correlation, min_probability=self.value)
        if self.method == "threshold":
            return above(correlation, threshold=self.value)
        if self.method == "top_k":
            return strongest(correlation, count=int(self.value))
        return np.ones(correlation.shape, np.bool_)


@dataclass(frozen=True)
class StulmBatch:
    """Movies as a network takes them, and where bubbles went.

    ``target`` is boolean (samples, chunks of 128 frames, *fine axes).
    """

    movies: Any
    target: Tensor


@dataclass(frozen=True)
class StulmRecipe:
    """See :class:`vasculome.training.loop.Recipe`.

    Attributes
    ----------
    design, scene, sparsify
        Network, what it is to see, and what of it.
    seed
        Of the movies.
    batch_size, validation_movies
        Movies a step, and for the score.
    dilated_steps
        Steps in which the paths to be found are wider, by ``dilation_px`` fine pixels all round.
    cascade_steps
        Steps that each level but the last is learnt alone before the next joins.
    repeat_after
        Number of different movies, after which they come again; None: never.
    """

    design: StulmDesign
    scene: UlmScene
    seed: int
    sparsify: Sparsify = Sparsify()
    batch_size: int = 4
    validation_movies: int = 32
    dilated_steps: int = 0
    dilation_px: int = 2
    cascade_steps: int = 0
    repeat_after: int | None = None

    def network(self) -> nn.Module:
        """Return a new network."""
        return Stulm(self.design)

    def batch(self, step: int) -> StulmBatch:
        """Return the movies of a step."""
        first = step * self.batch_size
        index = [first + i for i in range(self.batch_size)]
        if self.repeat_after is not None:
            index = [i % self.repeat_after for i in index]
        movies = [make_movie(self.scene, split="train", index=i, seed=self.seed) for i in index]
        target = np.stack([_target(movie) for movie in movies])
        if step < self.dilated_steps:
            target = _dilated(target, self.dilation_px)
        return StulmBatch(
            network_input(self.design, movies, self.sparsify), torch.from_numpy(target)
        )

    def loss(self, network: nn.Module, batch: StulmBatch, step: int) -> Tensor:
        """Return the mean soft Dice loss of the levels."""
        device = next(network.parameters()).device
        last = len(LEVELS) - 1
        if self.cascade_steps:
            last = min(last, step // self.cascade_steps)
        levels = network(on_device(batch.movies, device), stop_level=last).logits
        strides = LEVELS[last + 1 - len(levels) : last + 1]
        target = batch.target.to(device)
        losses = [
            _dice_loss(logits, _coarser(target, stride), stride, ends=stride == LEVELS[-1])
            for logits, stride in zip(levels, strides, strict=True)
        ]
        return torch.stack(losses).mean()

    def score(self, network: nn.Module) -> dict[str, float]:
        """Return the Dice index of the angiograms of all validation movies, as the paper does."""
        assert isinstance(network, Stulm)
        return {"score": dice_of_union(network, self._validation, sparsify=self.sparsify)}

    @functools.cached_property
    def _validation(self) -> list[UlmMovie]:
        return [
            make_movie(self.scene, split="validation", index=i, seed=self.seed)
            for i in range(self.validation_movies)
        ]


def network_input(design: StulmDesign, movies: list[UlmMovie], sparsify: Sparsify) -> Any:
    """Return movies as the network of a design takes them."""
    correlations = [movie.correlation for movie in movies]
    return stulm_input(design, correlations, [sparsify.mask(c) for c in correlations])


def predicted(network: Stulm, movies: list[UlmMovie], *, sparsify: Sparsify) -> NDArray[np.float32]:
    """Return the probability of vessels (movies, *fine axes), one movie at a time."""
    network.eval()
    correlations = [movie.correlation for movie in movies]
    return np.stack([vessel_probability(network, c, sparsify.mask(c)) for c in correlations])


def dice_of_union(network: Stulm, movies: list[UlmMovie], *, sparsify: Sparsify) -> float:
    """Return the Dice index of found and true angiograms, each the union over the movies."""
    found = (predicted(network, movies, sparsify=sparsify) > KEEP_PROBABILITY).any(axis=0)
    true = np.stack([_target(movie).any(axis=0) for movie in movies]).any(axis=0)
    total = np.count_nonzero(found) + np.count_nonzero(true)
    return 2 * np.count_nonzero(found & true) / total if total else 1.0


def _target(movie: UlmMovie) -> NDArray[np.bool_]:
    """Return where bubbles went in each chunk of 128 frames, (chunks, *fine axes)."""
    return path_target(movie, factor=UPSCALING, chunk_frames=CHUNK_FRAMES)


def _dilated(target: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Return ``target`` (samples, chunks, *axes) with all within a radius of it, in space."""
    n_dims = target.ndim - 2
    grid = np.indices((2 * by + 1,) * n_dims) - by
    ball = (grid**2).sum(0) <= by**2
    return binary_dilation(target, ball[None, None])


def _coarser(target: Tensor, stride: int) -> Tensor:
    """Return whether anything of ``target`` (samples, chunks, *axes) is in each block."""
    shape = list(target.shape[:2])
    for length in target.shape[2:]:
        shape += [length // stride, stride]
    blocks = target.view(shape)
    for axis in reversed(range(3, len(shape), 2)):
        blocks = blocks.any(axis)
    return blocks


def _dice_loss(logits: Any, target: Tensor, stride: int, *, ends: bool) -> Tensor:
    """Return the loss of one level; at its end the network has put all chunks into one."""
    if ends:
        target = target.any(1, keepdim=True)
    truth = target.to(torch.float32)
    if isinstance(logits, Tensor):
        return soft_dice_loss(
            torch.sigmoid(logits)[:, 0], truth.movedim(1, -1), target_sum=truth.sum()
        )
    where = logits.coordinates.long()
    chunk = torch.zeros_like(where[:, 0]) if ends else where[:, -1] // CHUNK_FRAMES
    space = (where[:, 1:-1] // stride).T
    said = torch.sigmoid(logits.features[:, 0])
    return soft_dice_loss(said, truth[(where[:, 0], chunk, *space)], target_sum=truth.sum())
