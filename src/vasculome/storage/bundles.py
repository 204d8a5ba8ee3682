"""Named arrays in one small file: what a tile must tell its neighbours or a later stage."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.storage.shards import checksum, write_bytes_atomic


def write_bundle(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Write arrays as a compressed ``.npz`` and return its checksum; same input, same bytes.

    Raises
    ------
    UserError
        As `vasculome.storage.shards.write_bytes_atomic`.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    data = buffer.getvalue()
    write_bytes_atomic(path, data)
    return checksum(data)


def read_bundle(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a bundle.

    Raises
    ------
    UserError
        The file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            return {name: saved[name] for name in saved.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"cannot be read: {error}", where=path, fix="rerun the stage that made it"
        ) from error
