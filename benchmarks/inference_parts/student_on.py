"""Networks on a processor or a GPU, as the stage has them there, and how long they take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def half_precision(device: str) -> contextlib.AbstractContextManager[object]:
    """Return the precision of the stage: on a GPU half."""
    if device == "cuda":
        return torch.autocast("cuda", torch.float16)
    return contextlib.nullcontext()


def placed(network: nn.Module, device: str) -> nn.Module:
    network = network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=torch.channels_last_3d) if device == "cuda" else network


def windows_on(device: str, batch: int) -> Tensor:
    x = torch.rand(batch, 1, 64, 64, 64, device=device)
    return x.to(memory_format=torch.channels_last_3d) if device == "cuda" else x


def milliseconds(ask: Callable[[], Any], *, device: str, turns: int) -> float:
    """Return the least of some turns, after one that counts for nothing."""
    spent = []
    for _ in range(turns + 1):
        begin = _now(device)
        ask()
        spent.append(_now(device) - begin)
    return min(spent[1:]) * 1e3


def _now(device: str) -> float:
    # Of a processor others may have a share.
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
