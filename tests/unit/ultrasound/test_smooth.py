import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from vasculome.ultrasound.smooth import add_velocities, smooth, smooth_plainly


def tracks_of(*paths, frames=None):
    frames = [np.arange(len(p)) for p in paths] if frames is None else frames
    points = np.concatenate(paths)
    axes = "zx" if points.shape[1] == 2 else "zyx"
    return {
        "track": np.repeat(np.arange(len(paths)), [len(p) for p in paths]),
        "frame": np.concatenate(frames),
        **{f"{axis}_um": points[:, k] for k, axis in enumerate(axes)},
    }


def position(table):
    return np.stack([table[f"{a}_um"] for a in "zyx" if f"{a}_um" in table], axis=1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_straight_tracks_stay_where_they_are(ndim):
    rng = np.random.default_rng(0)
    frames = [np.sort(rng.choice(60, n, replace=False)) for n in (1, 2, 3, 8, 40)]
    paths = [rng.normal(0, 500, ndim) + f[:, None] * rng.normal(0, 50, ndim) for f in frames]
    table = tracks_of(*paths, frames=frames)
    for sigma in (0, 1.5, 5):
        np.testing.assert_allclose(
            position(smooth(table, sigma_frames=sigma)), np.concatenate(paths), atol=1e-6
        )


def test_noise_falls_and_short_curves_are_not_flattened():
    rng = np.random.default_rng(1)
    arcs = []
    for n in (8, 15, 60):
        angle = 0.06 * np.arange(n) + rng.uniform(0, 6, (3000 // n, 1))
        arcs += list(500 * np.stack([np.cos(angle), np.sin(angle)], axis=2))
    truth = np.concatenate(arcs)
    noisy = [arc + rng.normal(0, 15, arc.shape) for arc in arcs]
    table = tracks_of(*noisy)
    for sigma, bound in ((2, 14.0), (5, 16.0)):
        error = np.linalg.norm(position(smooth(table, sigma_frames=sigma)) - truth, axis=1)
        raw = np.linalg.norm(position(table) - truth, axis=1)
        assert np.sqrt(np.mean(error**2)) < bound < np.sqrt(np.mean(raw**2))


def test_tracks_do_not_touch_each_other():
    rng = np.random.default_rng(2)
    paths = [rng.normal(0, 100, (n, 2)) for n in (20, 9, 30)]
    together = position(smooth(tracks_of(*paths), sigma_frames=3))
    alone = [position(smooth(tracks_of(p), sigma_frames=3)) for p in paths]
    assert (together == np.concatenate(alone)).all()


def test_velocities_over_true_times():
    # x = t² in frames at 500 Hz: the central difference over (t0, t2) is t0 + t2, exactly.
    frames = np.array([0, 1, 4, 5])
    path = np.stack([np.full(4, 7.0), frames**2.0], axis=1)
    table = add_velocities(
        tracks_of(path, path[:1], frames=[frames, frames[:1]]), frame_rate_hz=500
    )
    per_frame = np.array([1, 4, 6, 9]) * 500 / 1000
    np.testing.assert_allclose(table["vx_mm_s"][:4], per_frame)
    np.testing.assert_allclose(table["vz_mm_s"][:4], 0)
    assert np.isnan(table["vx_mm_s"][4])


def test_empty_table_and_wrong_numbers():
    empty = tracks_of(np.empty((0, 3)))
    assert len(add_velocities(smooth(empty, sigma_frames=2), frame_rate_hz=1)["vy_mm_s"]) == 0
    with pytest.raises(ValueError, match="sigma"):
        smooth(empty, sigma_frames=-1)
    with pytest.raises(ValueError, match="frame rate"):
        add_velocities(empty, frame_rate_hz=0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_plain_smoothing_is_that_of_scipy_track_by_track(ndim):
    rng = np.random.default_rng(8)
    paths = [rng.normal(0, 100, (n, ndim)) for n in (1, 4, 30)]
    plain = position(smooth_plainly(tracks_of(*paths), sigma_frames=5))
    expected = np.concatenate([gaussian_filter1d(p, 5, axis=0) for p in paths])
    np.testing.assert_allclose(plain, expected, rtol=1e-12)
    np.testing.assert_array_equal(
        position(smooth_plainly(tracks_of(*paths), sigma_frames=0)), np.concatenate(paths)
    )
    with pytest.raises(ValueError, match="sigma"):
        smooth_plainly(tracks_of(*paths), sigma_frames=-1)


def test_a_resting_bubble_hardly_moves():
    """Slopes of lines: differences of so few smoothed points would give 7.5 mm/s."""
    rng = np.random.default_rng(0)
    table = tracks_of(*rng.normal(0, 15, (300, 10, 2)))
    moving = add_velocities(table, frame_rate_hz=1000, sigma_frames=4)
    assert np.hypot(moving["vz_mm_s"], moving["vx_mm_s"]).mean() < 2.5


@pytest.mark.parametrize("sigma", [0, 1.5, 4, 20])
def test_velocities_of_straight_tracks_are_exact(sigma):
    frames = np.arange(12)
    path = np.array([5.0, -3.0]) + frames[:, None] * [2.0, -7.0]
    table = tracks_of(path)
    table = {name: column[[0, 1, 3, 4, 5, 8, 9, 11]] for name, column in table.items()}
    moving = add_velocities(table, frame_rate_hz=500, sigma_frames=sigma)
    np.testing.assert_allclose(moving["vz_mm_s"], 1.0)
    np.testing.assert_allclose(moving["vx_mm_s"], -3.5)


def test_velocities_on_a_circle_keep_to_it():
    """At 5 voxels radius and half a voxel a frame a line of σ = 4 loses a tenth of the speed."""
    angle = np.arange(40) * 0.1
    path = 500 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    moving = add_velocities(tracks_of(path), frame_rate_hz=1000, sigma_frames=4)
    speed = np.hypot(moving["vz_mm_s"], moving["vx_mm_s"])
    np.testing.assert_allclose(speed, 50, rtol=0.1)
    along = -moving["vz_mm_s"] * np.sin(angle) + moving["vx_mm_s"] * np.cos(angle)
    assert np.median(along / speed) > 0.999
