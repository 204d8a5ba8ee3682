"""Maps of one field, made in different ways, drawn to be compared: arrays in, figures out.

All maps share a scale. Two are also laid over each other in colours that make white together, and
the part of the field where maps differ most is shown large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.colors import Colormap, Normalize, PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, TextArea, VPacker
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from vasculome.report import colors
from vasculome.report.figures import (
    COMPRESSION,
    SHADE_COMPRESSION,
    SHADE_PERCENT,
    density_label,
    draw_views,
    end_of_scale,
)
from vasculome.report.panels import (
    INK,
    Panel,
    black_panels,
    draw_color_bar,
)
from vasculome.report.projections import View, Volume, flatten, panel_extent_um, views

_PANEL_IN = 4.2
_IN_A_ROW = 3
_WINDOW_PART = 1 / 6
"""Side of the part that is shown large, of the shorter side of the field."""


@dataclass(frozen=True)
class FlatMap:
    """The pictures of a map of microbubble counts, one a view; volumes need not be kept.

    Attributes
    ----------
    name, title
        Of the sample, and above its panel.
    pictures, layout
        Maximum projections, (rows, columns) each, and their places.
    label
        Quantity and unit.
    """

    name: str
    title: str
    pictures: tuple[NDArray[np.generic], ...]
    layout: tuple[View, ...]
    label: str


def flat_map(density: Volume, *, name: str, title: str) -> FlatMap:
    """Return the pictures of a map, (z, x) or (z, y, x)."""
    layout = views(density.extent_um, main="xz")
    pictures = tuple(flatten(density.values, view) for view in layout)
    return FlatMap(name, title, pictures, tuple(layout), density_label(density))


def same_field(maps: Sequence[FlatMap]) -> bool:
    """Return whether all maps have the same pixels, so that they can be compared one by one."""
    first = maps[0]
    shapes = [picture.shape for picture in first.pictures]
    return all(
        m.layout == first.layout and [picture.shape for picture in m.pictures] == shapes
        for m in maps
    )


@dataclass(frozen=True)
class Scale:
    """What maps that are compared share: where colours end, and where full brightness begins."""

    highest: float
    bright: float


def scale_of(maps: Sequence[FlatMap]) -> Scale:
    """Return the scale that the brightest of maps needs."""
    pictures = [picture for m in maps for picture in m.pictures]
    return Scale(
        max(end_of_scale(picture) for picture in pictures),
        max(end_of_scale(picture, SHADE_PERCENT) for picture in pictures),
    )


def most_different(maps: Sequence[FlatMap], scale: Scale) -> tuple[slice, slice] | None:
    """Return rows and columns of the square of the first view where maps differ most.

    It is where brightness differs most from the darkest map to the brightest, all pixels together.
    None where all maps are the same.
    """
    shown = [_brightness(m.pictures[0], scale) for m in maps]
    differs = np.maximum.reduce(shown) - np.minimum.reduce(shown)
    if not differs.any():
        return None
    view = maps[0].layout[0]
    side_um = _WINDOW_PART * min(view.height_um, view.width_um)
    steps_um = np.array([view.height_um, view.width_um]) / differs.shape
    size = np.maximum(1, np.rint(side_um / steps_um).astype(int))
    total = _sums_of_windows(differs, size)
    first = np.unravel_index(np.argmax(total), total.shape)
    row, column = (slice(int(at), int(at + n)) for at, n in zip(first, size, strict=True))
    return row, column


def cropped(whole: FlatMap, window: tuple[slice, slice]) -> FlatMap:
    """Return a part of the first view of a map."""
    view = whole.layout[0]
    picture = whole.pictures[0]
    part = picture[window]
    height, width = (
        side * n / whole_n
        for side, n, whole_n in zip(
            (view.height_um, view.width_um), part.shape, picture.shape, strict=True
        )
    )
    small = replace(view, left_um=0.0, top_um=0.0, width_um=width, height_um=height)
    return replace(whole, pictures=(part,), layout=(small,))


def side_by_side(
    maps: Sequence[FlatMap], scale: Scale, *, window: tuple[slice, slice] | None = None
) -> Figure:
    """Return all maps on one scale, square-root compressed; two of the same pixels also overlaid.

    Parameters
    ----------
    maps
        One at least.
    scale
        Of these maps, or of those that they are parts of.
    window
        Part of the first view to be framed.
    """
    overlaid = len(maps) == 2 and same_field(maps)
    titles = [m.title for m in maps] + ["Overlay"] * overlaid
    extents = np.array([panel_extent_um(list(m.layout)) for m in maps])
    last = min(len(maps), _IN_A_ROW) - 1
    figure, panels = black_panels(
        (float(extents[:, 0].max()), float(extents[:, 1].max())),
        titles=titles,
        panel_width_in=_PANEL_IN,
        legends=[i == last for i in range(len(titles))],
        most_in_a_row=_IN_A_ROW,
    )
    norm = PowerNorm(COMPRESSION, 0.0, scale.highest, clip=True)
    for panel, m in zip(panels, maps, strict=False):
        # Zero is nothing, whatever colour the map begins with.
        counts = [np.where(picture > 0, picture, np.nan) for picture in m.pictures]
        _draw(panel, counts, m.layout, window=window, cmap=colors.DENSITY, norm=norm)
    clipped = any((picture > scale.highest).any() for m in maps for picture in m.pictures)
    draw_color_bar(
        panels[last],
        cmap=colors.DENSITY,
        norm=norm,
        label=maps[0].label,
        extend="max" if clipped else "neither",
    )
    if overlaid:
        pictures = [
            _over_each_other(first, second, scale)
            for first, second in zip(maps[0].pictures, maps[1].pictures, strict=True)
        ]
        _draw(panels[-1], pictures, maps[0].layout, window=window)
        _name_colors(panels[-1], [m.name for m in maps])
    return figure


def _draw(
    panel: Panel,
    pictures: Sequence[NDArray[np.generic]],
    layout: Sequence[View],
    *,
    window: tuple[slice, slice] | None,
    cmap: Colormap | None = None,
    norm: Normalize | None = None,
) -> None:
    draw_views(panel, pictures, layout, cmap, norm)
    if window is not None:
        main = layout[0]
        rows, columns = window
        y_um = main.height_um / pictures[0].shape[0]
        x_um = main.width_um / pictures[0].shape[1]
        corner = (main.left_um + columns.start * x_um, main.top_um + rows.start * y_um)
        sides = (columns.stop - columns.start) * x_um, (rows.stop - rows.start) * y_um
        panel.axes.add_patch(Rectangle(corner, *sides, fill=False, ec=INK, lw=0.8, gid="window"))


def _sums_of_windows(values: NDArray[np.float64], size: NDArray[np.int_]) -> NDArray[np.float64]:
    """Return the sum of each window of a size that lies inside, by its first row and column."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    rows, columns = size
    below, above = sums[rows:], sums[:-rows]
    return (below - above)[:, columns:] - (below - above)[:, :-columns]


def _over_each_other(
    first: NDArray[np.generic], second: NDArray[np.generic], scale: Scale
) -> NDArray[np.float64]:
    """Return both in colours that make white together."""
    shown = [_brightness(picture, scale) for picture in (first, second)]
    return sum(
        shade[..., None] * np.array(to_rgb(color))
        for shade, color in zip(shown, colors.PAIR, strict=True)
    ).clip(0, 1)


def _brightness(picture: NDArray[np.generic], scale: Scale) -> NDArray[np.float64]:
    return (np.nan_to_num(picture).clip(0, scale.bright) / scale.bright) ** SHADE_COMPRESSION


def _name_colors(panel: Panel, names: Sequence[str]) -> None:
    """Write at the right beneath maps over each other what their colours mean."""
    lines = [
        TextArea(f"more in {name}", textprops={"color": color, "fontsize": 8})
        for name, color in zip(names, colors.PAIR, strict=True)
    ]
    box = AnchoredOffsetbox(
        "center right",
        child=VPacker(children=lines, align="right", pad=0, sep=2),
        frameon=False,
        pad=0,
        borderpad=0,
        bbox_to_anchor=(1.0, 0.5),
        bbox_transform=panel.foot.transAxes,
    )
    panel.foot.add_artist(box)
