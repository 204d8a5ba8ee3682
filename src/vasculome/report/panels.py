"""The black panel that every map is shown on: picture, title, scale bar, colour legend.

Figures are built without pyplot: no global state, so that pictures may be drawn in any thread.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from vasculome.report.projections import View

DPI = 200
"""Dots per inch of every picture."""

INK = "#e6e6e6"
"""Text and scale bars on black."""

_FRAME = "#3a3a3a"
_TITLE_IN = 0.36
_FOOT_IN = 0.36
_LEGEND_IN = 1.05
_MARGIN_IN = 0.16
_TALLEST = 1.5
"""Height over width beyond which a panel is made narrower instead of taller."""
_FLATTEST = 0.3
"""Height over width below which panels are stacked instead of set side by side."""

_NICE = (1.0, 2.0, 5.0)


def round_down(value: float) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten that is not above ``value``."""
    if not value > 0:
        raise ValueError(f"only positive numbers can be rounded so, not {value}")
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(n * power for n in _NICE if n * power <= value * (1 + 1e-9)))


def nice_length_um(extent_um: float, *, share: float = 0.25) -> float:
    """Return the longest of 1, 2 or 5 times a power of ten within ``share`` of ``extent_um``."""
    return round_down(extent_um * share)


def length_text(length_um: float) -> str:
    """Return a length as people write it: ``"500 nm"``, ``"200 µm"``, ``"1 mm"``."""
    for unit, size_um in (("cm", 1e4), ("mm", 1e3), ("µm", 1.0)):
        if length_um >= size_um:
            return f"{length_um / size_um:g} {unit}"
    return f"{length_um * 1e3:g} nm"


@dataclass(frozen=True)
class Panel:
    """One map of a figure: its axes in micrometres, the strip beneath, the column beside."""

    axes: Axes
    foot: Axes
    legend_box: tuple[float, float, float, float]
    """Left, bottom, width, height of the column for the legend, in figure fractions."""
    um_per_dot: float
    """Side of a dot of the picture on the screen, in micrometres."""


def black_panels(
    extent_um: tuple[float, float],
    *,
    titles: Sequence[str],
    panel_width_in: float,
    legends: Sequence[bool],
    most_in_a_row: int | None = None,
) -> tuple[Figure, list[Panel]]:
    """Return a black figure with one panel a title, side by side, or stacked when very wide.

    Parameters
    ----------
    extent_um
        Width and height that every panel shows.
    panel_width_in
        Width of a panel in inches; tall pictures are made narrower.
    legends
        For each panel, whether to leave room for a colour legend on its right.
    most_in_a_row
        Panels side by side, before another row begins; None: any number.
    """
    aspect = extent_um[1] / extent_um[0]
    width = min(panel_width_in, panel_width_in * _TALLEST / aspect)
    height = width * aspect
    tall = height + _TITLE_IN + _FOOT_IN
    wide = [width + 2 * _MARGIN_IN + _LEGEND_IN * legend for legend in legends]
    columns = 1 if aspect < _FLATTEST else min(len(wide), most_in_a_row or len(wide))
    rows = math.ceil(len(wide) / columns)
    column_wide = [max(wide[column::columns]) for column in range(columns)]
    size = (sum(column_wide), rows * tall)
    figure = Figure(figsize=size, dpi=DPI, facecolor="black")
    FigureCanvasAgg(figure)
    panels = []
    for i, title in enumerate(titles):
        row, column = divmod(i, columns)
        left = _MARGIN_IN + sum(column_wide[:column])
        bottom = _FOOT_IN + tall * (rows - 1 - row)
        axes = _bare_axes(figure, (left, bottom, width, height), size)
        axes.set_xlim(0, extent_um[0])
        axes.set_ylim(extent_um[1], 0)
        axes.set_title(title, color=INK, fontsize=10, loc="left", pad=6)
        foot = _bare_axes(figure, (left, bottom - _FOOT_IN, width, _FOOT_IN), size)
        foot.set_xlim(0, extent_um[0])
        foot.set_ylim(0, 1)
        box = _fractions((left + width + 0.12, bottom, _LEGEND_IN, height), size)
        panels.append(Panel(axes, foot, box, um_per_dot=extent_um[0] / (width * DPI)))
    return figure, panels


def _fractions(
    box_in: tuple[float, float, float, float], size_in: tuple[float, float]
) -> tuple[float, float, float, float]:
    return (
        box_in[0] / size_in[0],
        box_in[1] / size_in[1],
        box_in[2] / size_in[0],
        box_in[3] / size_in[1],
    )


def _bare_axes(
    figure: Figure, box_in: tuple[float, float, float, float], size_in: tuple[float, float]
) -> Axes:
    axes = figure.add_axes(_fractions(box_in, size_in))
    axes.set_facecolor("black")
    axes.set_axis_off()
    return axes


def draw_view(
    panel: Panel,
    picture: NDArray[np.generic],
    view: View,
    *,
    cmap: Colormap | None = None,
    norm: Normalize | None = None,
) -> None:
    """Draw one flat picture (scalar, RGB or RGBA) at its place, with a hairline frame."""
    panel.axes.imshow(picture, extent=view.extent, cmap=cmap, norm=norm, aspect="auto")
    _frame(panel, view)


def _frame(panel: Panel, view: View) -> None:
    corner = (view.left_um, view.top_um)
    panel.axes.add_patch(
        Rectangle(
            corner, view.width_um, view.height_um, fill=False, ec=_FRAME, lw=0.6, clip_on=False
        )
    )
    # imshow moves the limits to its own picture; the panel holds more than one.
    right, bottom = panel.foot.get_xlim()[1], panel.axes.get_ylim()[0]
    panel.axes.set_xlim(0, right)
    panel.axes.set_ylim(bottom, 0)


def name_views(panel: Panel, layout: Sequence[View]) -> None:
    """Write the axis letters into the corner of each view of a volume."""
    if len(layout) == 1:
        return
    for view in layout:
        panel.axes.annotate(
            view.name,
            (view.left_um, view.top_um),
            xytext=(3, -3),
            textcoords="offset points",
            va="top",
            color=INK,
            fontsize=7,
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )


def draw_scale_bar(panel: Panel, *, extent_um: float) -> None:
    """Draw a bar of a round length under the picture, where it hides nothing."""
    length = nice_length_um(extent_um)
    panel.foot.add_patch(Rectangle((0, 0.56), length, 0.12, color=INK, lw=0, gid="scale bar"))
    panel.foot.annotate(
        length_text(length),
        (length, 0.62),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        color=INK,
        fontsize=9,
    )


def draw_color_bar(
    panel: Panel, *, cmap: Colormap, norm: Normalize, label: str, extend: str
) -> None:
    """Draw a colour bar; ``extend`` says at which ends values are cut, as matplotlib names them."""
    axes = _legend_axes(panel, width=0.14)
    bar = axes.figure.colorbar(ScalarMappable(norm, cmap), cax=axes, extend=extend)
    bar.outline.set_visible(False)
    bar.ax.minorticks_off()
    ticks = matplotlib.ticker.MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(norm.vmin, norm.vmax)
    # A norm that clips would put those beyond its range at the end of the bar.
    rounding = 1e-9 * (norm.vmax - norm.vmin)
    within = (norm.vmin - rounding <= ticks) & (ticks <= norm.vmax + rounding)
    bar.set_ticks(list(ticks[within]))
    _label_legend(axes, label)


def draw_speed_legend(panel: Panel, *, cmap: Colormap, norm: Normalize, label: str) -> None:
    """Draw a colour bar that fades to black on its left, where density is low."""
    axes = _legend_axes(panel, width=0.22)
    shade = np.linspace(0, 1, 64)[None, :, None]
    colours = cmap(np.linspace(0, 1, 256))[:, None, :3] * shade
    axes.imshow(
        colours, extent=(0, 1, norm.vmin, norm.vmax), origin="lower", aspect="auto", zorder=0
    )
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_xticks([])
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
    _label_legend(axes, label)
    axes.annotate(
        "density →",
        (0, 0),
        xycoords="axes fraction",
        xytext=(0, -5),
        textcoords="offset points",
        va="top",
        color=INK,
        fontsize=7,
    )


def draw_direction_wheel(panel: Panel, *, cmap: Colormap) -> None:
    """Draw the colour wheel of in-plane direction: arrows point the way blood flows."""
    left, bottom, width, height = panel.legend_box
    figure = panel.axes.figure
    side = 0.72 * width
    tall = side * figure.get_figwidth() / figure.get_figheight()
    axes = figure.add_axes((left + 0.05 * width, bottom + (height - tall) / 2, side, tall))
    axes.set_axis_off()
    line = np.linspace(-1, 1, 256)
    right, top = np.meshgrid(line, line[::-1])
    radius = np.hypot(right, top)
    rgba = cmap(np.rad2deg(np.arctan2(top, right)).astype(int) % 360)
    # The rim is softened over two pixels; the hole keeps the eye on the hue.
    rgba[..., 3] = np.clip((1 - radius) * 128, 0, 1) * np.clip((radius - 0.45) * 128, 0, 1)
    axes.imshow(rgba, extent=(-1, 1, -1, 1))
    axes.set_xlim(-1.02, 1.02)
    axes.set_ylim(-1.02, 1.02)
    for angle in np.deg2rad([0, 90, 180, 270]):
        tip = (0.42 * np.cos(angle), 0.42 * np.sin(angle))
        axes.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": INK, "lw": 0.8})


def _legend_axes(panel: Panel, *, width: float) -> Axes:
    left, bottom, room, height = panel.legend_box
    axes = panel.axes.figure.add_axes((left, bottom + 0.06 * height, width * room, 0.88 * height))
    axes.tick_params(colors=INK, labelsize=8, length=2.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _label_legend(axes: Axes, label: str) -> None:
    axes.set_ylabel(label, color=INK, fontsize=9)


def png_bytes(figure: Figure) -> bytes:
    """Return the figure as PNG; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(
        stream, format="png", facecolor=figure.get_facecolor(), metadata={"Software": ""}
    )
    return stream.getvalue()
