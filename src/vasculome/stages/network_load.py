"""Trained networks from their files; importing this imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from vasculome.compute.device import pick_device
from vasculome.errors import UserError
from vasculome.models.build import build
from vasculome.storage.weights import card_path, fill, read_weights

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def load_network(
    weights: Path,
    *,
    sha256: str,
    device: Literal["cpu", "cuda"],
    instead: Mapping[str, Any] = _NOTHING,
) -> nn.Module:
    """Return a network that has learnt, on a device.

    Parameters
    ----------
    weights, sha256
        The file, and what it held when the workflow looked.
    device
        Of torch.
    instead
        Arguments of the design, instead of those in the card.

    Raises
    ------
    UserError
        The weights are not those any more, or fit no network of this version.
    """
    tensors, card = read_weights(weights)
    if card["sha256"] != sha256:
        raise UserError(
            "has changed since the run began",
            where=weights,
            fix="run snakemake again",
        )
    try:
        network = build(card["architecture"], {**card["arguments"], **instead})
    except ValueError as error:
        raise UserError(
            f"tells of a network that cannot be built: {error}",
            where=card_path(weights),
            fix="give weights that this version of vasculome trained",
        ) from error
    fill(network, tensors, path=weights)
    return network.to(pick_device(device)).eval()
