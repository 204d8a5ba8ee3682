"""Raw microscopy files → one OME-Zarr: read lazily, tiles blended where they overlap."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult
from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig, StorageConfig
from vasculome.geometry import Box, TileGrid
from vasculome.readers.tile_set import TileSet
from vasculome.stages.illuminate import BLANK_PLANES, GAINS, LIGHT, SHADING
from vasculome.stages.job import Job, Outcome
from vasculome.stages.place import PLACEMENT, TILES
from vasculome.stages.raw_tiles import (
    LazyTile,
    check_positions,
    mapped_tiles,
    nominal_starts,
    raw_fingerprint_of,
    shapes_of,
)
from vasculome.stages.register import search_px
from vasculome.stages.stitch_tables import vectors
from vasculome.stages.volume import build_image, shard_voxels
from vasculome.stitching.fuse import covered, fuse
from vasculome.stitching.illumination import Shading
from vasculome.storage.bundles import read_bundle
from vasculome.storage.omezarr import Image, ImageSpec
from vasculome.storage.tables import read_table

IMAGE = "image.ome.zarr"
_CELLS_A_TILE = 8


def settings(config: RunConfig) -> tuple[StorageConfig]:
    """Return the settings that the output depends on."""
    return (config.storage,)


def raw_fingerprint(job: Job) -> str:
    """Return the identity of the raw files, without reading pixels."""
    return raw_fingerprint_of(job, mapped_tiles(job))


def check(job: Job) -> None:
    """Raise UserError where the raw data is missing or not what the sample sheet says."""
    check_positions(job, mapped_tiles(job))


def expected_shape(job: Job, tiles: TileSet) -> tuple[int, ...]:
    """Return the shape (z, y, x) of the volume of ``tiles``, with the stage's errors on each side.

    It is a little larger where errors of the stage add up from tile to tile.
    """
    extent = nominal_starts(tiles, job.sample.spacing_um) + shapes_of(tiles)
    margin = 2 * np.array(search_px(job)) if len(tiles.names) > 1 else 0
    return tuple((np.ceil(extent.max(0)).astype(int) + margin).tolist())


def bound(job: Job) -> MemoryBound:
    """Return the memory bound, see `bound_for`."""
    return bound_for(job, mapped_tiles(job))


def bound_for(job: Job, tiles: TileSet) -> MemoryBound:
    """Return the memory bound: what is read of the tiles, the slab, and the encoded shards.

    It holds wherever the tiles will be placed, as that sets the volume's shape and the slabs'.
    """
    itemsize = tiles.dtype.itemsize
    depth = job.config.storage.shard_zyx[0]
    if len(tiles.names) == 1:
        slab = math.prod(slabs(job, expected_shape(job, tiles), tiles.dtype).core_shape)
    else:
        slab = max(shard_voxels(job), int(job.config.microscopy.slab_mb * 1e6) // itemsize)
    # Some planes of the slab are fused at a time; one more is read to interpolate between planes.
    planes = job.config.storage.chunk_zyx[0] + 1
    read = _most_covering(job, tiles) * math.ceil(slab * planes / depth)
    light = 8 * math.prod(tiles.volumes[0].shape[1:]) if job.sample.tiled else 0
    # The pyramid and the encoder hold copies of the slab.
    return MemoryBound((read + 3 * slab) * itemsize + light, job.workers)


def run(job: Job) -> Outcome:
    """Write ``image.ome.zarr``."""
    mosaic = _read_mosaic(job)
    spec = ImageSpec(
        shape=mosaic.shape,
        dtype=str(mosaic.tiles.dtype),
        axes=("z", "y", "x"),
        spacing_um=job.sample.spacing_um,
        origin_um=job.sample.origin_um,
        chunk=job.config.storage.chunk_zyx,
        shard=job.config.storage.shard_zyx,
        reduce="mean",
        name=job.sample.sample,
        unit_attributes={"quantity": "intensity", "unit": "counts"},
    )
    grid = slabs(job, mosaic.shape, mosaic.tiles.dtype)
    with job.cluster() as cluster:
        built = build_image(
            job,
            IMAGE,
            spec,
            functools.partial(_fuse, shading=mosaic.shading),
            grid,
            pieces=_pieces(mosaic, grid),
            cluster=cluster,
        )
    records = [result.record for result in built.results.values()]
    missing = mosaic.tiles.missing
    return Outcome(
        built.content,
        {
            "shape_zyx": list(mosaic.shape),
            "dtype": spec.dtype,
            "raw_files": mosaic.tiles.file_count,
            "tiles_fused": len(mosaic.kept),
            "missing_planes": sum(len(planes) for planes in missing.values()),
            "intensity_span": [
                min(record["min"] for record in records),
                max(record["max"] for record in records),
            ],
            "megabytes": round(math.prod(mosaic.shape) * mosaic.tiles.dtype.itemsize / 1e6, 1),
        },
        (IMAGE,),
    )


@dataclass(frozen=True)
class _Mosaic:
    """All that the volume is made of.

    ``kept`` are the tiles that go into it; ``shading`` the file of the flat field, and a checksum.
    """

    tiles: TileSet
    starts: NDArray[np.float64]
    kept: tuple[int, ...]
    gains: NDArray[np.float64]
    lost_planes: tuple[tuple[int, ...], ...]
    shading: tuple[Path, str] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels (z, y, x) of the volume that holds all tiles."""
        stops = [covered(self.starts[k], self.tiles.volumes[k].shape).stop for k in self.kept]
        return tuple(max(side) for side in zip(*stops, strict=True))


def _read_mosaic(job: Job) -> _Mosaic:
    """Return the tiles with their places and light, as the stages before have found them."""
    tiles = mapped_tiles(job)
    missing = [set(volume.missing) for volume in tiles.volumes]
    if not job.sample.tiled:
        return _Mosaic(
            tiles, np.zeros((1, 3)), (0,), np.ones(1), (tuple(sorted(missing[0])),), None
        )
    placed = read_table(job.folder / PLACEMENT / TILES)
    light = job.folder / LIGHT
    content = job.manifest("illuminate")["content"]
    blank = read_table(light / BLANK_PLANES)
    for tile, plane in zip(blank["tile"].tolist(), blank["plane"].tolist(), strict=True):
        missing[tile].add(plane)
    return _Mosaic(
        tiles,
        vectors(placed, "start"),
        tuple(np.flatnonzero(placed["state"] != "dark").tolist()),
        read_table(light / GAINS)["gain"],
        tuple(tuple(sorted(planes)) for planes in missing),
        (light / SHADING, content) if (light / SHADING).exists() else None,
    )


@dataclass(frozen=True)
class _Piece:
    """A slab of the volume, and what is to be known of the tiles that it is made of."""

    id: str
    core: Box
    tiles: tuple[LazyTile, ...]
    starts: tuple[tuple[float, ...], ...]
    gains: tuple[float, ...]
    lost_planes: tuple[tuple[int, ...], ...]


def _pieces(mosaic: _Mosaic, grid: TileGrid) -> Iterator[_Piece]:
    """Yield the slabs, each with its own tiles only: all files' names would fill a message."""
    touching: dict[tuple[int, ...], list[int]] = {}
    for k in mosaic.kept:
        for index in grid.touching(covered(mosaic.starts[k], mosaic.tiles.volumes[k].shape)):
            touching.setdefault(index, []).append(k)
    for slab in grid:
        some = touching.get(slab.index, [])
        yield _Piece(
            # By its voxels, not by its place in the grid: slabs may be of another size next time.
            f"{slab.core.start}-{slab.core.stop}",
            slab.core,
            tuple(LazyTile(mosaic.tiles.volumes[k]) for k in some),
            tuple(tuple(mosaic.starts[k].tolist()) for k in some),
            tuple(float(mosaic.gains[k]) for k in some),
            tuple(mosaic.lost_planes[k] for k in some),
        )


def _fuse(image: Image, piece: _Piece, *, shading: tuple[Path, str] | None) -> TileResult:
    """Read one slab from the raw files and write its shards.

    Some planes at a time are fused: what is read of the tiles is gone when the next are.
    """
    slab = np.empty(piece.core.shape, image.spec.dtype)
    for planes in TileGrid(piece.core, (image.spec.chunk[0], *piece.core.shape[1:]), (0, 0, 0)):
        slab[planes.core.relative_to(piece.core).slices] = fuse(
            piece.tiles,
            piece.starts,
            planes.core,
            dtype=slab.dtype,
            shading=_shading(*shading) if shading else None,
            gains=piece.gains,
            missing_planes=piece.lost_planes,
        )
    record = {"min": float(slab.min()), "max": float(slab.max())}
    return TileResult(files=image.write(piece.core, slab), record=record)


@functools.lru_cache(maxsize=1)
def _shading(path: Path, _content: str) -> Shading:
    """Read the light's shape once a worker, and again only if its content has changed."""
    bundle = read_bundle(path)
    return Shading(bundle["flat"], float(bundle["dark"]))


def _most_covering(job: Job, tiles: TileSet) -> int:
    """Return how many tiles lie over one another at most, wherever the stage erred."""
    if len(tiles.names) == 1:
        return 1
    margin = np.array(search_px(job))
    shapes = shapes_of(tiles)
    starts = np.floor(nominal_starts(tiles, job.sample.spacing_um)).astype(int)
    # Counted in cells much smaller than a tile; those that touch a cell may all share a voxel.
    cell = np.maximum(shapes.min(0) // _CELLS_A_TILE, 1)
    first = starts // cell
    # Two tiles may come nearer by what their offset may err by.
    last = (starts + shapes + margin - 1) // cell
    counts = np.zeros(last.max(0) + 1, np.int32)
    for low, high in zip(first.tolist(), last.tolist(), strict=True):
        counts[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] += 1
    return int(counts.max())


def slabs(job: Job, shape: tuple[int, ...], dtype: np.dtype) -> TileGrid:
    """Return slabs of as many whole shards along x, then y, as ``slab_mb`` holds.

    A compressed plane is decoded by rows: wide slabs decode each row once.
    """
    z, y, x = job.config.storage.shard_zyx
    budget = job.config.microscopy.slab_mb * 1e6 / np.dtype(dtype).itemsize
    along_x = min(-(-shape[2] // x), max(1, int(budget // (z * y * x))))
    along_y = min(-(-shape[1] // y), max(1, int(budget // (z * y * x * along_x))))
    return TileGrid(Box.of_shape(shape), (z, y * along_y, x * along_x), (0, 0, 0))
