"""How vessels are told from the rest: by a vesselness filter, or by a trained network."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from vasculome.config.settings import Fraction, NotNegative, PositiveFloat, PositiveInt, Settings

Segmenter = (
    Literal["frangi", "sato", "student", "student_seen", "teacher"]
    | Annotated[str, StringConstraints(pattern=r"\.safetensors$")]
)

FILTERS = ("frangi", "sato")


class SegmentNetworkConfig(Settings):
    """How a network goes over a volume."""

    threshold: Fraction | None = Field(
        None,
        description="Probability from which a voxel is vessel; null: that which was best on the "
        "network's validation, as its card says.",
    )
    window: PositiveInt = Field(
        64, description="Edge of the windows that the network sees, in voxels: as in training."
    )
    overlap: Annotated[float, Field(ge=0, le=0.75)] = Field(
        0.25,
        description="Part of a window that its neighbours see too; 0.5 takes three times as "
        "long as 0.25.",
    )
    blend: Literal["gaussian", "crop", "exact"] = Field(
        "gaussian",
        description="gaussian: overlapping windows are averaged, the middle of each counting most; "
        "crop: each says what is in its middle; exact: with so wide a margin that the result is "
        "that of the network on the whole volume, for students with norm: batch; window and "
        "overlap do not count then.",
    )
    flips: bool = Field(
        False,
        description="Whether the network sees all eight mirror images of each window, of which the "
        "mean probability counts: it takes eight times as long.",
    )
    background_contrast: Fraction = Field(
        0.1,
        description="Windows in which no voxel differs from the median by more, of the normalized "
        "range, nor by more than noise does, are background: the network is not asked.",
    )
    batch_size: PositiveInt | None = Field(
        None,
        description="Windows that go through the network at once; null: 2, on a GPU 32 or as many "
        "as fit. A student on a processor sees one for each of its threads.",
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where torch computes.")


class SegmentConfig(Settings):
    """Vessel enhancement and hysteresis threshold, or a network; removal of small objects."""

    segmenter: Segmenter = Field(
        "frangi",
        description="frangi, sato: vesselness filters; student, student_seen, teacher: the "
        "networks that come with vasculome; or the path of a .safetensors file that the target "
        "`models` wrote, with its card beside it.",
    )
    scales_um: tuple[PositiveFloat, ...] = Field(
        (3.0, 6.0, 10.0),
        min_length=1,
        description="Filters: Gaussian sigmas; about vessel radius / sqrt 2.",
    )
    low_threshold: PositiveFloat = Field(0.07, description="Filters: weak vessel voxels from here.")
    high_threshold: PositiveFloat = Field(
        0.3, description="Filters: an object needs one voxel above this."
    )
    network: SegmentNetworkConfig = SegmentNetworkConfig()
    min_object_um3: NotNegative = Field(
        1000.0, description="Smaller connected objects are removed."
    )

    @model_validator(mode="after")
    def _thresholds_are_ordered(self) -> Self:
        if self.low_threshold > self.high_threshold:
            raise ValueError("low_threshold must not exceed high_threshold")
        return self

    @property
    def is_learned(self) -> bool:
        """Whether a network segments."""
        return self.segmenter not in FILTERS

    @property
    def needs_gpu(self) -> bool:
        """Whether a GPU must be there."""
        return self.is_learned and self.network.device == "cuda"
