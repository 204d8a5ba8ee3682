from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vasculome.simulate.microscope import Microscope, render
from vasculome.simulate.phantoms import microscope_phantom

PLAIN = Microscope(
    texture=0.0,
    patchiness=0.0,
    attenuation_um=np.inf,
    uneven_illumination=0.0,
    stripes=0.0,
    background=0.1,
    read_noise=0.0,
)


def test_a_plain_microscope_blurs_and_counts_photons() -> None:
    lumen = np.zeros((20, 40, 50), np.float32)
    lumen[6:14, 15:25] = 1.0
    spacing = (4.0, 2.0, 2.0)
    image = render(lumen, spacing_um=spacing, rng=np.random.default_rng(0), microscope=PLAIN)
    light = gaussian_filter(0.1 + 0.9 * lumen, np.divide(PLAIN.psf_sigma_um, spacing))
    photons = (image.astype(np.float64) - PLAIN.offset) / PLAIN.gain
    expected = PLAIN.photons * light
    assert image.dtype == np.uint16
    assert photons.mean() == pytest.approx(expected.mean(), rel=0.005)
    # Poisson: variance equals the mean.
    assert np.mean((photons - expected) ** 2 / expected) == pytest.approx(1.0, rel=0.05)


def test_light_falls_with_depth_and_the_camera_saturates() -> None:
    fading = replace(PLAIN, attenuation_um=100.0, bits=12, gain=20.0)
    lumen = np.ones((50, 30, 30), np.float32)
    image = render(
        lumen, spacing_um=(4.0, 2.0, 2.0), rng=np.random.default_rng(0), microscope=fading
    )
    assert image.max() == 4095
    deep = image.astype(float).mean(axis=(1, 2)) - fading.offset
    assert deep[45] / deep[25] == pytest.approx(np.exp(-80 / 100), rel=0.1)


def test_bits_are_checked() -> None:
    with pytest.raises(ValueError, match="1 to 16"):
        Microscope(bits=17)


def test_the_phantom_repeats_and_shows_its_vessels() -> None:
    volume, mask = microscope_phantom(3, shape=(24, 96, 96))
    again, _ = microscope_phantom(3, shape=(24, 96, 96))
    assert np.array_equal(volume, again)
    assert 0.01 < mask.mean() < 0.25
    vessel, tissue = volume[mask].astype(float), volume[~mask].astype(float)
    # How often a vessel voxel outshines a tissue voxel (area under the ROC curve).
    rng = np.random.default_rng(0)
    assert np.mean(rng.choice(vessel, 20000) > rng.choice(tissue, 20000)) > 0.95
