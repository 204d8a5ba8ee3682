"""Shards by tensorstore: encoded and written beside their place, then put there whole."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt
import tensorstore as ts

from vasculome.geometry import Box, TileGrid
from vasculome.storage.shards import (
    ABSENT,
    TEMPORARY,
    codec_context,
    explained,
    file_checksum,
    make_folder,
    put_in_place,
    remove_file,
    sync_folder,
)

# One shard is encoded while the one before goes to the disk.
_SHARDS_AHEAD = 1


class ShardWriter:
    """Writes shards of one array while its caller does something else; a context manager.

    tensorstore's file driver encodes and writes 1 GB in 1.5 CPU s; encoding into its memory
    driver and writing from there took 2.3. Reading a file again for its checksum is cheap, since
    it comes from the page cache.

    Parameters
    ----------
    path
        Folder of the array.
    metadata
        Of the array.
    shard
        Voxels of a shard.
    """

    def __init__(self, path: Path, metadata: dict[str, Any], shard: tuple[int, ...]) -> None:
        self._path = path
        self._shard = shard
        self._staging = path / f".{secrets.token_hex(4)}{TEMPORARY}"
        self._store = open_store(self._staging, metadata, write=True)
        self._writing: deque[tuple[str, npt.NDArray[Any], ts.WriteFutures]] = deque()
        self._files: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After a fault: what is still being written must end before its folder is removed.
        for _, _, future in self._writing:
            with contextlib.suppress(ValueError, RuntimeError):
                future.result()
        shutil.rmtree(self._staging, ignore_errors=True)

    def start(self, box: Box, values: npt.NDArray[Any]) -> None:
        """Begin to write ``values``, not to be changed before :meth:`finish`, to whole shards.

        Raises as :meth:`finish`.
        """
        for tile in TileGrid(box, self._shard, (0,) * box.ndim):
            index = (a // s for a, s in zip(tile.core.start, self._shard, strict=True))
            block = values[tile.core.relative_to(box).slices]
            # Never with can_reference_source_data_indefinitely: tensorstore 0.1.86 then loses
            # shards of four axes without a word.
            future = self._store[tile.core.slices].write(block)
            self._writing.append(("/".join(["c", *map(str, index)]), block, future))
            if len(self._writing) > _SHARDS_AHEAD:
                self._finish_one()

    def finish(self) -> dict[str, str]:
        """Wait until all is durable; return the checksum of each file by its name in the array.

        Raises
        ------
        UserError
            No space, no permission, or another run has taken over the store.
        OSError
            Any other fault of the file system; worth a retry.
        """
        while self._writing:
            self._finish_one()
        folders = {(self._path / name).parent for name, c in self._files.items() if c != ABSENT}
        try:
            for folder in folders:
                sync_folder(folder)
        except OSError as error:
            raise explained(error, self._path) from error
        return self._files

    def _finish_one(self) -> None:
        name, block, future = self._writing.popleft()
        path = self._path / name
        try:
            _wait(future)
            recorded = file_checksum(self._staging / name)
            if recorded != ABSENT:
                make_folder(path.parent)
                put_in_place(self._staging / name, path)
            elif block.any():
                raise RuntimeError(f"tensorstore has not written {path}")
            else:
                remove_file(path)
        except OSError as error:
            raise explained(error, self._path) from error
        self._files[name] = recorded


def open_store(folder: Path, metadata: dict[str, Any], *, write: bool = False) -> ts.TensorStore:
    """Open the array of ``metadata`` in ``folder``, for reading or for writing."""
    return ts.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{folder}/"},
            "metadata": {k: v for k, v in metadata.items() if k != "attributes"},
        },
        open=True,
        read=not write,
        write=write,
        assume_metadata=True,
        context=codec_context(),
    ).result()


def _wait(future: ts.WriteFutures) -> None:
    try:
        future.result()
    except (ValueError, RuntimeError) as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        number = int(code[1])
        raise OSError(number, os.strerror(number)) from error
