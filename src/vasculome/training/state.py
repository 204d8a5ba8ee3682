"""What a checkpoint holds of a network and its optimizer, as tensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vasculome.errors import UserError

LAST, BEST, _OPTIMIZER = "last.", "best.", "optimizer."


def tensors_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what a training goes on from."""
    tensors = {f"{LAST}{name}": value for name, value in network.state_dict().items()}
    for number, kept in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{number}.{name}": value for name, value in kept.items()}
    return tensors


def state_of(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Return a copy of all parameters and buffers, on the processor."""
    # .cpu() of what is there already is no copy, and would go on learning.
    return {f"{prefix}{k}": v.detach().cpu().clone() for k, v in network.state_dict().items()}


def restore(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    *,
    path: Path,
) -> dict[str, Tensor]:
    """Put a checkpoint into a network and its optimizer; return the best network's tensors.

    Raises
    ------
    UserError
        The checkpoint is of another network.
    """
    restore_network(network, tensors, LAST, path=path)
    kept: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(_OPTIMIZER):
            _, number, part = name.split(".")
            kept.setdefault(int(number), {})[part] = value
    state = optimizer.state_dict()
    state["state"] = kept
    optimizer.load_state_dict(state)
    return {name: value for name, value in tensors.items() if name.startswith(BEST)}


def restore_network(
    network: nn.Module, tensors: Mapping[str, Tensor], prefix: str, *, path: Path
) -> None:
    """Put the tensors whose names begin with ``prefix`` into a network; raises as `restore`."""
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    own = network.state_dict()
    fault = sorted(
        name
        for name in own.keys() | found.keys()
        if name not in own or name not in found or own[name].shape != found[name].shape
    )
    if fault:
        raise UserError(
            f"is a checkpoint of another network: {fault[0]} differs",
            where=path,
            fix="delete it to train from the beginning",
        )
    network.load_state_dict(found)
