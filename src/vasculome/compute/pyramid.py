"""The coarse levels of an image, made by workers and resumably."""

from __future__ import annotations

import functools
import math

import numpy as np

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.cluster import Cluster
from vasculome.geometry import Tile
from vasculome.storage.lease import Lease
from vasculome.storage.omezarr import Image


def finish_pyramid(
    image: Image, *, digest: str, cluster: Cluster, label: str
) -> dict[str, TileResult]:
    """Make the levels that tiles of level 0 do not write, each from the level before.

    Entries go to the image's own ledger, under the same digest as its tiles.

    Returns and raises as `vasculome.compute.blocks.map_tiles`.
    """
    results: dict[str, TileResult] = {}
    with Lease(image.path):
        for level in image.coarse_levels:
            tiles = image.coarse_tiles(level)
            plan = image.spec.levels[level]
            results |= map_tiles(
                functools.partial(_write_coarse, image),
                tiles,
                total=len(tiles),
                store=image.path,
                digest=digest,
                cluster=cluster,
                label=f"{label}, level {level}",
                bytes_per_tile=math.prod(plan.shard) * np.dtype(image.spec.dtype).itemsize,
            )
    return results


def _write_coarse(image: Image, tile: Tile) -> TileResult:
    return TileResult(image.write_coarse(tile))
