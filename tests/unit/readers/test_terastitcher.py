"""TeraStitcher's folders and projects, written as its documentation and its own files show."""

import pytest
import tifffile

from vasculome.errors import UserError
from vasculome.readers.acquisition import open_acquisition

START = 7200  # tenths of a micrometre


def _folder_name(mosaic, cell):
    _, y_um, x_um = mosaic.positions_um[cell]
    y, x = (f"{START + round(10 * um):06d}" for um in (y_um, x_um))
    return f"{y}/{y}_{x}"


def _write_folders(root, mosaic, *, step=20, prefix=True, skip=()):
    for cell, voxels in mosaic.tiles.items():
        folder = root / _folder_name(mosaic, cell)
        folder.mkdir(parents=True)
        for z, plane in enumerate(voxels):
            if (*cell, z) not in skip:
                head = f"{folder.name}_" if prefix else ""
                tifffile.imwrite(folder / f"{head}{step * z:06d}.tif", plane)
    return root


def _open(path, mosaic, **options):
    return open_acquisition(
        path, format="terastitcher", **{"spacing_um": mosaic.spacing_um} | options
    ).tile_sets[0]


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("step", [20, 1])
def test_two_level_folders(tmp_path, mosaic, step, prefix):
    _write_folders(tmp_path, mosaic, step=step, prefix=prefix)
    (tmp_path / "mdata.bin").write_bytes(b"")
    tiles = _open(tmp_path, mosaic)
    mosaic.check(tiles, offset_um=(0, START / 10, START / 10))
    assert tiles.names[0] == "007200_007200"


def test_missing_planes_of_folders(tmp_path, mosaic):
    _write_folders(tmp_path, mosaic, skip={(0, 2, 1), (1, 0, 3)})
    with pytest.raises(UserError, match="plane 20 is missing beside 007200_007320_000000"):
        _open(tmp_path, mosaic)
    tiles = _open(tmp_path, mosaic, allow_missing_planes=True)
    assert list(tiles.missing.values()) == [(1,), (3,)]
    offset_um = (0, START / 10, START / 10)
    mosaic.check(tiles, offset_um=offset_um, missing={(0, 2): (1,), (1, 0): (3,)})


def test_an_empty_tile_is_named_or_left_out(tmp_path, mosaic):
    _write_folders(tmp_path, mosaic)
    empty = tmp_path / _folder_name(mosaic, (1, 1))
    for file in empty.iterdir():
        file.unlink()
    with pytest.raises(UserError, match="holds no plane") as error:
        _open(tmp_path, mosaic)
    assert error.value.where.rstrip("/") == str(empty)
    assert len(_open(tmp_path, mosaic, allow_missing_planes=True).names) == 5


def test_planes_at_another_distance(tmp_path, mosaic):
    _write_folders(tmp_path, mosaic, step=50)
    with pytest.raises(UserError, match="5 µm apart where spacing_um says 2"):
        _open(tmp_path, mosaic)


def test_no_folders(tmp_path, mosaic):
    with pytest.raises(UserError, match=r"fits the pattern Y/Y_X/Y_X_Z.tif"):
        _open(tmp_path, mosaic)
    with pytest.raises(UserError, match="does not exist"):
        _open(tmp_path / "none.xml", mosaic)


def _stack(mosaic, cell, *, ranges="[0,4)", regex="", directory=None, extra=""):
    row, col = cell
    directory = _folder_name(mosaic, cell) if directory is None else directory
    _, y_um, x_um = mosaic.positions_um[cell]
    return (
        f'<Stack N_CHANS="1" N_BYTESxCHAN="2" ROW="{row}" COL="{col}" ABS_V="{y_um / 0.5:g}" '
        f'ABS_H="{x_um / 0.5:g}" ABS_D="0" STITCHABLE="no" DIR_NAME="{directory}" {extra} '
        f'Z_RANGES="{ranges}" IMG_REGEX="{regex}"><NORTH_displacements /><EAST_displacements />'
        "<SOUTH_displacements /><WEST_displacements /></Stack>"
    )


def _write_project(root, stacks, *, stacks_dir=None, kind="TiledXY|2Dseries", voxel="0.5", count=4):
    path = root / "xml_import.xml"
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8" ?>\n'
        '<!DOCTYPE TeraStitcher SYSTEM "TeraStitcher.DTD">\n'
        f'<TeraStitcher volume_format="{kind}" input_plugin="tiff2D">\n'
        f'<stacks_dir value="{root if stacks_dir is None else stacks_dir}" />\n'
        '<ref_sys ref1="1" ref2="-2" ref3="3" />\n'
        f'<voxel_dims V="{voxel}" H="-0.5" D="2" />\n'
        '<origin V="7.2" H="15.8" D="0" />\n'
        '<mechanical_displacements V="7.5" H="-6" />\n'
        f'<dimensions stack_rows="2" stack_columns="3" stack_slices="{count}" />\n'
        f"<STACKS>{''.join(stacks)}</STACKS>\n</TeraStitcher>\n"
    )
    return path


@pytest.mark.parametrize("stacks_dir", [None, "C:\\elsewhere\\stacks"])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_project(tmp_path, mosaic, slash, stacks_dir):
    _write_folders(tmp_path, mosaic)
    stacks = [
        _stack(
            mosaic,
            cell,
            directory=_folder_name(mosaic, cell).replace("/", slash),
            regex="[0-9]+_[0-9]+_[0-9]+.tif",
        )
        for cell in mosaic.tiles
    ]
    tiles = _open(_write_project(tmp_path, stacks, stacks_dir=stacks_dir), mosaic)
    mosaic.check(tiles)
    assert tiles.names[1] == "007200/007200_007260"


def test_project_with_stacks_in_a_folder_beside_it(tmp_path, mosaic):
    _write_folders(tmp_path / "data", mosaic)
    stacks = [_stack(mosaic, cell) for cell in mosaic.tiles]
    mosaic.check(_open(_write_project(tmp_path, stacks, stacks_dir="data"), mosaic))


def test_missing_planes_of_a_project(tmp_path, mosaic):
    # One tile is declared sparse, one lost its first plane, one is declared empty.
    skip = {(0, 1, 1), (0, 1, 2), (1, 2, 0)}
    _write_folders(tmp_path, mosaic, skip=skip)
    stacks = [
        _stack(mosaic, cell, ranges={(0, 1): "[0,1);[3,4)", (1, 1): ""}.get(cell, "[0,4)"))
        for cell in mosaic.tiles
    ]
    path = _write_project(tmp_path, stacks)
    with pytest.raises(UserError, match="plane 1 and 1 more is missing") as error:
        _open(path, mosaic)
    assert error.value.where == str(tmp_path / _folder_name(mosaic, (0, 1)))
    tiles = _open(path, mosaic, allow_missing_planes=True)
    assert list(tiles.missing.values()) == [(1, 2), (0,)]
    cells = [cell for cell in mosaic.tiles if cell != (1, 1)]
    mosaic.check(tiles, cells, missing={(0, 1): (1, 2), (1, 2): (0,)})


def test_project_of_blocks(tmp_path, mosaic):
    stacks = []
    for cell, voxels in mosaic.tiles.items():
        row, col = cell
        for i, block in enumerate((voxels[:2], voxels[2:])):
            path = tmp_path / f"t{row}{col}_b{i}.tif"
            tifffile.imwrite(path, block, photometric="minisblack")
        extra = 'N_BLOCKS="2" BLOCK_SIZES="2,2" BLOCKS_ABS_D="0,2"'
        stacks.append(_stack(mosaic, cell, directory="", regex=f"t{row}{col}", extra=extra))
    path = _write_project(tmp_path, stacks, kind="TiledXY|3Dseries")
    tiles = _open(path, mosaic)
    mosaic.check(tiles)
    assert tiles.names[5] == "1_2"
    (tmp_path / "t12_b1.tif").unlink()
    with pytest.raises(UserError, match="2 planes in 1 files where the project says 4"):
        _open(path, mosaic)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('V="0.5"', 'V="0.8"'), "0.8 µm apart along y"),
        (lambda text: text.replace("TiledXY|2Dseries", "Vaa3D"), "volume_format Vaa3D"),
        (lambda text: text.replace("TeraStitcher volume", "Else volume"), "not well-formed"),
        (lambda text: text.replace("[0,4)", "[0,5)"), "no rising ranges"),
        (lambda text: text.replace("[0,4)", "[0,3)"), "holds 4 planes where the project says 3"),
        (lambda text: text.replace("007200/", "999999/"), "which is not in"),
        (lambda text: text.replace('IMG_REGEX=""', 'IMG_REGEX="["'), "bad IMG_REGEX"),
        (lambda text: text.replace('IMG_REGEX=""', 'IMG_REGEX="q"'), "no TIFF files that match"),
        (lambda text: text.replace('ABS_V="0"', 'ABS_V="top"'), "ABS_V as 'top'"),
        (lambda text: text.replace("voxel_dims", "voxels"), "no element voxel_dims"),
        (lambda text: text.replace('"[0,4)"', '""'), "lists no stacks"),
        (lambda text: text.replace('DTD">', 'DTD" [<!ENTITY a "b">]>'), "declares entities"),
        (lambda text: text[:300], "not well-formed"),
    ],
)
def test_bad_projects_end_in_one_line(tmp_path, mosaic, change, message):
    _write_folders(tmp_path, mosaic)
    path = _write_project(tmp_path, [_stack(mosaic, cell) for cell in mosaic.tiles])
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message) as error:
        _open(path, mosaic)
    assert "\n" not in str(error.value)


def test_files_that_no_whole_stack_explains(tmp_path, mosaic):
    _write_folders(tmp_path, mosaic, skip={(*cell, 2) for cell in mosaic.tiles})
    path = _write_project(tmp_path, [_stack(mosaic, cell) for cell in mosaic.tiles])
    with pytest.raises(UserError, match="no stack is whole"):
        _open(path, mosaic, allow_missing_planes=True)
