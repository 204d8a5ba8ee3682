"""IQ in NumPy files: .npy mapped into memory, .npz loaded an array at a time."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vasculome.readers.files import file_state
from vasculome.readers.iq_arrays import Index, StoredArray, readable, stored_array
from vasculome.readers.iq_metadata import METADATA_NAMES


@dataclass(frozen=True)
class NpyFormat:
    """A NumPy array, mapped into memory."""

    loads_whole: ClassVar[bool] = False
    drops_ones: ClassVar[bool] = False

    def arrays(self, path: Path) -> tuple[StoredArray, ...]:
        """Return the one array."""
        with readable(path):
            return (stored_array("", np.load(path, mmap_mode="r", allow_pickle=False)),)

    def load(self, path: Path, name: str, index: Index) -> npt.NDArray[Any]:
        """Return a piece, read through the map."""
        with readable(path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return np.asarray(array[index[: array.ndim]])

    def metadata(self, path: Path, name: str) -> list[dict[str, Any]]:
        """Return nothing: the format has no room for it."""
        return []


@dataclass(frozen=True)
class NpzFormat:
    """A zip of NumPy arrays, loaded a whole array at a time."""

    loads_whole: ClassVar[bool] = True
    drops_ones: ClassVar[bool] = False

    def arrays(self, path: Path) -> tuple[StoredArray, ...]:
        """Return the members, from their headers."""
        with readable(path), zipfile.ZipFile(path) as archive:
            return tuple(_npz_member(archive, name) for name in archive.namelist())

    def load(self, path: Path, name: str, index: Index) -> npt.NDArray[Any]:
        """Return a piece of a member that stays in memory."""
        array = _load_npz(path, name, *file_state(path))
        return array[index[: array.ndim]]

    def metadata(self, path: Path, name: str) -> list[dict[str, Any]]:
        """Return the members with documented names."""
        with readable(path), np.load(path, allow_pickle=False) as archive:
            return [{key: archive[key] for key in METADATA_NAMES if key in archive.files}]


def _npz_member(archive: zipfile.ZipFile, member: str) -> StoredArray:
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    name = member.removesuffix(".npy")
    with archive.open(member) as file:
        if not member.endswith(".npy"):
            return StoredArray(name, (), "no array", 0)
        shape, _, dtype = headers[np.lib.format.read_magic(file)](file)
    return stored_array(name, np.broadcast_to(np.empty((), dtype), shape))


# Two, since I and Q may be two variables.
@lru_cache(maxsize=2)
def _load_npz(path: Path, name: str, size: int, mtime_ns: int) -> npt.NDArray[Any]:
    with readable(path), np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[name])
