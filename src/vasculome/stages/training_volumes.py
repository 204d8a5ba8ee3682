"""Users' volumes for training: from their sheet and files to patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.config import TrainingVolume
from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.nifti import is_nifti, read_nifti
from vasculome.readers.tiff_volume import TIFF_SUFFIXES, open_planes, open_stack
from vasculome.readers.voxel_spacing import check_spacing
from vasculome.stages.volume_sheet import Roles
from vasculome.storage.omezarr import open_image
from vasculome.training.vessel_sources import LabelVolume, Sources, background_of
from vasculome.training.volume_patches import GivenVolume, Shape, VolumePatches
from vasculome.vessels.normalize import intensity_histogram, intensity_range, rescale, value_range


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
        LabelVolume(_read_mask(Path(str(row.label)), row), row.spacing_um) for row in roles.vessels
    ]
    backgrounds = []
    for row in roles.backgrounds:
        path = Path(str(row.image))
        try:
            backgrounds.append(background_of(_read(path, row)))
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
    assert row.image is not None
    path = Path(row.image)
    image = _read(path, row)
    mask = None if row.label is None else _read_mask(Path(row.label), row)
    if mask is not None and mask.shape != image.shape:
        raise UserError(
            f"is {_size(mask.shape)} voxels (z, y, x) where its image is {_size(image.shape)}",
            where=Path(str(row.label)),
            fix=f"give the label of {path.name}, cut and turned like it",
        )
    return GivenVolume(_normalized(image, upper_percent), mask, row.spacing_um)


def _read(path: Path, row: TrainingVolume) -> NDArray[Any]:
    """Return the voxels (z, y, x) of a file of any of the formats."""
    if is_nifti(path):
        return read_nifti(path)[0]
    if (path / "zarr.json").exists():
        image = open_image(path)
        spatial = [i for i, axis in enumerate(image.spec.axes) if axis in "zyx"]
        others = [n for i, n in enumerate(image.spec.shape) if i not in spatial]
        if len(spatial) != 3 or any(n > 1 for n in others):
            what = f"has the axes {', '.join(image.spec.axes)} where z, y, x are wanted"
            raise UserError(what, where=path, fix="export one channel and one time")
        told = [image.spec.spacing_um[i] for i in spatial]
        check_spacing(told, spacing_um=row.spacing_um, where=path)
        voxels = image.read(Box.of_shape(image.spec.shape))
        return voxels.reshape([image.spec.shape[i] for i in spatial])
    if path.is_dir():
        volume = open_planes(path, pattern=None)
    elif path.name.lower().endswith(TIFF_SUFFIXES):
        volume = open_stack(path, channel=row.channel)
    elif not path.exists():
        raise UserError("does not exist", where=path, fix="check the sheet of volumes")
    else:
        what = "is no TIFF, NIfTI (.nii, .nii.gz) or OME-Zarr 0.5"
        raise UserError(what, where=path, fix="convert it to one of those")
    return volume.read(Box.of_shape(volume.shape))


def _read_mask(path: Path, row: TrainingVolume) -> NDArray[np.bool_]:
    values = _read(path, row.model_copy(update={"channel": None}))
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError("is not finite everywhere", where=path, fix="mark vessels by 1, others 0")
    mask = values != 0
    if mask.all() or not mask.any():
        what = "marks every voxel" if mask.all() else "marks no voxel"
        raise UserError(what, where=path, fix="mark vessels by 1 and all else by 0")
    return np.asarray(mask)


def _normalized(image: NDArray[Any], upper_percent: float) -> NDArray[np.float32]:
    if image.dtype not in (np.uint8, np.uint16):
        image = image.astype(np.float32)
    bounds = value_range(image) if image.dtype == np.float32 else None
    histogram = intensity_histogram(image, float_range=bounds)
    low, high = intensity_range(histogram, upper_percent=upper_percent)
    return rescale(image, low=low, high=high)


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
