"""What the volume stages share: build an OME-Zarr tile by tile, pyramid and all."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.cluster import Cluster
from vasculome.compute.pyramid import finish_pyramid
from vasculome.geometry import Tile, TileGrid
from vasculome.stages.digest import digest_of
from vasculome.stages.job import Job, content_of
from vasculome.storage.omezarr import Image, ImageSpec, create_image

TileWork = Callable[[Image, Any], TileResult]
"""Writes a tile of the image and says which files it wrote."""
MapsWork = Callable[[Tile], tuple[Mapping[str, NDArray[Any]], dict[str, Any]]]
"""Returns the voxels of a tile's core for each map, and what to record."""

MAPS = "maps"


@dataclass(frozen=True)
class Built:
    """Finished images: what each tile of level 0 recorded, and a checksum of files and shapes."""

    results: Mapping[str, TileResult]
    content: str
    stores: tuple[str, ...]

    def totals(self, *names: str) -> dict[str, Any]:
        """Return the sums over tiles of the records called ``names``."""
        return {name: sum(r.record[name] for r in self.results.values()) for name in names}


def build_image(
    job: Job,
    name: str,
    spec: ImageSpec,
    work: TileWork,
    grid: TileGrid,
    *,
    cluster: Cluster,
    pieces: Iterable[Any] | None = None,
) -> Built:
    """Write the image ``name`` of the job's sample, tile by tile, then its coarse levels.

    Parameters
    ----------
    job
        Whose folder, digest and name are used.
    name
        Of the store in the sample's folder.
    spec
        What the image is.
    work
        Called with the image and each tile of ``grid``, on a worker; must be picklable.
    grid
        Tiles whose cores are whole shards of the image.
    cluster
        Workers.
    pieces
        What ``work`` is called with instead of the tiles: their ids, and what it needs besides.
    """
    image = create_image(job.folder / name, spec)
    return _build(
        job,
        image.path,
        [image],
        functools.partial(work, image),
        grid,
        cluster=cluster,
        pieces=pieces or grid,
    )


def build_maps(
    job: Job,
    specs: Mapping[str, ImageSpec],
    work: MapsWork,
    grid: TileGrid,
    *,
    cluster: Cluster,
    ledger_of: str | None = None,
) -> Built:
    """Write several maps on one grid, all maps of a tile at once, then their coarse levels.

    Parameters are those of :func:`build_image`; ``work`` is called with a tile, and returns the
    voxels of its core for each map and what to record. The maps are
    ``maps/<name>.ome.zarr``. The ledger of all is that of the folder, or, where another stage
    writes there too, that of the map ``ledger_of``.
    """
    folder = job.folder / MAPS
    store = folder if ledger_of is None else map_path(folder, ledger_of)
    images = {name: create_image(map_path(folder, name), spec) for name, spec in specs.items()}
    return _build_together(job, store, images, work, grid, cluster=cluster)


def build_images(
    job: Job, specs: Mapping[str, ImageSpec], work: MapsWork, grid: TileGrid, *, cluster: Cluster
) -> Built:
    """Write several images of the job's sample, as :func:`build_maps` does maps.

    They are called as in ``specs``, and the ledger of all is that of the first.
    """
    images = {name: create_image(job.folder / name, spec) for name, spec in specs.items()}
    store = next(iter(images.values())).path
    return _build_together(job, store, images, work, grid, cluster=cluster)


def map_path(folder: Path, name: str) -> Path:
    """Return where the map ``name`` is in a folder of maps."""
    return folder / f"{name}.ome.zarr"


def _build_together(
    job: Job,
    store: Path,
    images: Mapping[str, Image],
    work: MapsWork,
    grid: TileGrid,
    *,
    cluster: Cluster,
) -> Built:
    places = {name: os.path.relpath(image.path, store) for name, image in images.items()}
    write = functools.partial(_write_maps, images=images, places=places, work=work)
    return _build(job, store, list(images.values()), write, grid, cluster=cluster, pieces=grid)


def _write_maps(
    tile: Tile, *, images: Mapping[str, Image], places: Mapping[str, str], work: MapsWork
) -> TileResult:
    voxels, record = work(tile)
    files = {
        str(PurePath(places[name], file)): checksum
        for name, image in images.items()
        for file, checksum in image.write(tile.core, voxels[name]).items()
    }
    return TileResult(files, record)


def _build(
    job: Job,
    store: Path,
    images: list[Image],
    work: Callable[[Any], TileResult],
    grid: TileGrid,
    *,
    cluster: Cluster,
    pieces: Iterable[Any],
) -> Built:
    store = store.absolute()
    digest = job.digest()
    tile_voxels = math.prod(grid.core_shape)
    results = map_tiles(
        work,
        pieces,
        total=len(grid),
        store=store,
        digest=digest,
        cluster=cluster,
        label=store.name,
        bytes_per_tile=sum(tile_voxels * np.dtype(i.spec.dtype).itemsize for i in images),
    )
    files = list(results.values())
    for image in images:
        coarse = finish_pyramid(image, digest=digest, cluster=cluster, label=image.path.name)
        files.extend(coarse.values())
    paths = dict.fromkeys([store, *(image.path for image in images)])
    stores = tuple(str(path.relative_to(job.folder.absolute())) for path in paths)
    # The same files may be of a larger array: planes of nothing but 0 are not stored.
    content = digest_of([content_of(files), [image.arrays[0].metadata for image in images]])
    return Built(results, content, stores)


def like(spec: ImageSpec, *, dtype: str, quantity: str) -> ImageSpec:
    """Return the spec of a label volume on the same voxels as ``spec``."""
    return dataclasses.replace(
        spec, dtype=dtype, reduce="max", unit_attributes={"quantity": quantity, "unit": "1"}
    )


def shard_voxels(job: Job, halo: Iterable[int] = (0, 0, 0)) -> int:
    """Return how many voxels a whole shard of the job's volumes has, with its halo."""
    shard = job.config.storage.shard_zyx
    return math.prod(n + 2 * h for n, h in zip(shard, halo, strict=True))
