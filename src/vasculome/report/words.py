"""Names and numbers as a reader wants them: units out of keys, digits that mean something."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "–"
"""What stands in a table where there is no value."""

_UNITS = {
    "_per_mm3": "per mm³",
    "_mm_mm3": "mm/mm³",
    "_mm_s": "mm/s",
    "_um3": "µm³",
    "_mm3": "mm³",
    "_um2": "µm²",
    "_mm2": "mm²",
    "_um": "µm",
    "_wavelengths": "λ",
    "_mm": "mm",
    "_khz": "kHz",
    "_mhz": "MHz",
    "_hz": "Hz",
    "_db": "dB",
    "_percent": "%",
    "_px": "px",
    "_frames": "frames",
    "_mb": "MB",
    "_gb": "GB",
    "_ms": "ms",
    "_s": "s",
}
"""Ends of keys and the units that they stand for; the first that fits counts."""


def name_and_unit(key: str) -> tuple[str, str]:
    """Split ``"mean_radius_um"`` into ``("mean radius", "µm")``; the unit may be empty."""
    for end, unit in _UNITS.items():
        name = key.removesuffix(end)
        if name not in (key, ""):
            return name.replace("_", " "), unit
    return key.replace("_", " "), ""


def heading(key: str) -> str:
    """Return ``"mean radius (µm)"`` for ``"mean_radius_um"``."""
    name, unit = name_and_unit(key)
    return f"{name} ({unit})" if unit else name


def number(value: float) -> str:
    """Return a number with four digits that mean something, thousands set apart."""
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.3e}"


def words(value: Any) -> str:
    """Return any value of a configuration or a summary as text for a table."""
    if value is None or value == []:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {words(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        # No thousands set apart here: commas part the items.
        return ", ".join(words(item).replace(",", "") for item in value)
    return re.sub(r"\s+", " ", str(value))


def flatten_keys(content: Mapping[str, Any], *, above: str = "") -> dict[str, Any]:
    """Return nested mappings as one, ``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            flat.update(flatten_keys(value, above=path))
        else:
            flat[path] = value
    return flat
