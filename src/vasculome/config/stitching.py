"""How overlapping tiles become one volume."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vasculome.config.settings import Fraction, NotNegative, PositiveFloat, Settings, ZyxUm


class PairsConfig(Settings):
    """Offsets of overlapping tiles, pair by pair."""

    search_um: ZyxUm = Field(
        (40.0, 60.0, 60.0),
        description="Largest error of the offset of two neighbours, along z, y, x.",
    )
    min_ncc: Fraction = Field(
        0.3, description="Correlation of two tiles' fine structure below which a pair is refused."
    )


class PositionsConfig(Settings):
    """Positions of all tiles from the offsets of pairs."""

    source: Literal["pairs", "stage"] = Field(
        "pairs", description="pairs: as registered; stage: as the stage says, unchecked."
    )
    allow_stage_positions: bool = Field(
        False, description="Whether the stage places tiles that no pair joins to the rest."
    )
    outlier_px: PositiveFloat = Field(
        1.0, description="Pairs that contradict the others by more may be left out."
    )


class LightConfig(Settings):
    """Uneven light, estimated from the tiles themselves."""

    flat_field: bool = Field(True, description="Take out the light's shape over the field.")
    gains: bool = Field(True, description="Take out differences of brightness between tiles.")
    dark_level: NotNegative | None = Field(
        None, description="Grey level of the camera without light; null: estimated."
    )


class StitchConfig(Settings):
    """What makes one volume of overlapping tiles."""

    pairs: PairsConfig = PairsConfig()
    positions: PositionsConfig = PositionsConfig()
    light: LightConfig = LightConfig()
