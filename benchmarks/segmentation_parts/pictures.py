"""Overlays as in figure 4 of the VpbSD paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from segmentation_parts.measures import Mask, Volume

RIGHT, MISSED, ADDED = (0.1, 0.8, 0.2), (0.2, 0.4, 1.0), (1.0, 0.15, 0.15)
_LEGEND = (
    (RIGHT, "found, in the label"),
    (MISSED, "missed: only in the label"),
    (ADDED, "only found"),
)
_SLAB = 10
_DPI = 90


def draw_overlays(path: Path, volume: Volume, masks: dict[str, Mask]) -> None:
    """Write slabs of the image, as its square root, beside overlays of masks.

    Of each slab the brightest voxel along z is seen, and the most frequent colour of `overlay`.
    """
    middle = len(volume.image) // 2
    starts = sorted({max(0, middle // 2 - _SLAB), middle, max(0, middle + middle // 2)})
    figure = Figure(
        figsize=(3.0 * (1 + len(masks)), 3.2 * len(starts) + 0.4), dpi=_DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(starts), 1 + len(masks), squeeze=False)
    for panels, start in zip(rows, starts, strict=True):
        slab = slice(start, start + _SLAB)
        last = min(start + _SLAB, len(volume.image)) - 1
        panels[0].imshow(np.sqrt(volume.image[slab].max(0)), cmap="gray", vmin=0, vmax=1)
        panels[0].set_title(f"image, planes {start} to {last}", fontsize=9)
        for panel, (name, mask) in zip(panels[1:], masks.items(), strict=True):
            panel.imshow(overlay(mask[slab], volume.mask[slab]))
            panel.set_title(name, fontsize=9)
        for panel in panels:
            panel.set_axis_off()
    figure.legend(
        handles=[Patch(color=colour, label=words) for colour, words in _LEGEND],
        loc="outside lower center",
        ncols=len(_LEGEND),
        fontsize=9,
        frameon=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def overlay(mask: Mask, truth: Mask) -> NDArray[np.float64]:
    """Return colours (y, x, 3) of masks (z, y, x): of those along z the most frequent."""
    counts = np.stack([(mask & truth).sum(0), (~mask & truth).sum(0), (mask & ~truth).sum(0)])
    colours = np.array([RIGHT, MISSED, ADDED])[counts.argmax(0)]
    return np.where(counts.max(0)[..., None] > 0, colours, 0.0)
