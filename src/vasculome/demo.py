"""The demonstration's raw data: a light-sheet sample in tiles, and a ULM acquisition."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vasculome.simulate.microscope import cut_tiles
from vasculome.simulate.phantoms import microscope_phantom, ultrasound_phantom
from vasculome.storage.raw_files import write_npy_blocks, write_tiff_tiles
from vasculome.storage.tables import write_table

SHEET_SHAPE = (128, 400, 400)
SHEET_SPACING_UM = (4.0, 2.0, 2.0)
TILE_SHAPE = (128, 224, 224)
TILE_OVERLAP = (0, 48, 48)
ULM_FRAMES = 4000
ULM_SHAPE = (128, 128)


def simulate_raw(folder: Path, *, seed: int) -> None:
    """Write ``lightsheet/`` (TIFF tiles) and ``ulm.npy`` (IQ) with their truth beside them.

    What is already there is kept: the same seed gives the same data.
    """
    if not (folder / "lightsheet/tiles.tsv").exists():
        print("Simulating a light-sheet sample ...", flush=True)
        _simulate_lightsheet(folder, seed=seed)
    if not (folder / "ulm.npy").exists():
        print("Simulating a ULM acquisition ...", flush=True)
        _simulate_ulm(folder, seed=seed)


def _simulate_lightsheet(folder: Path, *, seed: int) -> None:
    volume, truth = microscope_phantom(seed, shape=SHEET_SHAPE, spacing_um=SHEET_SPACING_UM)
    cut = cut_tiles(
        volume,
        tile_shape=TILE_SHAPE,
        overlap=TILE_OVERLAP,
        jitter=(0, 0, 0),
        rng=np.random.default_rng(seed),
    )
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "lightsheet_truth.npy", truth)
    positions_um = [np.multiply(tile.nominal_start, SHEET_SPACING_UM).tolist() for tile in cut]
    write_tiff_tiles(folder / "lightsheet", [tile.array for tile in cut], positions_um)


def _simulate_ulm(folder: Path, *, seed: int) -> None:
    phantom = ultrasound_phantom(seed, n_frames=ULM_FRAMES, shape=ULM_SHAPE)
    write_table(folder / "ulm_truth.parquet", phantom.bubbles.columns())
    write_npy_blocks(
        folder / "ulm.npy", phantom.blocks, shape=(ULM_FRAMES, *ULM_SHAPE), dtype="complex64"
    )
