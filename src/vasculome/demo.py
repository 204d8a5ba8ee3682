"""The demonstration's raw data: a light-sheet sample in tiles, and a ULM acquisition."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vasculome.simulate.phantoms import mosaic_phantom, ultrasound_phantom
from vasculome.storage.raw_files import write_npy_blocks, write_tiff_tiles
from vasculome.storage.tables import write_table

SHEET_TILES = (3, 3)
SHEET_SPACING_UM = (4.0, 2.0, 2.0)
TILE_SHAPE = (128, 164, 164)
TILE_OVERLAP = (46, 46)
STAGE_ERROR_PX = (1.5, 5.0, 5.0)
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
    phantom = mosaic_phantom(
        seed,
        counts=SHEET_TILES,
        tile_shape=TILE_SHAPE,
        overlap=TILE_OVERLAP,
        jitter=STAGE_ERROR_PX,
        vignetting=0.3,
        gain_spread=0.15,
        spacing_um=SHEET_SPACING_UM,
    )
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "lightsheet_truth.npy", phantom.truth)
    positions_um = np.round(phantom.nominal_starts * SHEET_SPACING_UM, 3)
    write_tiff_tiles(folder / "lightsheet", phantom.tiles, positions_um.tolist())


def _simulate_ulm(folder: Path, *, seed: int) -> None:
    phantom = ultrasound_phantom(seed, n_frames=ULM_FRAMES, shape=ULM_SHAPE)
    write_table(folder / "ulm_truth.parquet", phantom.bubbles.columns())
    write_npy_blocks(
        folder / "ulm.npy", phantom.blocks, shape=(ULM_FRAMES, *ULM_SHAPE), dtype="complex64"
    )
