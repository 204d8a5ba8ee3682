"""What networks find in a movie: fine pixels, and bubbles where they keep them."""

from __future__ import annotations

import numpy as np
from localizer_parts.conventional import angiogram, tracks_of
from numpy.typing import NDArray
from torch import nn

from vasculome.models.bubble_net import BubbleNet
from vasculome.models.stulm import UPSCALING, Stulm
from vasculome.training.bubble_recipe import detect
from vasculome.training.movies import UlmMovie
from vasculome.training.stulm_recipe import KEEP_PROBABILITY, Sparsify, predicted
from vasculome.ultrasound.columns import Table, axis_names


def found_by(
    network: nn.Module, movie: UlmMovie, *, sparsify: Sparsify, max_speed_mm_s: float
) -> tuple[NDArray[np.bool_], Table | None]:
    """Return the fine pixels that vessels are found in, and the bubbles, if it keeps them."""
    if isinstance(network, Stulm):
        probability = predicted(network, [movie], sparsify=sparsify)[0]
        return probability > KEEP_PROBABILITY, None
    assert isinstance(network, BubbleNet)
    table = as_table(detect(network, movie))
    tracks = tracks_of(movie, table, max_speed_mm_s=max_speed_mm_s)
    return angiogram(movie, tracks, factor=UPSCALING), table


def as_table(said: dict[str, NDArray[np.generic]]) -> Table:
    """Return detections as the tracker takes them; a bubble's probability is its score."""
    position = said["position_px"]
    columns = dict(zip(axis_names(position.shape[1]), position.T, strict=True))
    probability = said["probability"].astype(np.float32)
    return {
        "frame": said["frame"],
        **columns,
        "amplitude": np.ones_like(probability),
        "score": probability,
    }
