import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.geometry import Box
from vasculome.ultrasound.render import accumulate, empty_sums, maps
from vasculome.ultrasound.smooth import add_velocities


def random_tracks(seed, ndim, n_tracks=30, n_points=12, side_um=300.0):
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 12, (n_tracks, n_points, ndim))
    path = rng.uniform(0, side_um, (n_tracks, 1, ndim)) + np.cumsum(steps, axis=1)
    table = {
        "track": np.repeat(np.arange(n_tracks), n_points),
        "frame": np.tile(np.cumsum(rng.integers(1, 3, n_points)), n_tracks),
        **{
            f"{axis}_um": path[..., k].ravel()
            for k, axis in enumerate("zx" if ndim == 2 else "zyx")
        },
    }
    return add_velocities(table, frame_rate_hz=1000)


def draw(table, box, **options):
    grid = {"pixel_um": (10.0,) * box.ndim, "origin_um": (0.0,) * box.ndim, **options}
    sums = empty_sums(box)
    accumulate(sums, table, box=box, **grid)
    return sums


def part(table, keep):
    return {name: column[keep] for name, column in table.items()}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2, 3]), st.integers(0, 29))
def test_boxes_and_parts_add_up_to_the_bit(seed, ndim, cut):
    table = random_tracks(seed, ndim)
    whole = draw(table, Box((-3,) * ndim, (30,) * ndim))
    box = Box((2, 5, 0)[:ndim], (22, 19, 25)[:ndim])
    tile = empty_sums(box)
    for keep in (table["track"] < cut, table["track"] >= cut):
        accumulate(
            tile, part(table, keep), box=box, pixel_um=(10.0,) * ndim, origin_um=(0.0,) * ndim
        )
    for name, total in tile.items():
        crop = whole[name][box.translate((3,) * ndim).slices]
        assert crop.tobytes() == total.tobytes()


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_track_marks_exactly_the_voxels_that_it_crosses(ndim):
    table = random_tracks(7, ndim, n_tracks=8)
    size = 30 if ndim == 2 else 26
    box = Box.of_shape((size,) * ndim)
    corners = np.stack(np.meshgrid(*[np.arange(size)] * ndim, indexing="ij"), axis=-1) - 0.5
    for k in range(8):
        one = part(table, table["track"] == k)
        points = np.stack([one[f"{a}_um"] for a in "zyx" if f"{a}_um" in one], axis=1) / 10
        crossed = np.zeros(box.shape, bool)
        for a, b in itertools.pairwise(points):
            # Clip the segment against the faces of every voxel.
            ends = np.stack([(corners - a) / (b - a), (corners + 1 - a) / (b - a)])
            enter, leave = ends.min(axis=0).max(axis=-1), ends.max(axis=0).min(axis=-1)
            crossed |= np.maximum(enter, 0) < np.minimum(leave, 1)
        assert (np.asarray(draw(one, box)["count"] > 0) == crossed).all()


def test_counts_passages_not_frames():
    # Three frames in voxel 1, out to 2 and back into 1: two passages of 1, one of 2.
    table = add_velocities(
        {
            "track": np.zeros(5, int),
            "frame": np.arange(5),
            "z_um": np.zeros(5),
            "x_um": np.array([8.0, 10.0, 12.0, 18.0, 11.0]),
        },
        frame_rate_hz=1000,
    )
    assert draw(table, Box.of_shape((1, 4)))["count"].tolist() == [[0, 2, 1, 0]]


def test_velocity_and_direction_of_a_steady_flow():
    t = np.arange(20)
    down_left = {
        "track": np.zeros(20, int),
        "frame": 3 * t,
        "z_um": 30.0 + 12 * t,
        "x_um": 300.0 - 12 * t,
    }
    table = add_velocities(down_left, frame_rate_hz=1000)
    made = maps(draw(table, Box.of_shape((40, 40))))
    seen = made["density"] > 0
    np.testing.assert_allclose(made["vz_mm_s"][seen], 4, rtol=1e-5)
    np.testing.assert_allclose(made["vx_mm_s"][seen], -4, rtol=1e-5)
    np.testing.assert_allclose(made["speed_mm_s"][seen], 4 * np.sqrt(2), rtol=1e-5)
    np.testing.assert_allclose(made["direction_rad"][seen], 3 * np.pi / 4, rtol=1e-5)
    assert np.isnan(made["speed_mm_s"][~seen]).all() and seen.any()


def test_mean_over_passages():
    def pass_through(track, speed):
        n = np.arange(4)
        return {
            "track": np.full(4, track),
            "frame": n,
            "z_um": np.zeros(4),
            "x_um": 5.0 + speed * n,
        }

    speeds = [10.0, 20.0, 12.0]
    parts = [pass_through(n, speed) for n, speed in enumerate(speeds)]
    table = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    made = maps(draw(add_velocities(table, frame_rate_hz=1000), Box.of_shape((1, 6))))
    assert made["density"].tolist() == [[0, 3, 3, 3, 3, 1]]
    np.testing.assert_allclose(made["speed_mm_s"][0, 1:5], np.mean(speeds), rtol=1e-6)
    error = made["speed_error_mm_s"][0]
    np.testing.assert_allclose(error[1:5], np.std(speeds, ddof=1) / np.sqrt(3), rtol=1e-6)
    assert np.isnan(error[[0, 5]]).all()


def test_the_error_of_one_passage_is_not_known_and_that_of_equal_ones_is_zero():
    n = np.arange(4)
    line = {"frame": n, "z_um": np.zeros(4), "x_um": 5.0 + 0.1 * n, "track": np.zeros(4, int)}
    twice = {k: np.concatenate([v, v + (k == "track")]) for k, v in line.items()}
    for table, expected in ((line, np.nan), (twice, 0.0)):
        made = maps(draw(add_velocities(table, frame_rate_hz=1000), Box.of_shape((1, 2))))
        np.testing.assert_equal(made["speed_error_mm_s"][0, 1], np.float32(expected))


def test_origin_pixel_and_3d_names():
    table = add_velocities(
        {
            "track": np.zeros(2, int),
            "frame": np.arange(2),
            "z_um": np.array([104.0, 104.0]),
            "y_um": np.array([-20.0, -20.0]),
            "x_um": np.array([1.0, 2.0]),
        },
        frame_rate_hz=1000,
    )
    box = Box.of_shape((8, 4, 6))
    sums = draw(table, box, pixel_um=(2.0, 5.0, 3.0), origin_um=(100.0, -30.0, 0.0))
    assert np.argwhere(sums["count"]).tolist() == [[2, 2, 0], [2, 2, 1]]
    assert set(maps(sums)) == {
        "density",
        "speed_mm_s",
        "speed_error_mm_s",
        "vz_mm_s",
        "vy_mm_s",
        "vx_mm_s",
    }


def test_refusals():
    table = random_tracks(0, 2)
    with pytest.raises(ValueError, match="axes"):
        draw(table, Box.of_shape((4, 4, 4)))
    with pytest.raises(ValueError, match="finite"):
        draw({**table, "vz_mm_s": np.full(len(table["frame"]), np.nan)}, Box.of_shape((4, 4)))
    with pytest.raises(ValueError, match="contiguous"):
        accumulate(
            empty_sums(Box.of_shape((4, 5))),
            table,
            box=Box.of_shape((5, 4)),
            pixel_um=(1, 1),
            origin_um=(0, 0),
        )
