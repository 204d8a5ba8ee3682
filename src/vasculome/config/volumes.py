"""The sheet of users' volumes that segmenters are trained on, one row a volume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from vasculome.config.settings import Settings, ZyxUm, first_fault
from vasculome.config.sheets import sheet_rows
from vasculome.errors import UserError


class TrainingVolume(Settings):
    """One row of the sheet of volumes. Empty cells are None."""

    image: str | None = Field(
        None,
        description="TIFF stack, folder of TIFF planes, NIfTI (.nii, .nii.gz) or OME-Zarr 0.5; "
        "empty: label's vessels are rendered.",
    )
    label: str | None = Field(
        None, description="Vessels, where not 0, in a file like image's; empty: unlabelled."
    )
    background: bool = Field(
        False, description="yes: image shows no stained vessels; rendered ones are put into it."
    )
    spacing_um: ZyxUm | None = Field(
        None, description="Voxel size z,y,x, e.g. 3,1.625,1.625; a background needs none."
    )
    channel: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Channel of a TIFF stack that has several, from 0."
    )
    fold: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Fold in which it is held out, from 0; empty in all rows: by chance."
    )

    @field_validator("spacing_um", mode="before")
    @classmethod
    def _split_cell(cls, cell: object) -> object:
        if isinstance(cell, str):
            return tuple(part.strip() for part in cell.split(","))
        return cell

    @model_validator(mode="after")
    def _is_of_use(self) -> Self:
        if self.image is None and self.label is None:
            raise ValueError("needs image, label or both")
        if self.background and (self.image is None or self.label is not None):
            raise ValueError("background: yes is for an image without a label")
        if self.spacing_um is None and not self.background:
            raise ValueError("needs spacing_um")
        if self.fold is not None and not self.labelled:
            raise ValueError("fold is for an image with a label: others cannot be tested on")
        return self

    @property
    def labelled(self) -> bool:
        """Whether it has both image and label."""
        return self.image is not None and self.label is not None


def parse_volumes(text: str, *, where: str) -> tuple[TrainingVolume, ...]:
    """Return the rows of a sheet of volumes.

    Raises
    ------
    UserError
        Naming the row and the column: unknown columns, bad cells, an image listed twice, folds
        for some volumes with labels and not for others, or two for one label.
    """
    volumes: list[TrainingVolume] = []
    images: set[Path] = set()
    first_of_label: dict[Path, TrainingVolume] = {}
    for number, cells in sheet_rows(text, model=TrainingVolume, what="volume", where=where):
        at = f"{where}, line {number}"
        volume = _parse(cells, where=at)
        if volume.image is not None:
            # Under two names a volume would be learnt from and tested on.
            image = Path(volume.image).resolve()
            if image in images:
                what = f"image {volume.image} is listed twice"
                raise UserError(what, where=at, fix="remove one of the rows")
            images.add(image)
        if volume.fold is not None:
            label = Path(str(volume.label)).resolve()
            _check_fold(volume, first_of_label.setdefault(label, volume), where=at)
        volumes.append(volume)
    labelled = [volume for volume in volumes if volume.labelled]
    given = sum(volume.fold is not None for volume in labelled)
    if 0 < given < len(labelled):
        raise UserError(
            f"fold is given for {given} of {len(labelled)} volumes with labels",
            where=where,
            fix="give it for all of them or for none",
        )
    return tuple(volumes)


def _check_fold(volume: TrainingVolume, other: TrainingVolume, *, where: str) -> None:
    """Refuse that vessels which are learnt from in a fold are tested on in it, too."""
    if other.fold != volume.fold:
        raise UserError(
            f"label {volume.label} is in fold {other.fold} with {other.image}, and in fold "
            f"{volume.fold} with {volume.image}",
            where=where,
            fix="give images of one label the same fold",
        )


def _parse(cells: Mapping[str, str], *, where: str) -> TrainingVolume:
    try:
        return TrainingVolume.model_validate(cells)
    except ValidationError as error:
        raise first_fault(error, cells, where=where) from None
