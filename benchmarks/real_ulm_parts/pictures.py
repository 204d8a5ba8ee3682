"""Pictures of what was there beside what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

_SIZE_IN = (11.0, 11.6)
_DPI = 90


def draw_beside(
    path: Path,
    *,
    density: tuple[NDArray[np.floating], NDArray[np.floating]],
    speed_mm_s: tuple[NDArray[np.floating], NDArray[np.floating]],
    extent_mm: float,
    title: str,
) -> None:
    """Write a picture of density and speed, of the truth on the left and as found on the right."""
    figure = Figure(figsize=_SIZE_IN, dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, values, label, colours in (
        (rows[0], [np.sqrt(d) for d in density], "passages, square root", "inferno"),
        (rows[1], speed_mm_s, "speed (mm/s)", "turbo"),
    ):
        seen = values[0][values[0] > 0]
        for panel, image, whose in zip(axes, values, ("bubbles", "found"), strict=True):
            panel.set_facecolor("black")
            drawn = panel.imshow(
                np.where(image > 0, image, np.nan),
                vmin=0,
                vmax=float(np.percentile(seen, 99.5)),
                cmap=colours,
                extent=(0, extent_mm, extent_mm, 0),
                interpolation="nearest",
            )
            panel.set_title(f"{label}: {whose}", fontsize=10, loc="left")
        figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.01)
    for panel in rows[1]:
        panel.set_xlabel("lateral (mm)")
    for panel in rows[:, 0]:
        panel.set_ylabel("depth (mm)")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
