"""Bad microscopy files: one clear line that names the file, and earlier results as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiny_project import (
    BRAIN,
    MOSAIC,
    MOUSE,
    Project,
    check_line,
    check_raw_files,
    told_by,
    told_by_snakemake,
    write_planes,
)

from vasculome.config import parse_samples
from vasculome.errors import UserError
from vasculome.stages.catalog import stages_of

VOLUME = np.random.default_rng(0).integers(0, 1000, (12, 40, 48)).astype(np.uint16)
NEW = {**BRAIN, "sample": "new", "path": "raw/new"}

Damage = Callable[[Path], dict[str, str] | None]


def _cut(path: Path, *, to: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(to * len(content))])


def truncated_plane(folder: Path) -> None:
    write_planes(folder, VOLUME)
    _cut(folder / "plane_007.tif", to=0.6)


def plane_cut_in_its_header(folder: Path) -> None:
    write_planes(folder, VOLUME)
    (folder / "plane_007.tif").write_bytes(b"II*\0")


def missing_plane(folder: Path) -> None:
    write_planes(folder, VOLUME)
    (folder / "plane_007.tif").unlink()


def empty_plane(folder: Path) -> None:
    write_planes(folder, VOLUME)
    (folder / "plane_007.tif").write_bytes(b"")


def smaller_plane(folder: Path) -> None:
    write_planes(folder, VOLUME)
    tifffile.imwrite(folder / "plane_007.tif", VOLUME[7, :30], photometric="minisblack")


def larger_plane(folder: Path) -> None:
    write_planes(folder, VOLUME)
    larger = np.pad(VOLUME[7], ((0, 9), (0, 0)))
    tifffile.imwrite(folder / "plane_007.tif", larger, photometric="minisblack")


def plane_of_another_type(folder: Path) -> None:
    write_planes(folder, VOLUME)
    tifffile.imwrite(
        folder / "plane_007.tif", VOLUME[7].astype(np.float32), photometric="minisblack"
    )


def all_planes_of_an_unknown_type(folder: Path) -> None:
    write_planes(folder, VOLUME.astype(np.float64))


def text_instead_of_a_plane(folder: Path) -> None:
    write_planes(folder, VOLUME)
    (folder / "plane_007.tif").write_text("the scan was aborted\n")


def long_text_instead_of_a_plane(folder: Path) -> None:
    write_planes(folder, VOLUME)
    (folder / "plane_007.tif").write_text("the scan was aborted\n" * 400)


def damaged_compressed_plane(folder: Path) -> None:
    folder.mkdir()
    for z, plane in enumerate(VOLUME):
        path = folder / f"plane_{z:03d}.tif"
        tifffile.imwrite(path, plane, photometric="minisblack", compression="zlib")
    content = bytearray((folder / "plane_007.tif").read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + 200)
    content[middle] = bytes(200)
    (folder / "plane_007.tif").write_bytes(content)


def colour_planes(folder: Path) -> None:
    folder.mkdir()
    for z in range(3):
        colour = np.zeros((40, 48, 3), np.uint8)
        tifffile.imwrite(folder / f"plane_{z:03d}.tif", colour, photometric="rgb")


def not_a_number(folder: Path) -> None:
    volume = VOLUME.astype(np.float32)
    volume[7, 3, 5] = np.nan
    write_planes(folder, volume)


def two_series(folder: Path) -> None:
    write_planes(folder, VOLUME)
    for z, plane in enumerate(VOLUME):
        tifffile.imwrite(folder / f"red_{z:03d}.tif", plane, photometric="minisblack")


def empty_folder(folder: Path) -> None:
    folder.mkdir()


def no_folder(folder: Path) -> None:
    """Nothing is written: the path leads nowhere."""


def stack_in_a_folder_of_planes(folder: Path) -> None:
    folder.mkdir()
    tifffile.imwrite(folder / "plane_000.tif", VOLUME, photometric="minisblack")


def channels_to_choose_from(folder: Path) -> dict[str, str]:
    stack = np.stack([VOLUME, VOLUME], axis=1)
    tifffile.imwrite(f"{folder}.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    return {"path": "raw/new.tif", "format": "tiff_stack"}


def no_such_channel(folder: Path) -> dict[str, str]:
    return channels_to_choose_from(folder) | {"channel": "5"}


def truncated_stack(folder: Path) -> dict[str, str]:
    tifffile.imwrite(f"{folder}.tif", VOLUME, photometric="minisblack")
    _cut(Path(f"{folder}.tif"), to=0.5)
    return {"path": "raw/new.tif", "format": "tiff_stack"}


def folder_as_stack(folder: Path) -> dict[str, str]:
    write_planes(folder, VOLUME)
    return {"format": "tiff_stack"}


def _write_tiles(folder: Path, table: str | None) -> dict[str, str]:
    folder.mkdir()
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(folder / name, VOLUME, photometric="minisblack")
    if table is not None:
        (folder / "tiles.tsv").write_text(table)
    return {"format": "tiff_tiles"}


def no_table_of_tiles(folder: Path) -> dict[str, str]:
    return _write_tiles(folder, None)


def column_of_tiles_missing(folder: Path) -> dict[str, str]:
    return _write_tiles(folder, "file\tz_um\ty_um\na.tif\t0\t0\n")


def position_is_no_number(folder: Path) -> dict[str, str]:
    return _write_tiles(folder, "file\tz_um\ty_um\tx_um\na.tif\t0\t0\t0\nb.tif\t0\there\t0\n")


def unknown_tile(folder: Path) -> dict[str, str]:
    return _write_tiles(folder, "file\tz_um\ty_um\tx_um\na.tif\t0\t0\t0\nc.tif\t0\t0\t60\n")


def tile_named_twice(folder: Path) -> dict[str, str]:
    return _write_tiles(folder, "file\tz_um\ty_um\tx_um\na.tif\t0\t0\t0\na.tif\t0\t0\t60\n")


def tiles_far_apart(folder: Path) -> dict[str, str]:
    return _write_tiles(folder, "file\tz_um\ty_um\tx_um\na.tif\t0\t0\t0\nb.tif\t0\t5e4\t5e4\n")


def tile_of_another_type(folder: Path) -> dict[str, str]:
    told = _write_tiles(folder, "file\tz_um\ty_um\tx_um\na.tif\t0\t0\t0\nb.tif\t0\t0\t60\n")
    tifffile.imwrite(folder / "b.tif", VOLUME.astype(np.uint8), photometric="minisblack")
    return told


def tile_beside_the_others(folder: Path) -> dict[str, str]:
    return _write_tiles(folder, "file\tz_um\ty_um\tx_um\na.tif\t0\t0\t0\nb.tif\t0\t0\t100\n")


def tiles_of_two_sizes(folder: Path) -> dict[str, str]:
    told = _write_tiles(folder, "file\tz_um\ty_um\tx_um\na.tif\t0\t0\t0\nb.tif\t0\t0\t60\n")
    tifffile.imwrite(folder / "b.tif", VOLUME[:, :30], photometric="minisblack")
    return told


def tiles_that_share_nothing(folder: Path) -> dict[str, str]:
    told = _write_tiles(folder, "file\tz_um\ty_um\tx_um\na.tif\t0\t0\t0\nb.tif\t0\t0\t40\n")
    other = np.random.default_rng(1).integers(0, 1000, VOLUME.shape).astype(np.uint16)
    tifffile.imwrite(folder / "b.tif", other, photometric="minisblack")
    return told


# What is seen before anything runs: the file, the fault and what to do, as they are told.
BEFORE: dict[Damage, tuple[str, ...]] = {
    truncated_plane: ("plane_007.tif", "truncated", "copy or export it again"),
    plane_cut_in_its_header: ("plane_007.tif", "headers", "copy or export it again"),
    missing_plane: ("plane_007.tif", "plane 7 is missing", "restore the plane"),
    empty_plane: ("plane_007.tif", "is empty (0 bytes)", "copy the file again"),
    smaller_plane: ("plane_007.tif", "30×48 uint16 where the first plane is 40×48", "one shape"),
    text_instead_of_a_plane: ("plane_007.tif", "is not a TIFF file", "export it again"),
    all_planes_of_an_unknown_type: ("plane_000.tif", "float64", "uint16"),
    colour_planes: ("plane_000.tif", "colour image", "export one channel"),
    two_series: ("raw/new", "file names follow 2 patterns", "one series of planes"),
    empty_folder: ("raw/new", "holds no files that end in .tif", "check path"),
    no_folder: ("raw/new", "does not exist", "check the path"),
    stack_in_a_folder_of_planes: ("plane_000.tif", "12 pages", "tiff_stack"),
    channels_to_choose_from: ("new.tif", "has 2 channels", "choose one, 0 to 1"),
    no_such_channel: ("new.tif", "has no channel 5", "choose one of its 2"),
    truncated_stack: ("new.tif", "truncated", "copy or export it again"),
    folder_as_stack: ("raw/new", "is a folder, not a TIFF file", "check path and format"),
    no_table_of_tiles: ("tiles.tsv", "does not exist", "columns file, z_um, y_um, x_um"),
    column_of_tiles_missing: ("tiles.tsv", "lacks x_um", "columns file"),
    position_is_no_number: ("tiles.tsv", "line 3, column y_um: 'here' is not a number", "microm"),
    unknown_tile: ("tiles.tsv", "tile c.tif, which does not exist", "check the file name"),
    tile_named_twice: ("tiles.tsv", "names tile a.tif twice", "one row a tile"),
    tiles_far_apart: ("raw/new", "less than a tenth of the volume", "check the tiles' positions"),
    tile_beside_the_others: ("raw/new", "2 of 2 tiles overlap no other: a.tif", "stage_axes"),
    tiles_of_two_sizes: ("raw/new", "differ in height or width", "flat_field: false"),
    tile_of_another_type: ("b.tif", "is uint8 where tile a.tif is uint16", "one pixel type"),
}
# What only reading shows.
WHILE_READING: dict[Damage, tuple[str, ...]] = {
    long_text_instead_of_a_plane: ("plane_007.tif", "is not a TIFF file", "export it again"),
    larger_plane: ("plane_007.tif", "49×48 uint16 where the first plane is 40×48", "one shape"),
    plane_of_another_type: ("plane_007.tif", "float32 where the first plane is", "pixel type"),
    damaged_compressed_plane: ("plane_007.tif", "damaged", "copy or export it again"),
    not_a_number: ("plane_007.tif", "plane 7 holds nan at row 3, column 5", "before import"),
}


def _add(project: Project, damage: Damage) -> None:
    """Add the sample `new` with something wrong in its files."""
    row = damage(project.folder / "raw/new") or {}
    project.write_samples(BRAIN, MOSAIC, MOUSE, NEW | row)


@pytest.mark.parametrize("damage", BEFORE, ids=lambda d: d.__name__)
def test_seen_before_anything_runs(project, damage):
    _add(project, damage)
    with pytest.raises(UserError):
        check_raw_files(project)
    check_line(told_by(project.run_stage(_first_stage(project), "new")), *BEFORE[damage])
    assert not [path for path in project.folder.glob("results/new/**/*") if path.is_file()]


def _first_stage(project: Project) -> str:
    *_, sample = parse_samples((project.folder / "samples.tsv").read_text(), where="samples.tsv")
    return stages_of(sample)[0]


def test_tiles_that_share_nothing_end_before_fusion(project):
    _add(project, tiles_that_share_nothing)
    check_raw_files(project)
    assert project.run_stage("register", "new").code == 0
    told = told_by(project.run_stage("place", "new"))
    check_line(told, "raw/new", "no pair joins 1 tiles to the rest: b.tif", "allow_stage_positions")


@pytest.mark.parametrize("damage", WHILE_READING, ids=lambda d: d.__name__)
def test_seen_while_reading(project, damage):
    _add(project, damage)
    check_raw_files(project)
    check_line(told_by(project.run_stage("ingest_image", "new")), *WHILE_READING[damage])
    assert not (project.folder / "results/new/manifests/ingest_image.json").exists()


@pytest.mark.parametrize("damage", [truncated_plane, unknown_tile], ids=lambda d: d.__name__)
def test_refused_by_snakemake(project, damage):
    _add(project, damage)
    check_line(told_by_snakemake(project.run()), *BEFORE[damage])


def test_while_snakemake_runs(project):
    _add(project, not_a_number)
    done = project.run("maps", "--keep-going")
    assert done.returncode == 1
    log = (project.folder / "results/logs/new/ingest_image.log").read_text()
    (line,) = [line for line in log.splitlines() if " ERROR " in line]
    check_line(line, *WHILE_READING[not_a_number])
    assert done.stderr.count(line) == 1
    assert "Traceback" not in done.stderr + done.stdout + log
