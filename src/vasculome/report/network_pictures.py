"""What a network has found of the vessels of an ultrasound sample, drawn from its files."""

from __future__ import annotations

from pathlib import Path

from vasculome.report import figures
from vasculome.report.album import Album
from vasculome.report.projections import Volume
from vasculome.report.sources import MAX_MAP_VOXELS, read_volume


def add_vessels(album: Album, folder: Path) -> None:
    """Draw the probability of vessels, beside the density of microbubbles where there is one.

    Raises
    ------
    UserError
        A result is there but cannot be read.
    """
    probability, density = (
        folder / "maps" / f"{name}.ome.zarr" for name in ("vessel_probability", "density")
    )
    beside = density.exists()
    album.add(
        "vessel_probability",
        what="map of vessels by a network",
        needs=[probability],
        draw=lambda: figures.vessel_probability(
            _read(probability), density=_read(density) if beside else None
        ),
        caption="Density of microbubbles, square-root compressed, and vessels" * beside
        + "Vessels" * (not beside)
        + " that a network sees in movies of all echoes, without localizing microbubbles: the "
        "highest probability of all movies. Volumes appear as maximum projections along each axis.",
        alt="Super-resolved map of the probability of vessels"
        + " beside the density of microbubbles" * beside
        + ".",
    )


def _read(path: Path) -> Volume:
    return read_volume(path, max_voxels=MAX_MAP_VOXELS)
