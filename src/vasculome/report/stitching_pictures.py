"""The quality control of stitching: its part of a sample's page, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure as Drawing

from vasculome.report import charts
from vasculome.report.album import Album
from vasculome.report.flat_field import flat_field_figure
from vasculome.report.mosaic import EDGES, SHADING, Mosaic, read_mosaic
from vasculome.report.mosaic_arrows import MOST_ARROWS
from vasculome.report.mosaic_map import displacement_map, gain_map
from vasculome.report.overlap_views import overlap_figure
from vasculome.report.page import Section
from vasculome.report.stitching_words import alerts, fault_table, pair_table, summary


def stitching(folder: Path, *, spacing_um: Sequence[float]) -> tuple[Section, Album]:
    """Return the part of the page on stitching, and its pictures.

    Parameters
    ----------
    folder
        The sample's folder of results.
    spacing_um
        Distance between voxels (z, y, x).

    Raises
    ------
    UserError
        A result of stitching is missing or damaged.
    """
    mosaic = read_mosaic(folder, spacing_um=spacing_um)
    album = _album(mosaic)
    faults = fault_table(mosaic)
    text = [summary(mosaic), *album.missing]
    if faults is None:
        text.append("Every tile has an image, all planes and its place by its overlaps.")
    tables = [table for table in (faults, pair_table(mosaic)) if table is not None and table.rows]
    figures = list(album.figures.values())
    return Section("Stitching", "\n".join(text), figures, tables, alerts(mosaic)), album


def _album(mosaic: Mosaic) -> Album:
    album = Album()
    album.add(
        "tile_displacements",
        what="map of displacements",
        needs=[],
        draw=lambda: displacement_map(mosaic),
        caption="How far each tile lies from where the stage put it, drawn at the stage's place "
        "and relative to the median of all tiles. Left: in the plane, arrows lengthened as written "
        "below them; those in orange are cut, their true lengths beside them. Of more than "
        f"{MOST_ARROWS:,} tiles, neighbours share the arrow of their mean. Right: along z; an "
        "arrow on the colour bar says that tiles beyond share a colour.",
        alt="Map of all tiles with arrows for their displacement in the plane and colours for "
        "their state, beside the same map coloured by displacement along z.",
    )
    album.add(
        "residuals",
        what="histogram of residuals",
        needs=[],
        draw=lambda: _draw_residuals(mosaic),
        caption="By how much the final positions miss the offset of each pair that was used, along "
        "each axis. A wide histogram means pairs that contradict one another; a shifted one, a "
        "systematic error.",
        alt="Histograms of residuals along z, y and x, in voxels, with their root mean square.",
    )
    album.add(
        "overlaps",
        what="views of overlaps",
        needs=[],
        draw=lambda: overlap_figure(mosaic) if mosaic.overlaps else "no two tiles overlap",
        caption="Overlaps of the largest residuals and of the median one, one plane as both tiles "
        "show it at their final positions. Left: the first tile in green, the second in magenta, "
        "grey where they agree. Right: squares of both in turn; what crosses their borders should "
        "not break. Slow differences in brightness are evened out.",
        alt="Pairs of pictures of overlaps: in false colour, and as a checkerboard.",
        detailed=True,
    )
    album.add(
        "flat_field",
        what="flat field",
        needs=[],
        draw=lambda: _draw_flat_field(mosaic),
        caption="Light over the camera's field, relative to its mean, as it was taken out of every "
        f"tile{_dark_level(mosaic)}.",
        alt="The flat field with contours of equal brightness.",
    )
    album.add(
        "tile_gains",
        what="map of the tiles' brightness",
        needs=[],
        draw=lambda: _draw_gains(mosaic),
        caption="Brightness of each tile relative to the others, as it was taken out. Crossed out: "
        "dark tiles.",
        alt="Map of all tiles coloured by their brightness in percent of the mean.",
    )
    return album


def _draw_residuals(mosaic: Mosaic) -> Drawing | str:
    edges = mosaic.edges
    if not edges.used.any():
        return f"no pair in {EDGES} was accepted"
    return charts.residuals(
        edges.residual_px[edges.used],
        spacing_um=mosaic.spacing_um,
        left_out=int(edges.outlier.sum()),
    )


def _draw_flat_field(mosaic: Mosaic) -> Drawing | str:
    if mosaic.shading is None:
        return mosaic.light_fault or f"there is no {SHADING}: the light was taken as it is"
    if np.ptp(mosaic.shading.flat) == 0:
        return "none was taken out of the tiles"
    return flat_field_figure(mosaic.shading, spacing_um=mosaic.spacing_um)


def _dark_level(mosaic: Mosaic) -> str:
    return "" if mosaic.shading is None else f", above a dark level of {mosaic.shading.dark:.4g}"


def _draw_gains(mosaic: Mosaic) -> Drawing | str:
    if (mosaic.gain == 1).all():
        return "no differences between tiles were taken out"
    return gain_map(mosaic)
