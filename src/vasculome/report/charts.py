"""Charts on white: distributions with their median, and singular values of the clutter filter."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vasculome.report.panels import DPI

_SIZE_IN = (5.6, 3.4)
_BAR = "#3b6ea5"
_MARK = "#c8553d"
_TEXT = "#222222"
_BINS = 60
_LONGEST_TAIL_PERCENT = 99.7
"""Percentile where a histogram ends; how much lies beyond is written on it."""


def _chart(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_IN, dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(colors=_TEXT, labelsize=9, color="#888888")
    axes.set_title(title, fontsize=10, loc="left", color=_TEXT)
    return figure, axes


def histogram(
    values: NDArray[np.generic],
    *,
    title: str,
    label: str,
    unit: str,
    counted: str,
    bin_width: float | None = None,
) -> Figure:
    """Return the distribution of ``values`` with its median and quartiles.

    Parameters
    ----------
    values
        Shape (n,), n > 0, all finite and at least zero. Whole numbers get whole bins.
    label, unit
        Quantity of the horizontal axis and its unit, e.g. ``"radius"`` and ``"µm"``.
    counted
        What one value stands for, in the plural, e.g. ``"skeleton voxels"``.
    bin_width
        Narrowest bin, for values that come in steps, such as distances between voxels.
    """
    if values.size == 0 or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("a histogram needs at least one value, all finite and not negative")
    figure, axes = _chart(title)
    edges = _edges(values, bin_width or 0.0)
    counts, _ = np.histogram(values, edges)
    beyond = 100 * (1 - counts.sum() / values.size)
    axes.stairs(100 * counts / values.size, edges, fill=True, color=_BAR, lw=0)
    lower, median, upper = (float(q) for q in np.percentile(values, [25, 50, 75]))
    axes.axvspan(lower, upper, color=_MARK, alpha=0.12, lw=0, zorder=0)
    axes.axvline(median, color=_MARK, lw=1.4)
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(0, None)
    axes.set_xlabel(f"{label} ({unit})", fontsize=9, color=_TEXT)
    axes.set_ylabel(f"{counted} (%)", fontsize=9, color=_TEXT)
    axes.annotate(
        f"median {median:.3g} {unit}\nquartiles {lower:.3g} to {upper:.3g} {unit}\n"
        f"n = {values.size:,}" + (f"\n{beyond:.1g} % beyond the axis" if beyond > 0 else ""),
        (0.98, 0.96),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=9,
        color=_TEXT,
    )
    return figure


def _edges(values: NDArray[np.generic], narrowest: float) -> NDArray[np.floating]:
    high = float(np.percentile(values, _LONGEST_TAIL_PERCENT)) or 1.0
    if np.issubdtype(values.dtype, np.integer):
        width = max(1.0, np.ceil(high / _BINS))
        return np.arange(0, high + 1 + width, width) - 0.5
    width = max(high / _BINS, narrowest)
    return np.arange(np.ceil(high / width) + 1) * width


def singular_values(
    values: NDArray[np.floating], *, first_kept: int, title: str = "Clutter filter"
) -> Figure:
    """Return the singular values of the acquisition in decibels, and the part that was kept.

    Parameters
    ----------
    values
        Singular values, largest first, shape (n,), positive.
    first_kept
        Index, from 0, of the first singular value that the filter keeps as blood.
    """
    figure, axes = _chart(title)
    order = np.arange(1, len(values) + 1)
    decibels = 20 * np.log10(np.maximum(values, values[0] * 1e-12) / values[0])
    axes.plot(order, decibels, color=_BAR, lw=1.4)
    axes.axvspan(0.5, first_kept + 0.5, color=_MARK, alpha=0.12, lw=0)
    axes.axvline(first_kept + 0.5, color=_MARK, lw=1.2)
    axes.set_xlim(0.5, len(values) + 0.5)
    axes.set_xlabel("singular value, by size", fontsize=9, color=_TEXT)
    axes.set_ylabel("size (dB below the first)", fontsize=9, color=_TEXT)
    axes.annotate(
        f"left of the line: removed as tissue ({first_kept})",
        (0.98, 0.96),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=9,
        color=_TEXT,
    )
    return figure
