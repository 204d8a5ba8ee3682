"""From raw tiles to one volume, on a mosaic with everything that goes wrong at night."""

import csv
import os
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from vasculome.config import RunConfig, Sample
from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.simulate.microscope import Microscope
from vasculome.simulate.phantoms import mosaic_phantom
from vasculome.stages import illuminate, register
from vasculome.stages.catalog import stages_of
from vasculome.stages.job import Job, execute
from vasculome.stages.raw_tiles import LazyTile
from vasculome.stages.stitch_tables import edge_columns, edges_of, vectors
from vasculome.stitching.register import Edge
from vasculome.storage.bundles import read_bundle
from vasculome.storage.omezarr import open_image
from vasculome.storage.tables import read_table

SIDE = 4
SHAPE = (24, 128, 128)
SPACING_UM = (4.0, 2.0, 2.0)
DARK, MISPLACED = 6, 9
MISSING = {3: 9, 12: 14}
BLANK_PLANE = {5: 11}
SCOPE = replace(Microscope(), stripes=0.0, uneven_illumination=0.0)


def _name(tile):
    return f"tile_{tile:02d}"


def _write(folder, phantom, nominal, *, missing=None):
    """Write tiles as folders of planes, with the stage's positions."""
    rows = [("file", "z_um", "y_um", "x_um")]
    for k, (tile, start) in enumerate(zip(phantom.tiles, nominal, strict=True)):
        (folder / _name(k)).mkdir(parents=True)
        for z, plane in enumerate(tile):
            if (missing or {}).get(k) != z:
                path = folder / _name(k) / f"{z:03d}.tif"
                tifffile.imwrite(path, plane, photometric="minisblack")
        rows.append((_name(k), *np.multiply(start, SPACING_UM)))
    with (folder / "tiles.tsv").open("w", newline="") as table:
        csv.writer(table, delimiter="\t").writerows(rows)


def _job(folder, **stitch):
    sample = Sample(
        sample="brain",
        modality="microscopy",
        path=str(folder / "raw"),
        format="tiff_tiles",
        spacing_um=SPACING_UM,
        allow_missing_planes=True,
    )
    config = RunConfig(
        results=str(folder / "results"),
        compute={"scheduler": "inline"},
        storage={"chunk_zyx": (16, 32, 32), "shard_zyx": (16, 128, 128)},
        microscopy={"slab_mb": 1, "stitch": {"pairs": {"search_um": (20, 90, 90)}, **stitch}},
    )
    return Job("register", config, sample)


def _run(job, last="ingest_image"):
    stages = stages_of(job.sample)
    return {
        stage: execute(Job(stage, job.config, job.sample))
        for stage in stages[: stages.index(last) + 1]
    }


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A mosaic with a tenth of its pairs blank, a dark tile, a false position, lost planes."""
    folder = tmp_path_factory.mktemp("night")
    rng = np.random.default_rng(0)
    phantom = mosaic_phantom(
        1,
        counts=(SIDE, SIDE),
        tile_shape=SHAPE,
        overlap=(40, 40),
        jitter=(1.5, 3.0, 3.0),
        vignetting=0.3,
        gain_spread=0.15,
        spacing_um=SPACING_UM,
        microscope=SCOPE,
    )
    tiles, nominal = phantom.tiles, phantom.nominal_starts.copy()
    tiles[DARK][:] = np.rint(200 + 6 * rng.standard_normal(SHAPE))
    for tile, plane in BLANK_PLANE.items():
        tiles[tile][plane] = 0
    nominal[MISPLACED] += (0, 40, -40)
    faces = [(i, i + 1) for i in range(SIDE * SIDE) if (i + 1) % SIDE]
    faces += [(i, i + SIDE) for i in range(SIDE * (SIDE - 1))]
    faces = [pair for pair in faces if not {DARK, MISPLACED} & set(pair)]
    blank = [faces[k] for k in rng.choice(len(faces), 4, replace=False)]
    for i, j in blank:
        shift = np.rint(phantom.starts[j] - phantom.starts[i]).astype(int)
        shared = tuple(slice(max(0, s), min(n, s + n)) for s, n in zip(shift, SHAPE, strict=True))
        tiles[i][shared] = rng.poisson(400, tiles[i][shared].shape)
    _write(folder / "raw", phantom, nominal, missing=MISSING)
    job = _job(folder)
    return job, phantom, blank, _run(job)


def test_all_tiles_but_the_dark_one_are_where_they_were(night):
    job, phantom, _, _ = night
    placed = read_table(job.folder / "placement/tiles.parquet")
    lit = np.arange(SIDE * SIDE) != DARK
    error = (vectors(placed, "start") - phantom.starts)[lit]
    error -= np.median(error, axis=0)
    assert np.abs(error).max() < 0.3
    assert placed["state"].tolist() == ["placed" if ok else "dark" for ok in lit]


def test_every_fault_has_its_name(night):
    job, _, blank, outcomes = night
    told = outcomes["place"].summary
    assert told["dark_tiles"] == [_name(DARK)]
    assert told["misreported_tiles"] == [_name(MISPLACED)]
    assert told["stage_tiles"] == []
    placed = read_table(job.folder / "placement/tiles.parquet")
    assert dict(enumerate(placed["missing_planes"])) == {
        k: int(k in MISSING) for k in range(SIDE * SIDE)
    }
    found = read_table(job.folder / "light/blank_planes.parquet")
    planes = {*zip(found["tile"].tolist(), found["plane"].tolist(), strict=True)}
    assert planes == {*MISSING.items(), *BLANK_PLANE.items()}
    edges = read_table(job.folder / "placement/edges.parquet")
    bad = {
        (int(i), int(j)): reason
        for i, j, used, reason in zip(
            edges["i"], edges["j"], edges["used"], edges["reason"], strict=True
        )
        if not used
    }
    assert set(blank) <= set(bad)
    assert {pair for pair in bad if DARK in pair} == {
        (int(i), int(j)) for i, j in zip(edges["i"], edges["j"], strict=True) if DARK in (i, j)
    }
    outliers = {
        (int(i), int(j))
        for i, j, k in zip(edges["i"], edges["j"], edges["outlier"], strict=True)
        if k
    }
    assert all(reason or pair in outliers for pair, reason in bad.items())


def test_lost_planes_are_left_to_the_tiles_beside(night):
    job, _, _, _ = night
    image = open_image(job.folder / "image.ome.zarr")
    voxels = image.read(Box.of_shape(image.spec.shape))
    starts = vectors(read_table(job.folder / "placement/tiles.parquet"), "start")
    # In the overlap with the tile to its left, which has the plane.
    ((tile, plane),) = BLANK_PLANE.items()
    z = round(starts[tile, 0] + plane)
    y, x = (round(at + inside) for at, inside in zip(starts[tile, 1:], (64, 20), strict=True))
    there, below, above = (
        np.median(voxels[k, y - 20 : y + 20, x - 8 : x + 8]) for k in (z, z - 2, z + 2)
    )
    assert there - 200 == pytest.approx((below + above) / 2 - 200, rel=0.15)


def test_light_is_what_was_put_in(night):
    job, phantom, _, _ = night
    gains = read_table(job.folder / "light/gains.parquet")["gain"]
    lit = np.arange(SIDE * SIDE) != DARK
    ratio = (gains / phantom.gains)[lit]
    assert np.std(ratio / ratio.mean()) < 0.05
    flat = read_bundle(job.folder / "light/shading.npz")["flat"]
    assert flat[0, 0] / flat[64, 64] == pytest.approx(0.7, abs=0.07)


def test_slabs_do_not_show(night, tmp_path):
    job, _, _, _ = night
    changes = {"slab_mb": 512}
    microscopy = job.config.microscopy.model_copy(update=changes)
    config = job.config.model_copy(update={"microscopy": microscopy})
    image = job.folder / "image.ome.zarr"
    before = {p: p.read_bytes() for p in image.rglob("*") if p.is_file()}
    written = {p: p.stat().st_mtime_ns for p in image.rglob("c/*/*/*")}
    execute(Job("ingest_image", config, job.sample))
    assert any(p.stat().st_mtime_ns != stamp for p, stamp in written.items())
    assert {p: p.read_bytes() for p in image.rglob("*") if p.is_file()} == before


def _two(folder, **options):
    phantom = mosaic_phantom(
        3, counts=(1, 2), tile_shape=SHAPE, overlap=(0, 40), jitter=(1.0, 3.0, 3.0), **options
    )
    _write(folder / "raw", phantom, phantom.nominal_starts)
    return phantom


def test_tiles_that_nothing_joins_need_leave(tmp_path):
    phantom = _two(tmp_path)
    rng = np.random.default_rng(0)
    # As bright as the tile beside it, but of nothing.
    noise = rng.poisson(np.median(phantom.tiles[0]), SHAPE).astype(np.uint16)
    for z, plane in enumerate(noise):
        path = tmp_path / "raw" / _name(1) / f"{z:03d}.tif"
        tifffile.imwrite(path, plane, photometric="minisblack")
    with pytest.raises(UserError, match=r"no pair joins 1 tiles to the rest: tile_01") as error:
        _run(_job(tmp_path))
    assert "allow_stage_positions" in str(error.value)
    job = _job(tmp_path, positions={"allow_stage_positions": True})
    told = _run(job)["place"].summary
    assert told["stage_tiles"] == [_name(1)]
    starts = vectors(read_table(job.folder / "placement/tiles.parquet"), "start")
    np.testing.assert_allclose(
        starts[1] - starts[0], phantom.nominal_starts[1] - phantom.nominal_starts[0], atol=1e-6
    )


@pytest.mark.parametrize(("shared", "refused"), [(0, True), (10, True), (15, True), (16, False)])
def test_tiles_that_share_too_little_are_refused_before_anything_runs(tmp_path, shared, refused):
    tiles = mosaic_phantom(3, counts=(1, 2), tile_shape=SHAPE, overlap=(0, 40))
    nominal = np.array([(0.0, 0.0, 0.0), (0.0, 0.0, SHAPE[2] - shared)])
    _write(tmp_path / "raw", tiles, nominal)
    job = _job(tmp_path)
    if not refused:
        register.check(job)
        return
    with pytest.raises(UserError, match="2 of 2 tiles overlap no other: tile_00, tile_01") as told:
        register.check(job)
    assert "1 × 16 × 16 voxels" in str(told.value)
    register.check(_job(tmp_path, positions={"allow_stage_positions": True}))


def test_groups_of_tiles_apart_are_refused_before_anything_runs(tmp_path):
    phantom = mosaic_phantom(3, counts=(1, 4), tile_shape=SHAPE, overlap=(0, 40))
    nominal = np.array([(0.0, 0.0, x) for x in (0, 88, 230, 318)])
    _write(tmp_path / "raw", phantom, nominal)
    with pytest.raises(UserError, match="2 of 4 tiles overlap none of the rest: tile_02, tile_03"):
        register.check(_job(tmp_path))


def test_light_that_cannot_be_found_is_told(tmp_path, caplog):
    _two(tmp_path)
    tiles = tmp_path / "raw/tiles.tsv"
    head, first, second = tiles.read_text().splitlines()
    name, z, y, _ = second.split("\t")
    beside = "\t".join([name, z, y, str(SHAPE[2] * SPACING_UM[2])])
    tiles.write_text("\n".join([head, first, beside]) + "\n")
    told = _run(_job(tmp_path, positions={"source": "stage"}), "illuminate")["illuminate"].summary
    assert told["light_not_corrected"] == "no two tiles show the same sample where they overlap"
    assert "brain: light not corrected: no two tiles" in caplog.text
    off = _job(tmp_path, positions={"source": "stage"}, light={"flat_field": False, "gains": False})
    assert _run(off, "illuminate")["illuminate"].summary["light_not_corrected"] is None


@pytest.mark.parametrize(
    ("light", "planes"),
    [({}, 2 * 16), ({"gains": False}, 1 * 16), ({"flat_field": False, "gains": False}, 0)],
)
def test_no_more_tiles_are_read_for_the_light_than_are_used(tmp_path, monkeypatch, light, planes):
    _two(tmp_path)
    job = _job(tmp_path, light=light)
    _run(job, "place")
    whole = []
    read = LazyTile.__getitem__

    def watched(tile, index):
        voxels = read(tile, index)
        if voxels.shape[1:] == SHAPE[1:]:
            whole.append(len(voxels))
        return voxels

    monkeypatch.setattr(LazyTile, "__getitem__", watched)
    if light:
        monkeypatch.setattr(illuminate, "_VOICES", 1)
    execute(replace(job, stage="illuminate"))
    assert sum(whole) == planes


@pytest.mark.parametrize("dark", [0, 1])
def test_a_tile_of_zeros_is_left_out(tmp_path, dark):
    phantom = mosaic_phantom(3, counts=(1, 2), tile_shape=SHAPE, overlap=(0, 40))
    phantom.tiles[dark][:] = 0
    _write(tmp_path / "raw", phantom, phantom.nominal_starts)
    outcomes = _run(_job(tmp_path))
    assert outcomes["place"].summary["dark_tiles"] == [_name(dark)]
    assert outcomes["ingest_image"].summary["tiles_fused"] == 1


def test_another_slab_redoes_what_it_holds(tmp_path):
    _two(tmp_path)
    job = replace(_job(tmp_path), stage="ingest_image")
    span = _run(job)["ingest_image"].summary["intensity_span"]
    image = job.folder / "image.ome.zarr"
    before = {p: p.read_bytes() for p in image.rglob("c/*/*/*") if p.is_file()}
    # As if killed after the first slab.
    ledger = image.with_name("image.ome.zarr.ledger.jsonl")
    head, first, *_ = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(head + first)
    for path in sorted(before)[2:]:
        path.unlink()
    microscopy = job.config.microscopy.model_copy(update={"slab_mb": 512})
    job = replace(job, config=job.config.model_copy(update={"microscopy": microscopy}))
    assert execute(job).summary["intensity_span"] == span
    assert {p: p.read_bytes() for p in image.rglob("c/*/*/*") if p.is_file()} == before


def test_corrected_stage_positions_are_used(tmp_path):
    _two(tmp_path)
    job = _job(tmp_path, positions={"source": "stage"})
    _run(job, "place")
    table = tmp_path / "raw/tiles.tsv"
    head, first, second = table.read_text().splitlines()
    name, z, y, x = second.split("\t")
    table.write_text("\n".join([head, first, "\t".join([name, z, y, str(float(x) + 20)])]) + "\n")
    os.utime(tmp_path / "raw")
    before = vectors(read_table(job.folder / "placement/tiles.parquet"), "start")
    _run(job, "place")
    after = vectors(read_table(job.folder / "placement/tiles.parquet"), "start")
    assert (after - before)[1].tolist() == [0, 0, 10]


def test_the_stage_is_believed_when_told_so(tmp_path):
    phantom = _two(tmp_path)
    light = {"flat_field": False, "gains": False}
    job = _job(tmp_path, positions={"source": "stage"}, light=light)
    outcomes = _run(job)
    assert outcomes["register"].summary["pairs"] == 0
    image = open_image(job.folder / "image.ome.zarr")
    width = image.spec.shape[2] - SHAPE[2]
    assert width == round(float(np.diff(phantom.nominal_starts[:, 2])[0]))
    # Where one tile alone covers, its voxels are copied as they are.
    left = image.read(Box((0, 0, 0), (SHAPE[0], SHAPE[1], width)))
    np.testing.assert_array_equal(left, phantom.tiles[0][:, :, :width])


def test_dark_level_may_be_told(tmp_path):
    _two(tmp_path)
    job = _job(tmp_path, light={"dark_level": 200.0})
    assert _run(job, "illuminate")["illuminate"].summary["dark_level"] == 200.0


def test_edges_come_back_from_their_table():
    edges = [
        Edge(
            0,
            1,
            (0.5, -1.0, 99.25),
            (0.0, 0.0, 100.0),
            0.9,
            20.0,
            3.0,
            0.1,
            (0.1, 0.2, 0.3),
            5,
            6,
            True,
            "",
        ),
        Edge(
            1,
            7,
            (0.0, 1.0, 2.0),
            (0.0, 1.0, 2.0),
            0.0,
            3.0,
            1.0,
            np.inf,
            (np.inf,) * 3,
            0,
            0,
            False,
            "tile 7 is blank in the overlap",
        ),
    ]
    assert edges_of(edge_columns(edges)) == edges
    assert edges_of(edge_columns([])) == []


def test_one_channel_places_the_other(tmp_path):
    phantom = mosaic_phantom(
        3, counts=(1, 2), tile_shape=SHAPE, overlap=(0, 40), jitter=(1.0, 3.0, 3.0)
    )
    rng = np.random.default_rng(0)
    rows = [("file", "z_um", "y_um", "x_um")]
    for k, tile in enumerate(phantom.tiles):
        (tmp_path / "raw").mkdir(exist_ok=True)
        # The channel to be mapped shows nothing to hold on to.
        stack = np.stack([tile, rng.poisson(500 * (k + 1), SHAPE).astype(np.uint16)])
        tifffile.imwrite(tmp_path / f"raw/{_name(k)}.ome.tif", stack, metadata={"axes": "CZYX"})
        rows.append((f"{_name(k)}.ome.tif", *np.multiply(phantom.nominal_starts[k], SPACING_UM)))
    with (tmp_path / "raw/tiles.tsv").open("w", newline="") as table:
        csv.writer(table, delimiter="\t").writerows(rows)
    job = _job(tmp_path, light={"flat_field": False, "gains": False})
    both = {"channel": 1, "register_channel": 0, "allow_missing_planes": None}
    job = replace(job, sample=job.sample.model_copy(update=both))
    assert _run(job)["place"].summary["pairs_used"] == 1
    starts = vectors(read_table(job.folder / "placement/tiles.parquet"), "start")
    np.testing.assert_allclose(np.diff(starts, axis=0), np.diff(phantom.starts, axis=0), atol=0.1)
    image = open_image(job.folder / "image.ome.zarr")
    voxels = image.read(Box.of_shape(image.spec.shape))
    left, right = (voxels[5:20, 20:100, x : x + 40].mean() for x in (20, 160))
    assert (left, right) == (pytest.approx(500, rel=0.01), pytest.approx(1000, rel=0.01))
