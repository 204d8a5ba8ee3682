"""Users' volumes in rendered patches: no part of one is shown in two splits."""

from __future__ import annotations

import numpy as np
import pytest

from vasculome.training import vessel_sources
from vasculome.training.splits import SPLITS
from vasculome.training.vessel_sources import (
    Background,
    LabelVolume,
    background_light,
    label_light,
)

SHAPES = [(20, 60, 60), (60, 20, 60), (60, 60, 20), (20, 40, 70), (20, 70, 40), (40, 40, 40)]
PATCH = (6, 6, 6)
DRAWS = 60


def _check_apart(shown: dict[str, list[np.ndarray]], size: int) -> None:
    voxels = {split: set(np.concatenate(found).tolist()) for split, found in shown.items()}
    assert not voxels["train"] & voxels["validation"]
    assert not voxels["train"] & voxels["test"]
    assert not voxels["validation"] & voxels["test"]
    assert min(map(len, voxels.values())) > 0.02 * size


@pytest.mark.parametrize("shape", SHAPES)
def test_splits_of_a_label_share_no_voxel(shape, monkeypatch) -> None:
    # Without smoothing a voxel that tells its number is shown as it is.
    monkeypatch.setattr(vessel_sources, "_ANTIALIAS", 0.0)
    numbers = LabelVolume(np.arange(np.prod(shape)).reshape(shape), (2.0, 2.0, 2.0))
    shown = {
        split: [
            label_light(
                numbers,
                split=split,
                shape=PATCH,
                spacing_um=(2.0, 2.0, 2.0),
                rng=np.random.default_rng(draw),
            ).ravel()
            for draw in range(DRAWS)
        ]
        for split in SPLITS
    }
    _check_apart(shown, numbers.mask.size)


@pytest.mark.parametrize("shape", SHAPES)
def test_splits_of_a_background_share_no_voxel(shape) -> None:
    numbers = Background(np.arange(np.prod(shape)).reshape(shape), 1.0)
    shown = {
        split: [
            background_light(
                numbers, split=split, shape=PATCH, rng=np.random.default_rng(draw)
            ).ravel()
            for draw in range(DRAWS)
        ]
        for split in SPLITS
    }
    _check_apart(shown, numbers.image.size)
