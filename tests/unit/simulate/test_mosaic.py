from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from vasculome.simulate.microscope import Microscope
from vasculome.simulate.mosaic import grid_starts, sample_at, take_tiles, vignette


def waves(z, y, x):
    return 2 + np.sin(0.4 * z) + np.cos(0.5 * y + 1) + np.sin(0.3 * x + 0.6 * y)


def test_samples_between_voxels_follow_the_continuous_signal():
    volume = waves(*np.indices((40, 50, 60))).astype(np.float32)
    start = (10.3, 12.75, 15.0)
    part = sample_at(volume, start, (20, 22, 24))
    at = np.indices((20, 22, 24)) + np.reshape(start, (3, 1, 1, 1))
    np.testing.assert_allclose(part, waves(*at), atol=2e-3)


def test_samples_agree_with_scipys_spline():
    volume = gaussian_filter(np.random.default_rng(0).random((30, 40, 50)), 1).astype(np.float32)
    part = sample_at(volume, (3.5, 0.25, 7.0), (20, 30, 40))
    whole = shift(volume.astype(float), (-3.5, -0.25, -7.0), order=3, mode="mirror")
    np.testing.assert_allclose(part, whole[:20, :30, :40], atol=1e-5)
    np.testing.assert_array_equal(sample_at(volume, (1, 2, 3), (9, 9, 9)), volume[1:10, 2:11, 3:12])
    with pytest.raises(ValueError, match="leave"):
        sample_at(volume, (0.5, 0, 0), (30, 40, 50))


def test_a_grid_of_tiles_overlaps_and_errs_within_its_jitter():
    starts, nominal = grid_starts(
        (1, 2, 3),
        tile_shape=(8, 30, 40),
        overlap=(0, 6, 10),
        jitter=(1, 2, 3),
        rng=np.random.default_rng(0),
    )
    assert starts.shape == (6, 3)
    assert (starts >= 0).all()
    assert (np.abs(starts - nominal) <= (1, 2, 3)).all()
    assert (nominal[-1] - nominal[0]).tolist() == [0, 24, 60]


def test_tiles_are_shaded_and_share_no_noise():
    scope = replace(Microscope(), offset=100.0)
    light = np.full((30, 20, 22), 0.5, np.float32)
    starts = np.zeros((2, 3))
    bright, dim = take_tiles(
        light,
        starts,
        tile_shape=light.shape,
        rng=np.random.default_rng(0),
        microscope=scope,
        shading=vignette((20, 22), 0.3),
        gains=(1.0, 0.8),
    )
    expected = scope.gain * scope.photons * 0.5 * vignette((20, 22), 0.3)
    np.testing.assert_allclose(bright.mean(0) - 100, expected, rtol=0.08)
    assert (dim.mean() - 100) / (bright.mean() - 100) == pytest.approx(0.8, rel=0.01)
    noise = [(t - t.mean(0)).ravel() for t in (bright.astype(float), dim.astype(float))]
    assert abs(np.corrcoef(noise)[0, 1]) < 0.03
