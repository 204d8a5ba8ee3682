"""``config.yaml``: one frozen model a stage, with units in the names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from vasculome.config.folds import folded, with_folds
from vasculome.config.localize import LocalizeConfig
from vasculome.config.models import ModelConfig, ModelName
from vasculome.config.point_spread import PsfConfig
from vasculome.config.segment import SegmentConfig
from vasculome.config.settings import (
    NotNegative,
    Percent,
    PositiveFloat,
    PositiveInt,
    RangeUm,
    Settings,
    Zyx,
    first_fault,
)
from vasculome.config.stitching import StitchConfig
from vasculome.config.superresolve import SuperresolveConfig


class ComputeConfig(Settings):
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


class StorageConfig(Settings):
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


class NormalizeConfig(Settings):
    """Intensity range that is stretched to [0, 1], from a histogram of the whole volume."""

    lower_percent: Percent = Field(0.0, description="Percentile that becomes 0.")
    upper_percent: Percent = Field(99.5, description="Percentile that becomes 1; truncated above.")

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.lower_percent >= self.upper_percent:
            raise ValueError("lower_percent must be below upper_percent")
        return self


class SkeletonConfig(Settings):
    """Centre lines of the mask, and radii."""

    max_radius_um: PositiveFloat = Field(
        40.0, description="Largest vessel radius; sets how far around a tile is read."
    )


class VesselMapsConfig(Settings):
    """Whole-brain maps of vessel density."""

    voxel_um: PositiveFloat = Field(50.0, description="Edge of a map voxel.")


class MicroscopyConfig(Settings):
    """The microscopy chain, from TIFFs to vessel maps."""

    slab_mb: PositiveInt = Field(
        256, description="Part of the volume that a worker writes at once (at least one shard)."
    )
    stitch: StitchConfig = StitchConfig()
    normalize: NormalizeConfig = NormalizeConfig()
    segment: SegmentConfig = SegmentConfig()
    skeleton: SkeletonConfig = SkeletonConfig()
    maps: VesselMapsConfig = VesselMapsConfig()


class BeamformConfig(Settings):
    """Images of samples of format rf, on the grid that their spacing_um makes."""

    depth_um: RangeUm | None = Field(
        None, description="First and last depth; null: all that was recorded."
    )
    lateral_um: RangeUm | None = Field(
        None, description="From and to along x, 0 as in the sequence; null: under the probe."
    )
    elevation_um: RangeUm | None = Field(
        None, description="From and to along y of a matrix array; null: under the probe."
    )
    f_number: Literal["auto"] | NotNegative = Field(
        "auto",
        description="Depth over receive aperture; 0 takes all elements; auto: what elements of "
        "this width hear, 3 dB.",
    )
    window: Literal["rectangular", "hann"] = Field(
        "rectangular", description="Weight across the aperture."
    )
    interpolation: Literal["linear", "cubic"] = Field(
        "linear", description="Between samples; cubic for RF sampled little above its bandwidth."
    )
    decimation: PositiveInt = Field(
        1, description="Every how many samples of RF one is kept once it is mixed down."
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where torch computes.")

    @model_validator(mode="after")
    def _aperture_has_a_rim(self) -> Self:
        if self.f_number == 0 and self.window != "rectangular":
            raise ValueError(
                "an f_number of 0 takes all elements alike: window must be rectangular"
            )
        return self


class ClutterConfig(Settings):
    """Clutter filter, block by block."""

    method: Literal["svd", "bandpass"] = Field(
        "svd", description="svd: by singular vectors; bandpass: by Doppler frequency alone."
    )
    block_frames: PositiveInt = Field(500, description="Frames filtered together.")
    keep_from: PositiveInt | Literal["centroid", "similarity"] = Field(
        10,
        description="svd: first singular vector kept, counted from 1. Too low lets tissue through "
        "and ruins all; too high costs some bubbles, the slow ones first. centroid: the first one "
        "faster than band_hz; similarity: the first unlike tissue in space.",
    )
    keep_to: PositiveInt | Literal["similarity", "noise"] | None = Field(
        None,
        description="svd: last one kept; null: to the end; similarity: the last like blood in "
        "space; noise: the last above noise.",
    )
    randomized: bool = Field(
        True, description="svd: find the vectors by random projection; faster, as good."
    )
    band_hz: tuple[PositiveFloat, PositiveFloat] = Field(
        (50.0, 249.0),
        description="Doppler frequencies of blood: bandpass keeps them, centroid the vectors above "
        "the lower one.",
    )

    @model_validator(mode="after")
    def _something_is_kept(self) -> Self:
        first, last = self.keep_from, self.keep_to
        if isinstance(first, int) and isinstance(last, int) and last < first:
            raise ValueError("keep_to must not be below keep_from")
        if isinstance(first, int) and first > self.block_frames:
            raise ValueError("keep_from is beyond block_frames: nothing would be kept")
        if self.band_hz[0] >= self.band_hz[1]:
            raise ValueError("band_hz must rise")
        return self

    @property
    def is_adaptive(self) -> bool:
        """Whether the data decide where to cut."""
        return isinstance(self.keep_from, str) or isinstance(self.keep_to, str)


class WeightsConfig(Settings):
    """What the parts of the cost of a link weigh; each is scaled to [0, 1]."""

    distance: PositiveFloat = Field(1.0, description="Distance over the gate.")
    amplitude: NotNegative = Field(0.0, description="Difference over the larger amplitude.")
    correlation: NotNegative = Field(
        0.0, description="1 - correlation of images; needs localize.image_half_width_px."
    )


class KalmanConfig(Settings):
    """Kalman filter of a bubble that keeps its velocity, but for small changes."""

    position_error_um: PositiveFloat = Field(
        15.0, description="Standard deviation of a localization along an axis."
    )
    speed_change_mm_s: PositiveFloat = Field(
        1.0, description="Standard deviation of the change of velocity in a frame, along an axis."
    )


class TrackConfig(Settings):
    """Pairing from frame to frame, and tracks."""

    max_speed_mm_s: PositiveFloat = Field(60.0, description="Gate: faster pairs are refused.")
    max_gap_frames: Annotated[int, Field(ge=0)] = Field(
        1, description="Frames that a bubble may be missed without ending its track."
    )
    min_length_frames: Annotated[int, Field(ge=2)] = Field(
        10, description="Shorter tracks are discarded."
    )
    max_length_frames: Annotated[int, Field(ge=2)] = Field(
        2000, description="Longer tracks, of echoes that rest, go on as new ones."
    )
    weights: WeightsConfig = WeightsConfig()
    kalman: KalmanConfig | None = Field(
        None,
        description="Expect bubbles by a Kalman filter with these errors; null: on from the last "
        "links.",
    )
    smoothing: Literal["local_line", "gaussian"] = Field(
        "local_line",
        description="local_line: keeps the ends of tracks, and smooths short ones less; gaussian: "
        "plainly, as published.",
    )
    smooth_sigma_frames: NotNegative = Field(
        4.0, description="Standard deviation of the smoothing along a track; 0: none."
    )

    @model_validator(mode="after")
    def _lengths_are_in_order(self) -> Self:
        if self.max_length_frames < self.min_length_frames:
            raise ValueError("max_length_frames must not be less than min_length_frames")
        return self


class UlmMapsConfig(Settings):
    """Super-resolved maps."""

    pixels_per_wavelength: PositiveFloat = Field(
        10.0, description="Map pixels a wavelength: 10 renders at λ/10."
    )


class UltrasoundConfig(Settings):
    """The ultrasound chain, from RF or IQ to ULM maps."""

    beamform: BeamformConfig = BeamformConfig()
    clutter: ClutterConfig = ClutterConfig()
    psf: PsfConfig = PsfConfig()
    localize: LocalizeConfig = LocalizeConfig()
    track: TrackConfig = TrackConfig()
    maps: UlmMapsConfig = UlmMapsConfig()
    superresolve: SuperresolveConfig = SuperresolveConfig()

    @model_validator(mode="after")
    def _images_are_kept_where_they_count(self) -> Self:
        if self.track.weights.correlation > 0 and self.localize.image_half_width_px is None:
            raise ValueError("track.weights.correlation needs localize.image_half_width_px")
        return self


class RunConfig(Settings):
    """The whole of ``config.yaml``."""

    samples: str | None = Field(
        "config/samples.tsv", description="The sample sheet; null: none, for models alone."
    )
    results: str = Field("results", description="Folder for all outputs.")
    compute: ComputeConfig = ComputeConfig()
    storage: StorageConfig = StorageConfig()
    microscopy: MicroscopyConfig = MicroscopyConfig()
    ultrasound: UltrasoundConfig = UltrasoundConfig()
    models: dict[ModelName, ModelConfig] = Field(
        {}, description="Networks to train, by name, for the target `models`."
    )

    @property
    def folds(self) -> dict[str, tuple[str, ...]]:
        """Names of the networks of each entry of ``models`` that is trained in folds."""
        return folded(self.models)


def parse_config(content: Mapping[str, Any], *, where: str) -> RunConfig:
    """Return the configuration in ``content``.

    Raises
    ------
    UserError
        Naming the key: unknown, missing, of the wrong type or out of range.
    """
    if isinstance(content.get("models"), Mapping):
        content = {**content, "models": with_folds(content["models"], where=where)}
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise first_fault(error, content, where=where) from None
