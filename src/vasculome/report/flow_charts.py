"""Charts of ultrasound: why the clutter filter cuts where it does, resolution, saturation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from vasculome.report.charts import BAR, MARK, TEXT, note, style, white_chart, white_figure

_THREE_SIZE_IN = (11.4, 3.7)
_TWO_SIZE_IN = (11.4, 3.9)
_SQUARE = "#ffffff"
SAMPLES = ("#d96f00", "#0067cc", "#2b8a57", "#8a4fb0", "#6b6b6b")
"""Colours of samples side by side, the first two as in their maps over each other."""

Curves = Mapping[str, NDArray[Any]]


def clutter(evidence: Curves, summary: Mapping[str, Any]) -> Figure:
    """Return size, frequency and similarity of singular vectors, with the cuts.

    Parameters
    ----------
    evidence
        ``singular_values`` (t,), ``centroid_hz`` (t,), ``similarity`` (n, n), ``noise_value`` and
        ``tissue_below_hz``.
    summary
        ``keep_from`` and ``keep_to``, counted from 1, and what each sign proposes:
        ``keep_from_centroid``, ``keep_from_similarity``, ``keep_to_similarity``,
        ``keep_to_noise``.
    """
    figure = white_figure(_THREE_SIZE_IN)
    size, frequency, alike = figure.subplots(1, 3)
    values, centroid_hz = evidence["singular_values"], evidence["centroid_hz"]
    order = np.arange(1, len(values) + 1)

    style(size, "Size")
    size.plot(order, _decibels(values, values[0]), color=BAR, lw=1.4)
    if evidence["noise_value"] > 0:
        level = float(_decibels(evidence["noise_value"], values[0]))
        size.axhline(level, color="#888888", lw=1.0, ls=":")
    size.set_ylabel("size (dB below the first)", fontsize=9, color=TEXT)
    note(size, f"above noise: to {summary['keep_to_noise']}")

    style(frequency, "Spectral centroid")
    frequency.plot(order, centroid_hz, color=BAR, lw=1.0)
    frequency.axhline(float(evidence["tissue_below_hz"]), color="#888888", lw=1.0, ls=":")
    frequency.set_ylabel("mean Doppler frequency (Hz)", fontsize=9, color=TEXT)
    fast = summary["keep_from_centroid"]
    note(frequency, "none is fast" if fast is None else f"fast from {fast}")
    frequency.set_ylim(0, 1.2 * float(centroid_hz.max()))

    for axes in (size, frequency):
        axes.set_xscale("log")
        axes.set_xlim(1, len(values))
        axes.set_xlabel("singular vector, by size", fontsize=9, color=TEXT)
        _mark_kept(axes, summary)
    _draw_similarity(alike, evidence["similarity"], summary)
    return figure


def resolution(curves: Curves, *, resolution_um: float | None) -> Figure:
    """Return the correlation of two halves of the data over spatial frequency.

    Parameters
    ----------
    curves
        ``frequency_per_um``, ``correlation`` and ``threshold``, of one length.
    resolution_um
        Where the correlation falls below the threshold; None if it is never above.
    """
    figure, axes = white_chart("Resolution: correlation of two halves of the tracks")
    frequency = 1e3 * curves["frequency_per_um"]
    axes.plot(frequency, curves["correlation"], color=BAR, lw=1.2)
    axes.plot(frequency, curves["threshold"], color="#888888", lw=1.0, ls=":")
    axes.set_xlim(0, frequency[-1])
    axes.set_ylim(min(-0.1, float(curves["correlation"].min())), 1.05)
    axes.set_xlabel("spatial frequency (periods per mm)", fontsize=9, color=TEXT)
    axes.set_ylabel("correlation", fontsize=9, color=TEXT)
    if resolution_um is None:
        note(axes, "nothing is resolved by half of the tracks")
        return figure
    axes.axvline(1e3 / resolution_um, color=MARK, lw=1.4)
    note(axes, f"resolution {resolution_um:.3g} µm\n(dotted: half a bit)")
    return figure


def saturation(
    curves: Curves, *, plateau_percent: float | None, time_to_90_s: float | None
) -> Figure:
    """Return how the map fills up, and the exponential that fits best.

    Parameters
    ----------
    curves
        ``time_s`` and ``filled``, the part of the map that is filled, of one length.
    plateau_percent, time_to_90_s
        Of the exponential; None where nothing can be fitted.
    """
    figure, axes = white_chart("Saturation of the map")
    time_s = curves["time_s"]
    axes.plot(time_s, 100 * curves["filled"], "o", ms=3.5, color=BAR)
    axes.set_xlabel("time of acquisition (s)", fontsize=9, color=TEXT)
    axes.set_ylabel("pixels crossed by a track (%)", fontsize=9, color=TEXT)
    lines = [f"{100 * curves['filled'][-1]:.3g} % after {time_s[-1]:.3g} s"]
    if plateau_percent is None or time_to_90_s is None:
        lines.append("too few blocks, or too far from full,\nto be extrapolated")
    else:
        line_s = np.linspace(0, time_s[-1], 200)
        rate = math.log(10) / time_to_90_s
        axes.plot(line_s, -plateau_percent * np.expm1(-rate * line_s), color=MARK, lw=1.2)
        lines += [f"90 % of {plateau_percent:.3g} % after {time_to_90_s:.3g} s"]
    axes.set_xlim(0, None)
    axes.set_ylim(0, 1.45 * 100 * float(curves["filled"][-1]))
    note(axes, "\n".join(lines))
    return figure


def quality_of_all(
    curves: Mapping[str, Curves], *, resolution_um: Mapping[str, float | None]
) -> Figure:
    """Return resolution and saturation of several samples, a colour each.

    Parameters
    ----------
    curves
        By sample, as :func:`resolution` and :func:`saturation` want them.
    resolution_um
        By sample; None where nothing is resolved.
    """
    figure = white_figure(_TWO_SIZE_IN)
    left, right = figure.subplots(1, 2)
    style(left, "Resolution: correlation of two halves of the tracks")
    style(right, "Saturation of the map")
    for i, (name, curve) in enumerate(curves.items()):
        color = SAMPLES[i % len(SAMPLES)]
        resolved = resolution_um[name]
        end = "nothing resolved" if resolved is None else f"{resolved:.3g} µm"
        frequency = 1e3 * curve["frequency_per_um"]
        left.plot(frequency, curve["correlation"], color=color, lw=1.2, label=f"{name}: {end}")
        left.plot(frequency, curve["threshold"], color="#888888", lw=0.8, ls=":")
        if resolved is not None:
            left.axvline(1e3 / resolved, color=color, lw=1.0, ls="--")
        time_s, filled = curve["time_s"], 100 * curve["filled"]
        said = f"{name}: {filled[-1]:.3g} % after {time_s[-1]:.3g} s"
        right.plot(time_s, filled, "o-", color=color, ms=3.5, lw=1.0, label=said)
    left.set_xlim(0, max(1e3 * curve["frequency_per_um"][-1] for curve in curves.values()))
    left.set_ylim(None, 1.05)
    left.set_xlabel("spatial frequency (periods per mm)", fontsize=9, color=TEXT)
    left.set_ylabel("correlation (dotted: half a bit)", fontsize=9, color=TEXT)
    right.set_xlim(0, None)
    right.set_ylim(0, None)
    right.set_xlabel("time of acquisition (s)", fontsize=9, color=TEXT)
    right.set_ylabel("pixels crossed by a track (%)", fontsize=9, color=TEXT)
    left.legend(loc="upper right", fontsize=9, frameon=False, labelcolor=TEXT)
    right.legend(loc="lower right", fontsize=9, frameon=False, labelcolor=TEXT)
    return figure


def _decibels(values: NDArray[Any], highest: float) -> NDArray[np.float64]:
    return 20 * np.log10(np.maximum(values, highest * 1e-7) / highest)


def _mark_kept(axes: Axes, summary: Mapping[str, Any]) -> None:
    """Draw the cuts, between vectors, and shade what was removed."""
    start, end = axes.get_xlim()
    for cut, low, high in (
        (summary["keep_from"] - 0.5, start, summary["keep_from"] - 0.5),
        (summary["keep_to"], summary["keep_to"], end),
    ):
        if cut is not None:
            axes.axvspan(low, high, color=MARK, alpha=0.12, lw=0)
            axes.axvline(cut, color=MARK, lw=1.2)


def _draw_similarity(axes: Axes, similarity: NDArray[Any], summary: Mapping[str, Any]) -> None:
    style(axes, "Similarity of their images")
    n = len(similarity)
    limits = (0.5, n + 0.5)
    axes.imshow(
        similarity, vmin=0, vmax=1, cmap="viridis", extent=(*limits, *limits[::-1]), aspect="equal"
    )
    tissue, blood = summary["keep_from_similarity"] - 1, summary["keep_to_similarity"]
    for first, last in ((0, tissue), (tissue, blood)):
        corner, side = (first + 0.5, first + 0.5), last - first
        axes.add_patch(Rectangle(corner, side, side, fill=False, ec=_SQUARE, lw=1.0))
    for cut in (summary["keep_from"] - 0.5, summary["keep_to"]):
        if cut is not None and cut <= n:
            axes.axvline(cut, color=MARK, lw=1.2)
    axes.set_xlabel(f"blood: {tissue + 1} to {blood}", fontsize=9, color=TEXT)
    axes.set_ylabel("singular vector", fontsize=9, color=TEXT)
    bar = axes.figure.colorbar(axes.images[0], ax=axes, shrink=0.85)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, color="#888888", labelcolor=TEXT)
