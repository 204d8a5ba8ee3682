"""What all parts of the configuration share: strictness, kinds of numbers, one-line errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vasculome.errors import UserError

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Zyx = tuple[PositiveInt, PositiveInt, PositiveInt]
ZyxUm = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class Settings(BaseModel):
    """A part of the configuration: never changed after it is read, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def first_fault(error: ValidationError, *, where: str) -> UserError:
    """Return the error to raise for the first of the faults that pydantic found."""
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
