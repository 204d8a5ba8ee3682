"""OME-XML: where the planes of an image lie, and where the stage was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from vasculome.errors import UserError
from vasculome.readers.safe_xml import parse_xml

UM_PER_UNIT = {
    "m": 1e6,
    "cm": 1e4,
    "mm": 1e3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "nm": 1e-3,
    "Å": 1e-4,
    "in": 25400.0,
}
_AXES = "XYZCT"

Plane = tuple[str | None, int]
"""File (None: the one that holds the XML) and page of a plane."""


@dataclass(frozen=True)
class OmeImage:
    """One image of an OME-XML.

    Attributes
    ----------
    id, name
        Identifier and name; the name may be empty.
    shape
        Planes, rows and columns (z, y, x).
    channels
        Names of the channels, or their numbers.
    spacing_um
        Voxel spacing (z, y, x); None where the file does not say.
    position_um
        Position (z, y, x) of the stage at the first plane, or None; z is counted so that it
        rises with the planes.
    planes
        For each channel, file and page of each plane by rising z; None where there is none.
    """

    id: str
    name: str
    shape: tuple[int, int, int]
    channels: tuple[str, ...]
    spacing_um: tuple[float | None, float | None, float | None]
    position_um: tuple[float, float, float] | None
    planes: tuple[tuple[Plane | None, ...], ...]


def parse_ome_xml(content: bytes, *, where: Path) -> list[OmeImage]:
    """Return the images that an OME-XML describes.

    Lengths without a unit are taken for micrometres, as files from before 2015 mean them.

    Raises
    ------
    UserError
        Not OME-XML, several time points, colour, or positions without a usable unit.
    """
    root = parse_xml(content, where=where)
    if root.tag != "OME":
        raise UserError(
            f"holds XML with root {root.tag}, not OME",
            where=where,
            fix="export the tiles as OME-TIFF, or use format tiff_pattern or tiff_tiles",
        )
    own = root.get("UUID")
    return [_image(element, own=own, where=where) for element in root.iter("Image")]


def metadata_file(content: bytes, *, where: Path) -> str | None:
    """Return the name of the file that holds the metadata, where this one only points to it."""
    only = parse_xml(content, where=where).find("BinaryOnly")
    return None if only is None else only.get("MetadataFile")


def _image(image: Element, *, own: str | None, where: Path) -> OmeImage:
    pixels = image.find("Pixels")
    if pixels is None:
        raise UserError("describes an image without pixels", where=where, fix="export it again")
    sizes = {axis: _count(pixels, f"Size{axis}", where=where) for axis in _AXES}
    if sizes["T"] != 1:
        raise UserError(f"holds {sizes['T']} time points", where=where, fix="export one time point")
    elements = pixels.findall("Channel")
    if any(int(c.get("SamplesPerPixel", "1")) > 1 for c in elements):
        raise UserError(
            "holds colour images", where=where, fix="export each channel as grey values"
        )
    names = [element.get("Name") or str(i) for i, element in enumerate(elements)]
    if len(names) != sizes["C"] or len(set(names)) != len(names):
        names = [str(i) for i in range(sizes["C"])]
    spacing_um = tuple(_length_um(pixels, f"PhysicalSize{axis}", where=where) for axis in "ZYX")
    return OmeImage(
        image.get("ID", ""),
        image.get("Name", ""),
        (sizes["Z"], sizes["Y"], sizes["X"]),
        tuple(names),
        (spacing_um[0], spacing_um[1], spacing_um[2]),
        _position_um(image, pixels, spacing_um, where=where),
        _planes(pixels, sizes, own=own, where=where),
    )


def _planes(
    pixels: Element, sizes: dict[str, int], *, own: str | None, where: Path
) -> tuple[tuple[Plane | None, ...], ...]:
    """Return where the planes lie, as the elements TiffData say."""
    order = pixels.get("DimensionOrder", "XYZCT")[2:]
    if sorted(order) != ["C", "T", "Z"]:
        raise UserError(f"has DimensionOrder XY{order}", where=where, fix="export it again")
    total = sizes["Z"] * sizes["C"]
    planes: list[list[Plane | None]] = [[None] * sizes["Z"] for _ in range(sizes["C"])]
    for data in pixels.findall("TiffData") or [Element("TiffData")]:
        uuid = data.find("UUID")
        # The file that holds this XML may have been renamed since: its UUID tells it.
        elsewhere = uuid is not None and (own is None or (uuid.text or "").strip() != own)
        file = uuid.get("FileName") if uuid is not None and elsewhere else None
        page = _integer(data, "IFD", 0, where=where)
        default = 1 if "IFD" in data.attrib else total
        count = _integer(data, "PlaneCount", default, where=where)
        at = {axis: _integer(data, f"First{axis}", 0, where=where) for axis in "ZCT"}
        first = _place(at, order, sizes)
        if first is None or first + min(count, total) > total:
            raise UserError(
                "places a plane beyond the sizes of its image", where=where, fix="export it again"
            )
        for i in range(min(count, total)):
            z, c = _unplace(first + i, order, sizes)
            planes[c][z] = (file, page + i)
    return tuple(tuple(of) for of in planes)


def _place(at: dict[str, int], order: str, sizes: dict[str, int]) -> int | None:
    """Return the place of a plane in the order of the dimensions; None beyond the image."""
    place, stride = 0, 1
    for axis in order:
        if not 0 <= at[axis] < sizes[axis]:
            return None
        place += at[axis] * stride
        stride *= sizes[axis]
    return place


def _unplace(place: int, order: str, sizes: dict[str, int]) -> tuple[int, int]:
    at = {}
    for axis in order:
        place, at[axis] = divmod(place, sizes[axis])
    return at["Z"], at["C"]


def _position_um(
    image: Element, pixels: Element, spacing_um: Sequence[float | None], *, where: Path
) -> tuple[float, float, float] | None:
    """Return the stage's position from the first plane that has one, or from the label."""
    told = [plane for plane in pixels.findall("Plane") if plane.get("PositionX") is not None]
    if told:
        told.sort(key=lambda p: [int(p.get(f"The{axis}", "0")) for axis in "TCZ"])
        first = told[0]
        source, names = first, {axis: f"Position{axis}" for axis in "XYZ"}
    else:
        label = image.find("StageLabel")
        if label is None or label.get("X") is None:
            return None
        source, names = label, {axis: axis for axis in "XYZ"}
    z_um, y_um, x_um = (
        _length_um(source, names[axis], voxel_um=voxel_um, where=where)
        for axis, voxel_um in zip("ZYX", spacing_um, strict=True)
    )
    if y_um is None or x_um is None:
        raise UserError("gives a stage position without Y", where=where, fix="export it again")
    if z_um is not None and told:
        same = [p for p in told if p.get("TheC", "0") == told[0].get("TheC", "0")]
        last_um = _length_um(same[-1], "PositionZ", voxel_um=spacing_um[0], where=where)
        # A focus that goes down while planes count up: the next tile's offset is against z.
        z_um = -z_um if last_um is not None and last_um < z_um else z_um
    return z_um or 0.0, y_um, x_um


def _length_um(
    element: Element, name: str, *, where: Path, voxel_um: float | None = None
) -> float | None:
    text = element.get(name)
    if text is None:
        return None
    unit = element.get(f"{name}Unit", "µm")
    scale = voxel_um if unit == "pixel" else UM_PER_UNIT.get(unit)
    if scale is None:
        # A size in pixels says nothing; a position in no unit would place tiles anywhere.
        if name.startswith("PhysicalSize") and unit in {"pixel", "reference frame"}:
            return None
        raise UserError(
            f"gives {name} in unit {unit!r}",
            where=where,
            fix="give the positions in micrometres in tiles.tsv, format tiff_tiles",
        )
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"gives {name} as {text!r}", where=where, fix="export it again")
    return value * scale


def _count(element: Element, name: str, *, where: Path) -> int:
    count = _integer(element, name, 0, where=where)
    if count < 1:
        raise UserError(f"gives no {name}", where=where, fix="export it again")
    return count


def _integer(element: Element, name: str, default: int, *, where: Path) -> int:
    text = element.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"gives {name} as {text!r}", where=where, fix="export it again") from error
