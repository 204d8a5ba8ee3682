import inspect

import numpy as np
import pytest

from vasculome.ultrasound.detect import find_peaks
from vasculome.ultrasound.localize import (
    LOCALIZERS,
    passing,
    positions_um,
    radial_symmetry,
    weighted_centroid,
)

SHAPES = [(24, 26), (16, 17, 18)]


def one_spot_a_frame(draw_spots, shape, *, count=60, **options):
    rng = np.random.default_rng(5)
    truth = np.stack([rng.uniform(6, n - 7, count) for n in shape], axis=1)
    return truth, np.abs(draw_spots([p[None] for p in truth], shape, **options))


def position(table):
    return np.stack([table[axis] for axis in "zyx" if axis in table], axis=1)


# Root-mean-square error along an axis of spots of 3 voxels full width, without noise and at 30 dB.
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "half_width", "noise_free", "at_30_db"),
    [
        ("radial_symmetry", 1, 0.006, 0.05),
        ("radial_symmetry", 2, 0.005, 0.03),
        ("weighted_average", 2, 0.08, 0.1),
        ("weighted_centroid", 2, 0.07, 0.08),
        ("interpolation_cubic", 2, 0.085, 0.09),
        ("interpolation_lanczos", 2, 0.045, 0.075),
        ("interpolation_spline", 2, 0.035, 0.065),
        ("gaussian_fit", 1, 1e-3, 0.06),
        ("gaussian_fit", 2, 1e-3, 0.03),
        ("gaussian_fit_common_width", 1, 1e-3, 0.04),
        ("gaussian_fit_common_width", 2, 1e-3, 0.03),
        ("correlation_centroid", 2, 0.05, 0.06),
    ],
)
def test_error_against_exact_truth(draw_spots, shape, name, half_width, noise_free, at_30_db):
    for noise, bound in ((0.0, noise_free), (10 ** (-30 / 20), at_30_db)):
        truth, magnitude = one_spot_a_frame(draw_spots, shape, noise=noise)
        peaks = find_peaks(magnitude, threshold=0.5, half_width=half_width)
        table = LOCALIZERS[name](magnitude, peaks, half_width=half_width)
        assert table["frame"].tolist() == list(range(len(truth)))
        error = position(table) - truth
        assert np.sqrt(np.mean(error**2)) < bound
        assert np.abs(error.mean(axis=0)).max() < bound  # nowhere a constant offset
        assert (table["maxima"] == 1).all()


@pytest.mark.parametrize("name", [n for n in LOCALIZERS if n != "correlation_centroid"])
def test_2d_is_the_flat_case_of_3d(draw_spots, name):
    # Along an axis on which nothing changes, the 3-D method sees the same spot as the 2-D one. A
    # correlation has no centre along it, and a Gaussian only the width that it may at most have.
    _, magnitude = one_spot_a_frame(draw_spots, (24, 26), count=10, noise=0.02)
    peaks = find_peaks(magnitude, threshold=0.5)
    flat = LOCALIZERS[name](magnitude, peaks)
    # Ever so slightly lower to the sides, so that a maximum along y exists.
    sides = 1 - 1e-4 * np.abs(np.arange(9) - 4)
    deep = magnitude[:, :, None, :] * sides[:, None].astype(np.float32)
    solid = LOCALIZERS[name](deep, np.insert(peaks, 2, 4, axis=1))
    np.testing.assert_allclose(solid["y"], 4, atol=1e-2)
    for axis in "zx":
        np.testing.assert_allclose(solid[axis], flat[axis], atol=0.05)


@pytest.mark.parametrize("name", LOCALIZERS)
def test_every_localizer_is_called_alike(draw_spots, name):
    parameters = inspect.signature(LOCALIZERS[name]).parameters
    assert list(parameters)[:4] == ["magnitude_t", "peaks", "half_width", "first_frame"]
    none = LOCALIZERS[name](np.ones((1, 9, 9)), np.empty((0, 3), np.int64))
    assert all(len(column) == 0 for column in none.values())
    frames = np.abs(draw_spots([np.array([[8.0, 11.0]])] * 2, (20, 22)))
    some = LOCALIZERS[name](frames, find_peaks(frames, threshold=0.5), first_frame=800)
    assert some["frame"].tolist() == [800, 801]
    assert {k: v.dtype for k, v in some.items()} == {k: v.dtype for k, v in none.items()}
    # A scanner's unit is its own: positions do not depend on it.
    for factor in (1e-6, 1e6):
        scaled = LOCALIZERS[name](
            frames * np.float32(factor), find_peaks(frames, threshold=0.5), first_frame=800
        )
        np.testing.assert_allclose(position(scaled), position(some), atol=1e-4)


def test_radial_symmetry_of_an_ellipse():
    z, x = np.mgrid[:21, :21]
    spot = np.exp(-((z - 10.3) ** 2) / 2 - ((x - 9.8) ** 2) / 6)[None]
    table = radial_symmetry(spot, find_peaks(spot, threshold=0.5))
    assert table["z"][0] == pytest.approx(10.3, abs=0.1)
    assert table["x"][0] == pytest.approx(9.8, abs=0.1)


def test_gates_and_flags():
    z, x = np.mgrid[:21, :41]
    crowded = np.exp(-((z - 10) ** 2 + (x - 10) ** 2) / 2) + 0.8 * np.exp(
        -((z - 10) ** 2 + (x - 13) ** 2) / 2
    )
    lone = np.exp(-((z - 10) ** 2 + (x - 30) ** 2) / 2)
    frame = (crowded + lone)[None]
    table = radial_symmetry(frame, find_peaks(frame, threshold=0.5), half_width=3)
    near = np.abs(table["x"] - 30) < 1
    assert table["maxima"][near].tolist() == [1] and (table["maxima"][~near] == 2).all()
    assert table["score"][near].min() > table["score"][~near].max()
    # A slope has no spot on it: its gradient lines are parallel.
    slope = np.broadcast_to(np.arange(21.0), (1, 21, 21))
    assert len(radial_symmetry(slope, np.array([[0, 10, 10]]))["z"]) == 0


def test_flat_patch_is_not_a_spot():
    flat = np.ones((1, 9, 9), np.float32)
    for name, localizer in LOCALIZERS.items():
        if name == "weighted_average":  # that of a flat patch is its middle
            continue
        assert len(localizer(flat, np.array([[0, 4, 4]]))["z"]) == 0


def test_quality_gates(draw_spots):
    rng = np.random.default_rng(3)
    spots = [rng.uniform(4, 36, (12, 2)) for _ in range(30)]
    frames = np.abs(draw_spots(spots, (40, 40), noise=0.1))
    table = weighted_centroid(frames, find_peaks(frames, threshold=0.2), half_width=2)
    assert len(passing(table)["frame"]) == len(table["frame"])
    strict = passing(table, max_maxima=1, max_shift_px=0.4)
    offset = np.abs(position(strict) - np.rint(position(strict)))
    assert 0 < len(strict["frame"]) < len(table["frame"]) and offset.max() <= 0.4
    assert strict["maxima"].max() == 1
    for gate in ({"max_maxima": 1}, {"max_shift_px": 0.4}):
        assert len(strict["frame"]) < len(passing(table, **gate)["frame"]) < len(table["frame"])
    # Bubbles that passed are nearer to a true one than those that did not.
    error = [
        np.array(
            [
                np.linalg.norm(spots[t] - p, axis=1).min()
                for t, p in zip(some["frame"], position(some), strict=True)
            ]
        )
        for some in (strict, table)
    ]
    assert np.median(error[0]) < np.median(error[1])


def test_first_frame_and_micrometres(draw_spots):
    frames = np.abs(draw_spots([np.array([[8.0, 11.0]])] * 2, (20, 22)))
    table = radial_symmetry(frames, find_peaks(frames, threshold=0.5), first_frame=800)
    assert table["frame"].tolist() == [800, 801] and table["frame"].dtype == np.int64
    placed = positions_um(table, spacing_um=(50.0, 100.0), origin_um=(1000.0, -20.0))
    np.testing.assert_allclose(placed["z_um"], 1400, atol=1)
    np.testing.assert_allclose(placed["x_um"], 1080, atol=1)
    assert list(placed) == ["frame", "z_um", "x_um", "amplitude", "score", "maxima", "shift_px"]


def test_patches_must_fit():
    with pytest.raises(ValueError, match="beyond"):
        radial_symmetry(np.ones((1, 9, 9)), np.array([[0, 1, 4]]))
    with pytest.raises(ValueError, match="beyond"):
        radial_symmetry(np.ones((1, 9, 9)), np.array([[1, 4, 4]]))
    with pytest.raises(ValueError, match="shape"):
        radial_symmetry(np.ones((1, 9, 9)), np.array([[0, 4, 4, 4]]))
