"""The network that maps vessels: whether it fits a sample, and what memory it takes.

The workflow asks before anything runs, so torch, which takes seconds to import, is not needed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from vasculome.config import SuperresolveConfig
from vasculome.errors import UserError
from vasculome.stages import network_card
from vasculome.stages.network_card import check_axes, checked_card, pixel_factors, weights_path
from vasculome.storage.weights import card_path

SHIPPED = {2: "stulm_2d", 3: "stulm_3d"}
"""The weights that come with vasculome, for 2-D and 3-D."""

UPSCALING = 8
"""Fine pixels along an edge of a pixel of the network: `vasculome.models.stulm.UPSCALING`, which
would import torch."""

CHUNK_FRAMES = 128
"""Frames that one frame of the fine levels stands for, as said there."""

MOST_FRAMES = 512
"""Of a movie, even where the network has seen longer ones."""

MOST_SITES = 1 << 21
"""Of a movie, in a sparse network; of one that has more the network is shown the halves."""

MOST_FINE_SITES = 1 << 23
"""Of the same, on the finest level, before the movie is projected over time."""

_DENSE_BYTES = 1000, 500
_SPARSE_BYTES = 2000, 1000
"""Of a site and a fine site, in either kind of network."""

_ANSWER_BYTES = 4 * 4
"""Of a fine pixel: of the movie before, of two first halves, and of what is being shown."""

_KEY = "ultrasound.superresolve.network"


@dataclass(frozen=True)
class VesselFinder:
    """A network and how it is used on the pixels of a sample; it can go to other processes.

    Attributes
    ----------
    weights, sha256
        The file, and what it holds.
    is_dense
        Whether it takes all pixels, or sparse tensors.
    threshold
        Of |c|²: the network is given pixels above.
    n_frames
        Of a movie, at the most.
    factors
        Pixels of the network that each pixel is cut into, along z, [y,] x.
    device
        Of torch.
    """

    weights: Path
    sha256: str
    is_dense: bool
    threshold: float
    n_frames: int
    factors: tuple[int, ...]
    device: Literal["cpu", "cuda"]


class _Arguments(BaseModel):
    n_dims: Literal[2, 3]
    engine: Literal["dense", "vasculome", "minkowski"]


class _Data(BaseModel):
    n_frames: Annotated[int, Field(gt=0)]


class _Settings(BaseModel):
    sparsify: str
    threshold: Annotated[float, Field(ge=0, lt=1)]


class _Card(BaseModel):
    """What must be in the card of a network that maps vessels."""

    architecture: Literal["stulm"]
    arguments: _Arguments
    data: _Data
    settings: _Settings
    spacing_wavelengths: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


def vessel_weights_digest(chosen: SuperresolveConfig, *, n_dims: int) -> str:
    """Return what identifies the content of the weights, whether they are good or not."""
    return network_card.weights_digest(chosen.network or "", SHIPPED[n_dims])


def vessel_finder_for(
    chosen: SuperresolveConfig, *, spacing_um: Sequence[float], wavelength_um: float
) -> VesselFinder:
    """Return how a network is used on such pixels.

    Pixels larger than those it was trained on are cut into smaller ones.

    Raises
    ------
    UserError
        No network is named; its weights are missing or damaged, those of another kind of network,
        or were trained on pixels that the sample does not have; or no threshold is known.
    """
    if chosen.network is None:
        raise UserError(
            "no network is named",
            where=f"config: {_KEY}",
            fix="give the path of a .safetensors file, or 'shipped'",
        )
    path = weights_path(chosen.network, SHIPPED[len(spacing_um)])
    card, sha256 = checked_card(path, _Card, what="a network that maps vessels", key=_KEY)
    check_axes(path, network=card.arguments.n_dims, sample=len(spacing_um), key=_KEY)
    return VesselFinder(
        path,
        sha256,
        card.arguments.engine == "dense",
        _threshold(chosen, card.settings, path),
        min(card.data.n_frames, MOST_FRAMES),
        pixel_factors(
            [step / wavelength_um for step in spacing_um],
            card.spacing_wavelengths,
            path=path,
            instead=f"set {_KEY} to null",
        ),
        chosen.device,
    )


def _threshold(chosen: SuperresolveConfig, trained: _Settings, path: Path) -> float:
    if chosen.threshold is not None:
        return chosen.threshold
    known = {"threshold": trained.threshold, "none": 0.0}
    if trained.sparsify not in known:
        raise UserError(
            f"the network was given pixels chosen by {trained.sparsify}, not by a threshold",
            where=card_path(path),
            fix="set ultrasound.superresolve.threshold",
        )
    return known[trained.sparsify]


def movie_bytes(shape: Sequence[int], finder: VesselFinder) -> int:
    """Return the memory for the network on a movie (t, z, [y,] x) of its own pixels."""
    n_frames = CHUNK_FRAMES * math.ceil(shape[0] / CHUNK_FRAMES)
    pixels = math.prod(shape[1:])
    fine = pixels * UPSCALING ** len(shape[1:])
    sites, fine_sites = n_frames * pixels, n_frames // CHUNK_FRAMES * fine
    site_bytes, fine_site_bytes = _DENSE_BYTES if finder.is_dense else _SPARSE_BYTES
    if not finder.is_dense:
        sites, fine_sites = min(sites, MOST_SITES), min(fine_sites, MOST_FINE_SITES)
    network = site_bytes * sites + fine_site_bytes * fine_sites
    return 3 * 8 * n_frames * pixels + network + _ANSWER_BYTES * fine
