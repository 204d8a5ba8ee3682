"""OME-Zarr 0.5 images: sharded, multiscale, written out of core, one writer a shard."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.storage.arrays import ShardedArray, create_array, open_array
from vasculome.storage.metadata import make_store, read_metadata
from vasculome.storage.ome_metadata import ImageSpec, image_nodes, parse_image
from vasculome.storage.pyramid import reduce_block

__all__ = [
    "Image",
    "ImageSpec",
    "ShardedArray",
    "create_array",
    "create_image",
    "open_array",
    "open_image",
]


@dataclass(frozen=True)
class Image:
    """A multiscale image on disk; may be pickled to workers.

    A tile of level 0 writes its own part of the finer levels (:meth:`write`); the levels above
    are made from the last of those (:meth:`coarse_tiles`, :meth:`write_coarse`).

    Attributes
    ----------
    path
        Folder of the OME-Zarr group.
    spec
        What it is.
    arrays
        Its levels on disk, finest first.
    """

    path: Path
    spec: ImageSpec
    arrays: tuple[ShardedArray, ...]

    @property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each level, finest first."""
        return tuple(array.shape for array in self.arrays)

    @property
    def coarse_levels(self) -> range:
        """Numbers of the levels that tiles of level 0 do not write."""
        plan = self.spec.levels
        return range(sum(level.with_tile for level in plan), len(plan))

    def read(self, box: Box, level: int = 0) -> npt.NDArray[Any]:
        """Return the voxels of ``box`` on ``level``; raises as `ShardedArray.read`."""
        return self.arrays[level].read(box)

    def write(self, box: Box, array: npt.NDArray[Any]) -> dict[str, str]:
        """Write whole shards of level 0, and what they become on the levels tiles write.

        Parameters
        ----------
        box
            Whole shards, or cut by the image's end.
        array
            Voxels of the box, in the image's dtype.

        Returns
        -------
        dict
            Path relative to the image → checksum, of every file; ``""`` for a shard of only 0,
            which is not stored.

        Raises
        ------
        ValueError, UserError
            As `ShardedArray.write`.
        """
        files: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            writers = []
            for number, level in enumerate(self.spec.levels[: self.coarse_levels.start]):
                if number > 0:
                    # Done while shards of the level before are still being encoded and written.
                    box = level.box_of(box)
                    array = reduce_block(array, level.steps, self.spec.reduce)
                writers.append(stack.enter_context(self.arrays[number].writer()))
                self.arrays[number].start_write(writers[-1], box, array)
            for number, writer in enumerate(writers):
                files |= _of_level(number, writer.finish())
        return files

    def coarse_tiles(self, level: int) -> tuple[Tile, ...]:
        """Return the tiles of a coarse level, one a shard, for :meth:`write_coarse`.

        Their index begins with the level, so that their ids are no tile's of level 0.
        """
        plan = self.spec.levels[level]
        grid = TileGrid(Box.of_shape(plan.shape), plan.shard, (0,) * len(plan.shape))
        return tuple(Tile((level, *tile.index), tile.core, tile.outer) for tile in grid)

    def write_coarse(self, tile: Tile) -> dict[str, str]:
        """Make one shard of a coarse level from the level before, which must be complete.

        Returns and raises as :meth:`write`; reads no more voxels than a shard of level 0 has.
        """
        level = tile.index[0]
        plan, finer = self.spec.levels[level], self.arrays[level - 1]
        values = finer.read(plan.source_of(tile.core, finer.shape))
        reduced = reduce_block(values, plan.steps, self.spec.reduce)
        return _of_level(level, self.arrays[level].write(tile.core, reduced))

    def finish_levels(self) -> dict[str, str]:
        """Make all coarse levels, in this process; returns and raises as :meth:`write`.

        `vasculome.compute.pyramid.finish_pyramid` does it by workers, resumably.
        """
        files: dict[str, str] = {}
        for level in self.coarse_levels:
            for tile in self.coarse_tiles(level):
                files |= self.write_coarse(tile)
        return files


def create_image(path: Path, spec: ImageSpec) -> Image:
    """Make an image without voxels, or open the same one; another image there is removed.

    Raises
    ------
    UserError
        ``path`` holds something that is no Zarr store, a live run holds it, or it cannot be
        written.
    """
    make_store(Path(path).absolute(), image_nodes(spec))
    return open_image(path)


def open_image(path: Path) -> Image:
    """Open an OME-Zarr 0.5 image, ours or another program's.

    Raises
    ------
    UserError
        It is missing, not OME-Zarr 0.5, or its metadata is damaged.
    """
    path = Path(path).absolute()
    group = read_metadata(path, node_type="group")
    names = _level_names(path, group)
    arrays = tuple(open_array(path / name) for name in names)
    return Image(path, parse_image(path, group, arrays[0].metadata), arrays)


def _of_level(level: int, files: dict[str, str]) -> dict[str, str]:
    return {f"{level}/{name}": checksum for name, checksum in files.items()}


def _level_names(path: Path, group: dict[str, Any]) -> list[str]:
    try:
        datasets = group["attributes"]["ome"]["multiscales"][0]["datasets"]
        names = [str(dataset["path"]) for dataset in datasets]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(
            "is no OME-Zarr 0.5 image", where=path, fix="convert it, or check the path"
        ) from error
    if not names:
        raise UserError("has no levels", where=path, fix="convert it again")
    return names
