import numpy as np
import pytest

from vasculome.simulate.optics import FineGrid, PointSpread, brightest, fine_grid, photograph

SHAPE = (24, 40, 44)
SPACING = (4.0, 1.0, 1.0)
SIGMA = (3.0, 1.3, 1.3)


def light_of_a_point(grid: FineGrid, at_um: tuple[float, float, float]) -> np.ndarray:
    light = np.zeros(grid.shape, np.float32)
    place = (np.array(at_um) - grid.start_um) / grid.spacing_um
    light[tuple(np.rint(place).astype(int))] = 1.0
    return light


def widths(image: np.ndarray, spacing: tuple[float, ...]) -> list[float]:
    """Standard deviations of a picture along its axes, by its second moments."""
    found = []
    for axis in range(3):
        profile = image.sum(tuple(i for i in range(3) if i != axis), dtype=np.float64)
        at = np.arange(len(profile)) * spacing[axis]
        middle = np.average(at, weights=profile)
        found.append(np.sqrt(np.average((at - middle) ** 2, weights=profile)))
    return found


def test_a_point_is_as_wide_as_the_point_spread_function() -> None:
    grid = fine_grid(SHAPE, spacing_um=SPACING, sigma_um=SIGMA)
    assert grid.parts == (4, 1, 1)
    light = light_of_a_point(grid, (48.0, 20.0, 22.0))
    image = photograph(light, grid=grid, shape=SHAPE, spacing_um=SPACING, spread=PointSpread(SIGMA))
    assert np.unravel_index(image.argmax(), SHAPE) == (12, 20, 22)
    # Cut off at 3.5 σ, which takes away 1 % of the width.
    assert widths(image, SPACING) == pytest.approx(SIGMA, rel=0.02)


def test_a_vessel_between_two_planes_shows_in_both() -> None:
    grid = fine_grid(SHAPE, spacing_um=SPACING, sigma_um=SIGMA)
    light = light_of_a_point(grid, (50.0, 20.0, 22.0))
    image = photograph(light, grid=grid, shape=SHAPE, spacing_um=SPACING, spread=PointSpread(SIGMA))
    assert image[12, 20, 22] == pytest.approx(image[13, 20, 22], rel=1e-5)
    assert image[12, 20, 22] > 0


@pytest.mark.parametrize("spread", [PointSpread(SIGMA), PointSpread(SIGMA, 0.3, 4.0, 0.1)])
def test_even_light_stays_even_up_to_the_edges(spread: PointSpread) -> None:
    grid = fine_grid(SHAPE, spacing_um=SPACING, sigma_um=SIGMA)
    light = np.full(grid.shape, 0.7, np.float32)
    image = photograph(light, grid=grid, shape=SHAPE, spacing_um=SPACING, spread=spread)
    assert image.shape == SHAPE
    np.testing.assert_allclose(image, 0.7, rtol=1e-5)


def test_halo_takes_its_part_of_the_light_and_rings_lie_along_z() -> None:
    grid = fine_grid(SHAPE, spacing_um=SPACING, sigma_um=SIGMA)
    light = light_of_a_point(grid, (48.0, 20.0, 22.0))
    sharp, hazy, ringed = (
        photograph(light, grid=grid, shape=SHAPE, spacing_um=SPACING, spread=spread)
        for spread in (
            PointSpread(SIGMA),
            PointSpread(SIGMA, halo=0.3),
            PointSpread(SIGMA, rings=0.1),
        )
    )
    assert hazy.max() == pytest.approx(0.7 * sharp.max(), rel=0.03)
    assert hazy[12, 20, 22 + 7] > 100 * sharp[12, 20, 22 + 7]
    # Rings have peaks near 1.5 of their periods of 2.5 σ, which is 11 µm or three planes.
    assert ringed[15, 20, 22] > 3 * sharp[15, 20, 22]
    across = ringed[12, 20] / ringed[12, 20, 22]
    np.testing.assert_allclose(across, sharp[12, 20] / sharp[12, 20, 22], atol=1e-4)


def test_a_spread_sharper_than_the_grid_takes_the_nearest_voxel() -> None:
    grid = fine_grid((6, 6, 6), spacing_um=(2.0, 2.0, 2.0), sigma_um=(0.0, 0.0, 0.0))
    light = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
    image = photograph(
        light,
        grid=grid,
        shape=(6, 6, 6),
        spacing_um=(2.0, 2.0, 2.0),
        spread=PointSpread((0.0, 0.0, 0.0)),
    )
    np.testing.assert_array_equal(image, light)


def test_brightest_finds_what_lies_between_planes() -> None:
    grid = fine_grid(SHAPE, spacing_um=SPACING, sigma_um=SIGMA)
    image = brightest(light_of_a_point(grid, (49.0, 20.0, 22.0)), grid=grid, shape=SHAPE)
    assert image.shape == SHAPE
    assert np.argwhere(image == 1).tolist() == [[12, 20, 22]]


def test_light_must_lie_on_the_grid() -> None:
    grid = fine_grid(SHAPE, spacing_um=SPACING, sigma_um=SIGMA)
    light = np.zeros((3, 3, 3), np.float32)
    with pytest.raises(ValueError, match="the grid"):
        photograph(light, grid=grid, shape=SHAPE, spacing_um=SPACING, spread=PointSpread(SIGMA))
