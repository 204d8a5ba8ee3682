"""Pictures of vessels and of flow, fit for a slide: arrays in, matplotlib figures out.

Every map is black where there is nothing, has a scale bar of a round length and a colour legend
with its unit. Volumes appear as projections along each axis, planes as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import Colormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vasculome.geometry import Spacing
from vasculome.report import colors
from vasculome.report.panels import (
    Panel,
    black_panels,
    draw_color_bar,
    draw_direction_wheel,
    draw_scale_bar,
    draw_speed_legend,
    draw_view,
    name_views,
)
from vasculome.report.projections import (
    View,
    Volume,
    flatten,
    panel_extent_um,
    rasterize_skeleton,
    views,
    weighted_mean,
)

_WIDE_IN = 6.6
_MIDDLE_IN = 5.2
_NARROW_IN = 4.2
COMPRESSION = 0.5
"""Exponent that ULM maps are shown with, so that capillaries show beside large vessels."""

SHADE_COMPRESSION = 0.3
"""Exponent that turns density into brightness: strong, since colour must stay readable."""

SHADE_PERCENT = 97.0
"""Percentile of density that is shown at full brightness in maps of speed and direction."""

_FASTEST_PERCENT = 98.5
"""Percentile of speed where the colours of speed end."""

_LINE_DOTS = 2
"""Width of a skeleton line on the picture, in dots, enough to be seen on a slide."""
_FARTHEST_SHADE = 0.2
"""Brightness of a mask's farthest voxels; a plain maximum of a deep mask is all white."""

_BRIGHTEST_PERCENT = 99.5
"""Percentile of the non-zero values where the colour scale of a map ends."""


@dataclass(frozen=True)
class Skeleton:
    """Skeleton voxels: positions (n, 3) in z, y, x, radii (n,), and their grid's spacing."""

    points_um: NDArray[np.floating]
    radius_um: NDArray[np.floating]
    spacing_um: Spacing


def microscopy_overview(*, image: Volume, mask: Volume | None, skeleton: Skeleton | None) -> Figure:
    """Return the image, the mask and the skeleton over the image, coloured by radius.

    Parameters
    ----------
    image
        Intensity (z, y, x), any unit.
    mask
        Vessel mask, non-zero inside; it may come from another pyramid level than the image.
    skeleton
        Skeleton of the mask. Panels whose input is None are left out.
    """
    layout = views(image.extent_um, main="xy")
    extent = panel_extent_um(layout)
    titles = [
        "Image",
        *["Vessel mask"] * (mask is not None),
        *["Skeleton"] * (skeleton is not None),
    ]
    legends = [*[False] * (len(titles) - 1), skeleton is not None]
    figure, panels = black_panels(extent, titles=titles, panel_width_in=_NARROW_IN, legends=legends)
    faces = _flat(image, layout)
    grey = _contrast(faces[0])
    draw_views(panels[0], faces, layout, colors.INTENSITY, grey)
    if mask is not None:
        inside = [_faded(mask.values, view) for view in layout]
        draw_views(panels[1], inside, layout, colors.INTENSITY, Normalize(0, 1))
    if skeleton is not None:
        # The image steps back so that the skeleton stands out.
        dim = Normalize(grey.vmin, grey.vmin + 2.2 * (grey.vmax - grey.vmin))
        draw_views(panels[-1], faces, layout, colors.INTENSITY, dim)
        _overlay(panels[-1], skeleton, layout)
    return figure


def _faded(mask: NDArray[np.generic], view: View) -> NDArray[np.generic]:
    """Return the mask seen along the depth of ``view``, near voxels bright and far ones dim."""
    if view.depth_axis is None:
        return mask > 0
    along = [1, 1, 1]
    along[view.depth_axis] = -1
    fade = np.linspace(255, 255 * _FARTHEST_SHADE, mask.shape[view.depth_axis])
    shade = np.where(mask > 0, fade.astype(np.uint8).reshape(along), np.uint8(0))
    return flatten(shade, view) / np.float32(255)


def _contrast(picture: NDArray[np.generic]) -> Normalize:
    low, high = np.percentile(picture, [1.0, 99.7])
    return Normalize(float(low), float(max(high, low + 1e-6)))


def draw_views(
    panel: Panel,
    pictures: Sequence[NDArray[np.generic]],
    layout: Sequence[View],
    cmap: Colormap | None = None,
    norm: Normalize | None = None,
) -> None:
    """Draw the pictures of all views into a panel, with their names and a scale bar."""
    for picture, view in zip(pictures, layout, strict=True):
        draw_view(panel, picture, view, cmap=cmap, norm=norm)
    name_views(panel, layout)
    draw_scale_bar(panel, extent_um=layout[0].width_um)


def _overlay(panel: Panel, skeleton: Skeleton, layout: Sequence[View]) -> None:
    high = end_of_scale(skeleton.radius_um)
    norm = Normalize(0.0, high)
    for view in layout:
        picture = rasterize_skeleton(
            skeleton.points_um,
            skeleton.radius_um,
            view,
            spacing_um=skeleton.spacing_um,
            pixel_um=_LINE_DOTS * panel.um_per_dot,
        )
        rgba = colors.RADIUS(norm(picture))
        rgba[..., 3] = np.isfinite(picture)
        draw_view(panel, rgba, view)
    clipped = bool((skeleton.radius_um > high).any())
    draw_color_bar(
        panel,
        cmap=colors.RADIUS,
        norm=norm,
        label="radius (µm)",
        extend="max" if clipped else "neither",
    )


def end_of_scale(values: NDArray[np.generic], percent: float = _BRIGHTEST_PERCENT) -> float:
    """Return where a colour scale that starts at zero ends; 1 for a map of zeros."""
    positive = values[np.isfinite(values) & (values > 0)]
    return float(np.percentile(positive, percent)) if positive.size else 1.0


def density_label(density: Volume) -> str:
    """Return what a map of microbubble counts tells, with its unit."""
    return "microbubbles per " + ("pixel" if density.values.ndim == 2 else "voxel")


def density_figure(
    density: Volume, *, title: str, label: str, cmap: Colormap = colors.DENSITY, main: str = "xy"
) -> Figure:
    """Return maximum projections of a map of vessel density, or of another positive quantity.

    Parameters
    ----------
    density
        Values (z, y, x) or (z, x); zero and NaN are shown black.
    label
        Quantity and unit for the colour bar, e.g. ``"length density (mm/mm³)"``.
    main
        Axes of the main view: ``"xy"``, or ``"xz"`` for ultrasound.
    """
    return _map_figure(density, title=title, label=label, cmap=cmap, main=main, exponent=1.0)


def ulm_density(density: Volume, *, power_doppler: Volume | None = None) -> Figure:
    """Return the map of microbubble counts, square-root compressed; power Doppler beside it.

    Parameters
    ----------
    density
        Microbubbles counted in each pixel, (z, x) or (z, y, x).
    power_doppler
        Mean intensity of the clutter-filtered IQ on the same field of view; shown in decibels
        below its maximum.
    """
    label = density_label(density)
    if power_doppler is None:
        return _map_figure(
            density,
            title="ULM density",
            label=label,
            cmap=colors.DENSITY,
            main="xz",
            exponent=COMPRESSION,
        )
    layout = views(density.extent_um, main="xz")
    figure, panels = black_panels(
        panel_extent_um(layout),
        titles=["Power Doppler", "ULM density"],
        panel_width_in=_MIDDLE_IN,
        legends=[True, True],
    )
    # Its grid is coarser, and may end elsewhere: it is drawn to scale, not stretched to fit.
    coarse = views(power_doppler.extent_um, main="xz")
    decibels = [_decibels(flatten(power_doppler.values, view)) for view in coarse]
    doppler_norm = Normalize(-35, 0)
    draw_views(panels[0], decibels, coarse, colors.INTENSITY, doppler_norm)
    draw_color_bar(
        panels[0], cmap=colors.INTENSITY, norm=doppler_norm, label="power (dB)", extend="min"
    )
    _draw_map(panels[1], density, layout, label=label, cmap=colors.DENSITY, exponent=COMPRESSION)
    return figure


def vessel_probability(probability: Volume, *, density: Volume | None = None) -> Figure:
    """Return the map of probabilities of vessels, and that of microbubble counts beside it.

    Parameters
    ----------
    probability
        From 0 to 1, (z, x) or (z, y, x).
    density
        Microbubbles counted in each pixel on about the same field of view.
    """
    layout = views(probability.extent_um, main="xz")
    shown = [probability] if density is None else [density, probability]
    figure, panels = black_panels(
        panel_extent_um(layout),
        titles=["Vessels by network"] if density is None else ["ULM density", "Vessels by network"],
        panel_width_in=_WIDE_IN if density is None else _MIDDLE_IN,
        legends=[True] * len(shown),
    )
    if density is not None:
        _draw_map(
            panels[0],
            density,
            views(density.extent_um, main="xz"),
            label=density_label(density),
            cmap=colors.DENSITY,
            exponent=COMPRESSION,
        )
    norm = Normalize(0, 1)
    draw_views(panels[-1], _flat(probability, layout), layout, colors.INTENSITY, norm)
    draw_color_bar(
        panels[-1], cmap=colors.INTENSITY, norm=norm, label="probability", extend="neither"
    )
    return figure


def _decibels(power: NDArray[np.generic]) -> NDArray[np.float64]:
    highest = float(np.nanmax(power))
    floor = highest * 1e-10 if highest > 0 else 1.0
    return 10 * np.log10(np.maximum(np.nan_to_num(power), floor) / max(highest, floor))


def _map_figure(
    volume: Volume, *, title: str, label: str, cmap: Colormap, main: str, exponent: float
) -> Figure:
    layout = views(volume.extent_um, main=main)
    figure, (panel,) = black_panels(
        panel_extent_um(layout), titles=[title], panel_width_in=_WIDE_IN, legends=[True]
    )
    _draw_map(panel, volume, layout, label=label, cmap=cmap, exponent=exponent)
    return figure


def _flat(volume: Volume, layout: Sequence[View]) -> list[NDArray[np.generic]]:
    return [flatten(volume.values, view) for view in layout]


def _draw_map(
    panel: Panel,
    volume: Volume,
    layout: Sequence[View],
    *,
    label: str,
    cmap: Colormap,
    exponent: float,
) -> None:
    # Zero is nothing, whatever colour the map begins with.
    pictures = [np.where(flat > 0, flat, np.nan) for flat in _flat(volume, layout)]
    high = max(end_of_scale(picture) for picture in pictures)
    norm = PowerNorm(exponent, 0.0, high, clip=True)
    draw_views(panel, pictures, layout, cmap, norm)
    clipped = any(bool((picture > high).any()) for picture in pictures)
    draw_color_bar(panel, cmap=cmap, norm=norm, label=label, extend="max" if clipped else "neither")


def ulm_speed(
    speed_mm_s: Volume,
    *,
    density: Volume,
    title: str = "Flow speed",
    label: str = "speed (mm/s)",
) -> Figure:
    """Return speeds as colour, with brightness from density: slow and rare do not look alike."""
    layout = views(speed_mm_s.extent_um, main="xz")
    figure, (panel,) = black_panels(
        panel_extent_um(layout), titles=[title], panel_width_in=_WIDE_IN, legends=[True]
    )
    speeds = _flat(speed_mm_s, layout)
    norm = Normalize(0.0, max(end_of_scale(speed, _FASTEST_PERCENT) for speed in speeds), clip=True)
    shades = _brightness(density, layout)
    draw_views(
        panel,
        [_shaded(colors.SPEED(norm(v)), b) for v, b in zip(speeds, shades, strict=True)],
        layout,
    )
    draw_speed_legend(panel, cmap=colors.SPEED, norm=norm, label=label)
    return figure


def _brightness(density: Volume, layout: Sequence[View]) -> list[NDArray[np.floating]]:
    counts = _flat(density, layout)
    high = max(end_of_scale(count, SHADE_PERCENT) for count in counts)
    norm = PowerNorm(SHADE_COMPRESSION, 0.0, high, clip=True)
    return [np.ma.filled(norm(np.nan_to_num(count)), 0.0) for count in counts]


def _shaded(rgba: NDArray[np.floating], brightness: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rgba[..., :3] * brightness[..., None]).astype(np.float32)


def ulm_direction(velocity_mm_s: Sequence[Volume], *, density: Volume) -> Figure:
    """Return the direction of flow in the plane of each view as hue, brightness from density.

    Parameters
    ----------
    velocity_mm_s
        Components (z, [y,] x) of the velocity; of a volume, the mean along the line of sight,
        weighted by density, is shown.
    """
    layout = views(density.extent_um, main="xz")
    figure, (panel,) = black_panels(
        panel_extent_um(layout), titles=["Flow direction"], panel_width_in=_WIDE_IN, legends=[True]
    )
    pictures = []
    for view, brightness in zip(layout, _brightness(density, layout), strict=True):
        down = weighted_mean(velocity_mm_s[view.row_axis].values, density.values, view)
        right = weighted_mean(velocity_mm_s[view.column_axis].values, density.values, view)
        known = np.isfinite(down) & np.isfinite(right) & ((down != 0) | (right != 0))
        angle = np.rad2deg(np.arctan2(-down, right, where=known, out=np.zeros_like(down)))
        hue = colors.DIRECTION(np.round(angle).astype(int) % 360)
        pictures.append(_shaded(hue, np.where(known, brightness, 0.0)))
    draw_views(panel, pictures, layout)
    draw_direction_wheel(panel, cmap=colors.DIRECTION)
    return figure


def ulm_axial(velocity_z_mm_s: Volume, *, density: Volume) -> Figure:
    """Return the axial velocity as in colour Doppler: red toward the probe, blue away from it.

    Parameters
    ----------
    velocity_z_mm_s
        Velocity along depth, positive away from the probe.
    """
    layout = views(density.extent_um, main="xz")
    figure, (panel,) = black_panels(
        panel_extent_um(layout), titles=["Axial velocity"], panel_width_in=_WIDE_IN, legends=[True]
    )
    pictures = [-weighted_mean(velocity_z_mm_s.values, density.values, view) for view in layout]
    high = max(end_of_scale(np.abs(picture), _FASTEST_PERCENT) for picture in pictures)
    norm = Normalize(-high, high, clip=True)
    draw_views(panel, pictures, layout, colors.AXIAL, norm)
    label = "← away   axial velocity (mm/s)   toward probe →"
    draw_color_bar(panel, cmap=colors.AXIAL, norm=norm, label=label, extend="both")
    return figure
