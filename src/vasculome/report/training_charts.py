"""Learning curves: loss and validation score against steps, a line a seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vasculome.report.charts import BAR, MARK, TEXT, note, style, white_figure
from vasculome.report.words import heading

_PANEL_IN = (4.2, 3.2)
_COLOURS = (BAR, MARK, "#4f9d69", "#8e6bb0", "#b8912f", "#555555")
_COLUMNS = 3
_POINTS = 100
"""Of a curve of losses: each is the mean of as many steps as that takes."""


def learning_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the loss and every validation metric against steps.

    Parameters
    ----------
    records
        Of one network, one a seed: ``seed``, ``best_step`` and ``curves`` (``step``, ``loss``,
        ``validated``, ``metrics``), as a training leaves them.
    """
    names = list(records[0]["curves"]["metrics"][0])
    columns = min(_COLUMNS, 1 + len(names))
    rows = math.ceil((1 + len(names)) / columns)
    figure = white_figure((_PANEL_IN[0] * columns, _PANEL_IN[1] * rows))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    loss_axes, *metric_axes = grid[: 1 + len(names)]
    for axes in grid[1 + len(names) :]:
        axes.set_visible(False)
    style(loss_axes, "Loss of learning")
    for number, record in enumerate(records):
        steps, losses = smoothed(record["curves"]["step"], record["curves"]["loss"])
        loss_axes.plot(steps, losses, color=_colour(number), lw=1.2, label=f"seed {record['seed']}")
    for name, axes in zip(names, metric_axes, strict=True):
        style(axes, f"{heading(name).capitalize()} of validation")
        for number, record in enumerate(records):
            _draw_metric(axes, record, name, colour=_colour(number))
        _scale(axes)
    last = max(record["curves"]["step"][-1] + 1 for record in records)
    for axes in (loss_axes, *metric_axes):
        axes.set_xlabel("steps", fontsize=9, color=TEXT)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlim(0, 1.03 * last)
    loss_axes.legend(frameon=False, fontsize=8, labelcolor=TEXT)
    return figure


def smoothed(
    steps: Sequence[int], losses: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means of neighbouring losses, and of their steps; of few each stands for itself."""
    parts = np.array_split(np.arange(len(steps)), min(_POINTS, len(steps)))
    mean_step = np.array([np.mean([steps[i] + 1 for i in part]) for part in parts])
    return mean_step, np.array([np.mean([losses[i] for i in part]) for part in parts])


def _draw_metric(axes: Axes, record: Mapping[str, Any], name: str, *, colour: str) -> None:
    curves = record["curves"]
    values = [metrics[name] for metrics in curves["metrics"]]
    shown = np.array([np.nan if value is None else value for value in values])
    axes.plot(curves["validated"], shown, color=colour, lw=1.2, marker=".", ms=4)
    best = curves["validated"].index(record["best_step"])
    axes.plot(record["best_step"], shown[best], "o", ms=8, mfc="none", mec=colour, mew=1.4)


def _scale(axes: Axes) -> None:
    """Begin at 0 where nothing is below; say so where there is nothing to draw."""
    drawn = np.concatenate([line.get_ydata() for line in axes.lines])
    if np.isnan(drawn).all():
        note(axes, "nothing to measure: no bubble was found")
    elif np.nanmin(drawn) >= 0:
        axes.set_ylim(0, 1.1 * np.nanmax(drawn) or 1.0)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
