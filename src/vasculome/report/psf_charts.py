"""The echo of a single bubble, depth by depth: its envelope in decibels and its width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from vasculome.report.charts import MARK, TEXT, white_figure

_PANEL_IN = 2.4
_HEIGHT_IN = 2.0
_WORDS_IN = 1.2
_LEGEND_IN = 0.9
_MOST_BANDS = 5
_FLOOR_DB = -30.0
_DIRECTIONS = {"z": "axial", "x": "lateral", "y": "elevation"}


def psf(kept: Mapping[str, NDArray[Any]]) -> Figure:
    """Return the envelope of the echo in each depth band, with its width beside it.

    Parameters
    ----------
    kept
        ``echoes`` (bands, z, [y,] x), ``depth_um`` (bands,) below the first row, ``spacing_um``
        and ``fwhm_um`` (bands, axes), ``wavelength_um``; ``bubbles`` (bands,) where it is learnt.
        Of many bands, some from all depths are shown.
    """
    bands = len(kept["echoes"])
    shown = np.unique(np.linspace(0, bands - 1, min(bands, _MOST_BANDS)).round().astype(int))
    views = ("x",) if kept["echoes"].ndim == 3 else ("x", "y")
    size = (_PANEL_IN * len(shown) + _LEGEND_IN, _HEIGHT_IN * len(views) + _WORDS_IN)
    figure = white_figure(size)
    grid = figure.subplots(len(views), len(shown), squeeze=False)
    colour = ScalarMappable(Normalize(_FLOOR_DB, 0), "viridis")
    for row, across in zip(grid, views, strict=True):
        for axes, band in zip(row, shown, strict=True):
            _draw(axes, kept, band, across=across, colour=colour)
    for axes, band in zip(grid[0], shown, strict=True):
        axes.set_title(_head(kept, band), fontsize=9, loc="left", color=TEXT)
    for axes, band in zip(grid[-1], shown, strict=True):
        label = f"{axes.get_xlabel()}\n{_width_words(kept, band)}"
        axes.set_xlabel(label, fontsize=9, color=TEXT)
    bar = figure.colorbar(colour, ax=grid, shrink=0.8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, color="#888888", labelcolor=TEXT)
    bar.set_label("envelope (dB)", fontsize=9, color=TEXT)
    return figure


def _draw(
    axes: Axes,
    kept: Mapping[str, NDArray[Any]],
    band: int,
    *,
    across: str,
    colour: ScalarMappable,
) -> None:
    """Draw the plane through the middle, z down and ``across`` to the right."""
    envelope = np.abs(kept["echoes"][band])
    letters = "zx" if envelope.ndim == 2 else "zyx"
    other = [axis for axis, name in enumerate(letters) if name not in ("z", across)]
    middle = envelope[tuple(n // 2 for n in envelope.shape)]
    for axis in other:
        envelope = np.take(envelope, envelope.shape[axis] // 2, axis=axis)
    column = letters.index(across)
    step_z, step_x = kept["spacing_um"][0], kept["spacing_um"][column]
    right, down = step_x * envelope.shape[1] / 2, step_z * envelope.shape[0] / 2
    decibels = 20 * np.log10(np.maximum(envelope / middle, 10 ** (_FLOOR_DB / 20)))
    axes.imshow(decibels, extent=(-right, right, down, -down), cmap=colour.cmap, norm=colour.norm)
    height, width = kept["fwhm_um"][band, 0], kept["fwhm_um"][band, column]
    if np.isfinite([height, width]).all():
        axes.add_patch(Ellipse((0, 0), width, height, fill=False, ec=MARK, lw=1.4))
    axes.set_xlabel(f"{across} (µm)", fontsize=9, color=TEXT)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel("z (µm)", fontsize=9, color=TEXT)
    axes.tick_params(labelsize=8, color="#888888", labelcolor=TEXT)
    axes.spines[:].set_visible(False)


def _head(kept: Mapping[str, NDArray[Any]], band: int) -> str:
    if len(kept["echoes"]) == 1 and "bubbles" not in kept:
        return "all depths"
    head = f"{kept['depth_um'][band] / 1000:.3g} mm below the first row"
    if "bubbles" in kept:
        head += f"\n{kept['bubbles'][band]:,} bubbles"
    return head


def _width_words(kept: Mapping[str, NDArray[Any]], band: int) -> str:
    widths = kept["fwhm_um"][band]
    lines = []
    for axis, width_um in zip("zx" if len(widths) == 2 else "zyx", widths, strict=True):
        told = f"{width_um:.0f} µm = {width_um / float(kept['wavelength_um']):.2f} λ"
        wide = "wider than shown" if np.isnan(width_um) else told
        lines.append(f"{_DIRECTIONS[axis]} {wide}")
    return "\n".join(lines)
