"""Patches that cost nothing: bright bars on a dark ground."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class TinyPatches:
    """See :class:`vasculome.training.patch_source.PatchSource`; remembers what it was asked for."""

    shape: tuple[int, int, int] = (16, 16, 16)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def labelled(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return self._patch("labelled", 0, index)

    def unlabelled(self, index: int) -> NDArray[np.float32]:
        return self._patch("unlabelled", 1, index)[0]

    def validation(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return self._patch("validation", 2, index)

    def _patch(self, split, number, index):
        self.asked.append((split, index))
        rng = np.random.default_rng([number, index])
        mask = np.zeros(self.shape, np.bool_)
        for _ in range(2):
            y, x = rng.integers(1, np.array(self.shape[1:]) - 2)
            mask[:, y : y + 2, x : x + 2] = True
        image = 0.6 * mask + 0.4 * rng.random(self.shape)
        return image.astype(np.float32), mask
