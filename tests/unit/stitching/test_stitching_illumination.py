import numpy as np
import pytest
from scipy.ndimage import binary_erosion, uniform_filter

from vasculome.geometry import Box
from vasculome.simulate.mosaic import grid_starts, sample_at, vignette
from vasculome.stitching.fuse import covered, fuse
from vasculome.stitching.illumination import estimate_shading, solve_gains
from vasculome.stitching.levels import dark_tiles, sample_field, sample_overlap
from vasculome.stitching.register import find_pairs

SHAPE = (20, 154, 154)
COUNT = 9


@pytest.fixture
def mosaic(take):
    """Nine tiles with vignetting of 30 % and gains of 15 %, and what was done to them."""
    rng = np.random.default_rng(1)
    starts, _ = grid_starts(
        (1, 3, 3), tile_shape=SHAPE, overlap=(0, 36, 36), jitter=(2, 3, 3), rng=rng
    )
    gains = rng.uniform(0.85, 1.15, COUNT)
    light = vignette(SHAPE[1:], 0.3)
    tiles = take(starts, SHAPE, shading=light, gains=gains)
    return tiles, starts, light / light.mean(), gains / np.exp(np.log(gains).mean())


def sampled(tiles, starts):
    overlaps = [
        sample_overlap(i, j, tiles[i], tiles[j], starts[j] - starts[i])
        for i, j in find_pairs(starts, [t.shape for t in tiles])
    ]
    return [sample_field(tile) for tile in tiles], [s for s in overlaps if s is not None]


def test_flat_field_dark_level_and_gains_are_found(mosaic):
    tiles, starts, flat, gains = mosaic
    fields, overlaps = sampled(tiles, starts)
    shading = estimate_shading(fields, overlaps, SHAPE[1:])
    assert shading.flat.mean() == pytest.approx(1, abs=1e-4)
    assert shading.dark == pytest.approx(200, abs=20)
    assert np.std(shading.flat / flat) < 0.012
    found = solve_gains(overlaps, COUNT, shading=shading)
    assert np.std(found / gains) < 0.02
    assert np.log(found).mean() == pytest.approx(0, abs=1e-9)
    known = estimate_shading(fields, overlaps, SHAPE[1:], dark=200.0)
    assert known.dark == 200
    assert np.std(known.flat / flat) < 0.012


def test_levels_below_0_have_had_the_dark_level_taken_off(mosaic):
    tiles, starts, flat, gains = mosaic
    tiles = [tile.astype(np.float32) - 200 for tile in tiles]
    rng = np.random.default_rng(0)
    for tile in tiles:
        # As where too much background was taken off.
        tile[:, 60:80, 130:] = rng.normal(-60, 6, tile[:, 60:80, 130:].shape)
    fields, overlaps = sampled(tiles, starts)
    assert min(s.levels_i.min() for s in overlaps) < 0
    shading = estimate_shading(fields, overlaps, SHAPE[1:])
    assert shading.dark == 0
    assert np.std(shading.flat / flat) < 0.012
    assert np.std(solve_gains(overlaps, COUNT, shading=shading) / gains) < 0.02


def test_nothing_above_the_dark_level_is_no_light(mosaic):
    tiles, starts, _, _ = mosaic
    fields, overlaps = sampled(tiles, starts)
    shading = estimate_shading(fields, overlaps, SHAPE[1:], dark=1e6)
    np.testing.assert_allclose(shading.flat, 1, atol=1e-6)


def test_a_tile_that_shows_light_anywhere_is_not_dark():
    # A ring of tiles, each dark on one side only: no one of them is without an image.
    pairs = np.array([(0, 1), (1, 2), (2, 3), (3, 0)])
    levels = np.tile([200.0, 2000.0], (4, 1))
    assert not dark_tiles(pairs, levels, np.zeros(4, bool), count=4).any()
    # One that is dark on all sides is.
    levels = np.array([[200.0, 2000.0], [2000.0, 1900.0], [1900.0, 2000.0], [2000.0, 201.0]])
    held = np.array([False, True, True, False])
    assert dark_tiles(pairs, levels, held, count=4).tolist() == [True, False, False, False]


def test_seams_vanish(mosaic, light):
    tiles, starts, _, _ = mosaic
    fields, overlaps = sampled(tiles, starts)
    shading = estimate_shading(fields, overlaps, SHAPE[1:])
    gains = solve_gains(overlaps, COUNT, shading=shading)
    box = Box((4, 4, 4), (20, 380, 380))
    truth = uniform_filter(sample_at(light, box.start, box.shape), (5, 9, 9))
    count = np.zeros(box.shape[1:], int)
    for start in starts:
        where = covered(start, SHAPE).intersect(box)
        count[where.relative_to(box).slices[1:]] += 1
    inside = binary_erosion(count > 0, iterations=6)
    errors = {}
    for name, options in (
        ("raw", {}),
        ("corrected", {"shading": shading, "gains": gains}),
    ):
        fused = fuse(tiles, starts, box, **options).astype(float) - 200
        fused = uniform_filter(fused, (5, 9, 9))
        ratio = fused[:, inside].sum() / truth[:, inside].sum()
        seams = inside & (count > 1)
        off = fused[:, seams] / ratio - truth[:, seams]
        errors[name] = np.sqrt(np.mean(off**2)) / truth[:, seams].mean()
    assert errors["corrected"] < 0.02
    assert errors["raw"] > 0.07


def test_even_light_is_left_alone(take):
    starts = np.array([[1, 5, 5], [1, 5, 120], [1, 120, 5], [1, 120, 120]], float)
    tiles = take(starts, SHAPE)
    fields, overlaps = sampled(tiles, starts)
    shading = estimate_shading(fields, overlaps, SHAPE[1:])
    assert np.abs(shading.flat - 1).max() < 0.03
    np.testing.assert_allclose(solve_gains(overlaps, 4, shading=shading), 1, atol=0.01)


def test_many_tiles_tell_a_tilt_that_overlaps_cannot():
    rng = np.random.default_rng(2)
    tilt = np.linspace(0.8, 1.2, 96)[None, :] * np.ones((96, 1))
    fields = [
        sample_field(100 + tilt * rng.normal(1000, 30, (2, 96, 96)) * rng.uniform(0.8, 1.2))
        for _ in range(60)
    ]
    shading = estimate_shading(fields, [], (96, 96), dark=100.0)
    assert np.abs(shading.flat / tilt - 1).max() < 0.03


def test_a_false_overlap_changes_few_gains(mosaic):
    tiles, starts, _, gains = mosaic
    fields, overlaps = sampled(tiles, starts)
    shading = estimate_shading(fields, overlaps, SHAPE[1:])
    bad = overlaps[2]
    overlaps[2] = bad._replace(levels_i=bad.levels_i * 3)
    found = solve_gains(overlaps, COUNT, shading=shading)
    assert np.std(found / gains) < 0.025


def test_tiles_without_overlap_have_a_gain_of_1(mosaic):
    tiles, starts, _, _ = mosaic
    fields, overlaps = sampled(tiles, starts)
    shading = estimate_shading(fields, overlaps, SHAPE[1:])
    few = [s for s in overlaps if {s.i, s.j} <= {0, 1}]
    found = solve_gains(few, 4, shading=shading)
    assert found[2:].tolist() == [1, 1]
    assert found[0] * found[1] == pytest.approx(1)
    assert solve_gains([], 3, shading=shading).tolist() == [1, 1, 1]


def test_there_must_be_something_to_learn_from():
    with pytest.raises(ValueError, match="at least one"):
        estimate_shading([], [], (10, 10))
    tile = np.zeros((2, 50, 50), np.uint16)
    assert sample_overlap(0, 1, tile, tile, (0, 0, 45)) is None
    assert sample_overlap(0, 1, tile, tile, (0, 0, 60)) is None


def test_samples_are_of_the_same_place():
    volume = np.random.default_rng(3).integers(100, 9000, (6, 90, 90), dtype=np.uint16)
    one, two = volume[:5, :60, :60], volume[1:, 20:80, 30:90]
    sample = sample_overlap(3, 5, one, two, (1.2, 19.8, 30.1))
    assert (sample.i, sample.j) == (3, 5)
    np.testing.assert_array_equal(sample.levels_i, sample.levels_j)
    np.testing.assert_array_equal(
        sample.field_i - sample.field_j, [[20, 30]] * len(sample.levels_i)
    )
    assert sample.levels_i[0] == pytest.approx(volume[1, 20:28, 30:38].mean(), rel=1e-6)
