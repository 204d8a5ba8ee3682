"""All that a run can be told: one frozen model a stage, with units in the names.

The JSON Schemas in ``workflow/schemas`` are generated from here; a test keeps the two in step.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vasculome.errors import UserError

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Zyx = tuple[PositiveInt, PositiveInt, PositiveInt]


class _Settings(BaseModel):
    """A part of the configuration: never changed after it is read, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ComputeConfig(_Settings):
    """Where tiles are computed."""

    scheduler: Literal["inline", "local", "address"] = Field(
        "local",
        description="inline: in the job itself; local: Dask worker processes on this machine; "
        "address: an already running Dask scheduler.",
    )
    workers: PositiveInt | None = Field(
        None, description="Worker processes a job; null takes the threads that Snakemake gives."
    )
    threads_per_worker: PositiveInt = Field(1, description="BLAS and torch threads a worker.")
    memory_limit_gb: PositiveFloat | None = Field(
        None, description="Refuse a stage whose memory bound is larger; null: no limit."
    )
    address: str | None = Field(None, description="Dask scheduler, e.g. tcp://127.0.0.1:8786.")

    @model_validator(mode="after")
    def _address_belongs_to_its_scheduler(self) -> Self:
        if (self.scheduler == "address") != (self.address is not None):
            raise ValueError("'address' is needed with scheduler: address, and only there")
        return self


class StorageConfig(_Settings):
    """How volumes are cut on disk. A shard is one file and one tile of work."""

    chunk_zyx: Zyx = Field((64, 64, 64), description="Voxels a chunk, the unit of reading.")
    shard_zyx: Zyx = Field((256, 256, 256), description="Voxels a shard; multiples of the chunk.")

    @model_validator(mode="after")
    def _shards_hold_whole_chunks(self) -> Self:
        if any(s % c for s, c in zip(self.shard_zyx, self.chunk_zyx, strict=True)):
            raise ValueError(
                f"shard_zyx {self.shard_zyx} must be multiples of chunk_zyx {self.chunk_zyx}"
            )
        return self


class NormalizeConfig(_Settings):
    """Intensity range that is stretched to [0, 1], from a histogram of the whole volume."""

    lower_percent: Percent = Field(0.0, description="Percentile that becomes 0.")
    upper_percent: Percent = Field(99.5, description="Percentile that becomes 1; truncated above.")

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.lower_percent >= self.upper_percent:
            raise ValueError("lower_percent must be below upper_percent")
        return self


class SegmentConfig(_Settings):
    """Vessel enhancement, hysteresis threshold and removal of small objects."""

    segmenter: Literal["frangi", "sato"] = Field("frangi", description="Vesselness filter.")
    scales_um: tuple[PositiveFloat, ...] = Field(
        (3.0, 6.0, 10.0), min_length=1, description="Gaussian sigmas; about vessel radius / sqrt 2."
    )
    low_threshold: PositiveFloat = Field(0.07, description="Weak vessel voxels from here.")
    high_threshold: PositiveFloat = Field(0.3, description="An object needs one voxel above this.")
    min_object_um3: Annotated[float, Field(ge=0)] = Field(
        1000.0, description="Smaller connected objects are removed."
    )

    @model_validator(mode="after")
    def _thresholds_are_ordered(self) -> Self:
        if self.low_threshold > self.high_threshold:
            raise ValueError("low_threshold must not exceed high_threshold")
        return self


class SkeletonConfig(_Settings):
    """Centre lines of the mask, and radii."""

    max_radius_um: PositiveFloat = Field(
        40.0, description="Largest vessel radius; sets how far around a tile is read."
    )


class VesselMapsConfig(_Settings):
    """Whole-brain maps of vessel density."""

    voxel_um: PositiveFloat = Field(50.0, description="Edge of a map voxel.")


class MicroscopyConfig(_Settings):
    """The microscopy chain, from TIFFs to vessel maps."""

    slab_mb: PositiveInt = Field(
        512, description="Raw data read at once while ingesting, a worker (at least one shard)."
    )
    normalize: NormalizeConfig = NormalizeConfig()
    segment: SegmentConfig = SegmentConfig()
    skeleton: SkeletonConfig = SkeletonConfig()
    maps: VesselMapsConfig = VesselMapsConfig()


class ClutterConfig(_Settings):
    """SVD clutter filter, block by block."""

    block_frames: PositiveInt = Field(500, description="Frames filtered together.")
    keep_from: PositiveInt = Field(
        10,
        description="First singular vector kept, counted from 1. Too low lets tissue through and "
        "ruins all; too high costs some bubbles, the slow ones first.",
    )
    keep_to: PositiveInt | None = Field(None, description="Last one kept; null: to the end.")

    @model_validator(mode="after")
    def _something_is_kept(self) -> Self:
        if self.keep_to is not None and self.keep_to < self.keep_from:
            raise ValueError("keep_to must not be below keep_from")
        if self.keep_from > self.block_frames:
            raise ValueError("keep_from is beyond block_frames: nothing would be kept")
        return self


class LocalizeConfig(_Settings):
    """Detection and sub-pixel localization of microbubbles."""

    localizer: Literal["weighted_centroid", "radial_symmetry"] = "weighted_centroid"
    threshold_snr: PositiveFloat = Field(
        4.0, description="Peaks below this many times the block's noise level are ignored."
    )
    half_width_px: PositiveInt = Field(
        1,
        description="Half width of the patch around a peak: 1 suits pixels of half a wavelength; "
        "more for finer ones.",
    )
    max_per_frame: PositiveInt = Field(1000, description="Brightest peaks kept a frame.")


class TrackConfig(_Settings):
    """Pairing from frame to frame, and tracks."""

    max_speed_mm_s: PositiveFloat = Field(60.0, description="Gate: faster pairs are refused.")
    max_gap_frames: Annotated[int, Field(ge=0)] = Field(
        1, description="Frames that a bubble may be missed without ending its track."
    )
    min_length_frames: Annotated[int, Field(ge=2)] = Field(
        10, description="Shorter tracks are discarded."
    )
    smooth_sigma_frames: Annotated[float, Field(ge=0)] = Field(
        4.0, description="Gaussian smoothing along a track, less on short ones; 0: none."
    )


class UlmMapsConfig(_Settings):
    """Super-resolved maps."""

    pixels_per_wavelength: PositiveFloat = Field(
        10.0, description="Map pixels a wavelength: 10 renders at λ/10."
    )


class UltrasoundConfig(_Settings):
    """The ultrasound chain, from IQ to ULM maps."""

    clutter: ClutterConfig = ClutterConfig()
    localize: LocalizeConfig = LocalizeConfig()
    track: TrackConfig = TrackConfig()
    maps: UlmMapsConfig = UlmMapsConfig()


class RunConfig(_Settings):
    """The whole of ``config.yaml``."""

    samples: str = Field("config/samples.tsv", description="The sample sheet.")
    results: str = Field("results", description="Folder for all outputs.")
    compute: ComputeConfig = ComputeConfig()
    storage: StorageConfig = StorageConfig()
    microscopy: MicroscopyConfig = MicroscopyConfig()
    ultrasound: UltrasoundConfig = UltrasoundConfig()


MICROSCOPY_FORMATS = ("tiff_planes", "tiff_stack", "tiff_tiles")
_ULTRASOUND_COLUMNS = (
    "axes",
    "variable",
    "frame_rate_hz",
    "wavelength_um",
    "center_frequency_hz",
    "speed_of_sound_m_s",
)


class Sample(_Settings):
    """One row of the sample sheet. Empty cells are None."""

    sample: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        description="Unique name: letters, digits, - and _; names the results folder.",
    )
    modality: Literal["microscopy", "ultrasound"]
    path: str = Field(min_length=1, description="File or folder with the raw data.")
    format: Literal["tiff_planes", "tiff_stack", "tiff_tiles", "iq"]
    spacing_um: tuple[PositiveFloat, ...] = Field(
        description="Voxel spacing: z,y,x (ultrasound in 2-D: z,x), e.g. 5,2,2."
    )
    channel: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Microscopy: channel of a multi-channel stack, counted from 0."
    )
    axes: str | None = Field(
        None, description="Ultrasound: order of the array's axes, e.g. zxt or zyxt."
    )
    variable: str | None = Field(
        None, description="Ultrasound: variable in the file, or two for I and Q: I,Q."
    )
    frame_rate_hz: PositiveFloat | None = Field(None, description="Ultrasound: frames a second.")
    wavelength_um: PositiveFloat | None = Field(
        None, description="Ultrasound: speed of sound / centre frequency."
    )
    center_frequency_hz: PositiveFloat | None = Field(
        None, description="Ultrasound: with speed_of_sound_m_s instead of wavelength_um."
    )
    speed_of_sound_m_s: PositiveFloat | None = Field(
        None, description="Ultrasound: with center_frequency_hz instead of wavelength_um."
    )
    pose_mm: tuple[float, ...] | None = Field(
        None, description="Position of voxel 0 in the animal or the atlas, axes as in spacing_um."
    )

    @field_validator("spacing_um", "pose_mm", mode="before")
    @classmethod
    def _split_cell(cls, cell: object) -> object:
        if isinstance(cell, str):
            return tuple(part.strip() for part in cell.split(","))
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
        else:
            if self.channel is not None:
                raise ValueError("channel is for microscopy samples; leave it empty")
            expected = "txz" if len(self.spacing_um) == 2 else "txyz"
            if self.axes is None or "".join(sorted(self.axes)) != expected:
                raise ValueError(
                    f"axes must name each of {', '.join(expected)} once, in the order of the "
                    f"array, got {self.axes!r}"
                )
        return self

    @property
    def origin_um(self) -> tuple[float, ...]:
        """Position of the centre of voxel 0, in micrometres."""
        if self.pose_mm is None:
            return (0.0,) * len(self.spacing_um)
        return tuple(1000.0 * p for p in self.pose_mm)


def parse_config(content: Mapping[str, Any], *, where: str) -> RunConfig:
    """Return the configuration in ``content``.

    Raises
    ------
    UserError
        Naming the key: unknown, missing, of the wrong type or out of range.
    """
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise _first_fault(error, where=where) from None


def parse_samples(text: str, *, where: str) -> tuple[Sample, ...]:
    """Return the rows of a tab-separated sample sheet; ``#`` begins a comment line.

    Raises
    ------
    UserError
        Naming the row and the column: unknown columns, bad cells, duplicate or no samples.
    """
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]
    rows = list(csv.reader(io.StringIO("\n".join(line for _, line in lines)), delimiter="\t"))
    if len(rows) < 2:
        raise UserError("no samples", where=where, fix="add a header line and one line a sample")
    header = [name.strip() for name in rows[0]]
    _check_header(header, where=where)
    samples: dict[str, Sample] = {}
    for (number, _), row in zip(lines[1:], rows[1:], strict=True):
        at = f"{where}, line {number}"
        if len(row) > len(header):
            raise UserError(
                f"{len(row)} cells under {len(header)} columns",
                where=at,
                fix="separate cells by single tabs",
            )
        cells = {k: v.strip() for k, v in zip(header, row, strict=False) if v.strip()}
        try:
            sample = Sample.model_validate(cells)
        except ValidationError as error:
            raise _first_fault(error, where=at) from None
        if sample.sample in samples:
            raise UserError(
                f"sample {sample.sample!r} is listed twice", where=at, fix="give each its own name"
            )
        samples[sample.sample] = sample
    return tuple(samples.values())


def _check_header(header: list[str], *, where: str) -> None:
    known = list(Sample.model_fields)
    unknown = [name for name in header if name not in known]
    if unknown:
        raise UserError(
            f"unknown column {unknown[0]!r}", where=where, fix=f"columns are {', '.join(known)}"
        )
    if len(set(header)) != len(header):
        raise UserError("a column stands twice", where=where, fix="remove one of the two")
    missing = [n for n, f in Sample.model_fields.items() if f.is_required() and n not in header]
    if missing:
        raise UserError(
            f"column {missing[0]!r} is missing",
            where=where,
            fix="separate columns by tabs and see config/README.md",
        )


def _first_fault(error: ValidationError, *, where: str) -> UserError:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "unknown key"
    elif fault["type"] == "missing":
        message = "is missing"
    elif "input" in fault and not isinstance(fault["input"], Mapping | BaseModel):
        message = f"{message}, got {fault['input']!r}"
    return UserError(
        f"{key}: {message}" if key else message, where=where, fix="see config/README.md"
    )
