import dataclasses
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ome_zarr_models.v05 import Image as OmeImage

from vasculome.errors import UserError
from vasculome.geometry import Box, TileGrid
from vasculome.storage.ledger import Ledger, TileResult, ledger_path
from vasculome.storage.omezarr import (
    ImageSpec,
    create_array,
    create_image,
    open_array,
    open_image,
)
from vasculome.storage.pyramid import reduce_block
from vasculome.storage.shards import ABSENT, file_checksum


def _spec(shape=(20, 40, 36), **changes):
    fields = {
        "shape": shape,
        "dtype": "uint16",
        "axes": ("z", "y", "x")[-len(shape) :],
        "spacing_um": (5.0, 2.0, 2.0)[-len(shape) :],
        "chunk": (8,) * len(shape),
        "shard": (16,) * len(shape),
        "reduce": "mean",
        "name": "image",
        "unit_attributes": {"quantity": "intensity", "unit": "counts"},
    }
    return ImageSpec(**(fields | changes))


def _values(shape, dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(1, 200, shape).astype(dtype)


def _tiles(spec):
    return list(TileGrid(Box.of_shape(spec.shape), spec.shard, (0,) * len(spec.shape)))


def _write_all(image, values, order=None):
    files = {}
    for tile in order or _tiles(image.spec):
        files |= image.write(tile.core, values[tile.core.slices])
    return files | image.finish_levels()


@st.composite
def odd_specs(draw):
    ndim = draw(st.integers(2, 4))
    shape = tuple(draw(st.integers(1, 33)) for _ in range(ndim))
    chunk = tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    shard = tuple(c * draw(st.integers(1, 3)) for c in chunk)
    assume(math.prod(-(-n // s) for n, s in zip(shape, shard, strict=True)) <= 30)
    return _spec(
        shape,
        axes=("t", "z", "y", "x")[-ndim:],
        spacing_um=(0.01, 5.0, 2.0, 2.0)[-ndim:],
        chunk=chunk,
        shard=shard,
        dtype=draw(st.sampled_from(["uint8", "uint16", "float32", "int32"])),
        reduce=draw(st.sampled_from(["mean", "max", "nearest"])),
    )


@given(odd_specs(), st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_any_shape_comes_back_and_its_pyramid_in_any_order(tmp_path_factory, spec, rng):
    values = _values(spec.shape, spec.dtype, seed=rng.randrange(1000))
    tiles = _tiles(spec)
    rng.shuffle(tiles)
    image = create_image(tmp_path_factory.mktemp("i") / "i.ome.zarr", spec)
    files = _write_all(image, values, tiles)
    start = [rng.randrange(n) for n in spec.shape]
    stop = [rng.randint(a + 1, n) for a, n in zip(start, spec.shape, strict=True)]
    box = Box(tuple(start), tuple(stop))
    np.testing.assert_array_equal(image.read(box), values[box.slices])
    whole = values
    for number, level in enumerate(spec.levels):
        if number:
            whole = reduce_block(whole, level.steps, spec.reduce)
        # zarr-python reads what tensorstore and we have written.
        np.testing.assert_array_equal(zarr.open_array(image.path / str(number))[...], whole)
    assert {name: file_checksum(image.path / name) for name in files} == files


def test_the_metadata_is_ome_zarr_05(tmp_path):
    spec = _spec((70, 90, 80), origin_um=(100.0, 0.0, -3.0))
    image = create_image(tmp_path / "i.ome.zarr", spec)
    _write_all(image, _values(spec.shape))
    checked = OmeImage.from_zarr(zarr.open_group(image.path, mode="r"))
    multiscale = checked.ome_attributes.multiscales[0]
    assert [a.name for a in multiscale.axes] == ["z", "y", "x"]
    assert {a.unit for a in multiscale.axes} == {"micrometer"}
    scale, translation = multiscale.datasets[2].coordinateTransformations
    # Level 1 halves y and x only, level 2 all three.
    assert scale.scale == [10.0, 8.0, 8.0]
    assert translation.translation == [100.0 + 2.5, 3.0, 0.0]
    assert zarr.open_array(image.path / "0").metadata.dimension_names == ("z", "y", "x")


def test_time_series_carry_seconds(tmp_path):
    spec = _spec((5, 20, 20), axes=("t", "z", "x"), spacing_um=(0.002, 10.0, 10.0), chunk=(1, 8, 8))
    image = create_image(tmp_path / "i.ome.zarr", spec)
    axes = (
        OmeImage.from_zarr(zarr.open_group(image.path, mode="r")).ome_attributes.multiscales[0].axes
    )
    assert [(a.name, a.type, a.unit) for a in axes] == [
        ("t", "time", "second"),
        ("z", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    assert image.levels == ((5, 20, 20), (5, 10, 10), (5, 5, 5))


def test_open_gives_back_what_was_created(tmp_path, handed_over):
    for origin in (None, (1.0, 2.0, 3.0)):
        spec = _spec(origin_um=origin)
        created = create_image(tmp_path / "i.ome.zarr", spec)
        opened = open_image(tmp_path / "i.ome.zarr")
        assert opened == created
        assert opened.spec == spec
        assert handed_over(opened) == opened


def test_empty_shards_are_not_stored_and_stale_ones_removed(tmp_path):
    image = create_image(tmp_path / "i.ome.zarr", _spec())
    core = _tiles(image.spec)[0].core
    full = image.write(core, np.ones(core.shape, "uint16"))
    assert ABSENT not in full.values()
    empty = image.write(core, np.zeros(core.shape, "uint16"))
    assert empty == dict.fromkeys(full, ABSENT)
    assert not any((image.path / name).exists() for name in full)
    assert not image.read(Box.of_shape(image.spec.shape)).any()


FULL_DISK = (
    "import resource, sys, pathlib, numpy as np\n"
    "from vasculome.errors import UserError\n"
    "from vasculome.storage.omezarr import open_image\n"
    "from vasculome.geometry import Box\n"
    "image = open_image(pathlib.Path(sys.argv[1]))\n"
    "values = np.random.default_rng(0).integers(0, 60000, image.spec.shape).astype('uint16')\n"
    "values[:, :16, :16] = 1\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
    "try: image.write(Box.of_shape(image.spec.shape), values)\n"
    "except UserError as error: print(error)\n"
)


def test_a_full_disk_leaves_whole_shards_or_none(tmp_path):
    image = create_image(tmp_path / "i.ome.zarr", _spec((16, 40, 36)))
    command = [sys.executable, "-c", FULL_DISK, str(image.path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"{image.path}/0: cannot be written: the file would pass the size limit" in done.stdout
    left = {p.relative_to(image.path) for p in image.path.rglob("*") if p.is_file()}
    assert {p for p in left if p.name != "zarr.json"} == {Path("0/c/0/0/0")}
    assert not list(image.path.rglob(".*"))
    assert (image.read(Box((0, 0, 0), (16, 16, 16))) == 1).all()


def test_several_shards_at_once_give_the_files_of_one_by_one(tmp_path):
    spec = _spec()
    values = _values(spec.shape)
    one = create_image(tmp_path / "one.ome.zarr", spec)
    all_ = create_image(tmp_path / "all.ome.zarr", spec)
    whole = Box.of_shape(spec.shape)
    assert _write_all(one, values) == all_.write(whole, values) | all_.finish_levels()


def test_equal_input_gives_equal_files(tmp_path):
    spec = _spec()
    images = [create_image(tmp_path / name / "i.ome.zarr", spec) for name in "ab"]
    order = _tiles(spec)
    for image in images:
        _write_all(image, _values(spec.shape), order)
        random.Random(1).shuffle(order)
    contents = [
        {p.relative_to(i.path): p.read_bytes() for p in i.path.rglob("*") if p.is_file()}
        for i in images
    ]
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("box", "shape", "dtype"),
    [
        (Box((0, 0, 0), (8, 16, 16)), (8, 16, 16), "uint16"),
        (Box((8, 0, 0), (20, 16, 16)), (12, 16, 16), "uint16"),
        (Box((0, 0, 0), (16, 16, 16)), (16, 16, 15), "uint16"),
        (Box((0, 0, 0), (16, 16, 16)), (16, 16, 16), "uint8"),
        (Box((16, 0, 0), (32, 16, 16)), (16, 16, 16), "uint16"),
    ],
)
def test_what_is_no_whole_shard_is_refused(tmp_path, box, shape, dtype):
    image = create_image(tmp_path / "i.ome.zarr", _spec())
    with pytest.raises(ValueError):
        image.write(box, np.ones(shape, dtype))


def test_reading_beyond_is_refused(tmp_path):
    image = create_image(tmp_path / "i.ome.zarr", _spec())
    with pytest.raises(ValueError, match="beyond"):
        image.read(Box((0, 0, 0), (21, 1, 1)))


def test_create_keeps_the_same_image_and_replaces_another(tmp_path):
    path = tmp_path / "i.ome.zarr"
    spec = _spec()
    image = create_image(path, spec)
    ledger = Ledger(path, "d")
    tile = _tiles(spec)[0]
    ledger.record(tile.id, TileResult(image.write(tile.core, np.ones(tile.core.shape, "uint16"))))
    assert create_image(path, spec).read(tile.core).all()
    assert ledger_path(path).exists()
    other = create_image(path, dataclasses.replace(spec, spacing_um=(5.0, 2.0, 3.0)))
    assert not other.read(tile.core).any()
    assert not ledger_path(path).exists()


def test_damaged_metadata_of_the_same_image_is_mended(tmp_path):
    path = tmp_path / "i.ome.zarr"
    image = create_image(path, _spec())
    core = _tiles(image.spec)[0].core
    image.write(core, np.ones(core.shape, "uint16"))
    good = {p: p.read_bytes() for p in path.rglob("zarr.json")}
    for file, content in good.items():
        file.write_text("{")
        with pytest.raises(UserError, match=r"zarr\.json"):
            open_image(path)
        create_image(path, image.spec)
        assert file.read_bytes() == content
    (path / "zarr.json").unlink()
    assert create_image(path, image.spec).read(core).all()


def test_other_things_are_not_removed(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("notes", "file"):
        with pytest.raises(UserError, match="untouched"):
            create_image(tmp_path / name, _spec())
    assert (tmp_path / "notes" / "a.txt").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "precious"


def test_what_is_no_image_is_told(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_image(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="no Zarr v3"):
        open_image(tmp_path / "folder")
    zarr.create_group(tmp_path / "group")
    with pytest.raises(UserError, match=r"OME-Zarr 0\.5"):
        open_image(tmp_path / "group")
    create_array(tmp_path / "array", (4, 4), "uint8", (2, 2), (4, 4), {})
    with pytest.raises(UserError, match="no Zarr v3 group"):
        open_image(tmp_path / "array")


def test_a_damaged_shard_is_told(tmp_path):
    image = create_image(tmp_path / "i.ome.zarr", _spec())
    core = _tiles(image.spec)[0].core
    image.write(core, _values(core.shape))
    shard = image.path / "0" / "c" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(UserError, match="doctor --verify"):
        image.read(core)


def test_an_image_of_another_program(tmp_path):
    group = zarr.create_group(tmp_path / "other.zarr")
    data = _values((12, 20, 20))
    group.create_array("s0", data=data, chunks=(4, 10, 10), dimension_names=("z", "y", "x"))
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [
                    {"name": "z", "type": "space", "unit": "millimeter"},
                    {"name": "y", "type": "space", "unit": "micrometer"},
                    {"name": "x", "type": "space"},
                ],
                "datasets": [
                    {
                        "path": "s0",
                        "coordinateTransformations": [{"type": "scale", "scale": [0.005, 2, 2]}],
                    }
                ],
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 2, 2]},
                    {"type": "translation", "translation": [1, 0, 0]},
                ],
            }
        ],
    }
    image = open_image(tmp_path / "other.zarr")
    assert image.spec.spacing_um == (5.0, 4.0, 4.0)
    assert image.spec.origin_um == (1000.0, 0.0, 0.0)
    assert image.spec.chunk == image.spec.shard == (4, 10, 10)
    np.testing.assert_array_equal(image.read(Box((1, 2, 3), (9, 17, 20))), data[1:9, 2:17, 3:20])


def test_shards_of_four_axes_with_several_chunks_on_three(tmp_path):
    # tensorstore 0.1.86 loses such a shard if it may refer to the caller's array.
    values = _values((4, 8, 18, 9))
    array = create_array(tmp_path / "a", (4, 8, 18, 9), "uint16", (4, 4, 9, 3), (4, 8, 18, 9), {})
    array.write(Box.of_shape(values.shape), values)
    np.testing.assert_array_equal(array.read(Box.of_shape(values.shape)), values)


@pytest.mark.parametrize("shape", [(25, 7, 9), (25, 7, 3, 9)])
def test_iq_round_trip(tmp_path, shape):
    rng = np.random.default_rng(0)
    iq = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype("complex64")
    chunk, shard = (5, *shape[1:]), (10, *shape[1:])
    attributes = {"frame_rate_hz": 1000.0}
    array = create_array(tmp_path / "iq.zarr", shape, "complex64", chunk, shard, attributes)
    for tile in TileGrid(Box.of_shape(shape), array.shard, (0,) * len(shape)):
        array.write(tile.core, iq[tile.core.slices])
    again = open_array(tmp_path / "iq.zarr")
    assert again == array
    assert again.attributes == attributes
    np.testing.assert_array_equal(again.read(Box.of_shape(shape)), iq)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "iq.zarr")[...], iq)


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": ("x", "y", "z")},
        {"spacing_um": (1.0, 1.0)},
        {"chunk": (0, 8, 8)},
        {"dtype": "bool"},
    ],
)
def test_a_spec_without_sense_is_refused(changes):
    with pytest.raises(ValueError):
        _spec(**changes)
