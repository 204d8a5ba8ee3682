"""OME-TIFF tiles, written by tifffile or with an XML of our own."""

import numpy as np
import pytest
import tifffile

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.acquisition import open_acquisition

OFFSET_UM = (100.0, -250.0, 3000.0)


def _open(path, mosaic, **options):
    return open_acquisition(path, format="ome_tiles", **{"spacing_um": mosaic.spacing_um} | options)


def _stage(mosaic, cell):
    return np.add(mosaic.positions_um[cell], OFFSET_UM)


def _metadata(mosaic, cell, *, planes=4, unit="µm", scale=1.0, axes="ZYX"):
    z_um, y_um, x_um = _stage(mosaic, cell) * scale
    return {
        "axes": axes,
        "PhysicalSizeX": 0.5,
        "PhysicalSizeY": 0.5,
        "PhysicalSizeZ": 2.0,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZUnit": "µm",
        "Plane": {
            "PositionX": [x_um] * planes,
            "PositionY": [y_um] * planes,
            "PositionZ": [z_um + 2.0 * scale * (i % 4) for i in range(planes)],
            **{f"Position{axis}Unit": [unit] * planes for axis in "XYZ"},
        },
    }


@pytest.mark.parametrize(("unit", "scale"), [("µm", 1.0), ("mm", 1e-3), ("nm", 1e3)])
def test_one_file_a_tile(tmp_path, mosaic, unit, scale):
    for row, col in mosaic.tiles:
        metadata = _metadata(mosaic, (row, col), unit=unit, scale=scale)
        path = tmp_path / f"t{row}{col}.ome.tif"
        tifffile.imwrite(path, mosaic.tiles[row, col], metadata=metadata)
    found = _open(tmp_path, mosaic)
    mosaic.check(found.tile_sets[0], offset_um=OFFSET_UM)
    assert found.tile_sets[0].names[0] == "t00.ome.tif"


@pytest.mark.parametrize("axes", ["CZYX", "ZCYX"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_channels_of_a_file(tmp_path, mosaic, axes, compression):
    for (row, col), voxels in mosaic.tiles.items():
        metadata = _metadata(mosaic, (row, col), planes=8, axes=axes)
        metadata["Channel"] = {"Name": ["vessels", "nuclei"]}
        both = np.stack([voxels, voxels[::-1]], axes.index("C"))
        path = tmp_path / f"{row}{col}.ome.tif"
        tifffile.imwrite(path, both, metadata=metadata, compression=compression)
    found = _open(tmp_path, mosaic)
    assert found.channels == ("vessels", "nuclei")
    mosaic.check(found.tile_sets[0], offset_um=OFFSET_UM)
    volume = found.tile_sets[1].volumes[3]
    box = Box((1, 2, 3), (3, 9, 16))
    np.testing.assert_array_equal(volume.read(box), mosaic.tiles[1, 0][::-1][box.slices])


def test_a_focus_that_goes_down(tmp_path, mosaic):
    for i, cell in enumerate(((0, 0), (0, 1))):
        metadata = _metadata(mosaic, cell)
        metadata["Plane"]["PositionZ"] = [50 - 4 * i - 2 * z for z in range(4)]
        path = tmp_path / f"{i}.ome.tif"
        tifffile.imwrite(path, mosaic.tiles[cell], metadata=metadata)
    first, second = _open(tmp_path, mosaic).tile_sets[0].positions_um
    assert second[0] - first[0] == 4


def _image(i, mosaic, cell, planes, *, label=False, size_c=1, order="XYZCT"):
    """Describe one tile whose ``planes`` are (z, c, file, uuid, page)."""
    z_um, y_um, x_um = _stage(mosaic, cell)
    data = "".join(
        f'<TiffData FirstZ="{z}" FirstC="{c}" IFD="{page}" PlaneCount="1">'
        + (f'<UUID FileName="{file}">{uuid}</UUID>' if file else "")
        + "</TiffData>"
        for z, c, file, uuid, page in planes
    )
    stage = f'<StageLabel Name="p" X="{x_um}" XUnit="µm" Y="{y_um}" Z="{z_um}"/>' if label else ""
    at = f'PositionX="{x_um}" PositionY="{y_um}" PositionZ="{z_um}"'
    plane = f'<Plane TheZ="0" TheC="0" TheT="0" {at}/>'
    return (
        f'<Image ID="Image:{i}" Name="Pos{i}">{stage}<Pixels ID="Pixels:{i}" Type="uint16" '
        f'DimensionOrder="{order}" SizeX="16" SizeY="20" SizeZ="4" SizeC="{size_c}" SizeT="1" '
        'PhysicalSizeX="500" PhysicalSizeXUnit="nm" PhysicalSizeY="0.5" PhysicalSizeZ="2">'
        f"<Channel/>{data}{'' if label else plane}</Pixels></Image>"
    )


def _ome(images, uuid="urn:uuid:own"):
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><OME UUID="{uuid}" '
        'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">' + "".join(images) + "</OME>"
    )


def _write_plane_files(folder, mosaic, *, companion=False, skip=()):
    """Write one file a plane, each with the description of the whole set."""
    planes = {
        cell: [(z, 0, f"p{i}_z{z}.ome.tif", f"urn:uuid:{i}-{z}", 0) for z in range(4)]
        for i, cell in enumerate(mosaic.tiles)
    }
    images = [_image(i, mosaic, cell, planes[cell]) for i, cell in enumerate(mosaic.tiles)]
    if companion:
        (folder / "set.companion.ome").write_text(_ome(images), encoding="utf-8")
    for cell, of in planes.items():
        for z, _, file, uuid, _ in of:
            if (*cell, z) in skip:
                continue
            text = _ome(images, uuid)
            if companion:
                text = f'<OME UUID="{uuid}"><BinaryOnly MetadataFile="set.companion.ome"/></OME>'
            tifffile.imwrite(
                folder / file, mosaic.tiles[cell][z], description=text.encode(), metadata=None
            )
    return folder


@pytest.mark.parametrize("companion", [False, True])
def test_a_set_with_one_file_a_plane(tmp_path, mosaic, companion):
    _write_plane_files(tmp_path, mosaic, companion=companion)
    tiles = _open(tmp_path, mosaic).tile_sets[0]
    mosaic.check(tiles, offset_um=OFFSET_UM)
    assert tiles.names[5] == "Pos5" and tiles.file_count == 24
    one = tmp_path / ("set.companion.ome" if companion else "p0_z0.ome.tif")
    mosaic.check(_open(one, mosaic).tile_sets[0], offset_um=OFFSET_UM)


def test_missing_files_of_a_set(tmp_path, mosaic):
    skip = {(0, 1, 0), (0, 1, 3), (1, 0, 2)}
    _write_plane_files(tmp_path, mosaic, skip=skip)
    with pytest.raises(UserError, match="plane 0 of tile Pos1 is in no file, and 1 more"):
        _open(tmp_path, mosaic)
    tiles = _open(tmp_path, mosaic, allow_missing_planes=True).tile_sets[0]
    assert tiles.missing == {"Pos1": (0, 3), "Pos3": (2,)}
    missing = {(0, 1): (0, 3), (1, 0): (2,)}
    mosaic.check(tiles, offset_um=OFFSET_UM, missing=missing)


@pytest.mark.parametrize("label", [False, True])
def test_many_tiles_in_one_file_renamed_since(tmp_path, mosaic, label):
    images = [
        _image(
            i,
            mosaic,
            cell,
            [(z, 0, "old.ome.tif", "urn:uuid:own", 4 * i + z) for z in range(4)],
            label=label,
        )
        for i, cell in enumerate(mosaic.tiles)
    ]
    path = tmp_path / "new.ome.tif"
    voxels = np.concatenate(list(mosaic.tiles.values()))
    tifffile.imwrite(
        path, voxels, description=_ome(images).encode(), metadata=None, photometric="minisblack"
    )
    tiles = _open(path, mosaic).tile_sets[0]
    mosaic.check(tiles, offset_um=OFFSET_UM)
    assert tiles.names[2] == "Pos2"


def test_a_tile_in_several_stacks_of_one_set(tmp_path, mosaic):
    cell = (0, 0)
    halves = [("a.tif", "urn:uuid:own", (0, 1)), ("b.tif", "urn:uuid:b", (2, 3))]
    planes = [(z, 0, f, u, z % 2) for f, u, of in halves for z in of]
    text = _ome([_image(0, mosaic, cell, planes)]).encode()
    for file, _, of in halves:
        voxels = mosaic.tiles[cell][of[0] : of[1] + 1]
        tifffile.imwrite(
            tmp_path / file, voxels, description=text, metadata=None, photometric="minisblack"
        )
    mosaic.check(_open(tmp_path, mosaic).tile_sets[0], [cell], offset_um=OFFSET_UM)
    (tmp_path / "b.tif").unlink()
    with pytest.raises(UserError, match="lacks 2 planes"):
        _open(tmp_path, mosaic, allow_missing_planes=True)


@pytest.mark.parametrize("order", ["XYCZT", "XYZTC", "XYTCZ"])
def test_order_of_dimensions(tmp_path, mosaic, order):
    voxels = mosaic.tiles[0, 0]
    both = np.stack([voxels, voxels[::-1]], 1 if order.index("C") < order.index("Z") else 0)
    image = _image(0, mosaic, (0, 0), [], size_c=2, order=order).replace(
        "<Channel/>", "<Channel/><TiffData/>"
    )
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        both.reshape(8, 20, 16),
        description=_ome([image]).encode(),
        metadata=None,
        photometric="minisblack",
    )
    found = _open(tmp_path, mosaic)
    mosaic.check(found.tile_sets[0], [(0, 0)], offset_um=OFFSET_UM)
    volume = found.tile_sets[1].volumes[0]
    np.testing.assert_array_equal(volume.read(Box.of_shape(volume.shape)), voxels[::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("PhysicalSizeX", 0.8), "0.8 µm apart along x where spacing_um says 0.5"),
        (("PositionXUnit", ["reference frame"] * 4), "PositionX in unit 'reference frame'"),
        (("PositionX", ["far"] * 4), "PositionX as 'far'"),
        (("PositionY", None), "without Y"),
        (("Plane", None), "holds no stage position"),
    ],
)
def test_bad_descriptions(tmp_path, mosaic, change, message):
    key, value = change
    metadata = _metadata(mosaic, (0, 0))
    place = metadata if key in metadata else metadata["Plane"]
    if value is None:
        del place[key]
    else:
        place[key] = value
    if key == "PositionY":
        del metadata["Plane"]["PositionYUnit"]
    tifffile.imwrite(tmp_path / "a.ome.tif", mosaic.tiles[0, 0], metadata=metadata)
    with pytest.raises(UserError, match=message) as error:
        _open(tmp_path, mosaic)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('SizeT="1"', 'SizeT="3"', "3 time points"),
        ("<Channel/>", '<Channel SamplesPerPixel="3"/>', "colour"),
        ('SizeZ="4"', 'SizeZ="6"', "plane 4 of tile"),
        ('SizeX="16"', 'SizeX="32"', "20×16 pixels where its description says 20×32"),
        ('SizeZ="4"', 'SizeZ="2"', "beyond the sizes"),
        ('SizeY="20"', "", "no SizeY"),
        ('IFD="3"', 'IFD="9"', "truncated: it has 4 pages where its description names 10"),
        ("<Pixels", "<Pixel", "not well-formed"),
        ("XYZCT", "XYZ", "DimensionOrder"),
        ("OME", "EMO", "holds no OME-XML"),
    ],
)
def test_xml_that_does_not_fit_its_file(tmp_path, mosaic, old, new, message):
    planes = [(z, 0, None, None, z) for z in range(4)]
    text = _ome([_image(0, mosaic, (0, 0), planes)])
    assert old in text
    tifffile.imwrite(
        tmp_path / "a.tif",
        mosaic.tiles[0, 0],
        description=text.replace(old, new).encode(),
        metadata=None,
        photometric="minisblack",
    )
    with pytest.raises(UserError, match=message) as error:
        (volume,) = _open(tmp_path, mosaic).tile_sets[0].volumes
        volume.read(Box.of_shape(volume.shape))
    assert "\n" not in str(error.value)


def test_tiles_at_one_place(tmp_path, mosaic):
    for name in "ab":
        metadata = _metadata(mosaic, (0, 0))
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", mosaic.tiles[0, 0], metadata=metadata)
    with pytest.raises(UserError, match=r"tiles a.ome.tif and b.ome.tif one position"):
        _open(tmp_path, mosaic)


def test_a_truncated_stack_is_noticed_at_once(tmp_path, mosaic):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, mosaic.tiles[0, 0], metadata=_metadata(mosaic, (0, 0)))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match="truncated"):
        _open(tmp_path, mosaic)


def test_empty_folder(tmp_path, mosaic):
    with pytest.raises(UserError, match="holds no TIFF files"):
        _open(tmp_path, mosaic)
