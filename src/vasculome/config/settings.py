"""What all parts of the configuration share: strictness, kinds of numbers, one-line errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from vasculome.errors import UserError

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Zyx = tuple[PositiveInt, PositiveInt, PositiveInt]
ZyxUm = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


def _rises(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] >= ends[1]:
        raise ValueError("must rise")
    return ends


_Finite = Annotated[float, Field(allow_inf_nan=False)]
RangeUm = Annotated[tuple[_Finite, _Finite], AfterValidator(_rises)]


class Settings(BaseModel):
    """A part of the configuration: never changed after it is read, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def first_fault(error: ValidationError, content: Mapping[str, Any], *, where: str) -> UserError:
    """Return the error to raise for the first of the faults that pydantic found in ``content``."""
    fault, *others = error.errors()
    key = _key(fault, content)
    # Of a value that may be one of several kinds, each kind says why it is not it.
    kinds = [fault, *(other for other in others if _key(other, content) == key)]
    message = ", or: ".join(dict.fromkeys(_message(kind) for kind in kinds))
    if fault["type"] == "extra_forbidden":
        message = "unknown key"
    elif fault["type"] == "missing":
        message = "is missing"
    elif fault["type"] == "union_tag_not_found":
        message = f"needs the key {fault['ctx']['discriminator']}"
    elif "input" in fault and not isinstance(fault["input"], Mapping | BaseModel):
        message = f"{message}, got {fault['input']!r}"
    return UserError(
        f"{key}: {message}" if key else message, where=where, fix="see config/README.md"
    )


def _message(fault: ErrorDetails) -> str:
    return fault["msg"].removeprefix("Value error, ")


def _key(fault: ErrorDetails, content: object) -> str:
    """Return the key that a fault is at, without the kind of value that pydantic adds to it."""
    key = []
    loc = fault["loc"]
    for number, part in enumerate(loc, start=1):
        if isinstance(content, Mapping):
            absent = fault["type"] == "missing" and number == len(loc)
            if part not in content and not absent:
                continue
            content = content.get(part)
        elif isinstance(part, int):
            content = None
        else:
            break
        key.append(str(part))
    return ".".join(key)
