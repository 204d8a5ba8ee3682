"""Pictures of a microscopy sample, drawn from the files of its results."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import Colormap
from matplotlib.figure import Figure as Drawing

from vasculome.report import charts, colors, figures
from vasculome.report.album import Album
from vasculome.report.distribution import Distribution
from vasculome.report.projections import Volume
from vasculome.report.sources import MAX_MAP_VOXELS, MAX_VOXELS, picture_level, read_volume
from vasculome.storage.omezarr import open_image
from vasculome.storage.tables import iter_parts

IMAGE, MASK, POINTS = "image.ome.zarr", "mask.ome.zarr", "skeleton_points"

RADIUS_BIN_UM = 0.25
"""As the stage counts radii, so that both give the same median."""


@dataclass(frozen=True)
class _Map:
    """A map of vessels: file name, quantity, the unit it is shown in, and how to get there."""

    name: str
    quantity: str
    unit: str
    factor: float
    cmap: Colormap


_MAPS = (
    _Map("vessel_fraction", "vessel volume fraction", "%", 100.0, colors.DENSITY),
    _Map("length_density", "vessel length density", "mm/mm³", 1.0, colors.LENGTH_DENSITY),
    _Map("mean_radius", "mean vessel radius", "µm", 1.0, colors.RADIUS),
)


def vessel_album(folder: Path) -> Album:
    """Draw all pictures of the microscopy sample whose results are in ``folder``.

    Raises
    ------
    UserError
        A result is there but cannot be read.
    """
    album = Album()
    _overview(album, folder)
    for chosen in _MAPS:
        path = folder / "maps" / f"{chosen.name}.ome.zarr"
        album.add(
            chosen.name,
            what=f"map of {chosen.quantity}",
            needs=[path],
            draw=functools.partial(_draw_map, path, chosen),
            caption=f"{chosen.quantity.capitalize()} in {chosen.unit}: maximum projections along "
            "each axis. An arrow on the colour bar says that the highest values share a colour.",
            alt=f"Map of {chosen.quantity} in {chosen.unit}, in three projections.",
        )
    album.add(
        "radius_histogram",
        what="histogram of radii",
        needs=[folder / POINTS, folder / IMAGE],
        draw=functools.partial(_draw_radii, folder),
        caption="Radii by the length of vessel that has them: median (line) and quartiles (band).",
        alt="Histogram of vessel radius in micrometres with its median.",
    )
    return album


def _overview(album: Album, folder: Path) -> None:
    with_mask = album.has([folder / MASK], what="picture of the vessel mask")
    with_skeleton = album.has([folder / POINTS], what="picture of the skeleton")

    def draw() -> Drawing:
        return figures.microscopy_overview(
            image=read_volume(folder / IMAGE, max_voxels=MAX_VOXELS),
            mask=read_volume(folder / MASK, max_voxels=MAX_VOXELS) if with_mask else None,
            skeleton=_skeleton(folder) if with_skeleton else None,
        )

    album.add(
        "overview",
        what="overview",
        needs=[folder / IMAGE],
        draw=draw,
        caption="Image, vessel mask and skeleton: maximum projections along each axis. In the "
        "mask, near voxels are bright and far ones dim. The skeleton is coloured by radius.",
        alt="The light-sheet image; the segmented vessels; and their centre lines over the image, "
        "coloured by radius from violet (thin) to yellow (wide).",
    )


def _skeleton(folder: Path) -> figures.Skeleton:
    """Return the skeleton on the grid of the picture, the widest vessel of each voxel.

    Read part by part, so that a whole brain's skeleton takes no more memory than its picture.
    """
    image = open_image(folder / IMAGE)
    level = picture_level(image, max_voxels=MAX_VOXELS)
    shape, finest = image.levels[level], np.asarray(image.spec.spacing_um)
    spacing = finest * image.spec.levels[level].factors
    # Tables hold positions in the animal; pictures begin at the corner of voxel 0.
    corner = np.asarray(image.spec.origin_um or (0.0, 0.0, 0.0)) - finest / 2
    voxels, radii = [], []
    for part in iter_parts(folder / POINTS, ["z_um", "y_um", "x_um", "radius_um"]):
        position = np.stack([part[f"{axis}_um"] for axis in "zyx"], axis=1)
        voxel = np.clip(((position - corner) / spacing).astype(np.int64), 0, np.array(shape) - 1)
        flat = np.ravel_multi_index(tuple(voxel.T), shape)
        order = np.lexsort((-part["radius_um"], flat))
        unique, first = np.unique(flat[order], return_index=True)
        voxels.append(np.stack(np.unravel_index(unique, shape), axis=1))
        radii.append(part["radius_um"][order][first])
    return figures.Skeleton(
        np.concatenate(voxels) * spacing, np.concatenate(radii), tuple(spacing.tolist())
    )


def _draw_map(path: Path, chosen: _Map) -> Drawing:
    volume = read_volume(path, max_voxels=MAX_MAP_VOXELS)
    return figures.density_figure(
        Volume(volume.values * np.float32(chosen.factor), volume.spacing_um),
        title=chosen.quantity.capitalize(),
        label=f"{chosen.quantity} ({chosen.unit})",
        cmap=chosen.cmap,
    )


def _draw_radii(folder: Path) -> Drawing | str:
    radii = Distribution.empty(bin_width=RADIUS_BIN_UM)
    for part in iter_parts(folder / POINTS, ["radius_um", "length_um"]):
        radii = radii.add(part["radius_um"], weight=part["length_um"])
    if not radii.weight.any():
        return "the skeleton is empty"
    return charts.histogram(
        radii,
        title="Vessel radius",
        label="radius",
        unit="µm",
        counted="vessel length",
        values="points of the skeleton",
        narrowest_bar=0.5 * min(open_image(folder / IMAGE).spec.spacing_um),
    )
