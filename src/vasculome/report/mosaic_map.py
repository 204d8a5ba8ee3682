"""Maps of a mosaic's tiles on black: how far each was moved, and how bright it is."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from vasculome.report import colors, panels
from vasculome.report.mosaic import Mosaic
from vasculome.report.mosaic_arrows import OUTLINE, draw_arrows, end_of_scale, write_key
from vasculome.report.panels import INK, Panel, black_panels, draw_color_bar, draw_scale_bar

_WIDTH_IN = 4.4
_FLATTEST = 0.28
"""Height of a panel over its width at the least: the legend needs it."""

_MARGIN = 0.25
"""Space around the tiles, in sides of one: arrows leave the outer ones."""

_GAP = 0.03
_OVER_ONE_ANOTHER = 0.3
"""Sides of a tile between two of them below which they lie over one another along z."""

_NAME_POINTS = 6.0
_LETTER = 0.6
"""Width of a letter over its height, in the mean."""

_SMALLEST_FRAMED = 12
"""Dots a side of tiles that have a frame."""

_FRAME = "#5a5a5a"
_HATCHES = {"stage": "////", "dark": "xxxx"}
_STATE_WORDS = {
    "placed": "placed by\noverlaps",
    "stage": "placed by\nthe stage",
    "dark": "dark, left out",
}


def displacement_map(mosaic: Mosaic) -> Figure:
    """Return how far each tile lies from where the stage put it: in the plane, and along z.

    On the left arrows, longer than true by the factor written below them; on the right colour.
    Where tiles lie over one another along z, the one that moved most is on top.
    """
    tiles = mosaic.tiles
    corners = _corners_um(mosaic)
    figure, (plane, depth) = black_panels(
        _extent_um(corners),
        titles=["Displacement in the plane", "Displacement along z"],
        panel_width_in=_WIDTH_IN,
        legends=[True, True],
    )
    states = np.where(tiles.by_stage, "stage", tiles.state)
    _draw_states(plane, corners, states, tiles.stage_outlier)
    _draw_names(plane, corners, np.array(tiles.names), (states != "placed") | tiles.stage_outlier)
    moving = tiles.state != "dark"
    moved_px = tiles.displacement_px[moving]
    pixel_um = mosaic.spacing_um[2] if mosaic.spacing_um[1] == mosaic.spacing_um[2] else None
    draw_arrows(
        plane,
        corners.mean(axis=1)[moving],
        (moved_px * mosaic.spacing_um)[:, :0:-1],
        apart=tiles.stage_outlier[moving],
        side_um=_side_um(corners),
        pixel_um=pixel_um,
    )
    moved_um = tiles.displacement_px[:, 0] * mosaic.spacing_um[0]
    _draw_values(
        depth,
        _without_overlaps(corners, mosaic.edges.ends),
        np.where(states == "dark", np.nan, moved_um),
        least=0.5 * mosaic.spacing_um[0],
        label="along z (µm)",
    )
    write_key(depth, f"1 px = {mosaic.spacing_um[0]:g} µm")
    for panel in (plane, depth):
        draw_scale_bar(panel, extent_um=_extent_um(corners)[0])
    return figure


def gain_map(mosaic: Mosaic) -> Figure:
    """Return how bright each tile is, in percent of their mean brightness."""
    corners = _corners_um(mosaic)
    figure, (panel,) = black_panels(
        _extent_um(corners),
        titles=["Brightness of the tiles"],
        panel_width_in=_WIDTH_IN,
        legends=[True],
    )
    _draw_values(
        panel,
        _without_overlaps(corners, mosaic.edges.ends),
        np.where(mosaic.tiles.state == "dark", np.nan, 100 * (mosaic.gain - 1)),
        least=1.0,
        label="brighter than the mean (%)",
    )
    draw_scale_bar(panel, extent_um=_extent_um(corners)[0])
    return figure


def _corners_um(mosaic: Mosaic) -> NDArray[np.float64]:
    """Return the stage's place of each tile on the panel, (tiles, 4 corners, x and y)."""
    spacing_yx = np.asarray(mosaic.spacing_um[1:])
    low = mosaic.tiles.nominal_px[:, 1:] * spacing_yx
    size = mosaic.tiles.shape_px[:, 1:] * spacing_yx
    low = low - low.min(axis=0) + _MARGIN * np.median(size)
    high = low + size
    (top, left), (bottom, right) = low.T, high.T
    return np.stack(
        [
            np.stack([left, top], 1),
            np.stack([right, top], 1),
            np.stack([right, bottom], 1),
            np.stack([left, bottom], 1),
        ],
        axis=1,
    )


def _without_overlaps(corners: NDArray[np.float64], ends: NDArray[np.int_]) -> NDArray[np.float64]:
    """Return the tiles made smaller about their middles, so that neighbours do not touch."""
    middle = corners.mean(axis=1, keepdims=True)
    size = corners[:, 2] - corners[:, 0]
    apart = np.diff(middle[ends, 0], axis=1)[:, 0] / size[ends[:, 0]]
    distance = np.abs(apart).max(axis=1)
    distance = distance[distance > _OVER_ONE_ANOTHER]
    share = min(1.0, float(np.median(distance))) if distance.size else 1.0
    return middle + (share - _GAP) * (corners - middle)


def _extent_um(corners: NDArray[np.float64]) -> tuple[float, float]:
    width, height = corners.max(axis=(0, 1)) + corners.min(axis=(0, 1))
    return float(width), float(max(height, _FLATTEST * width))


def _side_um(corners: NDArray[np.float64]) -> float:
    """Return the shorter side of a tile, the median of all."""
    return float(np.median(np.min(corners[:, 2] - corners[:, 0], axis=1)))


def _line_width(panel: Panel, corners: NDArray[np.float64]) -> float:
    """Return a width in points that leaves small tiles their face."""
    tile_dots = _side_um(corners) / panel.um_per_dot
    return min(0.8, 0.02 * tile_dots) if tile_dots >= _SMALLEST_FRAMED else 0.0


def _draw_states(
    panel: Panel,
    corners: NDArray[np.float64],
    states: NDArray[np.str_],
    misreported: NDArray[np.bool_],
) -> None:
    width = _line_width(panel, corners)
    entries = []
    for state, (face, edge) in colors.TILE_STATES.items():
        chosen = states == state
        if not chosen.any():
            continue
        look = {"facecolor": face, "edgecolor": edge, "hatch": _HATCHES.get(state)}
        panel.axes.add_collection(
            PolyCollection(corners[chosen], lw=width, alpha=0.85, gid=state, **look),
            autolim=False,
        )
        entries.append(Patch(label=f"{_STATE_WORDS[state]} ({chosen.sum():,})", **look))
    if misreported.any():
        look = {"facecolor": "none", "edgecolor": colors.MISREPORTED}
        panel.axes.add_collection(
            PolyCollection(corners[misreported], lw=2.5 * width + 0.4, gid="misreported", **look),
            autolim=False,
        )
        label = f"misreported by\nthe stage ({misreported.sum():,})"
        entries.append(Patch(label=label, lw=1.4, **look))
    left, bottom, _, height = panel.legend_box
    panel.axes.figure.legend(
        handles=entries,
        loc="upper left",
        bbox_to_anchor=(left, bottom + height),
        frameon=False,
        labelcolor=INK,
        fontsize=7.5,
        handlelength=1.2,
        handleheight=1.2,
        handletextpad=0.5,
        borderpad=0,
        borderaxespad=0,
    )


def _draw_names(
    panel: Panel,
    corners: NDArray[np.float64],
    names: NDArray[np.str_],
    chosen: NDArray[np.bool_],
) -> None:
    """Write the names of the chosen tiles into them, where they have room for it."""
    points_um = panel.um_per_dot * panels.DPI / 72
    room = _side_um(corners) / (_LETTER * _NAME_POINTS * points_um)
    for k in np.flatnonzero(chosen):
        if len(names[k]) <= room:
            panel.axes.annotate(
                names[k],
                (corners[k, :, 0].mean(), corners[k, 2, 1]),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                color=INK,
                fontsize=_NAME_POINTS,
                path_effects=OUTLINE,
                gid="name",
            )


def _draw_values(
    panel: Panel,
    corners: NDArray[np.float64],
    values: NDArray[np.float64],
    *,
    least: float,
    label: str,
) -> None:
    """Colour tiles by signed values, on a scale of at least ±``least``; NaN is crossed out."""
    look = {"edgecolor": _FRAME, "lw": _line_width(panel, corners)}
    unknown = np.isnan(values)
    if unknown.any():
        panel.axes.add_collection(
            PolyCollection(corners[unknown], facecolor="black", hatch="xxxx", **look),
            autolim=False,
        )
    known = np.flatnonzero(~unknown)
    known = known[np.argsort(np.abs(values[known]), kind="stable")]
    reach = max(end_of_scale(np.abs(values[known])), least)
    norm = Normalize(-reach, reach)
    panel.axes.add_collection(
        PolyCollection(
            corners[known], array=values[known], cmap=colors.SHIFT, norm=norm, gid="values", **look
        ),
        autolim=False,
    )
    ends = bool((values[known] < norm.vmin).any()), bool((values[known] > norm.vmax).any())
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[ends]
    draw_color_bar(panel, cmap=colors.SHIFT, norm=norm, label=label, extend=extend)
