"""A volume's bubbles in 2-D slices: a linear array that is moved in elevation, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vasculome.simulate.bubbles import BubbleTable

_FAINTEST = 0.01  # of the response in the middle of the slice


def in_slice(bubbles: BubbleTable, *, elevation_um: float, thickness_um: float) -> BubbleTable:
    """Return what a 2-D array sees of bubbles in 3-D.

    The response across the slice is Gaussian: an echo's amplitude falls to half at
    ``thickness_um / 2`` from its middle; echoes below 1 % are left out.

    Parameters
    ----------
    bubbles
        Positions (z, y, x).
    elevation_um
        Place of the slice along y.
    thickness_um
        Full width at half maximum of the response, transmitted and received, along y.

    Returns
    -------
    BubbleTable
        Positions and velocities (z, x). Tracks keep their numbers, so that a bubble that two
        slices see is known to be one.

    Raises
    ------
    ValueError
        If bubbles are in 2-D already.
    """
    if bubbles.ndim != 3:
        raise ValueError("bubbles must have positions (z, y, x)")
    away = (bubbles.position_um[:, 1] - elevation_um) / thickness_um
    response = np.exp(-4 * math.log(2) * away**2)
    seen = response >= _FAINTEST
    rows = bubbles.take(seen)
    return replace(
        rows,
        position_um=rows.position_um[:, [0, 2]],
        velocity_mm_s=rows.velocity_mm_s[:, [0, 2]],
        amplitude=(rows.amplitude * response[seen]).astype(np.float32),
    )


def scan_slices(
    bubbles: BubbleTable, *, elevation_um: Sequence[float], thickness_um: float, n_frames: int
) -> list[BubbleTable]:
    """Return the tables of slices taken one after the other, ``n_frames`` each.

    Parameters
    ----------
    bubbles
        Positions (z, y, x), over ``n_frames`` x slices frames.
    elevation_um
        Place of each slice along y, in the order in which they are taken.
    thickness_um
        As of :func:`in_slice`.
    n_frames
        Frames of a slice.

    Returns
    -------
    list of BubbleTable
        One a slice; frames count from the slice's first.
    """
    tables = []
    for number, elevation in enumerate(elevation_um):
        first = number * n_frames
        rows = bubbles.between(first, first + n_frames)
        seen = in_slice(rows, elevation_um=elevation, thickness_um=thickness_um)
        tables.append(replace(seen, frame=seen.frame - first))
    return tables
