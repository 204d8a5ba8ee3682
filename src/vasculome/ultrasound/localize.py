"""Sub-pixel localization of bubbles around the maxima that detection found: the ways by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vasculome.ultrasound.columns import Table, axis_names
from vasculome.ultrasound.localize_centroid import weighted_average, weighted_centroid
from vasculome.ultrasound.localize_correlate import correlation_centroid
from vasculome.ultrasound.localize_fit import gaussian_fit, gaussian_fit_common_width
from vasculome.ultrasound.localize_interpolate import (
    interpolation_cubic,
    interpolation_lanczos,
    interpolation_spline,
)
from vasculome.ultrasound.localize_radial import radial_symmetry


class Localizer(Protocol):
    """See :func:`~vasculome.ultrasound.patches.localize_patches`."""

    def __call__(  # noqa: D102
        self,
        magnitude_t: NDArray[np.floating],
        peaks: NDArray[np.int64],
        *,
        half_width: int | Sequence[int] = ...,
        first_frame: int = ...,
    ) -> Table: ...


LOCALIZERS: Mapping[str, Localizer] = MappingProxyType(
    {
        "weighted_average": weighted_average,
        "weighted_centroid": weighted_centroid,
        "interpolation_cubic": interpolation_cubic,
        "interpolation_lanczos": interpolation_lanczos,
        "interpolation_spline": interpolation_spline,
        "gaussian_fit": gaussian_fit,
        "gaussian_fit_common_width": gaussian_fit_common_width,
        "radial_symmetry": radial_symmetry,
        "correlation_centroid": correlation_centroid,
    }
)


def positions_um(
    detections: Table, *, spacing_um: Sequence[float], origin_um: Sequence[float]
) -> Table:
    """Turn positions in voxels into micrometres, columns ``z_um``, [``y_um``,] ``x_um``.

    Parameters
    ----------
    detections
        Table with ``z``, [``y``,] ``x`` in voxels, and perhaps their standard deviations
        ``sigma_z``, [``sigma_y``,] ``sigma_x``.
    spacing_um, origin_um
        Voxel size and centre of voxel 0 along each axis, in micrometres.

    Returns
    -------
    The table with lengths in micrometres in the place of those in voxels.
    """
    table: Table = {}
    axes = axis_names(len(spacing_um))
    steps = dict(zip(axes, zip(spacing_um, origin_um, strict=True), strict=True))
    for name, column in detections.items():
        axis = name.removeprefix("sigma_")
        if axis not in steps:
            table[name] = column
            continue
        step, origin = steps[axis]
        if axis == name:
            table[f"{name}_um"] = origin + step * column.astype(np.float64)
        else:
            table[f"{name}_um"] = column * column.dtype.type(step)
    return table


def passing(
    detections: Table,
    *,
    max_maxima: int | None = None,
    max_shift_px: float | None = None,
) -> Table:
    """Keep the detections that pass the quality gates.

    Parameters
    ----------
    detections
        Table from a localizer.
    max_maxima
        Local maxima that the patch may hold; PALA takes 2 on 3 and 3 on 5 voxels.
    max_shift_px
        How far from the peak's voxel the position may be along any axis; PALA takes the half
        width and half a voxel, localizers themselves stop at half of the half width and half a
        voxel.

    Returns
    -------
    The table without the rows that do not pass; a gate that is None is open.
    """
    kept = np.ones(len(detections["frame"]), bool)
    if max_maxima is not None:
        kept &= detections["maxima"] <= max_maxima
    if max_shift_px is not None:
        kept &= detections["shift_px"] <= max_shift_px
    return {name: column[kept] for name, column in detections.items()}
