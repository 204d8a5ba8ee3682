"""Displacements as arrows on a map: long enough to be seen, as long as their key tells."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.quiver import Quiver
from numpy.typing import NDArray

from vasculome.report import panels
from vasculome.report.panels import INK, Panel, length_text, nice_length_um, round_down

MOST_ARROWS = 1600
_BLOCKS_A_SIDE = 24
"""Of more tiles, those in a square block share an arrow; blocks along the map's longer side."""

_TYPICAL, _LONGEST = 0.55, 0.75
"""Lengths of arrows, in sides of a tile or block: that of the percentile below at the most, and
that beyond which an arrow is cut and its true length written down."""

_SCALE_PERCENT = 98.0
"""Percentile of sizes that scales are made for; of fewer than 50, the largest."""

_STILL_UM = 1e-3
"""Displacements below this are rounding errors."""

_MOST_LENGTHS = 12
_KEY_LEFT_IN = 0.85
"""Space for the words of the scale bar."""

_CUT = "#ff9d6b"
OUTLINE = [withStroke(linewidth=2, foreground="black")]


def draw_arrows(
    panel: Panel,
    at_um: NDArray[np.float64],
    moved_um: NDArray[np.float64],
    *,
    apart: NDArray[np.bool_],
    side_um: float,
    pixel_um: float | None,
) -> None:
    """Draw displacements as arrows, and their key under the map.

    Parameters
    ----------
    panel
        The map.
    at_um, moved_um
        Where each arrow begins and where it points, (arrows, x and y), in micrometres.
    apart
        Arrows that are not to set the scale for the others, nor to be averaged with them.
    side_um
        Side of a tile.
    pixel_um
        Side of a pixel, for the key; None where pixels are not square.
    """
    at, arrows = at_um[~apart], moved_um[~apart]
    if len(at) > MOST_ARROWS:
        side_um = max(
            side_um, max(panel.axes.get_xlim()[1], panel.axes.get_ylim()[0]) / _BLOCKS_A_SIDE
        )
        at, arrows = _block_means(at, arrows, side_um)
    typical = end_of_scale(np.hypot(*arrows.T))
    if typical < _STILL_UM:
        typical = end_of_scale(np.hypot(*moved_um[apart].T))
    if typical < _STILL_UM:
        write_key(panel, "no tile moved in the plane")
        return
    factor = _one_digit(_TYPICAL * side_um / typical)
    at = np.concatenate([at, at_um[apart]])
    arrows = np.concatenate([arrows, moved_um[apart]])
    width_in = float(np.clip(0.03 * side_um / (panel.um_per_dot * panels.DPI), 0.003, 0.013))
    _draw_cut(panel, at, arrows, factor, width_in, longest_um=_LONGEST * side_um / factor)
    _draw_key(panel, factor, width_in, room_um=side_um, pixel_um=pixel_um)


def end_of_scale(sizes: NDArray[np.float64]) -> float:
    """Return the size that a scale is made for: few that are far larger do not widen it."""
    return float(np.percentile(sizes, _SCALE_PERCENT, method="higher")) if sizes.size else 0.0


def _one_digit(value: float) -> float:
    """Return ``value`` rounded down to its first digit."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(np.floor(value / power * (1 + 1e-9)) * power)


def _block_means(
    at: NDArray[np.float64], values: NDArray[np.float64], side: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of places and values over square blocks of the plane."""
    _, block = np.unique((at // side).astype(int), axis=0, return_inverse=True)
    counts = np.bincount(block)
    both = np.concatenate([at, values], axis=1)
    means = np.stack([np.bincount(block, column) / counts for column in both.T], axis=1)
    return means[:, :2], means[:, 2:]


def _draw_cut(
    panel: Panel,
    at: NDArray[np.float64],
    arrows: NDArray[np.float64],
    factor: float,
    width_in: float,
    *,
    longest_um: float,
) -> None:
    """Draw arrows; those longer than ``longest_um`` are cut, and the longest of them labelled."""
    lengths = np.hypot(*arrows.T)
    cut = lengths > longest_um
    shown = arrows * np.where(cut, longest_um / np.maximum(lengths, longest_um), 1.0)[:, None]
    for chosen, colour, name in ((~cut, INK, "displacement"), (cut, _CUT, "cut")):
        _add_quiver(panel.axes, at[chosen], shown[chosen], factor, width_in, color=colour, gid=name)
    for k in np.flatnonzero(cut)[np.argsort(-lengths[cut], kind="stable")][:_MOST_LENGTHS]:
        # At the arrow's tail, on the side that it leaves.
        down = shown[k][1] > 0
        panel.axes.annotate(
            f"{lengths[k]:.3g} µm",
            at[k],
            xytext=(0, 3 if down else -3),
            textcoords="offset points",
            ha="center",
            va="bottom" if down else "top",
            color=_CUT,
            fontsize=7,
            path_effects=OUTLINE,
            gid="length",
        )


def _add_quiver(
    axes: Axes,
    at: NDArray[np.float64],
    arrows: NDArray[np.float64],
    factor: float,
    width_in: float,
    **look: str,
) -> Quiver:
    return axes.quiver(
        *at.T,
        *arrows.T,
        angles="xy",
        scale_units="xy",
        scale=1 / factor,
        units="inches",
        width=width_in,
        headwidth=3.6,
        headlength=4.0,
        headaxislength=3.6,
        minlength=0.5,
        zorder=3,
        clip_on=False,
        **look,
    )


def _draw_key(
    panel: Panel, factor: float, width_in: float, *, room_um: float, pixel_um: float | None
) -> None:
    """Draw an arrow of a round length under the map, and say how much too long all are."""
    left = _key_left_um(panel)
    length = round_down(min(room_um, 0.15 * panel.foot.get_xlim()[1]) / factor)
    at, arrow = np.array([[left, 0.62]]), np.array([[length, 0.0]])
    _add_quiver(panel.foot, at, arrow, factor, width_in, color=INK, gid="key")
    in_px = "" if pixel_um is None else f" = {length / pixel_um:.3g} px"
    text = f"{length_text(length)}{in_px}\ndrawn ×{factor:g}"
    write_key(panel, text, right_of_um=left + factor * length)


def _key_left_um(panel: Panel) -> float:
    """Return where the key begins under the map, right of the scale bar and its words."""
    width = panel.foot.get_xlim()[1]
    return nice_length_um(width) + _KEY_LEFT_IN * panels.DPI * panel.um_per_dot


def write_key(panel: Panel, text: str, *, right_of_um: float | None = None) -> None:
    """Write beneath the map, beside the scale bar or right of a place."""
    panel.foot.annotate(
        text,
        (_key_left_um(panel) if right_of_um is None else right_of_um, 0.85),
        xytext=(5, 0),
        textcoords="offset points",
        va="top",
        color=INK,
        fontsize=7,
        linespacing=1.1,
        gid="key",
    )
