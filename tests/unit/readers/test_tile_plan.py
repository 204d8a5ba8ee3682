"""Plans without data."""

import numpy as np
import pytest

from vasculome.geometry import Box
from vasculome.readers.tile_plan import plan_tiles


def test_a_terabyte_is_planned_without_data():
    spacing_um = (2.0, 0.65, 0.65)
    tiles = plan_tiles(
        grid=(20, 20), shape=(2000, 2048, 2048), spacing_um=spacing_um, overlap_percent=(10, 15)
    )
    assert len(tiles.names) == len(set(tiles.names)) == 400
    assert tiles.file_count == 0 and tiles.missing == {}
    size = sum(np.prod(v.shape, dtype=float) * v.dtype.itemsize for v in tiles.volumes)
    assert size > 6e12
    extent = np.ptp(tiles.positions_um, axis=0) / spacing_um + tiles.volumes[0].shape
    np.testing.assert_allclose(extent, [2000, 2048 * (1 + 19 * 0.9), 2048 * (1 + 19 * 0.85)])
    with pytest.raises(ValueError, match="planned"):
        tiles.volumes[0].read(Box((0, 0, 0), (1, 1, 1)))
    assert (
        tiles.fingerprint()
        == plan_tiles(
            grid=(20, 20), shape=(2000, 2048, 2048), spacing_um=spacing_um, overlap_percent=(10, 15)
        ).fingerprint()
    )
