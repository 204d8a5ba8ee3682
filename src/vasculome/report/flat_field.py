"""The light over the camera's field, as stitching took it out of every tile."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vasculome.geometry import Spacing
from vasculome.report import colors
from vasculome.report.mosaic import Shading
from vasculome.report.panels import black_panels, draw_color_bar, draw_scale_bar

_WIDTH_IN = 4.4
_MOST_PX = 512
"""Pixels a side that are drawn: the field is smooth."""


def flat_field_figure(shading: Shading, *, spacing_um: Spacing) -> Figure:
    """Return the flat field with contours, each with its relative brightness."""
    step = max(1, -(-max(shading.flat.shape) // _MOST_PX))
    shown = shading.flat[::step, ::step]
    height, width = (n * s for n, s in zip(shading.flat.shape, spacing_um[1:], strict=True))
    figure, (panel,) = black_panels(
        (width, height), titles=["Flat field"], panel_width_in=_WIDTH_IN, legends=[True]
    )
    low, high = float(shown.min()), float(shown.max())
    # A field without structure is shown flat, its rounding errors not as hills.
    norm = Normalize(min(low, 0.99), max(high, 1.01))
    panel.axes.imshow(
        shown, extent=(0, width, height, 0), cmap=colors.FLAT_FIELD, norm=norm, aspect="auto"
    )
    levels = [v for v in MaxNLocator(8).tick_values(norm.vmin, norm.vmax) if low < v < high]
    if levels:
        y, x = (
            (np.arange(n) + 0.5) * step * s
            for n, s in zip(shown.shape, spacing_um[1:], strict=True)
        )
        middle = 0.5 * (norm.vmin + norm.vmax)
        ink = ["white" if level < middle else "black" for level in levels]
        lines = panel.axes.contour(x, y, shown, levels=levels, colors=ink, linewidths=0.7)
        panel.axes.clabel(lines, fmt="%.3g", fontsize=7)
    draw_color_bar(
        panel,
        cmap=colors.FLAT_FIELD,
        norm=norm,
        label="relative brightness (mean 1)",
        extend="neither",
    )
    draw_scale_bar(panel, extent_um=width)
    return figure
