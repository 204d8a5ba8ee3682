"""Pieces of overlaps as both tiles see them: in false colour, and as a checkerboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from vasculome.report import panels
from vasculome.report.mosaic import Mosaic, Overlap
from vasculome.report.panels import INK, length_text, nice_length_um
from vasculome.report.stitching_words import pair_name

_SIDE_IN = 2.05
_GAP_IN = 0.08
_MARGIN_IN = 0.22
_HEAD_IN = 0.46
_FOOT_IN = 0.3
_KEY_IN = 0.3
_COLUMNS = 2

_MOST_PX = 256
"""Pixels a side that are shown: more would be blurred, and hide what is to be seen."""

_LEAST_PX = 128
_LONGEST = 2
"""Pixels a side, and sides of a narrow overlap, that its longer side is cut to at the least."""

_EVEN_OUT = 0.15
"""Scale of differences in brightness that are evened out, in sides of a piece: far more than any
misfit that is to be seen."""

_SQUARES = 6
_FLOOR = 0.1
_TINT = 0.8
_NAME_LETTERS = 46
FIRST, SECOND = "#34d058", "#ff5cff"


@dataclass(frozen=True)
class _Cell:
    """One overlap on the page: its pictures and the size of each in inches."""

    overlap: Overlap
    false_colour: NDArray[np.float32]
    checkerboard: NDArray[np.float32]
    size_in: tuple[float, float]


def overlap_figure(mosaic: Mosaic) -> Figure:
    """Return each piece of an overlap twice: in false colour and as a checkerboard.

    The first tile is green and the second magenta, so that both together are grey where they
    agree; on the checkerboard squares alternate between the tiles. Slow differences in
    brightness are evened out: what is to be seen is where things are.
    """
    cells = [_cell(overlap, mosaic) for overlap in mosaic.overlaps]
    if not cells:
        raise ValueError("there is no overlap to draw")
    rows = [cells[k : k + _COLUMNS] for k in range(0, len(cells), _COLUMNS)]
    heights = [_HEAD_IN + max(c.size_in[1] for c in row) + _FOOT_IN for row in rows]
    wide = 2 * _SIDE_IN + _GAP_IN + _MARGIN_IN
    size = (_MARGIN_IN + wide * max(map(len, rows)), sum(heights) + _KEY_IN)
    figure = Figure(figsize=size, dpi=panels.DPI, facecolor="black")
    FigureCanvasAgg(figure)
    top = size[1]
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            _draw(figure, cell, mosaic, left=_MARGIN_IN + wide * column, top=top)
        top -= height
    _draw_key(figure)
    return figure


def _cell(overlap: Overlap, mosaic: Mosaic) -> _Cell:
    first, second = even_contrast(_middle(overlap.first), _middle(overlap.second))
    height, width = (n * s for n, s in zip(first.shape, mosaic.spacing_um[1:], strict=True))
    scale = _SIDE_IN / max(height, width)
    return _Cell(
        overlap,
        false_colour(first, second),
        checkerboard(first, second),
        (width * scale, height * scale),
    )


def _middle(part: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the middle of a piece that is too large, or too narrow, to be shown whole."""
    most = min(_MOST_PX, max(_LEAST_PX, _LONGEST * min(part.shape)))
    cut = [slice(max(0, (n - most) // 2), max(0, (n - most) // 2) + most) for n in part.shape]
    return part[tuple(cut)]


def even_contrast(
    first: NDArray[np.generic], second: NDArray[np.generic]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return both pieces in [0, 1], slow differences in brightness between them evened out.

    Both show the same sample at other places of the field, where the light is another.
    """
    signals = [part - np.percentile(part, 1.0) for part in (first, second)]
    sigma = _EVEN_OUT * max(first.shape)
    slow = [gaussian_filter(np.maximum(signal, 0), sigma) for signal in signals]
    # Where there is next to nothing in either, their ratio is that of noise.
    floor = 0.05 * max(float(np.max(level)) for level in slow) + 1e-6
    middle = np.sqrt((slow[0] + floor) * (slow[1] + floor))
    even = [s * middle / (level + floor) for s, level in zip(signals, slow, strict=True)]
    high = max(float(np.percentile(np.stack(even), 99.7)), 1e-6)
    one, other = (np.clip(part / high, 0, 1).astype(np.float32) for part in even)
    return one, other


def false_colour(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``first`` in green and ``second`` in magenta, (y, x, 3): grey where they agree."""
    return np.stack([second, first, second], axis=-1)


def checkerboard(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return squares of ``first`` and ``second`` in turn, (y, x, 3), ``first`` on top left.

    They are tinted by the colours of false colour, little enough not to look like a break.
    """
    side = square_px(first.shape)
    rows, columns = (np.arange(n) // side for n in first.shape)
    of_first = (rows[:, None] + columns) % 2 == 0
    grey = _FLOOR + (1 - _FLOOR) * np.where(of_first, first, second)
    tint = np.where(of_first[..., None], [_TINT, 1.0, _TINT], [1.0, _TINT, 1.0])
    return (grey[..., None] * tint).astype(np.float32)


def square_px(shape: Sequence[int]) -> int:
    """Return the side of the squares of a checkerboard of ``shape``."""
    return max(4, -(-max(shape) // _SQUARES))


def _draw(figure: Figure, cell: _Cell, mosaic: Mosaic, *, left: float, top: float) -> None:
    edges, k = mosaic.edges, cell.overlap.edge
    width, height = cell.size_in
    bottom = top - _HEAD_IN - height
    for place, picture in enumerate((cell.false_colour, cell.checkerboard)):
        box = (left + place * (width + _GAP_IN), bottom, width, height)
        axes = _axes(figure, box)
        axes.imshow(picture, aspect="auto")
    state = "" if edges.used[k] else "outlier, " if edges.accepted[k] else "rejected, "
    residual = edges.residual_px[k]
    facts = [
        f"residual {np.linalg.norm(residual):.2f} px "
        f"({np.linalg.norm(residual * mosaic.spacing_um):.2f} µm)"
        if np.isfinite(residual).all()
        else "no residual",
        f"NCC {edges.ncc[k]:.2f}",
    ]
    rank = "Worst" if cell.overlap.worst else "Median"
    _write(figure, left, bottom + height + 0.24, _shortened(pair_name(mosaic, k)), size=8.5)
    _write(figure, left, bottom + height + 0.07, f"{rank}: {state}{', '.join(facts)}", size=7.5)
    width_um = cell.checkerboard.shape[1] * mosaic.spacing_um[2]
    bar_um = nice_length_um(width_um, share=0.4)
    foot = _axes(figure, (left, bottom - 0.11, width * bar_um / width_um, 0.03))
    foot.axhspan(0, 1, color=INK, lw=0)
    _write(
        figure, left + width * bar_um / width_um + 0.06, bottom - 0.13, length_text(bar_um), size=7
    )


def _draw_key(figure: Figure) -> None:
    left = _MARGIN_IN
    for words, colour in (
        ("green: first tile", FIRST),
        ("magenta: second", SECOND),
        ("grey: they agree", INK),
    ):
        _write(figure, left, 0.11, words, size=8, color=colour)
        left += 1.25


def _axes(figure: Figure, box_in: tuple[float, float, float, float]) -> Axes:
    width, height = figure.get_size_inches()
    left, bottom, wide, high = box_in
    axes = figure.add_axes((left / width, bottom / height, wide / width, high / height))
    axes.set_axis_off()
    return axes


def _write(
    figure: Figure, left: float, bottom: float, text: str, *, size: float, color: str = INK
) -> None:
    width, height = figure.get_size_inches()
    figure.text(left / width, bottom / height, text, color=color, fontsize=size, va="bottom")


def _shortened(name: str) -> str:
    """Return a name with its middle left out where it is too long for its place."""
    if len(name) <= _NAME_LETTERS:
        return name
    half = (_NAME_LETTERS - 1) // 2
    return f"{name[:half]}…{name[-half:]}"
