"""All of stitching on a mosaic with everything that goes wrong at night."""

import numpy as np

from vasculome.simulate.mosaic import grid_starts, vignette
from vasculome.stitching.blank import find_blank_planes
from vasculome.stitching.place import place
from vasculome.stitching.register import Pair, find_pairs, register

SHAPE = (22, 124, 124)
SIDE = 4
DARK, MISPLACED = 6, 9


def test_blank_pairs_a_dark_tile_a_false_position_and_missing_planes(take):
    rng = np.random.default_rng(3)
    starts, nominal = grid_starts(
        (1, SIDE, SIDE), tile_shape=SHAPE, overlap=(0, 36, 36), jitter=(2, 3, 3), rng=rng
    )
    tiles = take(
        starts,
        SHAPE,
        shading=vignette(SHAPE[1:], 0.3),
        gains=rng.uniform(0.85, 1.15, SIDE * SIDE),
    )
    tiles[DARK] = np.rint(200 + 6 * rng.standard_normal(SHAPE)).astype(np.uint16)
    tiles[3][9] = 0
    tiles[12][14] = 0
    nominal[MISPLACED] += (0, 40, -40)
    pairs = find_pairs(nominal, [SHAPE] * SIDE * SIDE)
    faces = [(i, j) for i, j in pairs if j - i in {1, SIDE}]
    blank = [faces[k] for k in rng.choice(len(faces), round(0.1 * len(pairs)), replace=False)]
    for i, j in blank:
        shift = np.rint(starts[j] - starts[i]).astype(int)
        shared = tuple(slice(max(0, s), min(n, s + n)) for s, n in zip(shift, SHAPE, strict=True))
        tiles[i][shared] = rng.poisson(400, tiles[i][shared].shape)

    edges = register(
        [Pair(i, j, tiles[i], tiles[j], tuple(nominal[j] - nominal[i])) for i, j in pairs],
        search=(5, 44, 44),
    )
    placed = place(edges, nominal, allow_stage_positions=True)

    error = placed.starts - starts
    held = placed.parts == 0
    error -= np.median(error[held], axis=0)
    assert np.abs(error[held]).max() < 0.3
    # Each fault has its name.
    rejected = {(e.i, e.j): e.reason for e in edges if not e.accepted}
    contradicted = {(edges[k].i, edges[k].j) for k in placed.outliers}
    assert set(blank) <= set(rejected) | contradicted
    assert {(i, j) for i, j in pairs if DARK in (i, j)} <= set(rejected)
    assert all(rejected.values())
    assert not held[DARK]
    assert held.sum() >= SIDE * SIDE - 3
    assert placed.stage_outliers == (MISPLACED,)
    assert [k for k, tile in enumerate(tiles) if find_blank_planes(tile)] == [3, 12]
    assert find_blank_planes(tiles[12]) == (14,)
