"""Files of users' volumes: what their headers tell, their voxels, and the memory that they take."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.config import ModelConfig, PatchTrainingConfig, TrainingVolume
from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.files import changed_ns
from vasculome.readers.nifti import Affine, is_nifti, read_nifti, read_nifti_header
from vasculome.readers.tiff_volume import TIFF_SUFFIXES, open_planes, open_stack
from vasculome.readers.voxel_spacing import check_spacing
from vasculome.stages.volume_sheet import Roles, roles_of
from vasculome.storage.omezarr import open_image

_MISPLACED = 0.5
"""Voxels by which a label may lie beside its image."""

_LABEL_BYTES = 2
"""Of a voxel: a byte of the mask, and the numbers of vessels' voxels if an eighth are vessels."""


@dataclass(frozen=True)
class VolumeFile:
    """A volume whose header was read.

    Attributes
    ----------
    shape, dtype
        Voxels (z, y, x).
    affine
        Where they lie, as a NIfTI file tells it, or None.
    read
        Returns them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], NDArray[Any]]
    affine: Affine | None = None


def open_volume(
    path: Path, *, spacing_um: Sequence[float] | None, channel: int | None = None
) -> VolumeFile:
    """Open a file of any of the formats.

    Parameters
    ----------
    path
        TIFF stack, folder of planes, NIfTI or OME-Zarr 0.5.
    spacing_um
        Voxel size (z, y, x) that it must not contradict, or None.
    channel
        Of a TIFF stack with several.

    Raises
    ------
    UserError
        It is missing, damaged, of another format, no single volume, or of other voxels.
    """
    if is_nifti(path):
        header = read_nifti_header(path)
        _check_told(header.spacing_um, spacing_um, path)
        return VolumeFile(header.shape, header.dtype, lambda: read_nifti(path)[0], header.affine)
    if (path / "zarr.json").exists():
        return _open_zarr(path, spacing_um)
    if (path / ".zattrs").exists() or (path / ".zgroup").exists():
        what = "is OME-Zarr 0.4 or older, and 0.5 is read"
        raise UserError(what, where=path, fix="convert it to 0.5, or to TIFF or NIfTI")
    if path.is_dir():
        volume = open_planes(path, pattern=None)
    elif path.name.lower().endswith(TIFF_SUFFIXES):
        volume = open_stack(path, channel=channel)
    elif not path.exists():
        raise UserError("does not exist", where=path, fix="check the sheet of volumes")
    else:
        what = "is no TIFF, NIfTI (.nii, .nii.gz) or OME-Zarr 0.5"
        raise UserError(what, where=path, fix="convert it to one of those")
    return VolumeFile(volume.shape, volume.dtype, lambda: volume.read(Box.of_shape(volume.shape)))


def open_row(row: TrainingVolume) -> tuple[VolumeFile | None, VolumeFile | None]:
    """Open image and label of a row, each where it has one.

    Raises
    ------
    UserError
        As `open_volume`; the label has another shape than its image, or lies elsewhere.
    """
    image = label = None
    if row.image is not None:
        image = open_volume(Path(row.image), spacing_um=row.spacing_um, channel=row.channel)
    if row.label is not None:
        label = open_volume(Path(row.label), spacing_um=row.spacing_um)
    if image is not None and label is not None:
        _check_alike(image, label, row)
    return image, label


def volumes_bytes(roles: Roles) -> int:
    """Return the most memory that users' volumes take while they are read, and after."""
    rows = [row for field in fields(roles) for row in getattr(roles, field.name)]
    each = [
        _row_bytes(row, *(changed_ns(Path(name)) for name in (row.image, row.label) if name))
        for row in rows
    ]
    return sum(kept for kept, _ in each) + max((reading for _, reading in each), default=0)


# The workflow asks about each network, fold and seed anew: a process looks at a file once.
@functools.cache
def _row_bytes(row: TrainingVolume, *_changed_ns: int) -> tuple[int, int]:
    """Return the memory that a row takes for good, and the most while one of its files is read."""
    image, label = open_row(row)
    kept, reading = 0, 0
    if image is not None:
        voxels = math.prod(image.shape)
        kept += voxels * (image.dtype.itemsize if row.background else 4)
        reading = voxels * (2 * image.dtype.itemsize + 8)
    if label is not None:
        voxels = math.prod(label.shape)
        kept += voxels * _LABEL_BYTES
        reading = max(reading, voxels * (2 * label.dtype.itemsize + 2))
    return kept, reading


def memory_mb(settings: ModelConfig) -> int:
    """Return the memory that a training asks for, with users' volumes; raises as `open_volume`."""
    volumes = volumes_bytes(roles_of(settings)) if isinstance(settings, PatchTrainingConfig) else 0
    return math.ceil(1000 * settings.memory_gb + volumes / 1e6)


def _open_zarr(path: Path, spacing_um: Sequence[float] | None) -> VolumeFile:
    image = open_image(path)
    spatial = [i for i, axis in enumerate(image.spec.axes) if axis in "zyx"]
    others = [n for i, n in enumerate(image.spec.shape) if i not in spatial]
    if len(spatial) != 3 or any(n > 1 for n in others):
        what = f"has the axes {', '.join(image.spec.axes)} where z, y, x are wanted"
        raise UserError(what, where=path, fix="export one channel and one time")
    _check_told([image.spec.spacing_um[i] for i in spatial], spacing_um, path)
    shape = tuple(image.spec.shape[i] for i in spatial)
    whole = Box.of_shape(image.spec.shape)
    dtype = np.dtype(image.spec.dtype)
    return VolumeFile(shape, dtype, lambda: image.read(whole).reshape(shape))


def _check_told(
    told_um: Sequence[float] | None, spacing_um: Sequence[float] | None, path: Path
) -> None:
    if told_um is not None and spacing_um is not None:
        check_spacing(told_um, spacing_um=spacing_um, where=path)


def _check_alike(image: VolumeFile, label: VolumeFile, row: TrainingVolume) -> None:
    name, where = Path(str(row.image)).name, Path(str(row.label))
    if label.shape != image.shape:
        raise UserError(
            f"is {_size(label.shape)} voxels (z, y, x) where its image is {_size(image.shape)}",
            where=where,
            fix=f"give the label of {name}, cut and turned like it",
        )
    if image.affine is None or label.affine is None:
        return
    corners = np.array(
        [(*c, 1) for c in itertools.product(*((0, n - 1) for n in image.shape[::-1]))]
    )
    own, its = np.array(label.affine), np.array(image.affine)
    apart = np.linalg.norm(corners @ (own - its).T, axis=1).max()
    voxel = np.linalg.norm(its[:, :3], axis=0).min()
    if apart > _MISPLACED * voxel:
        raise UserError(
            f"lies elsewhere than its image, by {apart / max(voxel, 1e-12):.3g} voxels: their "
            "headers turn, mirror or move voxels differently",
            where=where,
            fix=f"resample it onto {name}, or export both from one program",
        )


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
