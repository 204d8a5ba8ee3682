"""Flat pictures of a volume: three maximum projections laid out around one corner.

A volume is shown the way an atlas shows it: a main view, the view from the side on its right,
the view from above or below beneath it, all at one scale. A 2-D map is its own only view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vasculome.geometry import Spacing

_GAP = 0.02
"""Space between two views, as a share of the main view's longer side."""


@dataclass(frozen=True)
class Volume:
    """Values on a regular grid, 2-D or 3-D, with the distance between voxels along each axis."""

    values: NDArray[np.generic]
    spacing_um: Spacing

    def __post_init__(self) -> None:
        if self.values.ndim not in (2, 3) or self.values.ndim != len(self.spacing_um):
            raise ValueError(
                f"shape {self.values.shape} and spacing {self.spacing_um} must agree, in 2-D or 3-D"
            )

    @property
    def extent_um(self) -> tuple[float, ...]:
        """Side lengths of the volume in micrometres."""
        return tuple(n * s for n, s in zip(self.values.shape, self.spacing_um, strict=True))


@dataclass(frozen=True)
class View:
    """One flat picture: which axes it shows, and its place on the panel in micrometres."""

    name: str
    row_axis: int
    column_axis: int
    depth_axis: int | None
    left_um: float
    top_um: float
    width_um: float
    height_um: float

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top: what ``imshow`` wants, with rows running down."""
        return (
            self.left_um,
            self.left_um + self.width_um,
            self.top_um + self.height_um,
            self.top_um,
        )


def views(extent_um: tuple[float, ...], *, main: str) -> list[View]:
    """Lay out the flat pictures of a volume: the main view, then right of it, then below it.

    Parameters
    ----------
    extent_um
        Side lengths (z, y, x), or two lengths for a plane.
    main
        ``"xy"`` for microscopy or ``"xz"`` for ultrasound: the axes of the main view, columns
        then rows. Ignored for a plane.
    """
    if len(extent_um) == 2:
        return [View("xz", 0, 1, None, 0.0, 0.0, extent_um[1], extent_um[0])]
    column, row = "zyx".index(main[0]), "zyx".index(main[1])
    depth = 3 - row - column
    width, height, deep = extent_um[column], extent_um[row], extent_um[depth]
    gap = _GAP * max(width, height)
    return [
        View(main, row, column, depth, 0.0, 0.0, width, height),
        View(_name(row, depth), row, depth, column, width + gap, 0.0, deep, height),
        View(_name(depth, column), depth, column, row, 0.0, height + gap, width, deep),
    ]


def _name(first_axis: int, second_axis: int) -> str:
    return "".join(sorted("zyx"[first_axis] + "zyx"[second_axis]))


def panel_extent_um(layout: list[View]) -> tuple[float, float]:
    """Return width and height of the whole panel in micrometres."""
    return (
        max(v.left_um + v.width_um for v in layout),
        max(v.top_um + v.height_um for v in layout),
    )


def flatten(
    values: NDArray[np.generic],
    view: View,
    *,
    reduce: Callable[..., NDArray[np.generic]] = np.fmax.reduce,
) -> NDArray[np.generic]:
    """Return the picture of ``view``; by default the maximum along its depth, NaN left out."""
    if view.depth_axis is None:
        return values
    flat = reduce(values, axis=view.depth_axis)
    return flat.T if view.row_axis > view.column_axis else flat


def weighted_mean(
    values: NDArray[np.generic], weights: NDArray[np.generic], view: View
) -> NDArray[np.float32]:
    """Return the mean along the depth of ``view``, weighted; NaN where all weights are zero.

    Voxels whose value is NaN count as weight zero.
    """
    known = np.isfinite(values)
    weight = np.where(known, weights, 0).astype(np.float32)
    value = np.where(known, values, 0).astype(np.float32)
    total = flatten(weight, view, reduce=np.sum)
    mean = np.full(total.shape, np.nan, np.float32)
    np.divide(flatten(value * weight, view, reduce=np.sum), total, out=mean, where=total > 0)
    return mean


def rasterize_skeleton(
    points_um: NDArray[np.floating],
    values: NDArray[np.floating],
    view: View,
    *,
    spacing_um: Spacing,
    pixel_um: float,
) -> NDArray[np.float32]:
    """Paint skeleton voxels into the picture of ``view``: the largest value of each pixel.

    Where pixels are finer than voxels, touching voxels are joined by straight lines, so that a
    skeleton stays a line at every magnification.

    Parameters
    ----------
    points_um
        Voxel centres, shape (n, 3), in z, y, x.
    values
        What to paint, shape (n,), e.g. radii.
    spacing_um
        Voxel spacing of the grid that the skeleton was made on.
    pixel_um
        Side of a pixel of the picture.

    Returns
    -------
    float32 picture, NaN where there is no skeleton.
    """
    shape = tuple(max(1, int(np.ceil(s / pixel_um))) for s in (view.height_um, view.width_um))
    picture = np.full(shape, -np.inf, np.float32)
    position = points_um[:, [view.row_axis, view.column_axis]] + 0.5 * np.asarray(
        [spacing_um[view.row_axis], spacing_um[view.column_axis]]
    )
    _paint(picture, position / pixel_um, values)
    # One step more than needed, so that rounding leaves no gap.
    steps = int(max(spacing_um) / pixel_um) + 2 if pixel_um < max(spacing_um) else 1
    if steps > 1 and len(points_um):
        # 26 neighbours of a voxel are at most the square root of 3 voxels away.
        pairs = cKDTree(points_um / np.asarray(spacing_um)).query_pairs(1.8, output_type="ndarray")
        first, second = pairs[:, 0], pairs[:, 1]
        larger = np.maximum(values[first], values[second])
        for step in range(1, steps):
            share = step / steps
            between = (1 - share) * position[first] + share * position[second]
            _paint(picture, between / pixel_um, larger)
    picture[np.isneginf(picture)] = np.nan
    return picture


def _paint(
    picture: NDArray[np.float32], at: NDArray[np.floating], values: NDArray[np.floating]
) -> None:
    index = np.floor(at).astype(np.int64)
    inside = ((index >= 0) & (index < picture.shape)).all(axis=1)
    rows, columns = index[inside].T
    np.maximum.at(picture, (rows, columns), values[inside].astype(np.float32))
