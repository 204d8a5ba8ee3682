"""Vessels by Deep-stULM, without bubbles being localized one by one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vasculome.config.settings import Settings


class SuperresolveConfig(Settings):
    """Map of vessels by a network stulm, on a grid 8 times finer than its pixels."""

    network: str | None = Field(
        None,
        description="null: none; or the path of a .safetensors file that the target `models` "
        "wrote, with its card beside it; shipped: that which comes with vasculome: none so far.",
    )
    threshold: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | None = Field(
        None,
        description="Of |c|²: the network is given pixels above; null: as in its training.",
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where torch computes.")
