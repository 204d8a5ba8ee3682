from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vasculome.simulate.microscope import Microscope
from vasculome.simulate.mosaic import take_tiles

SCOPE = replace(Microscope(), photons=100.0, gain=20.0)


@pytest.fixture(scope="session")
def light():
    """A sample of blobs and texture, smooth on the scale of a voxel; float32 (28, 400, 400)."""
    rng = np.random.default_rng(0)
    shape = (28, 400, 400)
    grain = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (1.5, 3, 3))
    blobs = (rng.random(shape, dtype=np.float32) < 1e-3).astype(np.float32)
    blobs = gaussian_filter(blobs, (1, 1.5, 1.5))
    return (0.12 * np.exp(0.4 * grain / grain.std()) + blobs / blobs.max()).astype(np.float32)


@pytest.fixture
def take(light):
    """Take tiles of the sample, each with noise of its own."""

    def of(starts, shape, *, seed=0, scope=SCOPE, **kwargs):
        rng = np.random.default_rng(seed)
        return take_tiles(
            light, np.asarray(starts, float), tile_shape=shape, rng=rng, microscope=scope, **kwargs
        )

    return of
