"""Vesselness: how much the surroundings of a voxel look like a bright tube.

The Hessian is taken with Gaussian derivatives at several scales, and no parameter depends on
the data, so that a tile read with `halo_voxels` more on every side gives, bit for bit, the
vesselness of the whole volume. The kernels work plane by plane and hold a few planes only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vasculome.vessels.hessian import hessian_planes, line_radii

BACKGROUND, WEAK, STRONG = 0, 1, 2


def halo_voxels(*, scales_um: Sequence[float], spacing_um: Sequence[float]) -> tuple[int, ...]:
    """Return how many voxels beyond a tile its vesselness depends on, along each axis."""
    radii = [line_radii(scale_um, spacing_um) for scale_um in scales_um]
    return tuple(max(axis) for axis in zip(*radii, strict=True))
