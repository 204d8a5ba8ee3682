"""``samples.tsv``: what the raw data are and where they lie, one row a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from vasculome.config.localize import Localizer
from vasculome.config.settings import PositiveFloat, PositiveInt, Settings, first_fault
from vasculome.config.sheets import sheet_rows
from vasculome.config.slices import check_stacks
from vasculome.errors import UserError

OverlapPercent = Annotated[float, Field(ge=0, lt=100, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
StageAxis = Literal["y", "-y", "x", "-x"]

MICROSCOPY_FORMATS = (
    "tiff_planes",
    "tiff_stack",
    "tiff_tiles",
    "tiff_grid",
    "tiff_pattern",
    "ome_tiles",
    "terastitcher",
)
TILED_FORMATS = ("tiff_tiles", "tiff_grid", "tiff_pattern", "ome_tiles", "terastitcher")
_MICROSCOPY_COLUMNS = (
    "channel",
    "register_channel",
    "pattern",
    "grid",
    "order",
    "overlap_percent",
    "stage_axes",
    "allow_missing_planes",
)
_ULTRASOUND_COLUMNS = (
    "axes",
    "sequence",
    "variable",
    "frame_rate_hz",
    "frames_per_run",
    "wavelength_um",
    "center_frequency_hz",
    "speed_of_sound_m_s",
    "volume",
    "elevation_mm",
    "localizer",
)


class Sample(Settings):
    """One row of the sample sheet. Empty cells are None."""

    sample: Name = Field(
        description="Unique name: letters, digits, - and _; names the results folder."
    )
    modality: Literal["microscopy", "ultrasound"]
    path: str = Field(min_length=1, description="File or folder with the raw data.")
    format: Literal[
        "tiff_planes",
        "tiff_stack",
        "tiff_tiles",
        "tiff_grid",
        "tiff_pattern",
        "ome_tiles",
        "terastitcher",
        "iq",
        "rf",
    ]
    spacing_um: tuple[PositiveFloat, ...] = Field(
        description="Voxel spacing: z,y,x (ultrasound in 2-D: z,x), e.g. 5,2,2."
    )
    channel: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Microscopy: channel to be mapped, where there are several, from 0."
    )
    register_channel: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Microscopy: channel on which tiles are registered; empty: as channel."
    )
    pattern: str | None = Field(
        None,
        description="Microscopy: names of the files, e.g. tile_{row}_{col}/plane_{z}.tif; for "
        "other formats than tiff_pattern a shell pattern, e.g. *_ch01.tif.",
    )
    grid: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="Microscopy: rows x columns of tiles without positions, e.g. 4x5."
    )
    order: Literal["raster-rows", "raster-columns", "snake-rows", "snake-columns"] | None = Field(
        None, description="Microscopy: order in which the tiles of a grid were acquired."
    )
    overlap_percent: tuple[OverlapPercent, OverlapPercent] | None = Field(
        None, description="Microscopy: overlap of a grid's neighbours, along y,x or one for both."
    )
    stage_axes: tuple[StageAxis, StageAxis] | None = Field(
        None,
        description="Microscopy: stage axes that run along the image's y,x, e.g. y,-x; empty: y,x.",
    )
    allow_missing_planes: bool | None = Field(
        None, description="Microscopy: yes: read missing planes as zeros; empty: refuse them."
    )
    axes: str | None = Field(
        None, description="Ultrasound, iq: order of the array's axes, e.g. zxt or zyxt."
    )
    sequence: str | None = Field(
        None,
        description="Ultrasound, rf: YAML file with probe, transmits and axes; empty for UFF, "
        "which carries them.",
    )
    variable: str | None = Field(
        None, description="Ultrasound: variable in the file, or two for I and Q: I,Q."
    )
    frame_rate_hz: PositiveFloat | None = Field(None, description="Ultrasound: frames a second.")
    frames_per_run: PositiveInt | None = Field(
        None,
        description="Ultrasound: frames between two pauses of the recording; empty: no pauses.",
    )
    wavelength_um: PositiveFloat | None = Field(
        None, description="Ultrasound: speed of sound / centre frequency."
    )
    center_frequency_hz: PositiveFloat | None = Field(
        None, description="Ultrasound: with speed_of_sound_m_s instead of wavelength_um."
    )
    speed_of_sound_m_s: PositiveFloat | None = Field(
        None, description="Ultrasound: with center_frequency_hz instead of wavelength_um."
    )
    volume: Name | None = Field(
        None,
        description="Ultrasound, 2-D: name of the volume that this slice is part of; no sample's "
        "name.",
    )
    elevation_mm: Finite | None = Field(
        None, description="Ultrasound, 2-D: position of this slice's plane along y in its volume."
    )
    localizer: Localizer | None = Field(
        None, description="Ultrasound: for this sample instead of ultrasound.localize.localizer."
    )
    pose_mm: tuple[float, ...] | None = Field(
        None,
        description="Position of voxel 0 (rf: of the origin of the probe) in the animal or the "
        "atlas, axes as in spacing_um.",
    )

    @field_validator("spacing_um", "pose_mm", "stage_axes", mode="before")
    @classmethod
    def _split_cell(cls, cell: object) -> object:
        if isinstance(cell, str):
            return tuple(part.strip() for part in cell.split(","))
        return cell

    @field_validator("grid", mode="before")
    @classmethod
    def _split_grid(cls, cell: object) -> object:
        if isinstance(cell, str):
            return tuple(part.strip() for part in cell.replace("×", "x").split("x"))
        return cell

    @field_validator("overlap_percent", mode="before")
    @classmethod
    def _split_overlap(cls, cell: object) -> object:
        if isinstance(cell, str):
            parts = tuple(part.strip() for part in cell.split(","))
            return parts * 2 if len(parts) == 1 else parts
        return cell

    @model_validator(mode="after")
    def _fits_its_modality(self) -> Self:
        microscopy = self.modality == "microscopy"
        if (self.format in MICROSCOPY_FORMATS) != microscopy:
            raise ValueError(f"format {self.format} does not belong to modality {self.modality}")
        allowed = (3,) if microscopy else (2, 3)
        if len(self.spacing_um) not in allowed:
            raise ValueError(
                f"spacing_um needs {' or '.join(map(str, allowed))} numbers for {self.modality}, "
                f"got {len(self.spacing_um)}"
            )
        if self.pose_mm is not None and len(self.pose_mm) != len(self.spacing_um):
            raise ValueError("pose_mm needs as many numbers as spacing_um")
        if microscopy:
            given = [name for name in _ULTRASOUND_COLUMNS if getattr(self, name) is not None]
            if given:
                raise ValueError(f"{', '.join(given)} is for ultrasound samples; leave it empty")
            if self.stage_axes is not None and len({a[-1] for a in self.stage_axes}) != 2:
                raise ValueError("stage_axes must name y and x once each, e.g. y,-x or x,y")
        else:
            given = [name for name in _MICROSCOPY_COLUMNS if getattr(self, name) is not None]
            if given:
                raise ValueError(f"{', '.join(given)} is for microscopy samples; leave it empty")
            self._check_axes()
            self._check_slice()
        return self

    def _check_slice(self) -> None:
        if self.volume is None and self.elevation_mm is None:
            return
        if self.volume is None:
            raise ValueError("elevation_mm is for slices of a volume; name it in volume")
        if self.elevation_mm is None:
            raise ValueError("volume needs elevation_mm: where the plane of this slice lies")
        if len(self.spacing_um) != 2:
            raise ValueError("volume is for 2-D slices; leave it empty where spacing_um has z,y,x")

    def _check_axes(self) -> None:
        if self.format == "rf":
            if self.axes is not None:
                raise ValueError("axes of rf are told by its sequence file; leave it empty")
            return
        if self.sequence is not None:
            raise ValueError("sequence is for format rf; leave it empty")
        expected = "txz" if len(self.spacing_um) == 2 else "txyz"
        if self.axes is None or "".join(sorted(self.axes)) != expected:
            raise ValueError(
                f"axes must name each of {', '.join(expected)} once, in the order of the "
                f"array, got {self.axes!r}"
            )

    @property
    def tiled(self) -> bool:
        """Whether the sample is made of tiles, which must be put together."""
        return self.format in TILED_FORMATS

    @property
    def origin_um(self) -> tuple[float, ...]:
        """Position of the centre of voxel 0 (rf: of the origin of the probe), in micrometres."""
        if self.pose_mm is None:
            return (0.0,) * len(self.spacing_um)
        return tuple(1000.0 * p for p in self.pose_mm)

    def row(self) -> dict[str, Any]:
        """Return what the sheet tells of the sample, for its report."""
        return self.model_dump(mode="json", exclude_none=True)

    def identity(self) -> dict[str, Any]:
        """Return what the sample's results depend on.

        Its place in a volume is the volume's, and the localizer is among the settings.
        """
        return self.model_dump(mode="json", exclude={"volume", "elevation_mm", "localizer"})


def parse_samples(text: str, *, where: str) -> tuple[Sample, ...]:
    """Return the rows of a tab-separated sample sheet; ``#`` begins a comment line.

    Raises
    ------
    UserError
        Naming the row and the column: unknown columns, bad cells, duplicate or no samples, slices
        that make no volume.
    """
    samples: dict[str, Sample] = {}
    at_line: dict[str, int] = {}
    for number, cells in sheet_rows(text, model=Sample, what="sample", where=where):
        at = f"{where}, line {number}"
        sample = parse_sample(cells, where=at)
        if sample.sample in samples:
            raise UserError(
                f"sample {sample.sample!r} is listed twice", where=at, fix="give each its own name"
            )
        samples[sample.sample] = sample
        at_line[sample.sample] = number
    check_stacks(tuple(samples.values()), at_line, where=where)
    return tuple(samples.values())


def parse_sample(cells: Mapping[str, str], *, where: str) -> Sample:
    """Return the sample in one row of a sheet; raises UserError that names the column."""
    try:
        return Sample.model_validate(cells)
    except ValidationError as error:
        raise first_fault(error, cells, where=where) from None
