"""The echo of a single bubble, and the probe that it is simulated for."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from vasculome.config.settings import NotNegative, PositiveFloat, PositiveInt, Settings


class ProbeConfig(Settings):
    """A linear array and its plane waves, for an echo that is simulated."""

    elements: PositiveInt = Field(128, description="Number of elements.")
    pitch_um: PositiveFloat = Field(100.0, description="Distance of neighbouring elements.")
    bandwidth: PositiveFloat = Field(
        0.67, lt=2, description="Relative to the centre frequency, at -6 dB."
    )
    f_number: NotNegative = Field(
        1.0, description="Depth over receive aperture of beamforming; 0 takes all elements."
    )
    angles_deg: tuple[float, ...] = Field(
        (-1.0, 0.0, 1.0), min_length=1, description="Plane waves that are compounded."
    )
    first_depth_um: NotNegative | None = Field(
        None, description="Depth of the first row below the array; null: as RF tells."
    )


class PsfConfig(Settings):
    """The echo of a single bubble: the point spread function."""

    source: Literal["estimated", "gaussian", "simulated", "file"] = Field(
        "estimated",
        description="estimated: mean of the isolated bubbles in the first block of frames; "
        "gaussian: of a given width; simulated: with PyMUST, for a linear array; file: given.",
    )
    file: str | None = Field(
        None,
        description="file: .npy with one echo (z, [y,] x), or .npz with echoes (bands, z, [y,] x) "
        "and depth_um, as in calibration/psf.npz of another sample.",
    )
    half_width_px: PositiveInt = Field(
        2,
        description="Pixels that the echo reaches from its middle, along each axis: 2 suits pixels "
        "of half a wavelength; more for finer ones.",
    )
    bands: PositiveInt = Field(
        3, description="estimated, simulated: depth bands, each with an echo of its own."
    )
    min_bubbles: PositiveInt = Field(
        20,
        description="estimated: a band with fewer isolated bubbles has no echo of its own; if none "
        "has as many, the echo is unknown.",
    )
    fwhm_wavelengths: tuple[PositiveFloat, PositiveFloat] = Field(
        (1.0, 1.2), description="gaussian: full width at half maximum, axial and lateral."
    )
    probe: ProbeConfig = ProbeConfig()

    @model_validator(mode="after")
    def _file_belongs_to_its_source(self) -> Self:
        if (self.source == "file") != (self.file is not None):
            raise ValueError("'file' is needed with source: file, and only there")
        return self
