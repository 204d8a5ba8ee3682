"""How the network that keeps every bubble learns: simulated movies, DECODE's loss, Jaccard."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vasculome.metrics.localization import score_localization
from vasculome.models.bubble_net import (
    BubbleNet,
    BubbleNetDesign,
    detections,
    said_both_ways,
    sites_of,
)
from vasculome.sparse import SparseTensor
from vasculome.training.losses import Bubbles, bubble_loss
from vasculome.training.movies import UlmMovie, UlmScene, make_movie
from vasculome.ultrasound.sparsify import above

MIN_PROBABILITY = 0.5


@dataclass(frozen=True)
class BubbleBatch:
    """Sites of some movies and the bubbles in them."""

    points: SparseTensor
    truth: Bubbles
    n_frames: int


@dataclass(frozen=True)
class BubbleRecipe:
    """See :class:`vasculome.training.loop.Recipe`.

    Attributes
    ----------
    design, scene
        Network, and what it is to see.
    seed
        Of the movies.
    batch_size
        Movies a step.
    validation_movies
        Movies that the score is taken on.
    """

    design: BubbleNetDesign
    scene: UlmScene
    seed: int
    batch_size: int = 4
    validation_movies: int = 16

    def network(self) -> nn.Module:
        """Return a new network."""
        return BubbleNet(self.design)

    def batch(self, step: int) -> BubbleBatch:
        """Return the movies of a step."""
        first = step * self.batch_size
        return batch_of(
            [
                make_movie(self.scene, split="train", index=first + i, seed=self.seed)
                for i in range(self.batch_size)
            ],
            threshold=self.design.threshold,
        )

    def loss(self, network: nn.Module, batch: BubbleBatch, step: int) -> Tensor:
        """Return the loss of a batch."""
        del step
        points, truth = on_device(batch.points, batch.truth, network)
        return bubble_loss(network(points), points, truth, n_frames=batch.n_frames)

    def score(self, network: nn.Module) -> dict[str, float]:
        """Return the Jaccard index of bubbles found within λ/4, as PALA counts, and the RMSE in λ.

        The score is the Jaccard index.
        """
        assert isinstance(network, BubbleNet)
        return score_of(network, self._validation)

    @functools.cached_property
    def _validation(self) -> list[UlmMovie]:
        return [
            make_movie(self.scene, split="validation", index=i, seed=self.seed)
            for i in range(self.validation_movies)
        ]


def batch_of(movies: list[UlmMovie], *, threshold: float) -> BubbleBatch:
    """Return the sites and the truth of movies of one length."""
    points = sites_of(
        [m.iq for m in movies],
        [m.correlation for m in movies],
        [above(m.correlation, threshold=threshold) for m in movies],
    )
    sample = np.repeat(np.arange(len(movies)), [len(m.bubbles) for m in movies])
    truth = Bubbles(
        torch.from_numpy(sample),
        torch.from_numpy(np.concatenate([m.bubbles.frame for m in movies])),
        torch.from_numpy(np.concatenate([m.positions_px for m in movies]).astype(np.float32)),
    )
    return BubbleBatch(points, truth, len(movies[0].correlation))


def on_device(
    points: SparseTensor, truth: Bubbles, network: nn.Module
) -> tuple[SparseTensor, Bubbles]:
    """Return a batch where the network is."""
    device = next(network.parameters()).device
    if device.type == "cpu":
        return points, truth
    moved = SparseTensor.from_points(
        points.coordinates.to(device), points.features.to(device), batch_size=points.batch_size
    )
    place = Bubbles(truth.sample.to(device), truth.frame.to(device), truth.position_px.to(device))
    return moved, place


def score_of(network: BubbleNet, movies: list[UlmMovie]) -> dict[str, float]:
    """Return Jaccard index, precision, recall (within λ/4) and RMSE (in λ) over movies."""
    found_frame, found, true_frame, true = [], [], [], []
    first = 0
    for movie in movies:
        said = detect(network, movie)
        scale = np.asarray(movie.spacing_um) / movie.wavelength_um
        found_frame.append(first + said["frame"])
        found.append(said["position_px"] * scale)
        true_frame.append(first + movie.bubbles.frame)
        true.append(movie.positions_px * scale)
        first += len(movie.correlation)
    result = score_localization(
        np.concatenate(found_frame),
        np.concatenate(found),
        np.concatenate(true_frame),
        np.concatenate(true),
        pair_distance=0.5,
        true_positive_distance=0.25,
    )
    return {
        "score": result.jaccard if result.n_found else 0.0,
        "precision": result.precision,
        "recall": result.recall,
        "rmse_wavelengths": result.rmse,
    }


def detect(network: BubbleNet, movie: UlmMovie) -> dict[str, np.ndarray]:
    """Return what the network finds in one movie, as the workflow finds it."""
    batch = batch_of([movie], threshold=network.design.threshold)
    points, _ = on_device(batch.points, batch.truth, network)
    with torch.no_grad():
        said = said_both_ways(network, points)
    return detections(said, min_probability=MIN_PROBABILITY)
