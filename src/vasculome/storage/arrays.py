"""A sharded Zarr v3 array: boxes in, boxes out, one writer a shard."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.storage.metadata import array_metadata, make_store, read_metadata
from vasculome.storage.pyramid import fit_blocks
from vasculome.storage.shard_writer import ShardWriter, open_store


@dataclass(frozen=True)
class ShardedArray:
    """An array on disk, of which boxes are read and whole shards written.

    It may be pickled to workers: files are opened where they are used.

    Attributes
    ----------
    path
        Folder of the array.
    shape, dtype, chunk, shard
        Of its metadata; a foreign array without shards has ``shard`` equal to ``chunk``.
    attributes
        Free attributes.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    metadata: dict[str, Any] = field(repr=False)

    @property
    def attributes(self) -> dict[str, Any]:
        """Free attributes of the array."""
        attributes: dict[str, Any] = self.metadata.get("attributes", {})
        return attributes

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the voxels of ``box``; shards that are not stored read as 0.

        Raises
        ------
        UserError
            A shard is damaged or cannot be read.
        ValueError
            The box reaches beyond the array.
        """
        self._check_within(box)
        try:
            return np.asarray(open_store(self.path, self.metadata)[box.slices].read().result())
        except (ValueError, RuntimeError, OSError) as error:
            raise _unreadable(self.path, error) from error

    def write(self, box: Box, values: npt.NDArray[Any]) -> dict[str, str]:
        """Write whole shards, durably; return the checksum of each file by its name.

        Parameters
        ----------
        box
            Whole shards, or cut by the array's end.
        values
            Array of the box's shape and the array's dtype.

        Returns
        -------
        dict
            Path relative to the array → checksum; ``""`` for a shard of only 0, which is not
            stored (and removed if it was).

        Raises
        ------
        ValueError
            Box, shape or dtype do not fit.
        UserError
            As `vasculome.storage.shards.write_bytes_atomic`.
        """
        with self.writer() as writer:
            self.start_write(writer, box, values)
            return writer.finish()

    def writer(self) -> ShardWriter:
        """Return a writer for :meth:`start_write`, as a context manager."""
        return ShardWriter(self.path, self.metadata, self.shard)

    def start_write(self, writer: ShardWriter, box: Box, values: npt.NDArray[Any]) -> None:
        """Begin what :meth:`write` does; ``writer.finish()`` ends it. Raises as that does."""
        self._check_within(box)
        if values.shape != box.shape or values.dtype != self.dtype:
            raise ValueError(f"{values.dtype} {values.shape} does not fit {self.dtype} {box.shape}")
        if any(
            a % s or (b % s and b != n)
            for a, b, s, n in zip(box.start, box.stop, self.shard, self.shape, strict=True)
        ):
            raise ValueError(f"{box} is not made of whole shards {self.shard}")
        writer.start(box, values)

    def _check_within(self, box: Box) -> None:
        if box.intersect(Box.of_shape(self.shape)) != box:
            raise ValueError(f"{box} is empty or beyond an array of shape {self.shape}")


def create_array(
    path: Path,
    shape: tuple[int, ...],
    dtype: str,
    chunk: tuple[int, ...],
    shard: tuple[int, ...],
    attributes: dict[str, Any],
    *,
    axes: tuple[str, ...] | None = None,
) -> ShardedArray:
    """Make a plain Zarr v3 array, e.g. IQ as complex64 with axes (t, z, x); or open the same one.

    Parameters
    ----------
    path
        Its folder. Another array there is removed.
    shape, dtype, chunk, shard
        Chunk and shard are cut to the shape; shards hold whole chunks.
    attributes
        Free attributes, e.g. acquisition metadata with units in the names.
    axes
        Names of the axes.

    Raises
    ------
    UserError
        ``path`` holds something that is no Zarr store, or cannot be written.
    """
    fitted_chunk, fitted_shard = fit_blocks(shape, chunk, shard)
    metadata = array_metadata(
        shape=shape, dtype=dtype, chunk=fitted_chunk, shard=fitted_shard, axes=axes
    )
    plain = json.loads(json.dumps({**metadata, "attributes": attributes}, allow_nan=False))
    make_store(Path(path), {"": plain})
    return open_array(path)


def open_array(path: Path) -> ShardedArray:
    """Open a Zarr v3 array for boxes to be read and shards to be written.

    Raises
    ------
    UserError
        It is missing, no Zarr v3 array, or its metadata is damaged.
    """
    path = Path(path).absolute()
    metadata = read_metadata(path, node_type="array")
    try:
        shard = tuple(int(n) for n in metadata["chunk_grid"]["configuration"]["chunk_shape"])
        codec = metadata["codecs"][0]
        sharded = codec["name"] == "sharding_indexed"
        chunk = tuple(int(n) for n in codec["configuration"]["chunk_shape"]) if sharded else shard
        shape = tuple(int(n) for n in metadata["shape"])
        return ShardedArray(path, shape, np.dtype(metadata["data_type"]), chunk, shard, metadata)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"has damaged or unknown Zarr metadata: {error!r}",
            where=path,
            fix="rerun the stage that made it",
        ) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot be read: {error}",
        where=path,
        fix="find damaged shards by `vasculome doctor --verify`, then rerun the stage that made it",
    )
