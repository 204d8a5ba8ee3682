"""Users' volumes for training: from their sheet and files to patches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.config import TrainingVolume
from vasculome.errors import UserError
from vasculome.stages.volume_files import VolumeFile, open_row, open_volume
from vasculome.stages.volume_sheet import Roles
from vasculome.training.vessel_sources import LabelVolume, Sources, background_of
from vasculome.training.volume_patches import GivenVolume, Shape, VolumePatches
from vasculome.vessels.normalize import intensity_histogram, intensity_range, rescale


def given_patches(
    roles: Roles, *, shape: Shape, seed: int, upper_percent: float = 95.0
) -> VolumePatches:
    """Read images and labels, and return their patches.

    Parameters
    ----------
    roles
        What is learnt from, and what is held out.
    shape, seed
        Of the patches.
    upper_percent
        Percentile of a volume's intensities that becomes 1.

    Raises
    ------
    UserError
        A file cannot be read, an image and its label differ in shape, a label marks nothing or all.
    """
    training, validating = (
        tuple(read_given(row, upper_percent=upper_percent) for row in rows)
        for rows in ((*roles.labelled, *roles.unlabelled), roles.held_out)
    )
    return VolumePatches(training, validating, shape, seed)


def rendering_sources(roles: Roles) -> Sources:
    """Read the labels whose vessels are rendered, and the backgrounds.

    Raises
    ------
    UserError
        A file cannot be read, a label marks nothing or all, half of a background is dark.
    """
    labels = [
        LabelVolume(_mask(open_volume(path, spacing_um=row.spacing_um), path), row.spacing_um)
        for row in roles.vessels
        for path in [Path(str(row.label))]
    ]
    backgrounds = []
    for row in roles.backgrounds:
        path = Path(str(row.image))
        file = open_volume(path, spacing_um=row.spacing_um, channel=row.channel)
        try:
            backgrounds.append(background_of(file.read()))
        except ValueError as error:
            raise UserError(str(error), where=path, fix="crop it to the tissue") from None
    return Sources(tuple(labels), tuple(backgrounds))


def read_given(row: TrainingVolume, *, upper_percent: float = 95.0) -> GivenVolume:
    """Return a volume, normalized as a whole, with its label if it has one.

    Raises
    ------
    UserError
        As `given_patches`.
    """
    image, label = open_row(row)
    assert image is not None
    voxels = _normalized(image.read(), upper_percent, path=Path(str(row.image)))
    mask = None if label is None else _mask(label, Path(str(row.label)))
    return GivenVolume(voxels, mask, row.spacing_um)


def _mask(file: VolumeFile, path: Path) -> NDArray[np.bool_]:
    values = file.read()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError("is not finite everywhere", where=path, fix="mark vessels by 1, others 0")
    mask = values != 0
    if mask.all() or not mask.any():
        what = "marks every voxel" if mask.all() else "marks no voxel"
        raise UserError(what, where=path, fix="mark vessels by 1 and all else by 0")
    return np.asarray(mask)


def _normalized(image: NDArray[Any], upper_percent: float, *, path: Path) -> NDArray[np.float32]:
    if image.dtype not in (np.uint8, np.uint16):
        image = image.astype(np.float32)
    least, most = float(image.min()), float(image.max())
    if not math.isfinite(least + most):
        fix = "replace such voxels, for instance by 0"
        raise UserError("an intensity is NaN or infinite", where=path, fix=fix)
    if least == most:
        fix = "check the export, or remove the row"
        raise UserError(f"is {least:g} everywhere: it shows nothing", where=path, fix=fix)
    bounds = (least, most) if image.dtype == np.float32 else None
    histogram = intensity_histogram(image, float_range=bounds)
    low, high = intensity_range(histogram, upper_percent=upper_percent)
    return rescale(image, low=low, high=high)
