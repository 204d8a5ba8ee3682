"""Overlap at nominal positions, and plans without data."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.tile_plan import PlannedVolume, plan_tiles
from vasculome.readers.tile_set import TileSet, isolated_tiles, refuse_isolated_tiles


def _tiles(positions_um, shape=(4, 10, 10)):
    volume = PlannedVolume(shape, np.dtype("u2"), (1, 1, 1))
    names = tuple(f"t{i}" for i in range(len(positions_um)))
    return TileSet(names, (volume,) * len(names), tuple(positions_um))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 60), st.integers(0, 60)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([1.0, 3.0]),
)
def test_isolated_tiles_are_those_without_a_partner(positions, least):
    spacing_um = (2.0, 0.5, 1.0)
    tiles = _tiles([tuple(p * s for p, s in zip(q, spacing_um, strict=True)) for q in positions])
    shape = np.array((4, 10, 10))
    expected = []
    for i, a in enumerate(positions):
        shared = [shape - np.abs(np.subtract(a, b)) for j, b in enumerate(positions) if j != i]
        if shared and not any((s >= least).all() for s in shared):
            expected.append(f"t{i}")
    assert list(isolated_tiles(tiles, spacing_um=spacing_um, least_voxels=least)) == expected


def test_isolated_tiles_are_named(tmp_path):
    tiles = _tiles([(0, 0, 0), (0, 9, 0), (0, 30, 0), (40, 0, 0)])
    with pytest.raises(UserError, match="2 of 4 tiles overlap no other: t2, t3"):
        refuse_isolated_tiles(tiles, spacing_um=(1, 1, 1), where=tmp_path)
    refuse_isolated_tiles(_tiles([(0, 0, 0)]), spacing_um=(1, 1, 1), where=tmp_path)


def test_many_tiles_are_compared_in_a_moment():
    tiles = plan_tiles(
        grid=(130, 131), shape=(9, 20, 20), spacing_um=(1, 1, 1), overlap_percent=(10, 10)
    )
    start = time.perf_counter()
    assert isolated_tiles(tiles, spacing_um=(1, 1, 1)) == ()
    assert time.perf_counter() - start < 10


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
    assert isolated_tiles(tiles, spacing_um=spacing_um) == ()
    with pytest.raises(ValueError, match="planned"):
        tiles.volumes[0].read(Box((0, 0, 0), (1, 1, 1)))
    assert (
        tiles.fingerprint()
        == plan_tiles(
            grid=(20, 20), shape=(2000, 2048, 2048), spacing_um=spacing_um, overlap_percent=(10, 15)
        ).fingerprint()
    )
