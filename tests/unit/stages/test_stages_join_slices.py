"""Maps of slices become maps of their volume, voxel by voxel."""

import json

import numpy as np
import pytest

from vasculome.config import RunConfig, Sample, stacks_of
from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.stages import join_slices
from vasculome.stages.job import Job, check_sample, execute
from vasculome.storage.omezarr import ImageSpec, create_image, open_image

PIXEL_UM = 10.0
FILL = {"density": 0.0, "speed": np.nan, "power_doppler": 0.0}


class Slices:
    """Slices with maps of known values, as `ulm_maps` leaves them."""

    def __init__(self, folder):
        self.config = RunConfig(
            results=str(folder / "results"), compute={"scheduler": "inline"}, samples="s.tsv"
        )
        self.rows, self.maps = [], {}

    def add(self, name, elevation_mm, *, shape=(6, 8), origin_um=(0.0, 0.0), pixel_um=PIXEL_UM):
        """Add a slice; values are unlike in all slices, maps and pixels."""
        self.rows.append(
            Sample(
                sample=name,
                modality="ultrasound",
                path=f"{name}.npy",
                format="iq",
                spacing_um="50,50",
                axes="tzx",
                volume="brain",
                elevation_mm=elevation_mm,
            )
        )
        folder = self.job.folder.parent / name
        for number, kind in enumerate(FILL):
            size = shape if kind != "power_doppler" else (2, 2)
            step = pixel_um if kind != "power_doppler" else 5 * pixel_um
            values = 1e4 * len(self.rows) + 1e3 * number + np.arange(np.prod(size)).reshape(size)
            self.maps[name, kind] = values.astype(np.float32)
            spec = ImageSpec(
                shape=size,
                dtype="float32",
                axes=("z", "x"),
                spacing_um=(step, step),
                origin_um=origin_um,
                chunk=(4, 4),
                shard=(4, 4),
                reduce="nearest" if kind == "speed" else "max",
                name=kind,
                unit_attributes={"unit": kind},
            )
            image = create_image(folder / f"maps/{kind}.ome.zarr", spec)
            for tile in _tiles(size, image.spec.shard):
                image.write(tile, self.maps[name, kind][tile.slices])
        self.tell(name, origin_um)

    def tell(self, name, origin_um):
        manifest = {
            "content": name,
            "summary": {"map_shape": [6, 8], "origin_um": origin_um, "saturation_percent": 1.0},
            "stores": ["maps", *(f"maps/{kind}.ome.zarr" for kind in FILL)],
        }
        path = self.job.folder.parent / name / "manifests/ulm_maps.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(manifest))

    @property
    def job(self):
        (stack,) = stacks_of(self.rows)
        return Job("join_slices", self.config, stack)

    def joined(self, kind):
        image = open_image(self.job.folder / f"maps/{kind}.ome.zarr")
        return image.spec, image.read(Box.of_shape(image.spec.shape))


def _tiles(shape, shard):
    for z in range(0, shape[0], shard[0]):
        for x in range(0, shape[1], shard[1]):
            stop = min(z + shard[0], shape[0]), min(x + shard[1], shape[1])
            yield Box((z, x), stop)


@pytest.fixture
def slices(tmp_path, monkeypatch):
    # Small tiles: several along each axis.
    monkeypatch.setattr(join_slices, "_SHARD", (4, 2, 4))
    monkeypatch.setattr(join_slices, "_CHUNK", (2, 1, 4))
    return Slices(tmp_path)


def test_slices_become_planes_in_the_order_of_elevation(slices):
    for name, elevation_mm in (("c", 0.3), ("a", 0.1), ("b", 0.2)):
        slices.add(name, elevation_mm, origin_um=(500.0, -40.0))
    outcome = execute(slices.job)
    for kind in FILL:
        spec, voxels = slices.joined(kind)
        assert spec.axes == ("z", "y", "x")
        assert spec.origin_um == (500.0, 100.0, -40.0)
        assert spec.unit_attributes == {"unit": kind}
        expected = np.stack([slices.maps[name, kind] for name in "abc"], axis=1)
        np.testing.assert_array_equal(voxels, expected)
    assert slices.joined("speed")[0].spacing_um == (PIXEL_UM, 100.0, PIXEL_UM)
    assert slices.joined("power_doppler")[0].spacing_um == (5 * PIXEL_UM, 100.0, 5 * PIXEL_UM)
    assert outcome.summary["saturation_percent"] == 100.0
    assert [row["sample"] for row in outcome.summary["slice_table"]] == ["a", "b", "c"]


def test_planes_between_uneven_slices_take_the_nearest(slices):
    for name, elevation_mm in (("a", -0.1), ("b", 0.0), ("c", 0.5)):
        slices.add(name, elevation_mm)
    table = execute(slices.job).summary["slice_table"]
    # Planes at -0.1, 0, ..., 0.5: those at 0.1 and 0.2 are nearer to b.
    _, voxels = slices.joined("density")
    expected = np.stack([slices.maps[name, "density"] for name in "abbbccc"], axis=1)
    np.testing.assert_array_equal(voxels, expected)
    assert [row["planes"] for row in table] == [1, 3, 3]


def test_slices_of_other_places_and_sizes_lie_where_they_are(slices):
    slices.add("a", 0.0, origin_um=(20.0, 30.0))
    slices.add("b", 0.1, origin_um=(0.0, 50.0), shape=(5, 9))
    slices.add("c", 0.2, origin_um=(23.0, 26.0), shape=(3, 3))  # 0.3 and -0.4 of a pixel off
    execute(slices.job)
    for kind in ("density", "speed"):
        spec, voxels = slices.joined(kind)
        assert spec.origin_um == (0.0, 0.0, 20.0)
        # z: a holds 20 to 70, b 0 to 40; x: a 30 to 100, b 50 to 130, c begins at 26.
        expected = np.full((8, 3, 12), FILL[kind], np.float32)
        expected[2:8, 0, 1:9] = slices.maps["a", kind]
        expected[0:5, 1, 3:12] = slices.maps["b", kind]
        expected[2:5, 2, 1:4] = slices.maps["c", kind]
        np.testing.assert_array_equal(voxels, expected)


def test_a_moved_slice_is_moved_in_the_volume(slices):
    """Its maps' files stay the same to the byte, only their place tells."""
    slices.add("a", 0.0, shape=(9, 9))
    slices.add("b", 0.1, shape=(3, 3))
    execute(slices.job)
    first = slices.joined("density")[1]
    path = slices.job.folder.parent / "b/maps/density.ome.zarr/zarr.json"
    path.write_text(path.read_text().replace('"origin_um": [0.0, 0.0]', '"origin_um": [20.0, 0.0]'))
    content = json.loads(path.read_text())
    for dataset in content["attributes"]["ome"]["multiscales"][0]["datasets"]:
        dataset["coordinateTransformations"][1]["translation"][0] += 20.0
    path.write_text(json.dumps(content))
    slices.tell("b", (20.0, 0.0))
    execute(slices.job)
    moved = slices.joined("density")[1]
    np.testing.assert_array_equal(moved[2:5, 1, :3], first[:3, 1, :3])
    assert (moved[:2, 1] == 0).all()
    np.testing.assert_array_equal(moved[:, 0], first[:, 0])


def test_what_is_done_is_kept_and_a_rest_gives_the_same_bytes(slices):
    for name, elevation_mm in (("a", 0.0), ("b", 0.1), ("c", 0.2)):
        slices.add(name, elevation_mm, shape=(9, 9))
    job = slices.job
    execute(job)
    manifest = job.manifest_path("join_slices").read_bytes()
    shards = {
        p: p.stat().st_ino for p in job.folder.glob("maps/*.ome.zarr/*/c/**/*") if p.is_file()
    }
    before = {path: path.read_bytes() for path in shards}
    lost = sorted(shards)[0]
    lost.unlink()
    job.manifest_path("join_slices").unlink()
    execute(job)
    assert job.manifest_path("join_slices").read_bytes() == manifest
    assert {path: path.read_bytes() for path in shards} == before
    rewritten = {path for path, inode in shards.items() if path.stat().st_ino != inode}
    assert lost in rewritten and len(rewritten) < len(shards) / 2


def test_a_slice_does_not_depend_on_its_place_but_the_volume_does(slices):
    slices.add("a", 0.0)
    slices.add("b", 0.1)
    before = slices.job
    slices.rows[1] = slices.rows[1].model_copy(update={"elevation_mm": 0.2})
    assert slices.job.digest() != before.digest()
    for job, other in zip(slices.job.inputs().values(), before.inputs().values(), strict=True):
        assert job.stage == "ulm_maps"
        assert job.sample != other.sample or job.sample.sample == "a"
        assert job.identity() == other.identity()


def test_maps_of_other_pixels_are_refused_by_name(slices):
    slices.add("a", 0.0)
    slices.add("b", 0.1, pixel_um=10.05)
    slices.add("c", 0.2, pixel_um=10.2)
    with pytest.raises(UserError, match=r"volume brain: pixel size .* 10 in 'a' and 10\.2 in 'c'"):
        execute(slices.job)


def test_elevations_in_another_unit_are_refused(slices):
    slices.add("a", 0.0)
    slices.add("b", 0.0001)
    slices.add("c", 0.2)
    with pytest.raises(UserError, match=r"'a' and 'b' differ by 0\.1 µm only"):
        execute(slices.job)


def test_other_wavelengths_are_seen_before_anything_runs(slices, tmp_path):
    for name, elevation_mm in (("a", 0.0), ("b", 0.1)):
        slices.add(name, elevation_mm)
        np.save(tmp_path / f"{name}.npy", np.ones((4, 8, 8), np.complex64))
    rows = [
        row.model_copy(
            update={
                "path": str(tmp_path / row.path),
                "frame_rate_hz": 1000.0,
                "wavelength_um": wavelength_um,
            }
        )
        for row, wavelength_um in zip(slices.rows, (98.0, 100.0), strict=True)
    ]
    (stack,) = stacks_of(rows)
    with pytest.raises(UserError, match="wavelength_um of the slices differs: 98 in 'a' and 100"):
        check_sample(slices.config, stack)
