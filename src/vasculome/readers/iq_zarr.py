"""IQ in Zarr arrays and groups, read in pieces through an opener that the caller gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from vasculome.readers.iq_arrays import Index, StoredArray, readable, stored_array
from vasculome.readers.iq_metadata import METADATA_NAMES


class ArrayLike(Protocol):
    """A lazy array, as h5py's and Zarr's."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> Any:
        """Type of the elements, as NumPy's."""

    def __getitem__(self, index: Index, /) -> Any:
        """Return a piece that NumPy can turn into an array."""


OpenZarr = Callable[[Path], ArrayLike]


@dataclass(frozen=True)
class ZarrFormat:
    """A Zarr array or group (version 2 or 3), opened by what the caller gives."""

    open_zarr: OpenZarr
    loads_whole: ClassVar[bool] = False
    drops_ones: ClassVar[bool] = False

    def arrays(self, path: Path) -> tuple[StoredArray, ...]:
        """Return the array, or the arrays of the group."""
        if _is_zarr_array(path):
            names = [""]
        else:
            names = sorted(p.name for p in path.iterdir() if p.is_dir() and _is_zarr_array(p))
        with readable(path):
            return tuple(stored_array(name, self.open_zarr(path / name)) for name in names)

    def load(self, path: Path, name: str, index: Index) -> npt.NDArray[Any]:
        """Return a piece; only the chunks that it touches are read."""
        with readable(path):
            array = self.open_zarr(path / name)
            return np.asarray(array[index[: len(array.shape)]])

    def metadata(self, path: Path, name: str) -> list[dict[str, Any]]:
        """Return attributes of the array and of its group."""
        places = [_zarr_attributes(p) for p in dict.fromkeys((path / name, path))]
        return [{k: place[k] for k in METADATA_NAMES if k in place} for place in places]


def is_zarr(path: Path) -> bool:
    """Tell whether ``path`` is a Zarr array or group."""
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def _is_zarr_array(path: Path) -> bool:
    if (path / "zarr.json").is_file():
        return bool(_json(path / "zarr.json").get("node_type") == "array")
    return (path / ".zarray").is_file()


def _zarr_attributes(path: Path) -> dict[str, Any]:
    if (path / "zarr.json").is_file():
        return dict(_json(path / "zarr.json").get("attributes", {}))
    return _json(path / ".zattrs") if (path / ".zattrs").is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    with readable(path):
        return dict(json.loads(path.read_text(encoding="utf-8")))
