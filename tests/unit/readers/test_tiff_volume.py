"""Volumes are written by tifffile, an independent writer, and compared voxel by voxel."""

import pickle

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.acquisition import open_acquisition
from vasculome.readers.tiff_volume import open_planes, open_stack

SHAPE = (5, 37, 53)

LAYOUTS = {
    "raw": {},
    "big-endian": {"byteorder": ">"},
    "strips": {"rowsperstrip": 8},
    "tiles": {"tile": (16, 16)},
    "zlib strips": {"compression": "zlib", "rowsperstrip": 5, "predictor": True},
    "lzw big-endian": {"compression": "lzw", "rowsperstrip": 7, "byteorder": ">"},
    "zstd tiles": {"compression": "zstd", "tile": (16, 32)},
    "bigtiff": {"bigtiff": True, "compression": "packbits"},
}


def _voxels(dtype="uint16", shape=SHAPE):
    rng = np.random.default_rng(7)
    if dtype == "float32":
        return rng.normal(size=shape).astype("f4")
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def _write_planes(folder, voxels, **options):
    folder.mkdir(exist_ok=True)
    for z, plane in enumerate(voxels):
        tifffile.imwrite(folder / f"plane_{z:03d}.tif", plane, **options)
    return folder


def _boxes(shape):
    def ordered(n):
        return st.tuples(st.integers(0, n - 1), st.integers(1, n)).map(
            lambda p: (p[0], max(p[0] + 1, p[1]))
        )

    return st.tuples(*map(ordered, shape)).map(
        lambda pairs: Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))
    )


@pytest.fixture(scope="module", params=list(LAYOUTS))
def both_ways(request, tmp_path_factory):
    """Return the same voxels as folder of planes and as stack, and the voxels."""
    folder = tmp_path_factory.mktemp("layout")
    voxels = _voxels()
    options = LAYOUTS[request.param]
    planes = open_planes(_write_planes(folder / "planes", voxels, **options), pattern=None)
    tifffile.imwrite(folder / "stack.tif", voxels, photometric="minisblack", **options)
    return planes, open_stack(folder / "stack.tif", channel=None), voxels


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(box=_boxes(SHAPE))
def test_any_box_equals_the_array_written(both_ways, box):
    planes, stack, voxels = both_ways
    for volume in (planes, stack):
        assert volume.shape == SHAPE
        read = volume.read(box)
        assert read.dtype == np.uint16
        assert read.dtype.isnative
        np.testing.assert_array_equal(read, voxels[box.slices])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pixel_types(tmp_path, dtype, compression):
    voxels = _voxels(dtype)
    tifffile.imwrite(
        tmp_path / "s.tif",
        voxels,
        photometric="minisblack",
        compression=compression,
        predictor=bool(compression),
    )
    volume = open_stack(tmp_path / "s.tif", channel=None)
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume.read(Box.of_shape(SHAPE)), voxels)


@pytest.mark.parametrize("kind", ["ome", "imagej", "plain"])
def test_stack_dialects_and_their_channels(tmp_path, kind):
    voxels = _voxels(shape=(4, 3, 20, 30))  # z, c, y, x
    path = tmp_path / ("s.ome.tif" if kind == "ome" else "s.tif")
    if kind == "plain":
        tifffile.imwrite(path, voxels[:, 1], photometric="minisblack", metadata=None)
        volume = open_stack(path, channel=None)
    else:
        tifffile.imwrite(
            path,
            voxels,
            metadata={"axes": "ZCYX"},
            photometric="minisblack",
            ome=kind == "ome",
            imagej=kind == "imagej",
        )
        with pytest.raises(UserError, match="3 channels"):
            open_stack(path, channel=None)
        with pytest.raises(UserError, match="no channel 3"):
            open_stack(path, channel=3)
        volume = open_stack(path, channel=1)
    np.testing.assert_array_equal(volume.read(Box((1, 2, 3), (4, 9, 30))), voxels[1:, 1, 2:9, 3:])


def test_ome_with_channels_first(tmp_path):
    voxels = _voxels(shape=(2, 4, 20, 30))
    path = tmp_path / "s.ome.tif"
    tifffile.imwrite(path, voxels, metadata={"axes": "CZYX"}, compression="zlib")
    volume = open_stack(path, channel=1)
    np.testing.assert_array_equal(volume.read(Box.of_shape(volume.shape)), voxels[1])


def test_time_points_are_not_depth(tmp_path):
    voxels = _voxels()
    tifffile.imwrite(tmp_path / "t.tif", voxels, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(UserError, match="one z axis"):
        open_stack(tmp_path / "t.tif", channel=None)


def test_a_volume_is_pickled_small_and_reads_the_same(tmp_path, handed_over):
    volume = open_planes(_write_planes(tmp_path / "p", _voxels()), pattern=None)
    volume.read(Box.of_shape(SHAPE))
    assert len(pickle.dumps(volume)) < 4000
    copy = handed_over(volume)
    assert copy == volume
    np.testing.assert_array_equal(copy.read(Box.of_shape(SHAPE)), _voxels())


def test_fingerprint_depends_on_the_channel(tmp_path):
    path = tmp_path / "s.ome.tif"
    tifffile.imwrite(path, _voxels(shape=(2, 4, 20, 30)), metadata={"axes": "CZYX"})
    one, two = (open_stack(path, channel=c).fingerprint() for c in (0, 1))
    assert one != two


@pytest.mark.parametrize("box", [Box((0, 0, 0), (6, 1, 1)), Box((0, 0, 0), (0, 1, 1))])
def test_a_box_beyond_the_volume_is_a_programming_error(tmp_path, box):
    volume = open_planes(_write_planes(tmp_path / "p", _voxels()), pattern=None)
    with pytest.raises(ValueError, match="beyond"):
        volume.read(box)


def test_pattern_picks_one_channel_of_a_folder(tmp_path):
    voxels = _voxels()
    for c in range(2):
        for z, plane in enumerate(voxels):
            tifffile.imwrite(tmp_path / f"z{z}_c{c}.tif", plane + c)
    with pytest.raises(UserError, match="no number"):
        open_planes(tmp_path, pattern=None)
    volume = open_planes(tmp_path, pattern="*_c1.tif")
    np.testing.assert_array_equal(volume.read(Box.of_shape(SHAPE)), voxels + 1)


def _damage(folder, fault):
    """Spoil plane 3 of a folder of planes."""
    plane = folder / "plane_003.tif"
    if fault == "missing":
        plane.unlink()
    elif fault == "empty":
        plane.write_bytes(b"")
    elif fault == "truncated":
        plane.write_bytes(plane.read_bytes()[:-100])
    elif fault == "text":
        plane.write_text("not a picture, but long enough to be one " * 200)
    elif fault == "shape":
        tifffile.imwrite(plane, _voxels(shape=(36, 53)))
    elif fault == "dtype":
        tifffile.imwrite(plane, _voxels("uint8", (37, 53)))
    elif fault == "colour":
        tifffile.imwrite(plane, _voxels("uint16", (37, 53, 3)), photometric="rgb")
    elif fault == "pages":
        tifffile.imwrite(plane, _voxels("uint16", (2, 37, 53)), photometric="minisblack")
    elif fault == "plain pages":
        voxels = _voxels("uint16", (2, 37, 53))
        tifffile.imwrite(plane, voxels, photometric="minisblack", metadata=None)
    return plane


AT_ONCE = {
    "missing": "plane 3 is missing",
    "empty": "0 bytes",
    "truncated": "truncated",
    "shape": "36×53",
    "dtype": "uint8",
}
BY_HEADERS = {"text": "not a TIFF", "colour": "colour", "pages": "2 pages", "plain pages": "2 pag"}


@pytest.mark.parametrize("fault", AT_ONCE)
def test_a_bad_plane_is_named(tmp_path, fault):
    folder = _write_planes(tmp_path / "p", _voxels())
    plane = _damage(folder, fault)
    with pytest.raises(UserError, match=AT_ONCE[fault]) as error:
        open_acquisition(folder, format="tiff_planes", spacing_um=(1, 1, 1))
    assert error.value.where == str(plane)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fault", [f for f in [*AT_ONCE, *BY_HEADERS] if f != "missing"])
def test_a_plane_that_turns_bad_is_named_when_read(tmp_path, fault):
    folder = _write_planes(tmp_path / "p", _voxels())
    volume = open_planes(folder, pattern=None)
    plane = _damage(folder, fault)
    volume.read(Box((0, 0, 0), (3, 37, 53)))
    with pytest.raises(UserError, match=(AT_ONCE | BY_HEADERS)[fault]) as error:
        volume.read(Box((2, 0, 0), (5, 37, 53)))
    assert error.value.where == str(plane)


def test_a_plane_that_vanishes_is_named_when_read(tmp_path):
    folder = _write_planes(tmp_path / "p", _voxels())
    volume = open_planes(folder, pattern=None)
    plane = _damage(folder, "missing")
    with pytest.raises(UserError, match="does not exist") as error:
        volume.read(Box.of_shape(SHAPE))
    assert error.value.where == str(plane)


def test_damaged_compressed_pixels_name_file_and_plane(tmp_path):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, _voxels(), photometric="minisblack", compression="zlib", rowsperstrip=9)
    with tifffile.TiffFile(path) as tif:
        start = tif.pages[2].dataoffsets[1]
    content = bytearray(path.read_bytes())
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    volume = open_stack(path, channel=None)
    volume.read(Box((0, 0, 0), (2, 37, 53)))
    volume.read(Box((2, 0, 0), (3, 9, 53)))
    with pytest.raises(UserError, match="plane 2 is damaged") as error:
        volume.read(Box.of_shape(SHAPE))
    assert error.value.where == str(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_found_with_their_position(tmp_path, value):
    voxels = _voxels("float32")
    voxels[3, 20, 31] = value
    folder = _write_planes(tmp_path / "p", voxels)
    volume = open_planes(folder, pattern=None)
    volume.read(Box((3, 0, 0), (4, 20, 53)))
    with pytest.raises(UserError, match=r"plane 3 holds .* at row 20, column 31") as error:
        volume.read(Box((2, 5, 7), (5, 30, 40)))
    assert error.value.where == str(folder / "plane_003.tif")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(b""), "0 bytes"),
        (lambda p: p.write_text("hello, I am text"), "not a TIFF"),
        (lambda p: p.write_bytes(b"II*\0"), "damaged or truncated"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: tifffile.imwrite(p, np.zeros((9, 9), "i2")), "type int16"),
        (lambda p: tifffile.imwrite(p, np.zeros((9, 9, 3), "u1"), photometric="rgb"), "colour"),
        (lambda p: tifffile.imwrite(p, np.zeros((9, 9), "f8")), "type float64"),
        (lambda p: tifffile.imwrite(p, np.zeros((9, 9), bool)), "type bool"),
    ],
)
def test_what_is_no_stack(tmp_path, write, message):
    write(tmp_path / "s.tif")
    with pytest.raises(UserError, match=message) as error:
        open_stack(tmp_path / "s.tif", channel=None)
    assert "s.tif" in str(error.value)


def test_no_stack_at_all(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_stack(tmp_path / "s.tif", channel=None)


def test_pages_of_different_shape(tmp_path):
    with tifffile.TiffWriter(tmp_path / "s.tif") as tif:
        tif.write(np.zeros((9, 9), "u2"), metadata=None)
        tif.write(np.zeros((8, 9), "u2"), metadata=None)
    with pytest.raises(UserError, match="different kinds"):
        open_stack(tmp_path / "s.tif", channel=None)


@pytest.mark.parametrize("kind", ["imagej", "ome", "plain"])
@pytest.mark.parametrize("keep", [0.35, 0.7, 0.999])
def test_a_truncated_stack_is_refused_or_its_missing_plane(tmp_path, kind, keep):
    path = tmp_path / "s.tif"
    options = {"imagej": {"imagej": True}, "ome": {"ome": True}, "plain": {"metadata": None}}[kind]
    voxels = _voxels(shape=(20, 30, 40))
    tifffile.imwrite(path, voxels, photometric="minisblack", **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError) as error:
        open_stack(path, channel=None).read(Box.of_shape(voxels.shape))
    assert error.value.where == str(path)


def test_ome_that_declares_more_planes_than_it_holds(tmp_path):
    path = tmp_path / "s.ome.tif"
    tifffile.imwrite(path, _voxels(), metadata={"axes": "ZYX"}, ome=True)
    content = path.read_bytes()
    declared = content.replace(b'SizeZ="5"', b'SizeZ="9"')
    assert declared != content
    path.write_bytes(declared)
    with pytest.raises(UserError, match="lacks planes"):
        open_stack(path, channel=None)


def test_imagej_that_declares_more_planes_than_it_holds(tmp_path):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, _voxels(), imagej=True, metadata={"axes": "ZYX"})
    content = path.read_bytes()
    declared = content.replace(b"images=5", b"images=9").replace(b"slices=5", b"slices=9")
    path.write_bytes(declared)
    with pytest.raises(UserError, match=r"declares 9|truncated"):
        open_stack(path, channel=None)


def test_a_stack_that_grew_is_refused(tmp_path):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, _voxels(), photometric="minisblack")
    volume = open_stack(path, channel=None)
    tifffile.imwrite(path, _voxels(shape=(6, *SHAPE[1:])), photometric="minisblack")
    with pytest.raises(UserError, match="6 planes"):
        volume.read(Box.of_shape(SHAPE))


def test_handles_stay_bounded(tmp_path):
    resource = pytest.importorskip("resource")
    folder = _write_planes(tmp_path / "p", _voxels(shape=(60, 8, 8)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    volume = open_planes(folder, pattern=None)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))
        volume.read(Box.of_shape(volume.shape))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_random_damage_ends_in_voxels_or_one_clear_line(tmp_path):
    rng = np.random.default_rng(3)
    path = tmp_path / "s.tif"
    for options in ({}, {"compression": "zlib"}, {"imagej": True}, {"ome": True}):
        tifffile.imwrite(path, _voxels(shape=(3, 9, 11)), photometric="minisblack", **options)
        whole = path.read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            for at in rng.integers(0, min(len(content), 500), 2):
                content[at] = rng.integers(0, 256)
            path.write_bytes(content[: rng.integers(len(content) // 2, 2 * len(content))])
            try:
                volume = open_stack(path, channel=None)
                if np.prod(volume.shape) < 10**6:
                    volume.read(Box.of_shape(volume.shape))
            except UserError as error:
                assert "\n" not in str(error)
