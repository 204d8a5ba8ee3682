"""What the cards of networks say, and whether a network fits a sample's pixels.

The workflow asks before anything runs, so torch, which takes seconds to import, is not needed here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from vasculome.errors import UserError
from vasculome.storage.weights import card_path, check_weights, shipped

_TOLERANCE = 1.01
"""By which pixels may be larger than in training: they are given with three digits."""

Card = TypeVar("Card", bound=BaseModel)


def weights_path(given: str, shipped_name: str) -> Path:
    """Return where weights are: ``shipped`` stands for those that come with vasculome.

    Raises
    ------
    UserError
        None of this name come with it.
    """
    return shipped(shipped_name) if given == "shipped" else Path(given)


def weights_digest(given: str, shipped_name: str) -> str:
    """Return what identifies the content of weights, whether they are good or not."""
    try:
        return hashlib.sha256(weights_path(given, shipped_name).read_bytes()).hexdigest()
    except (OSError, UserError):
        return "cannot be read"


def checked_card(path: Path, kind: type[Card], *, what: str, key: str) -> tuple[Card, str]:
    """Return the card of weights, and the SHA-256 of the file.

    Parameters
    ----------
    path
        Of the weights.
    kind
        What must be in the card.
    what
        The network in words, such as "a network that finds bubbles".
    key
        Of the configuration, where the weights are named.

    Raises
    ------
    UserError
        The weights are missing or damaged, or those of another kind of network.
    """
    content = check_weights(path)
    try:
        return kind.model_validate(content), content["sha256"]
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(
            f"is no card of {what}: {'.'.join(map(str, fault['loc']))}: "
            f"{fault['msg']}, got {fault['input']!r}",
            where=card_path(path),
            fix=f"give {key} weights of such a network that `snakemake models` trained",
        ) from None


def check_axes(path: Path, *, network: int, sample: int, key: str) -> None:
    """Raise UserError where a network and a sample differ in the number of spatial axes."""
    if network != sample:
        raise UserError(
            f"are weights for {network}-D, and the sample is {sample}-D",
            where=path,
            fix=f"give {key} others, or 'shipped'",
        )


def pixel_factors(
    spacing: Sequence[float], trained: tuple[float, float], *, path: Path, instead: str
) -> tuple[int, ...]:
    """Return the least factors that make pixels as those of training.

    Parameters
    ----------
    spacing, trained
        Pixels of the sample along each axis, and the finest and the coarsest of training, in
        wavelengths.
    path
        Of the weights.
    instead
        What users may do where there are none.

    Raises
    ------
    UserError
        There are none.
    """
    finest, coarsest = trained
    factors = tuple(max(1, math.ceil(step / (coarsest * _TOLERANCE))) for step in spacing)
    fine = [step / factor for step, factor in zip(spacing, factors, strict=True)]
    if min(fine) * _TOLERANCE < finest:
        raise UserError(
            f"the network was trained on pixels of {finest:g} to {coarsest:g} wavelengths, and the "
            f"sample has pixels of {' × '.join(f'{step:.3g}' for step in spacing)}",
            where=path,
            fix=f"{instead}, or train a network on such pixels (docs/training.md)",
        )
    return factors
