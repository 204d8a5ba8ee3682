"""IQ in MATLAB files up to version 7, loaded a variable at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.io

from vasculome.readers.files import file_state
from vasculome.readers.iq_arrays import Index, StoredArray, readable, split_cell
from vasculome.readers.iq_metadata import METADATA_NAMES
from vasculome.readers.mat5 import list_mat5


@dataclass(frozen=True)
class Mat5Format:
    """A MATLAB file up to version 7, loaded a whole variable at a time."""

    loads_whole: ClassVar[bool] = True
    drops_ones: ClassVar[bool] = True

    def arrays(self, path: Path) -> tuple[StoredArray, ...]:
        """Return the variables, and the cells of cell arrays, from their headers."""
        found = [_mat5_array(v.name, v.shape, v.class_name, v.is_complex) for v in list_mat5(path)]
        # A cell is loaded with all others of its array.
        whole: dict[str, int] = {}
        for array in found:
            variable = split_cell(array.name)[0]
            whole[variable] = whole.get(variable, 0) + array.n_bytes
        return tuple(replace(a, n_bytes=whole[split_cell(a.name)[0]]) for a in found)

    def load(self, path: Path, name: str, index: Index) -> npt.NDArray[Any]:
        """Return a piece of a variable that stays in memory."""
        variable, cell = split_cell(name)
        array = _load_mat5(path, variable, *file_state(path))
        if cell is not None:
            with readable(path):
                array = np.asarray(array.ravel(order="F")[cell - 1])
        return array[index[: array.ndim]]

    def metadata(self, path: Path, name: str) -> list[dict[str, Any]]:
        """Return the variables with documented names."""
        names = [v.name for v in list_mat5(path) if v.name in METADATA_NAMES]
        if not names:
            return []
        with readable(path):
            values = scipy.io.loadmat(path, variable_names=names)
        return [{key: values[key] for key in names}]


def _mat5_array(
    name: str, shape: tuple[int, ...], class_name: str, is_complex: bool
) -> StoredArray:
    try:
        dtype = np.dtype(class_name)
    except TypeError:
        return StoredArray(name, shape, class_name, 0)
    kind = "complex" if is_complex else "real"
    n_bytes = int(np.prod(shape)) * dtype.itemsize * (1 + is_complex)
    return StoredArray(name, shape, kind, n_bytes, str(dtype))


# Two, since I and Q may be two variables.
@lru_cache(maxsize=2)
def _load_mat5(path: Path, name: str, size: int, mtime_ns: int) -> npt.NDArray[Any]:
    with readable(path):
        return np.asarray(scipy.io.loadmat(path, variable_names=[name])[name])
