"""A real label volume as geometry and real planes as background of rendered patches."""

from dataclasses import replace

import numpy as np
import pytest

from vasculome.config import TrainingVolume
from vasculome.stages.training_volumes import rendering_sources
from vasculome.stages.volume_sheet import Roles
from vasculome.training.vessel_patches import make_patch
from vasculome.training.vessel_scenes import light_sheet


@pytest.fixture(scope="module")
def sources(data):
    folder = data / "microscopy"
    label, planes = str(folder / "vessap_label.nii.gz"), str(folder / "planes")
    roles = Roles(
        vessels=(TrainingVolume(label=label, spacing_um=(3.0, 3.0, 3.0)),),
        backgrounds=(TrainingVolume(image=planes, spacing_um=(5.0, 2.0, 2.0), background=True),),
    )
    return rendering_sources(roles)


def test_the_label_volume_is_read_whole(sources):
    (label,) = sources.labels
    # x, y, z in the file are 325 × 304 × 600.
    assert label.mask.shape == (600, 304, 325)
    assert label.mask.mean() == pytest.approx(0.02, abs=0.002)
    (planes,) = sources.backgrounds
    assert planes.image.shape == (26, 1116, 627)


def test_patches_show_its_vessels_before_real_tissue(sources):
    scene = replace(light_sheet(), from_labels=1.0, on_planes=1.0, surface=0.0)
    parts, brighter = [], []
    for index in range(12):
        patch = make_patch(scene, split="train", index=index, seed=0, sources=sources)
        parts.append(patch.mask.mean())
        if patch.mask.sum() > 200:
            vessel, tissue = np.median(patch.raw[patch.mask]), np.median(patch.raw[~patch.mask])
            brighter.append(vessel > tissue)
    assert 0.002 < np.mean(parts) < 0.1
    assert np.mean(brighter) > 0.9
