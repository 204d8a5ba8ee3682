"""Charts on white: distributions with their median, residuals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vasculome.report.distribution import Distribution
from vasculome.report.panels import DPI

_SIZE_IN = (5.6, 3.4)
_THREE_SIZE_IN = (9.6, 3.1)
BAR = "#3b6ea5"
MARK = "#c8553d"
TEXT = "#222222"
_BARS = 60
_LONGEST_TAIL_PERCENT = 99.7
"""Percentile where a histogram ends; how much lies beyond is written on it."""

_LEAST_RESIDUAL_PX = 0.02
"""Reach of a histogram of residuals at the least."""


_HEADROOM = 1.35
"""Height of such a histogram over its tallest bar: words stand above the bars."""


def white_figure(size_in: tuple[float, float]) -> Figure:
    """Return an empty figure on white."""
    figure = Figure(figsize=size_in, dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def white_chart(title: str) -> tuple[Figure, Axes]:
    """Return a figure of one chart."""
    figure = white_figure(_SIZE_IN)
    axes = figure.add_subplot()
    style(axes, title)
    return figure, axes


def style(axes: Axes, title: str) -> None:
    """Make axes look like those of all charts."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(colors=TEXT, labelsize=9, color="#888888")
    axes.set_title(title, fontsize=10, loc="left", color=TEXT)


def histogram(
    distribution: Distribution,
    *,
    title: str,
    label: str,
    unit: str,
    counted: str,
    values: str,
    narrowest_bar: float = 0.0,
    whole_numbers: bool = False,
) -> Figure:
    """Return a distribution with its median and quartiles, each the middle of its bin.

    Parameters
    ----------
    distribution
        Of some weight.
    label, unit
        Quantity of the horizontal axis and its unit, e.g. ``"radius"`` and ``"µm"``.
    counted
        What the weights are, e.g. ``"vessel length"``.
    values
        What one value stands for, in the plural, e.g. ``"points"``.
    narrowest_bar
        For values that come in steps, such as distances between voxels.
    whole_numbers
        Whether bins, of width 1, hold one whole number each.
    """
    total = distribution.weight.sum()
    if not total > 0:
        raise ValueError("a histogram needs some weight")
    figure, axes = white_chart(title)
    width = distribution.bin_width
    shown = distribution.quantile(_LONGEST_TAIL_PERCENT / 100) + 1
    together = max(1, math.ceil(shown / _BARS), math.ceil(narrowest_bar / width - 1e-9))
    bars = np.add.reduceat(distribution.weight, np.arange(0, shown, together))
    # The last bar is as wide as the others; what lies beyond it is off the axis.
    end = len(bars) * together
    bars[-1] = distribution.weight[end - together : end].sum()
    start = -0.5 if whole_numbers else 0.0
    edges = width * (np.arange(len(bars) + 1) * together + start)
    axes.stairs(100 * bars / total, edges, fill=True, color=BAR, lw=0)
    lower, median, upper = (
        width * (distribution.quantile(q) + start + 0.5) for q in (0.25, 0.5, 0.75)
    )
    axes.axvspan(lower, upper, color=MARK, alpha=0.12, lw=0, zorder=0)
    axes.axvline(median, color=MARK, lw=1.4)
    axes.set_xlim(min(0, edges[0]), edges[-1])
    axes.set_ylim(0, None)
    axes.set_xlabel(f"{label} ({unit})", fontsize=9, color=TEXT)
    axes.set_ylabel(f"{counted} (%)", fontsize=9, color=TEXT)
    beyond = 100 * distribution.weight[end:].sum() / total
    lines = [
        f"median {median:.4g} {unit}",
        f"quartiles {lower:.4g} to {upper:.4g} {unit}",
        f"{distribution.count:,} {values}",
        *([f"{beyond:.1g} % beyond the axis"] if beyond > 0 else []),
    ]
    note(axes, "\n".join(lines))
    return figure


def residuals(
    residuals_px: NDArray[np.floating], *, spacing_um: Sequence[float], left_out: int
) -> Figure:
    """Return how pairs of tiles miss their offsets along z, y and x, with the root mean square.

    Parameters
    ----------
    residuals_px
        Of the pairs in use, shape (pairs, 3), in voxels.
    spacing_um
        Voxel spacing (z, y, x).
    left_out
        Pairs that are not among them because they contradict the others.
    """
    if not len(residuals_px):
        raise ValueError("a histogram needs some pairs")
    figure = white_figure(_THREE_SIZE_IN)
    all_axes = figure.subplots(1, 3, sharey=True)
    reach = float(np.percentile(np.abs(residuals_px), _LONGEST_TAIL_PERCENT, method="higher"))
    # One scale for all axes, and none so fine that it shows rounding errors.
    reach = max(reach * (1 + 1e-9), _LEAST_RESIDUAL_PX)
    # An odd number, so that no residual at all has a bar of its own.
    bars = 2 * int(np.clip(np.sqrt(len(residuals_px)), 4, 20)) + 1
    edges = np.linspace(-reach, reach, bars + 1)
    for axis, axes, along, step in zip("zyx", all_axes, residuals_px.T, spacing_um, strict=True):
        style(axes, f"Residuals along {axis}")
        counts = np.histogram(along, edges)[0]
        axes.stairs(counts, edges, fill=True, color=BAR, lw=0)
        axes.axvline(0, ymax=1 / _HEADROOM, color="#888888", lw=0.6)
        axes.set_xlim(-reach, reach)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], prune="both"))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel(f"position less offset (px; 1 px is {step:g} µm)", fontsize=9, color=TEXT)
        root = float(np.sqrt(np.square(along).mean()))
        lines = [f"RMS {root:.2g} px = {root * step:.2g} µm"]
        beyond = len(along) - int(counts.sum())
        if beyond:
            lines.append(f"{beyond:,} beyond the axis")
        note(axes, "\n".join(lines))
    all_axes[0].set_ylabel("pairs", fontsize=9, color=TEXT)
    all_axes[0].set_ylim(0, _HEADROOM * all_axes[0].get_ylim()[1])
    many = f"{len(residuals_px):,} pairs" + f", {left_out:,} outliers left out" * (left_out > 0)
    figure.suptitle(many, fontsize=9, color=TEXT, x=0.01, ha="left")
    return figure


def note(axes: Axes, text: str) -> None:
    """Write into the upper right corner."""
    axes.annotate(
        text,
        (0.98, 0.96),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=9,
        color=TEXT,
        bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.5},
    )
