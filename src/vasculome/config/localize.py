"""How bubbles are found and localized: by the shape of a spot, or by a trained network."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from vasculome.config.settings import Fraction, PositiveFloat, PositiveInt, Settings

Localizer = Literal[
    "weighted_average",
    "weighted_centroid",
    "interpolation_cubic",
    "interpolation_lanczos",
    "interpolation_spline",
    "gaussian_fit",
    "gaussian_fit_common_width",
    "radial_symmetry",
    "correlation_centroid",
    "stulm",
]

DEFAULT_LOCALIZER: Localizer = "gaussian_fit_common_width"


class NetworkConfig(Settings):
    """The network of localizer stulm."""

    weights: str = Field(
        "shipped",
        description="shipped: those that come with vasculome; or the path of a .safetensors file "
        "that the target `models` wrote, with its card beside it.",
    )
    min_probability: Fraction = Field(
        0.5, description="Bubbles that are less probable are left out."
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where torch computes.")


class LocalizeConfig(Settings):
    """Detection and sub-pixel localization of microbubbles."""

    localizer: Localizer = Field(
        DEFAULT_LOCALIZER,
        description="How bubbles are localized; stulm: by a trained network, frames together.",
    )
    detect_on: Literal["magnitude", "correlation"] = Field(
        "magnitude",
        description="Where bubbles are looked for and localized: magnitude of the IQ, or its local "
        "correlation with the echo of a bubble (ultrasound.psf). stulm looks at both.",
    )
    threshold_snr: PositiveFloat = Field(
        4.0, description="Peaks below this many times the block's noise level are ignored."
    )
    min_correlation: Fraction = Field(
        0.65, description="detect_on correlation: peaks below are ignored, instead of by noise."
    )
    half_width_px: PositiveInt = Field(
        1,
        description="Half width of the patch around a peak: 1 suits pixels of half a wavelength; "
        "more for finer ones.",
    )
    max_per_frame: PositiveInt = Field(
        1000, description="Brightest peaks, of stulm the surest, kept a frame."
    )
    max_maxima: PositiveInt | None = Field(
        None, description="Gate: local maxima that a patch may hold; null: any number."
    )
    max_shift_px: PositiveFloat | None = Field(
        None, description="Gate: farthest that a bubble may lie from its peak; null: as it comes."
    )
    image_half_width_px: PositiveInt | None = Field(
        None,
        description="Half width of the image of each bubble that is kept for "
        "track.weights.correlation; null: none.",
    )
    stulm: NetworkConfig = NetworkConfig()

    @model_validator(mode="after")
    def _gates_have_a_patch(self) -> Self:
        if self.is_learned and (self.max_maxima is not None or self.max_shift_px is not None):
            raise ValueError(
                "localizer stulm has no patches: max_maxima and max_shift_px must be null"
            )
        return self

    @property
    def is_learned(self) -> bool:
        """Whether a network localizes."""
        return self.localizer == "stulm"

    @property
    def needs_echo(self) -> bool:
        """Whether the echo of a bubble must be known."""
        return self.is_learned or self.detect_on == "correlation"

    def without_network(self) -> LocalizeConfig:
        """Return what localizes where there is no echo for a network yet: conventional settings."""
        conventional = DEFAULT_LOCALIZER if self.is_learned else self.localizer
        return self.model_copy(update={"localizer": conventional, "stulm": NetworkConfig()})
