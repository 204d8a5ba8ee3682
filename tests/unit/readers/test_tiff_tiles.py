import numpy as np
import pytest
import tifffile

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.acquisition import open_acquisition


def _open(path, *, format="tiff_tiles", channel=None, pattern=None):
    opened = open_acquisition(path, format=format, spacing_um=(1, 1, 1), pattern=pattern)
    return opened.tiles(channel, where=path)


def _tile(seed, dtype="uint16", shape=(3, 8, 9)):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def _write_tiles(folder, *, dtypes=("uint16", "uint16"), table=None):
    """Write one tile as stack, one as folder of planes."""
    tifffile.imwrite(folder / "a.tif", _tile(0, dtypes[0]), photometric="minisblack")
    (folder / "b").mkdir()
    for z, plane in enumerate(_tile(1, dtypes[1])):
        tifffile.imwrite(folder / "b" / f"p{z}.tif", plane)
    if table is None:
        table = "file\tz_um\ty_um\tx_um\nb\t0\t-1.5\t10\na.tif\t0\t0\t1e2\n"
    (folder / "tiles.tsv").write_text(table)
    return folder


def test_tiles_are_stacks_or_folders_at_their_positions(tmp_path, handed_over):
    tiles = _open(_write_tiles(tmp_path))
    assert tiles.names == ("b", "a.tif")
    assert tiles.positions_um == ((0.0, -1.5, 10.0), (0.0, 0.0, 100.0))
    assert tiles.dtype == np.uint16
    assert tiles.file_count == 4
    for volume, seed in zip(tiles.volumes, (1, 0), strict=True):
        np.testing.assert_array_equal(volume.read(Box.of_shape(volume.shape)), _tile(seed))
    assert handed_over(tiles) == tiles


def test_fingerprint_of_tiles_follows_positions(tmp_path):
    before = _open(_write_tiles(tmp_path)).fingerprint()
    table = tmp_path / "tiles.tsv"
    assert _open(tmp_path).fingerprint() == before
    table.write_text(table.read_text().replace("-1.5", "-1.6"))
    assert _open(tmp_path).fingerprint() != before


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file\tz_um\ty_um\nb\t0\t0\n", "lacks x_um"),
        ("file,z_um,y_um,x_um\nb,0,0,0\n", "lacks file"),
        ("file\tz_um\ty_um\tx_um\n", "no rows"),
        ("", "no rows"),
        ("file\tz_um\ty_um\tx_um\nb\t0\tfar\t0\n", "line 2, column y_um: 'far'"),
        ("file\tz_um\ty_um\tx_um\nb\t0\tnan\t0\n", "column y_um"),
        ("file\tz_um\ty_um\tx_um\nb\t0\t0\n", "column x_um"),
        ("file\tz_um\ty_um\tx_um\n\t0\t0\t0\n", "line 2 names no file"),
        ("file\tz_um\ty_um\tx_um\nb\t0\t0\t0\nb\t0\t0\t9\n", "tile b twice"),
        ("file\tz_um\ty_um\tx_um\nb\t0\t0\t0\n./b\t0\t0\t9\n", "twice"),
        ("file\tz_um\ty_um\tx_um\nc.tif\t0\t0\t0\n", "c.tif, which does not exist"),
    ],
)
def test_bad_tables(tmp_path, table, message):
    _write_tiles(tmp_path, table=table)
    with pytest.raises(UserError, match=message) as error:
        _open(tmp_path)
    assert error.value.where == str(tmp_path / "tiles.tsv")


def test_no_table(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        _open(tmp_path)


def test_table_that_is_no_text(tmp_path):
    _write_tiles(tmp_path)
    (tmp_path / "tiles.tsv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="not a text file"):
        _open(tmp_path)


def test_byte_order_mark_of_a_spreadsheet_is_accepted(tmp_path):
    _write_tiles(tmp_path)
    table = tmp_path / "tiles.tsv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    assert _open(tmp_path).names == ("b", "a.tif")


def test_mixed_pixel_types(tmp_path):
    _write_tiles(tmp_path, dtypes=("uint16", "uint8"))
    with pytest.raises(UserError, match="uint16 where tile b is uint8") as error:
        _open(tmp_path)
    assert error.value.where == str(tmp_path / "a.tif")


@pytest.mark.parametrize("format", ["tiff_planes", "tiff_stack", "tiff_tiles"])
def test_nothing_there(tmp_path, format):
    with pytest.raises(UserError, match="does not exist"):
        _open(tmp_path / "none", format=format)


def test_channel_is_chosen_for_all_tiles(tmp_path):
    voxels = _tile(3, shape=(2, 4, 8, 9))
    tifffile.imwrite(tmp_path / "a.ome.tif", voxels, metadata={"axes": "CZYX"})
    (tmp_path / "tiles.tsv").write_text("file\tz_um\ty_um\tx_um\na.ome.tif\t0\t0\t0\n")
    with pytest.raises(UserError, match="2 channels"):
        _open(tmp_path)
    tiles = _open(tmp_path, channel=1)
    np.testing.assert_array_equal(tiles.volumes[0].read(Box.of_shape((4, 8, 9))), voxels[1])


def test_options_that_would_do_nothing_are_refused(tmp_path):
    _write_tiles(tmp_path)
    with pytest.raises(UserError, match="no channel 1"):
        _open(tmp_path / "b", format="tiff_planes", channel=1)
    with pytest.raises(UserError, match="does nothing with pattern"):
        _open(tmp_path / "a.tif", format="tiff_stack", pattern="*.tif")
