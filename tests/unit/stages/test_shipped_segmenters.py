"""The segmenters that ship, on vessels whose course is known, as the stage uses them."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vasculome.config.segment import FILTERS, Segmenter
from vasculome.geometry import Box
from vasculome.models.build import build
from vasculome.models.vessel_tiles import vessel_probability
from vasculome.models.windows import WindowPlan
from vasculome.storage.weights import fill, read_weights, shipped, shipped_weights

SHAPE = (64, 96, 96)
# How much of the dark may be taken for vessels: the teacher has learnt from few patches, and sees
# more in noise.
SEGMENTERS = {"student": 0.01, "student_seen": 0.01, "teacher": 0.03}


@pytest.fixture(scope="module", params=SEGMENTERS)
def segmenter(request):
    path = shipped(request.param)
    tensors, card = read_weights(path)
    network = build(card["architecture"], card["arguments"])
    fill(network, tensors, path=path)
    return network.eval(), card["metrics"]["threshold"], SEGMENTERS[request.param]


def _vessels():
    """Return the distance in voxels from the nearest of two crossing tubes, and their light."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    squared = np.minimum((z - 30) ** 2 + (y - 40 - x / 4) ** 2, (z - 30) ** 2 + (x - 60) ** 2)
    return np.sqrt(squared), np.exp(-squared / (2 * 2.0**2))


def _mask(segmenter, light, *, photons, seed):
    network, threshold, _ = segmenter
    rng = np.random.default_rng(seed)
    seen = rng.poisson(photons * (0.1 + light)).astype(np.float32)
    low, high = seen.min(), np.percentile(seen, 99.5)
    image = np.clip((seen - low) / (high - low), 0, 1)
    plan = WindowPlan(image.shape, 64, 16, 32, least=64)
    part = vessel_probability(
        network, lambda box: image[box.slices], Box.of_shape(image.shape), plan, batch_size=2
    )
    return part.probability >= threshold


@pytest.mark.parametrize("photons", [100, 1000])
def test_tubes_are_found_whole_and_nothing_else(segmenter, photons):
    distance, light = _vessels()
    mask = _mask(segmenter, light, photons=photons, seed=0)
    assert mask[distance < 1.5].mean() > 0.98
    assert mask[distance > 8].mean() < segmenter[2]


def _tube(radius, shape=SHAPE):
    """Return the distance in voxels from the middle of a tube, and its light."""
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    distance = np.sqrt((z - shape[0] // 2) ** 2 + (y - 40 - x / 4) ** 2)
    return distance, gaussian_filter((distance < radius).astype(float), 1.0)


@pytest.mark.parametrize("segmenter", ["student_seen"], indirect=True)
@pytest.mark.parametrize("radius", [5, 8, 10, 16, 24])
def test_diameters_are_those_of_the_tube(segmenter, radius):
    distance, light = _tube(radius)
    mask = _mask(segmenter, light, photons=1000, seed=0)
    assert np.sqrt(mask.sum() / (distance < radius).sum()) == pytest.approx(1, abs=0.06)


# As wide as docs/microscopy.md tells.
@pytest.mark.parametrize(
    ("segmenter", "radius"),
    [("student", 28), ("student_seen", 28), ("teacher", 14)],
    indirect=["segmenter"],
)
@pytest.mark.parametrize("photons", [100, 1000])
def test_wide_vessels_are_filled(segmenter, radius, photons):
    distance, light = _tube(radius, (96, 96, 96))
    mask = _mask(segmenter, light, photons=photons, seed=0)
    assert mask[distance < radius - 1].mean() > 0.98
    assert mask[distance > radius + 3].mean() < 0.01


def test_all_that_the_configuration_names_ship():
    names, _ = get_args(Segmenter)
    assert set(get_args(names)) - set(FILTERS) == set(SEGMENTERS)


def test_all_weights_fit_in_what_the_package_may_weigh():
    assert sum(path.stat().st_size for path in shipped_weights()) < 20e6
