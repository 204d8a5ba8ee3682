"""Tiles by a pattern of names and tiles on a grid, written by tifffile and read back."""

import itertools
import pickle
import time

import numpy as np
import pytest
import tifffile

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.acquisition import open_acquisition
from vasculome.readers.stage_positions import grid_cells


def whole(volume):
    return Box.of_shape(volume.shape)


def _write(folder, mosaic, name, *, channels=(None,), skip=()):
    """Write each plane to the file that ``name`` makes of row, col, tile, z and channel."""
    for tile, ((row, col), voxels) in enumerate(mosaic.tiles.items()):
        _, y_um, x_um = mosaic.positions_um[row, col]
        for (z, plane), channel in itertools.product(enumerate(voxels), channels):
            if (row, col, z) in skip:
                continue
            path = folder / name.format(
                row=row, col=col, tile=tile, z=z, channel=channel, y_um=y_um, x_um=x_um
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, plane + (channels.index(channel)))
    return folder


def _open(folder, mosaic, pattern, **options):
    return open_acquisition(
        folder, format="tiff_pattern", pattern=pattern, spacing_um=mosaic.spacing_um, **options
    )


def test_rows_and_columns(tmp_path, mosaic, handed_over):
    folder = _write(tmp_path, mosaic, "tile_{row}_{col}/plane_{z:03d}.tif")
    found = _open(folder, mosaic, "tile_{row}_{col}/plane_{z}.tif", overlap_percent=(25, 25))
    assert found.channels == ("0",)
    tiles = found.tiles(None, where=folder)
    mosaic.check(tiles)
    assert tiles.names[1] == "0_1" and tiles.file_count == 24 and tiles.missing == {}
    assert handed_over(found) == found


def test_positions_in_names(tmp_path, mosaic):
    _write(tmp_path, mosaic, "{y_um}_{x_um}/{z}.tif")
    mosaic.check(_open(tmp_path, mosaic, "{y_um}_{x_um}/{z}.tif").tile_sets[0])


def test_tenths_of_micrometres_with_x_first(tmp_path, mosaic):
    for (row, col), voxels in mosaic.tiles.items():
        _, y_um, x_um = mosaic.positions_um[row, col]
        folder = tmp_path / f"ch1/{x_um * 10:06.0f}/{x_um * 10:06.0f}_{y_um * 10:06.0f}"
        folder.mkdir(parents=True)
        for z, plane in enumerate(voxels):
            tifffile.imwrite(folder / f"{1000 + 20 * z}.tif", plane)
    pattern = "{channel}/{x_tenth_um}/{x_tenth_um}_{y_tenth_um}/{z}.tif"
    found = _open(tmp_path, mosaic, pattern)
    assert found.channels == ("ch1",)
    mosaic.check(found.tile_sets[0])


@pytest.mark.parametrize(
    "name", ["C{channel}/{row}_{col}_{z}.tif", "{z}/{row}_{col}_{channel}.tif"]
)
def test_channels_share_tiles_and_positions(tmp_path, mosaic, name):
    _write(tmp_path, mosaic, name, channels=("561", "1000"))
    found = _open(tmp_path, mosaic, name, overlap_percent=(25, 25))
    assert found.channels == ("561", "1000")
    first, second = found.tile_sets
    mosaic.check(first)
    assert first.positions_um == second.positions_um and first.names == second.names
    for a, b in zip(first.volumes, second.volumes, strict=True):
        box = whole(a)
        np.testing.assert_array_equal(a.read(box) + 1, b.read(box))
    with pytest.raises(UserError, match="2 channels: 561, 1000"):
        found.tiles(None, where=tmp_path)
    with pytest.raises(UserError, match="no channel 2"):
        found.tiles(2, where=tmp_path)
    assert found.tiles(1, where=tmp_path) is second


def test_stacks_and_folders_without_z(tmp_path, mosaic):
    for i, ((row, col), voxels) in enumerate(mosaic.tiles.items()):
        path = tmp_path / f"t{row + 1}-{col + 1}"
        if i % 2:
            tifffile.imwrite(path, voxels, photometric="minisblack")
        else:
            path.mkdir()
            for z, plane in enumerate(voxels):
                tifffile.imwrite(path / f"{z}.tif", plane)
    mosaic.check(_open(tmp_path, mosaic, "t{row}-{col}", overlap_percent=(25, 25)).tile_sets[0])


def test_channels_inside_stacks(tmp_path, mosaic):
    for (row, col), voxels in mosaic.tiles.items():
        both = np.stack([voxels, voxels[::-1]])
        tifffile.imwrite(tmp_path / f"{row}_{col}.ome.tif", both, metadata={"axes": "CZYX"})
    found = _open(tmp_path, mosaic, "{row}_{col}.ome.tif", overlap_percent=(25, 25))
    assert found.channels == ("0", "1")
    mosaic.check(found.tile_sets[0])
    volume = found.tile_sets[1].volumes[4]
    np.testing.assert_array_equal(volume.read(whole(volume)), mosaic.tiles[1, 1][::-1])


@pytest.mark.parametrize("starts", [(0, 2), (0, 3)])
def test_blocks_of_planes_are_joined(tmp_path, mosaic, starts):
    for (row, col), voxels in mosaic.tiles.items():
        for start, block in zip(starts, np.split(voxels, starts[1:]), strict=True):
            path = tmp_path / f"{row}_{col}_z{start}.tif"
            tifffile.imwrite(path, block, photometric="minisblack", metadata=None)
    options = {"overlap_percent": (25, 25)}
    found = _open(tmp_path, mosaic, "{row}_{col}_z{z}.tif", **options)
    mosaic.check(found.tile_sets[0])
    assert found.tile_sets[0].file_count == 12
    volume = found.tile_sets[0].volumes[4]
    box = Box((1, 2, 3), (4, 9, 15))
    np.testing.assert_array_equal(volume.read(box), mosaic.tiles[1, 1][box.slices])
    before = found.tile_sets[0].fingerprint()
    other = tmp_path / "0_0_z0.tif"
    tifffile.imwrite(other, voxels[:2, :9], photometric="minisblack", metadata=None)
    with pytest.raises(UserError, match="20×16 uint16 where the first block is 9×16"):
        _open(tmp_path, mosaic, "{row}_{col}_z{z}.tif", **options)
    assert found.tile_sets[0].fingerprint() != before


def test_a_block_that_is_missing(tmp_path, mosaic):
    for start in (0, 2, 6):
        path = tmp_path / f"0_0_z{start}.tif"
        tifffile.imwrite(path, mosaic.tiles[0, 0][:2], photometric="minisblack", metadata=None)
    with pytest.raises(UserError, match="does not follow") as error:
        _open(tmp_path, mosaic, "{row}_{col}_z{z}.tif", overlap_percent=(25, 25))
    assert error.value.where.endswith("z6.tif")


@pytest.mark.parametrize("order", ["raster-rows", "raster-columns", "snake-rows", "snake-columns"])
def test_numbered_tiles_on_a_grid(tmp_path, mosaic, order):
    cells = grid_cells(mosaic.grid, order=order)
    for tile, cell in enumerate(cells, start=8):
        stack = tmp_path / f"scan{tile}.tif"
        tifffile.imwrite(stack, mosaic.tiles[cell], photometric="minisblack")
    options = {"grid": mosaic.grid, "order": order, "overlap_percent": mosaic.overlap_percent}
    by_pattern = _open(tmp_path, mosaic, "scan{tile}.tif", **options).tile_sets[0]
    mosaic.check(by_pattern, cells)
    by_order = open_acquisition(
        tmp_path, format="tiff_grid", spacing_um=mosaic.spacing_um, **options
    ).tile_sets[0]
    mosaic.check(by_order, cells)
    assert by_order.names[2] == "scan10.tif"


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("raster-rows", [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
        ("snake-rows", [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]),
        ("raster-columns", [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]),
        ("snake-columns", [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2)]),
    ],
)
def test_orders(order, expected):
    assert grid_cells((2, 3), order=order) == expected


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (("y", "x"), [(0, 0, 0), (0, 5, 7)]),
        (("y", "-x"), [(0, 0, 0), (0, 5, -7)]),
        (("x", "y"), [(0, 0, 0), (0, 7, 5)]),
        (("-x", "y"), [(0, 0, 0), (0, -7, 5)]),
    ],
)
def test_stage_axes(tmp_path, axes, expected):
    for y, x in ((0, 0), (5, 7)):
        tifffile.imwrite(tmp_path / f"{y}_{x}.tif", np.zeros((9, 9), "u2"))
    found = open_acquisition(
        tmp_path,
        format="tiff_pattern",
        pattern="{y_um}_{x_um}.tif",
        spacing_um=(1, 1, 1),
        stage_axes=axes,
    )
    assert list(found.tile_sets[0].positions_um) == expected


def test_missing_planes_are_refused_or_read_as_zeros(tmp_path, mosaic):
    skip = {(0, 1, 2), (1, 2, 0), (1, 2, 3)}
    folder = _write(tmp_path, mosaic, "{row}_{col}/p{z}.tif", skip=skip)
    options = {"overlap_percent": (25, 25)}
    with pytest.raises(UserError, match="plane 2 is missing") as error:
        _open(folder, mosaic, "{row}_{col}/p{z}.tif", **options)
    assert error.value.where == str(folder / "0_1")
    tiles = _open(
        folder, mosaic, "{row}_{col}/p{z}.tif", allow_missing_planes=True, **options
    ).tile_sets[0]
    assert tiles.missing == {"0_1": (2,), "1_2": (0, 3)}
    mosaic.check(tiles, missing={(0, 1): (2,), (1, 2): (0, 3)})


def test_rounded_numbers_count_planes(tmp_path):
    for tile in range(2):
        for z in range(9):
            # Planes 1.33 µm apart, named in tenths of a micrometre.
            if (tile, z) != (1, 4):
                path = tmp_path / f"{tile}_0_{round(13.3 * z)}.tif"
                tifffile.imwrite(path, np.full((8, 8), z, "u1"))
    found = open_acquisition(
        tmp_path,
        format="tiff_pattern",
        pattern="{row}_{col}_{z}.tif",
        spacing_um=(1.33, 1, 1),
        overlap_percent=(10, 10),
        allow_missing_planes=True,
    ).tile_sets[0]
    assert found.missing == {"1_0": (4,)}
    values = [found.volumes[1].read(whole(found.volumes[1]))[z, 0, 0] for z in range(9)]
    assert values == [0, 1, 2, 3, 0, 5, 6, 7, 8]


def _faulty(folder, mosaic, fault):
    name = "{row}_{col}/{z}.tif"
    _write(folder, mosaic, name, channels=("",))
    if fault == "uneven":
        (folder / "0_0/3.tif").rename(folder / "0_0/17.tif")
        (folder / "0_0/0.tif").rename(folder / "0_0/10.tif")
    elif fault == "twice":
        tifffile.imwrite(folder / "0_0/01.tif", mosaic.tiles[0, 0][0])
    elif fault == "type":
        for z in range(4):
            tifffile.imwrite(folder / f"1_2/{z}.tif", mosaic.tiles[1, 2][z].astype("u1"))
    elif fault == "shape":
        for z in range(4):
            tifffile.imwrite(folder / f"1_2/{z}.tif", mosaic.tiles[1, 2][z, :9])
    elif fault == "empty folder":
        for file in (folder / "1_1").iterdir():
            file.unlink()
    return folder


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("uneven", "plane 0 and 13 more is missing"),
        ("twice", "same plane number as 0?1.tif"),
        ("type", "is uint8 where tile 0_0 is uint16"),
        ("shape", "lie on no regular grid"),
        ("empty folder", "1_1.*holds no plane"),
    ],
)
def test_faults_are_named(tmp_path, mosaic, fault, message):
    _faulty(tmp_path, mosaic, fault)
    with pytest.raises(UserError, match=message) as error:
        _open(tmp_path, mosaic, "{row}_{col}/{z}.tif", overlap_percent=(25, 25))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("{row}_{col}/{z}.tif", {}, "needs overlap_percent"),
        ("{tile}/{z}.tif", {"overlap_percent": (9, 9)}, "needs grid"),
        ("{y_um}_{x_um}/{z}.tif", {"overlap_percent": (9, 9)}, "overlap_percent does nothing"),
        ("{row}_{col}/{z}.tif", {"overlap_percent": (9, 9), "grid": (2, 3)}, "grid does nothing"),
        (None, {}, "needs a pattern"),
    ],
)
def test_options_that_are_missing_or_idle(tmp_path, mosaic, pattern, options, message):
    with pytest.raises(UserError, match=message):
        _open(tmp_path, mosaic, pattern, **options)


def test_a_channel_that_one_tile_lacks(tmp_path, mosaic):
    _write(tmp_path, mosaic, "{channel}/{row}_{col}_{z}.tif", channels=("a", "b"))
    for z in range(4):
        (tmp_path / f"b/1_1_{z}.tif").unlink()
    with pytest.raises(UserError, match="channel b is not there for every tile, such as 1_1"):
        _open(tmp_path, mosaic, "{channel}/{row}_{col}_{z}.tif", overlap_percent=(25, 25))


def _grid(folder, mosaic, **options):
    given = {"grid": (2, 3), "order": "snake-rows", "overlap_percent": (25, 25)} | options
    return open_acquisition(folder, format="tiff_grid", spacing_um=mosaic.spacing_um, **given)


def test_a_grid_of_folders_picked_by_a_pattern(tmp_path, mosaic):
    cells = grid_cells((2, 3), order="snake-rows")
    for i, cell in enumerate(cells):
        (tmp_path / f"pos{i}").mkdir()
        for z, plane in enumerate(mosaic.tiles[cell]):
            tifffile.imwrite(tmp_path / f"pos{i}/{z}.tif", plane)
    (tmp_path / "overview").mkdir()
    with pytest.raises(UserError, match="7 tiles where a grid of 2x3 has 6"):
        _grid(tmp_path, mosaic)
    mosaic.check(_grid(tmp_path, mosaic, pattern="pos*").tile_sets[0], cells)


def test_grids_that_do_not_fit(tmp_path, mosaic):
    with pytest.raises(UserError, match="needs grid, order and overlap_percent"):
        _grid(tmp_path, mosaic, order=None)
    tifffile.imwrite(tmp_path / "a.tif", mosaic.tiles[0, 0], photometric="minisblack")
    with pytest.raises(UserError, match="holds 1 tiles"):
        _grid(tmp_path, mosaic)
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="beside folders"):
        _grid(tmp_path, mosaic)


def test_gaps_in_tile_numbers(tmp_path, mosaic):
    for tile in (1, 2, 3, 5, 6, 7):
        tifffile.imwrite(tmp_path / f"{tile}.tif", mosaic.tiles[0, 0], photometric="minisblack")
    with pytest.raises(UserError, match="gaps or repetitions"):
        _open(
            tmp_path, mosaic, "{tile}.tif", grid=(2, 3), order="snake-rows", overlap_percent=(9, 9)
        )


@pytest.mark.parametrize("format", ["tiff_planes", "tiff_stack", "tiff_tiles"])
def test_plain_layouts_are_acquisitions_too(tmp_path, mosaic, format):
    voxels = mosaic.tiles[0, 0]
    path = tmp_path / "a"
    if format == "tiff_planes":
        path.mkdir()
        for z, plane in enumerate(voxels):
            tifffile.imwrite(path / f"{z}.tif", plane)
    elif format == "tiff_stack":
        tifffile.imwrite(path, np.stack([voxels, voxels], 1), imagej=True)
    else:
        path.mkdir()
        tifffile.imwrite(path / "s.tif", voxels, photometric="minisblack")
        (path / "tiles.tsv").write_text("file\tz_um\ty_um\tx_um\ns.tif\t0\t0\t0\n")
    found = open_acquisition(path, format=format, spacing_um=mosaic.spacing_um)
    assert len(found.channels) == (2 if format == "tiff_stack" else 1)
    volume = found.tile_sets[-1].volumes[0]
    np.testing.assert_array_equal(volume.read(whole(volume)), voxels)
    with pytest.raises(UserError, match="does nothing with grid"):
        open_acquisition(path, format=format, spacing_um=mosaic.spacing_um, grid=(1, 1))
    with pytest.raises(UserError, match=r"is a (file|folder), not|does not exist"):
        open_acquisition(
            path if format != "tiff_tiles" else tmp_path / "none",
            format="tiff_stack" if format == "tiff_planes" else "tiff_planes",
            spacing_um=mosaic.spacing_um,
        )


def test_gaps_in_a_folder_of_planes(tmp_path, mosaic):
    for z in (0, 1, 3):
        tifffile.imwrite(tmp_path / f"{z * 5:04d}.tif", mosaic.tiles[0, 0][z])
    options = {"format": "tiff_planes", "spacing_um": mosaic.spacing_um}
    with pytest.raises(UserError, match="plane 10 is missing"):
        open_acquisition(tmp_path, **options)
    tiles = open_acquisition(tmp_path, **options, allow_missing_planes=True).tile_sets[0]
    assert tiles.missing == {tmp_path.name: (2,)}
    mosaic.check(tiles, [(0, 0)], missing={(0, 0): (2,)})


def test_fingerprint_tells_a_missing_plane_and_a_changed_file(tmp_path, mosaic):
    folder = _write(tmp_path, mosaic, "{row}_{col}/{z}.tif", skip={(0, 0, 3)})

    def identity():
        return (
            _open(
                folder,
                mosaic,
                "{row}_{col}/{z}.tif",
                overlap_percent=(25, 25),
                allow_missing_planes=True,
            )
            .tile_sets[0]
            .fingerprint()
        )

    before = identity()
    assert identity() == before
    tifffile.imwrite(folder / "0_0/3.tif", mosaic.tiles[0, 0][3])
    assert identity() != before


def test_opening_looks_at_one_header_a_tile_and_at_no_pixel(tmp_path, mosaic, monkeypatch):
    folder = _write(tmp_path, mosaic, "{row}_{col}/{z}.tif")
    opened = []
    open_file = tifffile.TiffFile.__init__

    def count(self, file, *args, **kwargs):
        opened.append(str(file))
        open_file(self, file, *args, **kwargs)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", count)
    monkeypatch.setattr("vasculome.readers.tiff_volume.read_page", None)
    found = _open(folder, mosaic, "{row}_{col}/{z}.tif", overlap_percent=(25, 25))
    assert {file.rpartition("/")[2] for file in opened} == {"0.tif"}
    assert len(set(opened)) == 6
    assert found.tile_sets[0].fingerprint()


def test_thousands_of_names_are_listed_in_a_moment(tmp_path):
    source = tmp_path / "plane.tif"
    tifffile.imwrite(source, np.zeros((8, 8), "u2"))
    for tile in range(6):
        folder = tmp_path / f"0/0_{50 * tile}"
        folder.mkdir(parents=True)
        for z in range(1000):
            (folder / f"0_{50 * tile}_{20 * z:06d}.tif").hardlink_to(source)
    start = time.perf_counter()
    found = open_acquisition(tmp_path, format="terastitcher", spacing_um=(2, 1, 1))
    assert time.perf_counter() - start < 3
    assert found.tile_sets[0].file_count == 6000
    # Workers get the whole list: bytes, not a Path for each file.
    assert len(pickle.dumps(found)) < 6000 * 30
