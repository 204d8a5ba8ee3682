import numpy as np
import pytest
from scipy import ndimage

from vasculome.geometry import Box, TileGrid
from vasculome.vessels import centerline
from vasculome.vessels.skeleton import thin


def curve(points, shape):
    mask = np.zeros(shape, bool)
    mask[tuple(np.rint(points).astype(int).T)] = True
    return mask


def cylinder(radius, direction, centre, shape=(56, 56, 56)):
    """Return a cylinder through the volume, and the position along its axis of each voxel."""
    away = np.stack(np.mgrid[tuple(slice(0, n) for n in shape)], -1) - np.array(centre)
    along = away @ direction
    across = np.linalg.norm(away - along[..., None] * direction, axis=-1)
    return (across <= radius) & (np.abs(along) <= 18), along


def random_directions(count, seed=1):
    directions = np.random.default_rng(seed).normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.mark.parametrize("step", [(0, 0, 1), (1, 0, 0), (0, 1, 1), (1, 1, 1), (1, 0, 1)])
@pytest.mark.parametrize("spacing_um", [(1.0, 1.0, 1.0), (5.0, 2.0, 2.0)])
def test_straight_lines_along_the_grid_are_exact(step, spacing_um):
    line = curve(np.outer(np.arange(1, 11), step) + 1, (13, 13, 13))
    length = centerline.length_per_voxel_um(line, spacing_um=spacing_um)
    expected = 9 * np.linalg.norm(np.array(step) * spacing_um)
    assert length.sum() == pytest.approx(expected, rel=1e-5)
    assert length.dtype == np.float32
    assert not length[~line].any()


def test_two_dimensions():
    line = np.eye(9, dtype=bool)
    length = centerline.length_per_voxel_um(line, spacing_um=(3.0, 4.0))
    assert length.shape == line.shape
    assert length.sum() == pytest.approx(8 * 5)


def test_a_corner_does_not_count_its_diagonal():
    corner = np.zeros((3, 5, 5), bool)
    corner[1, 1, 1:4] = corner[1, 1:4, 3] = True
    length = centerline.length_per_voxel_um(corner, spacing_um=(1.0, 1.0, 1.0)).sum()
    # The corner voxel moves by a third of a step along both arms: 4 steps become
    # 2 * 1 + 2 * |(2/3, 1/3)|.
    assert length == pytest.approx(2 + 2 * np.hypot(2 / 3, 1 / 3), rel=1e-5)


@pytest.mark.parametrize(("pitch", "ring"), [(12.0, 10.0), (30.0, 8.0), (8.0, 14.0)])
def test_helices_are_right_to_a_few_percent(pitch, ring):
    turn = np.linspace(0, 4 * np.pi, 20000)
    points = np.stack(
        [3 + pitch * turn / (2 * np.pi), 16 + ring * np.sin(turn), 16 + ring * np.cos(turn)], 1
    )
    shape = (int(2 * pitch) + 8, 34, 34)
    skeleton, _ = thin(curve(points, shape))
    length = centerline.length_per_voxel_um(skeleton, spacing_um=(1.0, 1.0, 1.0)).sum()
    truth = 2 * np.hypot(2 * np.pi * ring, pitch)
    assert length == pytest.approx(truth, rel=0.06)


@pytest.mark.parametrize("radius", [1.0, 3.0])
def test_length_and_radius_of_cylinders_in_random_directions(radius):
    ratios, errors = [], []
    for direction in random_directions(6):
        mask, along = cylinder(radius, direction, (27.6, 27.9, 28.3))
        skeleton, _ = thin(mask)
        inner = np.abs(along) <= 10
        length = centerline.length_per_voxel_um(skeleton, spacing_um=(1.0,) * 3)
        ratios.append(length[inner].sum() / 20)
        points = centerline.skeleton_points(skeleton & inner)
        found = centerline.radius_um(mask, points, spacing_um=(1.0,) * 3, maximum_um=20.0)
        errors.append(found.mean() - radius)
    assert 1.0 < np.mean(ratios) < 1.06
    assert max(ratios) < 1.09
    assert -0.45 < np.mean(errors) < 0.1


def test_lengths_of_tiles_sum_to_the_whole():
    rng = np.random.default_rng(2)
    mask = ndimage.gaussian_filter(rng.random((24, 30, 34)), 1.5) > 0.51
    skeleton, _ = thin(mask)
    spacing_um = (5.0, 2.0, 2.0)
    whole = centerline.length_per_voxel_um(skeleton, spacing_um=spacing_um)
    halo = (centerline.LENGTH_HALO_VOXELS,) * 3
    tiled = np.zeros_like(whole)
    for t in TileGrid(Box.of_shape(mask.shape), (7, 16, 11), halo):
        part = centerline.length_per_voxel_um(skeleton[t.outer.slices], spacing_um=spacing_um)
        tiled[t.core.slices] = part[t.core_in_outer]
    np.testing.assert_array_equal(tiled, whole)


@pytest.mark.parametrize("spacing_um", [(1.0, 1.0, 1.0), (5.1, 2.3, 1.7)])
def test_radius_equals_the_distance_transform(spacing_um):
    rng = np.random.default_rng(4)
    mask = ndimage.gaussian_filter(rng.random((20, 24, 26)), 2) > 0.5
    skeleton, _ = thin(mask)
    points = centerline.skeleton_points(skeleton)
    found = centerline.radius_um(mask, points, spacing_um=spacing_um, maximum_um=6.0)
    truth = ndimage.distance_transform_edt(mask, sampling=spacing_um)[skeleton]
    np.testing.assert_allclose(found, np.minimum(truth, 6.0), rtol=1e-6)

    halo = [int(np.ceil(6.0 / s)) for s in spacing_um]
    for t in TileGrid(Box.of_shape(mask.shape), (20, 11, 9), tuple(halo)):
        ours = points[[t.core.contains(p) for p in points]]
        part = centerline.radius_um(
            mask[t.outer.slices],
            ours - np.array(t.outer.start),
            spacing_um=spacing_um,
            maximum_um=6.0,
        )
        np.testing.assert_array_equal(part, found[[t.core.contains(p) for p in points]])


def test_a_vessel_without_a_wall_in_sight_has_the_maximum_radius():
    found = centerline.radius_um(
        np.ones((3, 3), bool), np.array([[1, 1]]), spacing_um=(1.0, 1.0), maximum_um=9.0
    )
    assert found.tolist() == [9.0]


def test_points_are_positions_in_the_volume():
    skeleton = np.zeros((2, 3, 4), bool)
    skeleton[1, 2, 3] = True
    assert centerline.skeleton_points(skeleton, origin=(10, 20, 30)).tolist() == [[11, 22, 33]]
