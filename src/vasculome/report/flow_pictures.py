"""Pictures of an ultrasound sample, drawn from the files of its results."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure as Drawing

from vasculome.report import charts, figures, flow_charts, psf_charts
from vasculome.report.album import Album
from vasculome.report.distribution import Distribution
from vasculome.report.projections import Volume
from vasculome.report.sources import MAX_MAP_VOXELS, read_manifest, read_volume
from vasculome.storage.bundles import read_bundle
from vasculome.storage.omezarr import open_image
from vasculome.storage.tables import iter_parts

TRACKS = "tracks"
QUALITY, CURVES = "quality", "curves.npz"
CALIBRATION, BOUNDS, PSF = "calibration", "bounds.npz", "psf.npz"

SPEED_BIN_MM_S = 0.1
"""As the stage counts speeds, so that both give the same median."""

_PSF_SOURCES = {
    "estimated": ", the mean of isolated bubbles in the first block of frames, aligned",
    "gaussian": ", a Gaussian as configured",
    "simulated": ", simulated for the configured probe",
    "file": ", as given in a file",
}
_LINE_OF_SIGHT = " Of a volume: the mean along the line of sight, weighted by density."


def flow_album(folder: Path) -> Album:
    """Draw all pictures of the ultrasound sample whose results are in ``folder``.

    Raises
    ------
    UserError
        A result is there but cannot be read.
    """
    album = Album()
    _density(album, folder)
    _speed(album, folder)
    _direction(album, folder)
    _axial_velocity(album, folder)
    _track_charts(album, folder / TRACKS)
    _quality_charts(album, folder)
    _clutter_chart(album, folder)
    _psf_chart(album, folder)
    return album


def slices_album(folder: Path) -> Album:
    """Draw the maps of a volume of 2-D slices; what flows across them is not known.

    Raises
    ------
    UserError
        As `flow_album`.
    """
    album = Album()
    _density(album, folder)
    _speed(album, folder)
    _axial_velocity(album, folder)
    return album


def _path(folder: Path, name: str) -> Path:
    return folder / "maps" / f"{name}.ome.zarr"


def _read(folder: Path, name: str) -> Volume:
    return read_volume(_path(folder, name), max_voxels=MAX_MAP_VOXELS)


def _density(album: Album, folder: Path) -> None:
    doppler = album.has([_path(folder, "power_doppler")], what="power Doppler picture")
    album.add(
        "density",
        what="density map",
        needs=[_path(folder, "density")],
        draw=lambda: figures.ulm_density(
            _read(folder, "density"),
            power_doppler=_read(folder, "power_doppler") if doppler else None,
        ),
        caption=("Power Doppler (mean intensity after the clutter filter), and " * doppler)
        + "density of microbubbles, square-root compressed; volumes as maximum projections along "
        "each axis.",
        alt="Super-resolved map of microbubble density"
        + " beside the power Doppler image of the same field" * doppler
        + ".",
    )


def _speed(album: Album, folder: Path) -> None:
    density = _path(folder, "density")
    album.add(
        "speed",
        what="speed map",
        needs=[_path(folder, "speed"), density],
        draw=lambda: figures.ulm_speed(_read(folder, "speed"), density=_read(folder, "density")),
        caption="Speed of flow as colour, density of microbubbles as brightness; the highest "
        "speeds share a colour. Volumes appear as maximum projections along each axis.",
        alt="Map of flow speed in mm/s, from blue (slow) to red (fast).",
    )
    album.add(
        "speed_error",
        what="map of the error of speed",
        needs=[_path(folder, "speed_error"), density],
        draw=lambda: figures.ulm_speed(
            _read(folder, "speed_error"),
            density=_read(folder, "density"),
            title="Standard error of the mean speed",
            label="standard error (mm/s)",
        ),
        caption="Standard error of the mean speed, from how the speeds of different microbubbles "
        "scatter in each pixel; black where fewer than two passed. Brightness is density.",
        alt="Map of the standard error of the mean speed in mm/s.",
    )


def _direction(album: Album, folder: Path) -> None:
    density = _path(folder, "density")
    names = [f"velocity_{axis}" for axis in "zyx"]
    if not _path(folder, "velocity_y").exists() and _is_plane(density):
        names.remove("velocity_y")
    album.add(
        "direction",
        what="direction map",
        needs=[*(_path(folder, name) for name in names), density],
        draw=lambda: figures.ulm_direction(
            [_read(folder, name) for name in names], density=_read(folder, "density")
        ),
        caption="Direction of flow in the plane of each view, by the colour wheel: where z runs "
        "down, up is toward the probe. Brightness is the density of microbubbles." + _LINE_OF_SIGHT,
        alt="Map of flow direction, with a colour wheel as legend.",
    )


def _axial_velocity(album: Album, folder: Path) -> None:
    density = _path(folder, "density")
    album.add(
        "axial_velocity",
        what="map of axial velocity",
        needs=[_path(folder, "velocity_z"), density],
        draw=lambda: figures.ulm_axial(
            _read(folder, "velocity_z"), density=_read(folder, "density")
        ),
        caption="Axial velocity as in colour Doppler: red toward the probe, blue away from it."
        + _LINE_OF_SIGHT,
        alt="Map of axial velocity: flow toward the probe in red, away from it in blue.",
    )


def _is_plane(path: Path) -> bool:
    return not path.exists() or len(open_image(path).spec.shape) == 2


def _track_charts(album: Album, folder: Path) -> None:
    album.add(
        "speed_histogram",
        what="histogram of speeds",
        needs=[folder],
        draw=functools.partial(_draw_speeds, folder),
        caption="Speeds at all points of all tracks: median (line) and quartiles (band).",
        alt="Histogram of microbubble speed in mm/s with its median.",
    )
    album.add(
        "track_length_histogram",
        what="histogram of track lengths",
        needs=[folder],
        draw=functools.partial(_draw_lengths, folder),
        caption="Frames in which each microbubble was found: median (line) and quartiles (band).",
        alt="Histogram of track length in frames with its median.",
    )


def _draw_speeds(folder: Path) -> Drawing | str:
    speeds = Distribution.empty(bin_width=SPEED_BIN_MM_S)
    for part in iter_parts(folder):
        velocity = [values for name, values in part.items() if name.endswith("_mm_s")]
        speeds = speeds.add(np.linalg.norm(np.stack(velocity), axis=0))
    if speeds.count == 0:
        return "there are no tracks"
    return charts.histogram(
        speeds,
        title="Speed of microbubbles",
        label="speed",
        unit="mm/s",
        counted="points of tracks",
        values="points",
    )


def _draw_lengths(folder: Path) -> Drawing | str:
    lengths = Distribution.empty(bin_width=1.0)
    for part in iter_parts(folder, ["track"]):
        lengths = lengths.add(np.unique(part["track"], return_counts=True)[1])
    if lengths.count == 0:
        return "there are no tracks"
    return charts.histogram(
        lengths,
        title="Track length",
        label="track length",
        unit="frames",
        counted="tracks",
        values="tracks",
        whole_numbers=True,
    )


def _quality_charts(album: Album, folder: Path) -> None:
    curves = folder / QUALITY / CURVES
    summary = (read_manifest(folder, "ulm_quality") or {}).get("summary", {})
    album.add(
        "resolution",
        what="curve of resolution",
        needs=[curves],
        draw=lambda: flow_charts.resolution(
            read_bundle(curves), resolution_um=summary.get("resolution_um")
        ),
        caption="Correlation, at each spatial frequency, of two maps, of the tracks that begin in "
        "every other stretch of time. Where it falls below the half-bit threshold lies the "
        "resolution; as each map holds half of the tracks, that of the whole is somewhat better.",
        alt="Fourier ring correlation falling with spatial frequency, and the half-bit threshold.",
    )
    album.add(
        "saturation",
        what="curve of saturation",
        needs=[curves],
        draw=lambda: flow_charts.saturation(
            read_bundle(curves),
            plateau_percent=summary.get("plateau_percent"),
            time_to_90_s=summary.get("time_to_90_s"),
        ),
        caption="Part of the map that tracks have crossed, after each block of frames, and the "
        "exponential that fits it best: what lies beyond the acquisition is extrapolated.",
        alt="Part of the map that is filled, rising with time of acquisition.",
    )


def _clutter_chart(album: Album, folder: Path) -> None:
    summary = (read_manifest(folder, "calibrate") or {}).get("summary", {})
    bounds = folder / CALIBRATION / BOUNDS
    if "keep_from" not in summary:
        album.missing.append("No singular vectors: the clutter filter made no use of any.")
        return
    album.add(
        "clutter",
        what="picture of the clutter filter",
        needs=[bounds],
        draw=functools.partial(flow_charts.clutter, read_bundle(bounds), summary),
        caption="Singular vectors of the first block of frames; those between the red lines were "
        "kept. Tissue is strong, slow (its spectral centroid is low), and alike in space (the "
        "first bright square); blood makes the second square. Noise lies below the dotted line.",
        alt="Size, mean frequency and similarity of singular vectors, with the cuts between "
        "tissue, blood and noise.",
        detailed=True,
    )


def _psf_chart(album: Album, folder: Path) -> None:
    summary = (read_manifest(folder, "calibrate") or {}).get("summary", {})
    if "psf_unknown_because" in summary:
        album.missing.append(
            f"The echo of a single bubble is not known: {summary['psf_unknown_because']}."
        )
        return
    psf = folder / CALIBRATION / PSF
    source = _PSF_SOURCES.get(summary.get("psf", ""), "")
    album.add(
        "psf",
        what="picture of the echo of a bubble",
        needs=[psf],
        draw=lambda: psf_charts.psf(read_bundle(psf)),
        caption=f"Envelope of the echo of a single bubble{source}, by depth. The ellipse is where "
        "it has fallen to a half; its diameters are written below.",
        alt="Envelope of the point spread function in decibels for each depth band, with its "
        "width at half of the maximum.",
        detailed=True,
    )
