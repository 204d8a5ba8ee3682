"""Raw files as microscopes and scanners write them, for simulated data."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from vasculome.storage.shards import write_bytes_atomic
from vasculome.storage.tables import part_path, write_table


def write_tiff_tiles(
    folder: Path,
    tiles: Sequence[npt.NDArray[Any]],
    positions_um: Sequence[Sequence[float]],
) -> None:
    """Write one stack a tile (z, y, x), and ``tiles.tsv`` with the stage's positions."""
    rows = io.StringIO()
    table = csv.writer(rows, delimiter="\t", lineterminator="\n")
    table.writerow(["file", "z_um", "y_um", "x_um"])
    for number, (tile, position_um) in enumerate(zip(tiles, positions_um, strict=True)):
        name = f"tile_{number:02d}.tif"
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, tile, photometric="minisblack", metadata=None)
        write_bytes_atomic(folder / name, buffer.getbuffer())
        table.writerow([name, *position_um])
    write_bytes_atomic(folder / "tiles.tsv", rows.getvalue().encode())


def write_npy_blocks(
    path: Path, blocks: Iterable[npt.NDArray[Any]], *, shape: tuple[int, ...], dtype: str
) -> None:
    """Write blocks along the first axis into one ``.npy``, never holding more than one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half_written = path.with_suffix(".partial")
    out = np.lib.format.open_memmap(half_written, mode="w+", dtype=dtype, shape=shape)
    at = 0
    for block in blocks:
        out[at : at + len(block)] = block
        at += len(block)
    if at != shape[0]:
        raise ValueError(f"{at} of {shape[0]} frames were given")
    out.flush()
    half_written.replace(path)


def write_acquisition(
    folder: Path,
    blocks: Iterable[tuple[npt.NDArray[Any], Mapping[str, npt.NDArray[Any]]]],
    *,
    shape: tuple[int, ...],
) -> None:
    """Write a simulated acquisition and its truth, never holding more than one block.

    ``iq.npy`` is there once all is written; ``truth/`` holds a part for each block, to be read by
    `vasculome.storage.tables.read_parts`. What was there before is replaced.

    Parameters
    ----------
    folder
        Where to.
    blocks
        Complex frames (frames, z, [y,] x), and columns of the truth about them.
    shape
        Of all frames together.
    """
    truth = folder / "truth"
    (folder / "iq.npy").unlink(missing_ok=True)
    for old in truth.glob("part-*.parquet"):
        old.unlink()

    def frames() -> Iterator[npt.NDArray[Any]]:
        for number, (iq, columns) in enumerate(blocks):
            write_table(part_path(truth, number), columns)
            yield iq

    write_npy_blocks(folder / "iq.npy", frames(), shape=shape, dtype="complex64")
