"""A small mosaic with a known answer, for tests that write it in one layout and read it back."""

import numpy as np
import pytest

from vasculome.geometry import Box

SPACING_UM = (2.0, 0.5, 0.5)
TILE_SHAPE = (4, 20, 16)


class Mosaic:
    """Two rows and three columns of tiles, cut from one volume with 25 % overlap.

    ``tiles[row, column]`` are voxels (z, y, x), ``positions_um[row, column]`` where they were cut.
    """

    spacing_um = SPACING_UM
    grid = (2, 3)
    overlap_percent = (25.0, 25.0)

    def __init__(self):
        volume = np.random.default_rng(5).integers(0, 60000, (4, 35, 40), dtype=np.uint16)
        self.tiles, self.positions_um = {}, {}
        for row in range(2):
            for column in range(3):
                y, x = 15 * row, 12 * column
                self.tiles[row, column] = volume[:, y : y + 20, x : x + 16]
                self.positions_um[row, column] = (0.0, y * 0.5, x * 0.5)

    def check(self, tiles, cells=None, *, offset_um=(0.0, 0.0, 0.0), missing=None):
        """Assert that a TileSet holds the mosaic, tile by tile and voxel by voxel."""
        cells = list(self.tiles) if cells is None else cells
        assert len(tiles.names) == len(set(tiles.names)) == len(cells)
        for cell, volume, at_um in zip(cells, tiles.volumes, tiles.positions_um, strict=True):
            expected = self.tiles[cell].copy()
            for z in (missing or {}).get(cell, ()):
                expected[z] = 0
            assert volume.shape == expected.shape
            np.testing.assert_allclose(
                np.subtract(at_um, offset_um), self.positions_um[cell], atol=1e-9
            )
            np.testing.assert_array_equal(volume.read(Box.of_shape(volume.shape)), expected)


@pytest.fixture(scope="session")
def mosaic():
    return Mosaic()
