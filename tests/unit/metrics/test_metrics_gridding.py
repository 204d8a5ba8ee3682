import numpy as np
import pytest

from vasculome.metrics.gridding import gridding_index_db


def density(pull, ndim, seed=0, count=60000):
    """Counts of positions drawn even in the voxel, then pulled by a part towards its middle."""
    rng = np.random.default_rng(seed)
    voxels = 40 if ndim == 2 else 14
    position = rng.uniform(0, voxels, (count, ndim))
    middle = np.floor(position) + 0.5
    position += pull * (middle - position)
    return np.histogramdd(position, [np.linspace(0, voxels, 10 * voxels + 1)] * ndim)[0]


@pytest.mark.parametrize("ndim", [2, 3])
def test_none_some_and_all(ndim):
    # Without gridding both harmonics stand at about their surroundings: 20 log10 of about 2.
    none, some, all_ = (gridding_index_db(density(p, ndim)) for p in (0.0, 0.4, 0.95))
    assert none == pytest.approx(20 * np.log10(2), abs=2.5)
    assert none + 5 < some < all_ - 10


def test_against_the_formula_along_one_axis():
    # Along x the same everywhere: all of the power is at frequency 0, and no line has surroundings.
    rng = np.random.default_rng(1)
    image = rng.poisson(3.0 + 2 * np.cos(2 * np.pi * np.arange(300) / 10))[:, None] * np.ones(300)
    image = image + rng.normal(size=image.shape)
    power = np.abs(np.fft.fft2(image)) ** 2
    total = 0.0
    for line in (power.sum(1), power.sum(0)):
        for f in (30, 60):
            around = [line[f + k] for k in (-5, -4, -3, 3, 4, 5)]
            total += max(line[f - 1 : f + 2]) / np.mean(around)
    assert gridding_index_db(image) == pytest.approx(20 * np.log10(total / 2))


def test_too_small_a_map():
    with pytest.raises(ValueError, match="gridding"):
        gridding_index_db(np.ones((40, 400)))
    with pytest.raises(ValueError, match="gridding"):
        gridding_index_db(np.ones((400, 400)), pixels_per_voxel=3)
