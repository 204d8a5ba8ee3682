"""Zarr arrays that others have written, of any version, for reading only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr


def open_foreign(path: Path) -> zarr.Array[Any]:
    """Open a Zarr array, version 2 or 3; slices of it are NumPy arrays."""
    return zarr.open_array(path, mode="r")
