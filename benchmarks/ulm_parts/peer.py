"""Links a file of detections with trackpy and laptrack; run by the interpreter that has them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import trackpy
from laptrack import LapTrack


def by_trackpy(table: pd.DataFrame, axes: list[str], gate_um: float) -> None:
    trackpy.quiet()
    trackpy.link(table, search_range=gate_um, memory=1, pos_columns=axes, t_column="frame")


def by_laptrack(table: pd.DataFrame, axes: list[str], gate_um: float) -> None:
    linker = LapTrack(
        cutoff=gate_um**2, gap_closing_cutoff=gate_um**2, gap_closing_max_frame_count=1
    )
    linker.predict_dataframe(table, axes, frame_col="frame", only_coordinate_cols=True)


def main() -> None:
    path, gate_um = sys.argv[1], float(sys.argv[2])
    with np.load(path, allow_pickle=False) as stored:
        table = pd.DataFrame({name: stored[name] for name in stored.files})
    axes = [name for name in table.columns if name != "frame"]
    peers: dict[str, Callable[[pd.DataFrame, list[str], float], None]] = {
        "trackpy": by_trackpy,
        "laptrack": by_laptrack,
    }
    seconds = {}
    for name, link in peers.items():
        few = table[table["frame"] < 20]
        link(few, axes, gate_um)
        started = time.perf_counter()
        link(table, axes, gate_um)
        seconds[name] = time.perf_counter() - started
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
