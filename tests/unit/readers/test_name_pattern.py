"""Patterns of names: what they match, and that nothing else does."""

import pytest

from vasculome.errors import UserError
from vasculome.readers.name_pattern import find_series, parse_pattern


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def _found(folder, text):
    files = find_series(folder, parse_pattern(text))
    return {
        place: {channel: sorted(zip(s.numbers, s.paths, strict=True)) for channel, s in of.items()}
        for place, of in files.tiles.items()
    }


def test_fields_in_folders_and_names(tmp_path):
    _touch(
        tmp_path,
        "tile_0_10/plane_3.tif",
        "tile_0_10/plane_12.tif",
        "tile_0_10/plane_x.tif",
        "tile_0_10/.plane_4.tif",
        "tile_01_2/plane_1.tif",
        "tile_01_2/notes.txt",
        "overview/plane_1.tif",
    )
    assert _found(tmp_path, "tile_{row}_{col}/plane_{z}.tif") == {
        ("0", "10"): {"": [(3, "tile_0_10/plane_3.tif"), (12, "tile_0_10/plane_12.tif")]},
        ("01", "2"): {"": [(1, "tile_01_2/plane_1.tif")]},
    }


def test_a_field_that_stands_twice_has_one_text(tmp_path):
    _touch(tmp_path, "100/100_-2.5/1.tif", "100/200_7/1.tif", "200/200_7/200_1.tif")
    assert _found(tmp_path, "{y_um}/{y_um}_{x_um}/{z}.tif") == {
        ("100", "-2.5"): {"": [(1, "100/100_-2.5/1.tif")]}
    }


def test_channels_and_free_text(tmp_path):
    _touch(tmp_path, "a[00 x 01]_C488_t Z0007.tif", "b[00 x 01]_C561_t Z0007.tif")
    found = _found(tmp_path, "*[{row} x {col}]_C{channel}_* Z{z}.tif")
    assert set(found[("00", "01")]) == {"488", "561"}


def test_planes_in_folders_of_their_own(tmp_path):
    _touch(tmp_path, "z1/t0.tif", "z2/t0.tif", "z2/t1.tif", "z1/t1.tif")
    found = _found(tmp_path, "z{z}/t{tile}.tif")
    assert found[("0",)][""] == [(1, "z1/t0.tif"), (2, "z2/t0.tif")]


def test_special_characters_stand_for_themselves(tmp_path):
    _touch(tmp_path, "t(1).tif", "t11.tif", "t(2)xtif")
    assert list(find_series(tmp_path, parse_pattern("t({tile}).tif")).tiles) == [("1",)]


def test_a_folder_of_a_tile_without_planes_is_told(tmp_path):
    _touch(tmp_path, "0/1.tif", "1/notes.txt")
    found = find_series(tmp_path, parse_pattern("{tile}/{z}.tif"))
    assert found.empty == ["1/"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{row}_{column}.tif", "unknown field {column}"),
        ("{}.tif", "unknown field {}"),
        ("plane_{z}.tif", "where the tiles lie"),
        ("{row}/{z}.tif", "where the tiles lie"),
        ("{tile}_{row}_{col}.tif", "says it twice"),
        ("{y_um}_{x_tenth_um}.tif", "says it twice"),
    ],
)
def test_bad_patterns(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse_pattern(text)
    assert "\n" not in str(error.value)


def test_nothing_fits_and_an_example_helps(tmp_path):
    _touch(tmp_path, "raw/t_0.tif")
    with pytest.raises(UserError, match=r"nothing that fits .* holds raw/t_0.tif"):
        find_series(tmp_path, parse_pattern("{row}_{col}.tif"))
    with pytest.raises(UserError, match="does not exist"):
        find_series(tmp_path / "none", parse_pattern("{row}_{col}.tif"))
