"""How the network that finds sites learns: soft Dice on the pixels that bubbles are in."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from torch import Tensor, nn

from vasculome.models.site_finder import SiteFinder, SiteFinderDesign
from vasculome.training.losses import soft_dice_loss
from vasculome.training.movies import UlmMovie, UlmScene, make_movie


@dataclass(frozen=True)
class SiteRecipe:
    """See :class:`vasculome.training.loop.Recipe`.

    Attributes
    ----------
    design, scene
        Network, and what it is to see.
    seed
        Of the movies.
    batch_size, validation_movies
        Movies a step, and for the score.
    around_px
        Pixels around a bubble's that count as its own: a network that sees less than its
        neighbourhood cannot place it.
    """

    design: SiteFinderDesign
    scene: UlmScene
    seed: int
    batch_size: int = 1
    validation_movies: int = 8
    around_px: int = 0

    def network(self) -> nn.Module:
        """Return a new network."""
        return SiteFinder(self.design)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the movies of a step and where their bubbles are."""
        first = step * self.batch_size
        movies = [
            make_movie(self.scene, split="train", index=first + i, seed=self.seed)
            for i in range(self.batch_size)
        ]
        target = np.stack([bubble_pixels(m, around_px=self.around_px) for m in movies])
        return dense_input(movies), torch.from_numpy(np.moveaxis(target, 1, -1).copy())

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        """Return the soft Dice loss."""
        del step
        device = next(network.parameters()).device
        target = batch[1].to(device, torch.float32)
        said = torch.sigmoid(network(batch[0].to(device)))
        return soft_dice_loss(said, target, target_sum=target.sum())

    def score(self, network: nn.Module) -> dict[str, float]:
        """Return the Dice index over the validation movies, with recall and sites a movie."""
        assert isinstance(network, SiteFinder)
        both = found = true = 0
        for movie in self._validation:
            sites = find_sites(network, movie.correlation, min_probability=0.5)
            target = bubble_pixels(movie, around_px=self.around_px)
            both += np.count_nonzero(sites & target)
            found += np.count_nonzero(sites)
            true += np.count_nonzero(target)
        return {
            "score": 2 * both / (found + true) if found + true else 1.0,
            "recall": both / true if true else float("nan"),
            "sites_per_movie": found / len(self._validation),
        }

    @functools.cached_property
    def _validation(self) -> list[UlmMovie]:
        return [
            make_movie(self.scene, split="validation", index=i, seed=self.seed)
            for i in range(self.validation_movies)
        ]


def find_sites(
    network: SiteFinder, correlation: NDArray[np.complex64], *, min_probability: float
) -> NDArray[np.bool_]:
    """Return the pixels of a movie (t, z, [y,] x) that a network finds bubbles in."""
    device = next(network.parameters()).device
    network.eval()
    frames = len(correlation)
    even = np.concatenate([correlation, correlation[-1:]]) if frames % 2 else correlation
    with torch.no_grad():
        said = torch.sigmoid(network(_as_channels(even[None]).to(device)))[0]
    return np.moveaxis((said > min_probability).cpu().numpy(), -1, 0)[:frames]


def bubble_pixels(movie: UlmMovie, *, around_px: int) -> NDArray[np.bool_]:
    """Return the pixels (t, z, [y,] x) that bubbles are in, and those around them."""
    mask = np.zeros(movie.correlation.shape, np.bool_)
    pixel = np.clip(np.rint(movie.positions_px).astype(np.int64), 0, np.array(mask.shape[1:]) - 1)
    mask[(movie.bubbles.frame, *pixel.T)] = True
    if around_px:
        reach = 2 * around_px + 1
        mask = binary_dilation(mask, np.ones((1, *[reach] * (mask.ndim - 1)), np.bool_))
    return mask


def dense_input(movies: list[UlmMovie]) -> Tensor:
    """Return movies as dense networks take them, (movies, 2, *space, frames)."""
    return _as_channels(np.stack([movie.correlation for movie in movies]))


def _as_channels(movies: NDArray[np.complex64]) -> Tensor:
    moved = np.moveaxis(movies, 1, -1)
    return torch.from_numpy(np.stack([moved.real, moved.imag], axis=1).astype(np.float32))
