"""The weights of the network that localizes: whether they fit a sample, what memory that takes.

The workflow asks before anything runs, so torch, which takes seconds to import, is not needed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from vasculome.config import NetworkConfig
from vasculome.stages import network_card
from vasculome.stages.network_card import check_axes, checked_card, pixel_factors, weights_path
from vasculome.ultrasound.upsample import correlating_bytes

SHIPPED = {2: "bubbles_2d", 3: "bubbles_3d"}
"""The weights that come with vasculome, for 2-D and 3-D."""

MOST_SITES = 1 << 20
"""Sites that go through the network at once."""

_SITE_BYTES = 1500
"""Of one of them; 790 to 1,160 measured, in 2-D and 3-D, from sites here and there to all."""

MOST_PART = 0.5
"""Of the pixels of a block that may be sites; 0.02 to 0.42 in the movies of training."""

_KEY = "ultrasound.localize.stulm.weights"


@dataclass(frozen=True)
class Finder:
    """A network and how it is used on the pixels of a sample; it can go to other processes.

    Attributes
    ----------
    weights, sha256
        The file, and what it holds.
    threshold
        Of |c|²: pixels above are sites.
    min_probability
        Of a bubble.
    factors
        Pixels that each pixel is cut into, along z, [y,] x.
    device
        Of torch.
    """

    weights: Path
    sha256: str
    threshold: float
    min_probability: float
    factors: tuple[int, ...]
    device: Literal["cpu", "cuda"]


class _Arguments(BaseModel):
    n_dims: Literal[2, 3]
    channels: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)]
    threshold: Annotated[float, Field(ge=0, lt=1)]


class _Card(BaseModel):
    """What must be in the card of a network that finds bubbles."""

    architecture: Literal["bubble_net"]
    arguments: _Arguments
    spacing_wavelengths: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


def weights_digest(chosen: NetworkConfig, *, n_dims: int) -> str:
    """Return what identifies the content of the weights, whether they are good or not."""
    return network_card.weights_digest(chosen.weights, SHIPPED[n_dims])


def finder_for(
    chosen: NetworkConfig, *, spacing_um: Sequence[float], wavelength_um: float
) -> Finder:
    """Return how a network is used on such pixels.

    Pixels larger than those it was trained on are cut into smaller ones.

    Raises
    ------
    UserError
        The weights are missing or damaged, those of another kind of network, or were trained on
        pixels that the sample does not have.
    """
    path = weights_path(chosen.weights, SHIPPED[len(spacing_um)])
    card, sha256 = checked_card(path, _Card, what="a network that finds bubbles", key=_KEY)
    check_axes(path, network=card.arguments.n_dims, sample=len(spacing_um), key=_KEY)
    spacing = [step / wavelength_um for step in spacing_um]
    return Finder(
        path,
        sha256,
        card.arguments.threshold,
        chosen.min_probability,
        pixel_factors(
            spacing, card.spacing_wavelengths, path=path, instead="choose another localizer"
        ),
        chosen.device,
    )


def network_bytes(block: Sequence[int], finder: Finder) -> int:
    """Return the memory for a block (t, z, [y,] x), beside the filtered frames themselves."""
    per_frame = math.prod(block[1:]) * math.prod(finder.factors)
    pixels = block[0] * per_frame
    listed = 2 * (4 * len(block) + 16) * int(MOST_PART * pixels)
    return listed + correlating_bytes(block[0], per_frame) + _SITE_BYTES * min(MOST_SITES, pixels)
