"""Real data from beside the repository, and what reads results without our own readers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # tests and benchmark score in one way

DATA = Path(os.environ.get("VASCULOME_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"no real data in {DATA} (VASCULOME_DATA can name another folder)")
    return DATA


@pytest.fixture(scope="session")
def read_level():
    """Return a function that reads a level of an OME-Zarr by zarr-python alone."""

    def read(store: Path, level: int = 0) -> np.ndarray:
        return zarr.open_array(str(store / str(level)), mode="r")[:]

    return read
