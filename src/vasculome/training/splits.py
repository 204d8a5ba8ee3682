"""What simulated examples are for; those for different things show different vessels."""

from __future__ import annotations

from typing import Literal

Split = Literal["train", "validation", "test"]

SPLITS: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}
