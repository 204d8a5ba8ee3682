"""Bubbles that flow in the vessels of a real mouse brain, through the whole ultrasound chain.

The brain is the super-resolved map mouse04week2.mat: its density is the vessels, its velocity the
speed of the bubbles. docs/results.md has the figures at other concentrations.
"""

import json

import numpy as np
import pytest
from real_ulm import (
    AREA_MM2,
    IQ_PIXELS,
    MAP_PIXEL_UM,
    WAVELENGTH_UM,
    acquire,
    load_brain,
    reconstruct,
    score,
)

from vasculome.storage.omezarr import open_image

N_FRAMES = 2000
BUBBLES_PER_MM2 = 2.0

# A little less good than measured, with the default settings.
AT_LEAST = {
    "jaccard": 0.68,
    "jaccard_pala": 0.68,
    "precision": 0.88,
    "recall": 0.74,
    "link_precision": 0.965,
    "link_recall": 0.72,
    "dice_truth": 0.835,
    "part_on_map": 0.96,
}
AT_MOST = {
    "rmse_wavelengths": 0.14,
    "track_rmse_wavelengths": 0.097,
    "speed_error": 0.11,
    "map_speed_error": 0.115,
}


@pytest.fixture(scope="session")
def brain(data):
    return load_brain(data)


@pytest.fixture(scope="module")
def acquisition(brain, tmp_path_factory):
    """Raw IQ in a file, and the bubbles that are in it."""
    raw = tmp_path_factory.mktemp("ulm") / "mouse.npy"
    mean_bubbles = BUBBLES_PER_MM2 * AREA_MM2
    return raw, acquire(brain, raw, mean_bubbles=mean_bubbles, n_frames=N_FRAMES, seed=0)


@pytest.fixture(scope="module")
def results(acquisition):
    raw, _ = acquisition
    return reconstruct(raw, raw.parent / "results")


def test_bubbles_keep_to_the_maps_vessels_and_speeds(brain, acquisition):
    _, bubbles = acquisition
    pixel = np.rint(bubbles.position_um / MAP_PIXEL_UM).astype(int)
    speed = np.linalg.norm(bubbles.velocity_mm_s, axis=1)
    mapped = brain.flow.speed_mm_s[tuple(pixel.T)]
    assert np.all(mapped > 0)
    assert np.median(np.abs(speed - mapped) / mapped) < 0.05


def test_reconstruction_agrees_with_the_truth(brain, acquisition, results):
    scores = score(results, acquisition[1], brain)
    print(json.dumps({name: round(value, 4) for name, value in scores.items()}, indent=2))
    missed = {n: (scores[n], f) for n, f in AT_LEAST.items() if not scores[n] > f}
    missed |= {n: (scores[n], f) for n, f in AT_MOST.items() if not scores[n] < f}
    assert not missed
    # No reconstruction of so few bubbles can fill the map: their own paths are the limit.
    assert scores["dice_map"] > 0.9 * scores["dice_map_of_truth"]


def test_maps_cover_the_image_at_a_tenth_of_a_wavelength(results):
    density = open_image(results / "maps/density.ome.zarr")
    assert density.spec.shape == (5 * IQ_PIXELS, 5 * IQ_PIXELS)
    assert density.spec.spacing_um == pytest.approx((WAVELENGTH_UM / 10,) * 2)
    # The centre of a pixel that covers pixels 0 and 1 of the real map along each axis.
    assert density.spec.origin_um == pytest.approx((MAP_PIXEL_UM / 2,) * 2)
