import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.errors import UserError
from vasculome.readers.files import fingerprint, list_files, natural_key
from vasculome.readers.numbering import check_numbering


def _touch(folder, names):
    for name in names:
        (folder / name).write_bytes(b"x")
    return [folder / name for name in names]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1), st.randoms())
def test_natural_order_is_the_order_of_the_numbers(numbers, random):
    names = [f"ch1_z{n}_488nm.tif" for n in numbers]
    random.shuffle(names)
    expected = [f"ch1_z{n}_488nm.tif" for n in sorted(numbers)]
    assert sorted(names, key=natural_key) == expected


def test_list_files_passes_over_hidden_and_other_files(tmp_path):
    _touch(tmp_path, ["p10.TIF", "p9.tif", "._p9.tif", ".DS_Store", "notes.txt", "q1.tif"])
    found = list_files(tmp_path, suffixes=(".tif",), pattern="p*")
    assert [f.name for f in found] == ["p9.tif", "p10.TIF"]


@pytest.mark.parametrize("pattern", [None, "nothing*.tif"])
def test_folder_without_matching_files(tmp_path, pattern):
    _touch(tmp_path, ["notes.txt"])
    with pytest.raises(UserError, match="holds no files"):
        list_files(tmp_path, suffixes=(".tif",), pattern=pattern)


def test_missing_folder_and_file_for_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list_files(tmp_path / "none", suffixes=(".tif",), pattern=None)
    (file,) = _touch(tmp_path, ["a.tif"])
    with pytest.raises(UserError, match="is a file"):
        list_files(file, suffixes=(".tif",), pattern=None)


@settings(max_examples=30)
@given(st.integers(3, 40), st.integers(0, 500), st.sampled_from([1, 5, 20]), st.data())
def test_the_missing_file_is_named(tmp_path_factory, n, first, step, data):
    folder = tmp_path_factory.getbasetemp()
    gone = data.draw(st.integers(1, n - 2)) if n > 3 else 1
    files = [folder / f"b2_{first + step * i:05d}.tif" for i in range(n)]
    assert check_numbering(files[::-1], what="plane") == tuple(files)
    if n > 3:
        with pytest.raises(UserError) as error:
            check_numbering([f for f in files if f != files[gone]], what="plane")
        assert error.value.where == str(files[gone])


def test_counter_is_told_from_clock_and_constant(tmp_path):
    clocks = [900, 1130, 1244, 1500]
    names = [f"s3_t{c}_z{z:03d}_488.tif" for z, c in enumerate(clocks)]
    assert check_numbering([tmp_path / n for n in names], what="plane")[2].name == names[2]
    del names[1]
    with pytest.raises(UserError, match="plane 1 is missing"):
        check_numbering([tmp_path / n for n in names], what="plane")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a_0.tif", "a_1.tif", "b_0.tif"], "follow 2 patterns"),
        (["z0_c0.tif", "z0_c1.tif", "z1_c0.tif", "z1_c1.tif"], "no number"),
        (["p1.tif", "p01.tif"], "no number"),
        (["one.tif", "two.tif"], "follow 2 patterns"),
    ],
)
def test_several_series_in_one_folder(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        check_numbering([tmp_path / n for n in names], what="plane")


def test_fingerprint_follows_names_sizes_times_and_detail(tmp_path):
    files = _touch(tmp_path, ["p1.tif", "p2.tif"])
    before = fingerprint(files)
    assert fingerprint(files) == before
    assert fingerprint(files, detail="channel 1") != before
    assert fingerprint(files[:1]) != before
    os.utime(files[1], ns=(1, 1))
    touched = fingerprint(files)
    assert touched != before
    files[0].write_bytes(b"xy")
    assert fingerprint(files) != touched


def test_fingerprint_of_a_folder_sees_what_is_inside(tmp_path):
    store = tmp_path / "iq.zarr"
    (store / "c").mkdir(parents=True)
    _touch(store / "c", ["0"])
    before = fingerprint([store])
    _touch(store / "c", ["1"])
    assert fingerprint([store]) != before


def test_fingerprint_survives_a_move_of_the_folder(tmp_path):
    (tmp_path / "a").mkdir()
    _touch(tmp_path / "a", ["p1.tif"])
    before = fingerprint([tmp_path / "a" / "p1.tif"])
    (tmp_path / "a").rename(tmp_path / "b")
    assert fingerprint([tmp_path / "b" / "p1.tif"]) == before


def test_fingerprint_of_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        fingerprint([tmp_path / "gone.tif"])
