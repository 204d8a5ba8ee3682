"""Dense arrays with points left out, to make sparse tensors of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

SHAPES = {2: (9, 8), 3: (6, 7, 5), 4: (5, 4, 4, 6)}


@pytest.fixture
def dense_input() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Make (2, channels, *axes) and the mask (2, *axes) of what is not 0."""
    return _dense_input


def _dense_input(
    dimension: int, *, occupancy: float, channels: int = 3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = SHAPES[dimension]
    dense = torch.randn((2, channels, *shape), generator=generator, dtype=torch.float64)
    mask = torch.rand((2, *shape), generator=generator) < occupancy
    return dense * mask[:, None], mask
