"""Tables of detections and tracks as the algorithms see them: a dict of columns of one length.

Positions are spread over ``z_um``, ``y_um`` and ``x_um``; a 2-D table has no ``y_um``. Everything
here and beside it takes the number of dimensions from the columns that are there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = dict[str, NDArray[Any]]
"""Columns by name; all 1-D and of one length."""


def axis_names(ndim: int) -> tuple[str, ...]:
    """Return the names of the spatial axes of 2-D (z, x) or 3-D (z, y, x) ultrasound."""
    if ndim not in (2, 3):
        raise ValueError(f"ultrasound has 2 or 3 spatial axes, not {ndim}")
    return ("z", "x") if ndim == 2 else ("z", "y", "x")


def table_axes(table: Table) -> tuple[str, ...]:
    """Return the names of the spatial axes that a table in micrometres has."""
    return axis_names(sum(f"{axis}_um" in table for axis in "zyx"))


def positions(table: Table) -> NDArray[np.float64]:
    """Return the positions of a table in micrometres, float64, shape (n, d)."""
    return np.stack([table[f"{axis}_um"] for axis in table_axes(table)], axis=1).astype(np.float64)


def velocities(table: Table) -> NDArray[np.float64]:
    """Return the velocities of a table in mm/s, float64, shape (n, d)."""
    names = [f"v{axis}_mm_s" for axis in table_axes(table)]
    return np.stack([table[name] for name in names], axis=1).astype(np.float64)
