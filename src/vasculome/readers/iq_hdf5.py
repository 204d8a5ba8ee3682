"""IQ in HDF5 files, MATLAB 7.3 files among them, read in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import numpy.typing as npt

from vasculome.readers.iq_arrays import Index, StoredArray, readable, split_cell, stored_array
from vasculome.readers.iq_metadata import METADATA_NAMES


@dataclass(frozen=True)
class Hdf5Format:
    """An HDF5 file, or a MATLAB 7.3 file, which is HDF5 with the axes reversed."""

    matlab: bool
    loads_whole: ClassVar[bool] = False

    @property
    def drops_ones(self) -> bool:
        """True of MATLAB only."""
        return self.matlab

    def arrays(self, path: Path) -> tuple[StoredArray, ...]:
        """Return the datasets at any depth, and the cells of MATLAB's cell arrays."""
        found: list[StoredArray] = []

        def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset) and not name.startswith("#"):
                found.append(self._stored(name, item))
                found.extend(
                    self._stored(f"{name}{{{number}}}", cell)
                    for number, cell in enumerate(_cells(item), start=1)
                )

        with readable(path), _open_hdf5(path) as file:
            file.visititems(visit)
        return tuple(found)

    def load(self, path: Path, name: str, index: Index) -> npt.NDArray[Any]:
        """Return a piece; only the chunks that it touches are read."""
        with readable(path), _open_hdf5(path) as file:
            array = _dataset(file, name)
            fitting = index[: array.ndim]
            if self.matlab:
                return np.asarray(array[fitting[::-1]]).T
            return np.asarray(array[fitting])

    def metadata(self, path: Path, name: str) -> list[dict[str, Any]]:
        """Return attributes of array, its group and the file, and datasets beside the array."""
        with readable(path), _open_hdf5(path) as file:
            array = file[split_cell(name)[0]]
            beside = {
                key: array.parent[key][()]
                for key in METADATA_NAMES
                if isinstance(array.parent.get(key), h5py.Dataset)
            }
            places = [array.attrs, array.parent.attrs, file.attrs, beside]
            return [{k: place[k] for k in METADATA_NAMES if k in place} for place in places]

    def _stored(self, name: str, dataset: h5py.Dataset) -> StoredArray:
        stored = stored_array(name, dataset)
        if not self.matlab:
            return stored
        label = dataset.attrs.get("MATLAB_class", b"")
        matlab_class = label.decode() if isinstance(label, bytes) else str(label)
        if dataset.attrs.get("MATLAB_empty", 0):
            return StoredArray(name, (0,), "real", 0)
        numeric = matlab_class in ("double", "single", "") or "int" in matlab_class
        kind = stored.kind if numeric else matlab_class
        return StoredArray(name, stored.shape[::-1], kind, stored.n_bytes, stored.dtype)


def _cells(dataset: h5py.Dataset) -> Iterator[h5py.Dataset]:
    """Yield what the cells of a MATLAB cell array hold, in MATLAB's order, where it is numbers."""
    if h5py.check_ref_dtype(dataset.dtype) is h5py.Reference:
        for reference in dataset[()].ravel():
            cell = dataset.file[reference]
            if not isinstance(cell, h5py.Dataset):
                return
            yield cell


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    variable, cell = split_cell(name)
    if cell is None:
        return file[variable]
    return file[file[variable][()].ravel()[cell - 1]]


def _open_hdf5(path: Path) -> h5py.File:
    # Network file systems may lack the locks that HDF5 asks for even of readers.
    return h5py.File(path, "r", locking="best-effort")
