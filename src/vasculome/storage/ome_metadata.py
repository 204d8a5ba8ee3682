"""What an image is, and the OME-Zarr 0.5 metadata that says so."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vasculome.errors import UserError
from vasculome.storage.metadata import array_metadata
from vasculome.storage.pyramid import Level, Reduce, fit_blocks, plan_levels

VERSION = "0.5"
_SPATIAL = ("z", "y", "x")
_MICROMETRES = {
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
_SECONDS = {"nanosecond": 1e-9, "microsecond": 1e-6, "millisecond": 1e-3, "second": 1.0}


@dataclass(frozen=True)
class ImageSpec:
    """Everything that makes an image but its voxels.

    Attributes
    ----------
    shape
        Voxels along each axis.
    dtype
        NumPy name, e.g. ``"uint16"``.
    axes
        Of ``"t", "c", "z", "y", "x"``, in this order.
    spacing_um
        Distance of voxel centres in micrometres; seconds for ``"t"``, 1 for ``"c"``.
    chunk, shard
        Voxels read and written at once; cut to the shape here, so that ``shard`` is the true one.
    reduce
        How coarser levels are made: mean (images), max (sparse maps), nearest (labels).
    name
        Shown by viewers.
    unit_attributes
        Free attributes, e.g. ``{"quantity": "vessel volume fraction", "unit": "1"}``.
    origin_um
        Position of the centre of voxel 0, in the units of ``spacing_um``.
    """

    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]
    spacing_um: tuple[float, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    reduce: Reduce
    name: str
    unit_attributes: dict[str, Any] = field(default_factory=dict)
    origin_um: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("axes", "spacing_um", "chunk", "shard"):
            if len(getattr(self, name)) != len(self.shape):
                raise ValueError(f"{name} {getattr(self, name)} does not fit shape {self.shape}")
        if any(n < 1 for n in (*self.shape, *self.chunk, *self.shard)):
            raise ValueError(f"shape {self.shape}, chunk and shard must be positive")
        if [a for a in "tczyx" if a in self.axes] != list(self.axes):
            raise ValueError(f"axes {self.axes} must be of t, c, z, y, x, in this order")
        if self.reduce == "mean" and np.dtype(self.dtype).kind not in "uif":
            raise ValueError(f"{self.dtype} has no mean; reduce by 'nearest' or 'max'")
        for name in ("spacing_um", "origin_um"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, tuple(float(d) for d in given))
        chunk, shard = fit_blocks(self.shape, self.chunk, self.shard)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "chunk", tuple(int(n) for n in chunk))
        object.__setattr__(self, "shard", tuple(int(n) for n in shard))

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels of the pyramid, finest first."""
        return plan_levels(
            shape=self.shape,
            chunk=self.chunk,
            shard=self.shard,
            spacing=self.spacing_um,
            spatial=tuple(axis in _SPATIAL for axis in self.axes),
        )


def image_nodes(spec: ImageSpec) -> dict[str, dict[str, Any]]:
    """Return the Zarr metadata of the image's group (``""``) and of each level."""
    nodes: dict[str, dict[str, Any]] = {
        "": {"zarr_format": 3, "node_type": "group", "attributes": _group_attributes(spec)}
    }
    for number, level in enumerate(spec.levels):
        nodes[str(number)] = array_metadata(
            shape=level.shape,
            dtype=spec.dtype,
            chunk=level.chunk,
            shard=level.shard,
            axes=spec.axes,
        )
    # As JSON would give it back, tuples being lists, so that both can be compared.
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(nodes, allow_nan=False))
    return plain


def parse_image(path: Path, group: dict[str, Any], finest: dict[str, Any]) -> ImageSpec:
    """Return what the metadata of a group and of its finest level say.

    Raises
    ------
    UserError
        It is not OME-Zarr 0.5, damaged, or beyond what is understood here.
    """
    attributes = group.get("attributes", {})
    ome = attributes.get("ome") if isinstance(attributes, dict) else None
    if not isinstance(ome, dict) or ome.get("version") != VERSION or not ome.get("multiscales"):
        raise UserError(
            f"is no OME-Zarr {VERSION} image", where=path, fix="convert it, or check the path"
        )
    try:
        multiscale = ome["multiscales"][0]
        own = attributes.get("vasculome", {})
        scale, translation = _transform(multiscale)
        grid = finest["chunk_grid"]["configuration"]["chunk_shape"]
        codec = finest["codecs"][0]
        sharded = codec["name"] == "sharding_indexed"
        axes = tuple(axis["name"] for axis in multiscale["axes"])
        units = [_in_our_unit(axis) for axis in multiscale["axes"]]
        placed = "origin_um" not in own or own["origin_um"] is not None
        return ImageSpec(
            shape=tuple(finest["shape"]),
            dtype=finest["data_type"],
            axes=axes,
            spacing_um=tuple(s * u for s, u in zip(scale, units, strict=True)),
            chunk=tuple(codec["configuration"]["chunk_shape"]) if sharded else tuple(grid),
            shard=tuple(grid),
            reduce=own.get("reduce", "mean"),
            name=multiscale.get("name", path.name),
            unit_attributes=own.get("attributes", {}),
            origin_um=tuple(t * u for t, u in zip(translation, units, strict=True))
            if placed
            else None,
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"has damaged OME-Zarr metadata: {error!r}",
            where=path,
            fix="rerun the stage that made it, or convert it again",
        ) from error


def _group_attributes(spec: ImageSpec) -> dict[str, Any]:
    origin = spec.origin_um or (0.0,) * len(spec.shape)
    datasets = []
    for number, level in enumerate(spec.levels):
        scale = [d * f for d, f in zip(spec.spacing_um, level.factors, strict=True)]
        translation = [
            o + (f - 1) / 2 * d
            for o, f, d in zip(origin, level.factors, spec.spacing_um, strict=True)
        ]
        transforms = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": translation},
        ]
        datasets.append({"path": str(number), "coordinateTransformations": transforms})
    multiscale = {
        "name": spec.name,
        "type": spec.reduce,
        "axes": [_axis(axis) for axis in spec.axes],
        "datasets": datasets,
    }
    return {
        "ome": {"version": VERSION, "multiscales": [multiscale]},
        "vasculome": {
            "reduce": spec.reduce,
            "origin_um": None if spec.origin_um is None else list(spec.origin_um),
            "attributes": spec.unit_attributes,
        },
    }


def _axis(name: str) -> dict[str, str]:
    if name in _SPATIAL:
        return {"name": name, "type": "space", "unit": "micrometer"}
    if name == "t":
        return {"name": name, "type": "time", "unit": "second"}
    return {"name": name, "type": "channel"}


def _in_our_unit(axis: dict[str, str]) -> float:
    """Return micrometres, or seconds, in the unit of a foreign axis; 1 where it has none."""
    table = {"space": _MICROMETRES, "time": _SECONDS}.get(axis.get("type", ""), {})
    unit = axis.get("unit")
    return 1.0 if unit is None or not table else table[unit]


def _transform(multiscale: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return scale and translation of the finest level, the image's own transform included."""
    ndim = len(multiscale["axes"])
    scale, translation = [1.0] * ndim, [0.0] * ndim
    steps = [
        *multiscale["datasets"][0]["coordinateTransformations"],
        *multiscale.get("coordinateTransformations", []),
    ]
    for step in steps:
        if step["type"] == "scale":
            scale = [a * b for a, b in zip(scale, step["scale"], strict=True)]
            translation = [a * b for a, b in zip(translation, step["scale"], strict=True)]
        elif step["type"] == "translation":
            pairs = zip(translation, step["translation"], strict=True)
            translation = [a + b for a, b in pairs]
        else:
            raise ValueError(f"unknown transformation {step['type']!r}")
    if not all(math.isfinite(s) and s > 0 for s in scale):
        raise ValueError(f"scale {scale}")
    return scale, translation
