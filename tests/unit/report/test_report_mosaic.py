import numpy as np
import pytest

from vasculome.errors import UserError
from vasculome.report import mosaic
from vasculome.report.mosaic import read_mosaic
from vasculome.stages import illuminate, place
from vasculome.storage.bundles import read_bundle, write_bundle
from vasculome.storage.tables import read_table, write_table

SPACING_UM = (4.0, 2.0, 2.0)
FILES = (mosaic.TILES, mosaic.EDGES, mosaic.CROPS, mosaic.GAINS, mosaic.BLANK_PLANES)


def _read(folder):
    return read_mosaic(folder, spacing_um=SPACING_UM)


def test_the_files_are_those_that_the_stages_write():
    assert f"{place.PLACEMENT}/{place.TILES}" == mosaic.TILES
    assert f"{place.PLACEMENT}/{place.EDGES}" == mosaic.EDGES
    assert f"{place.PLACEMENT}/{place.CROPS}" == mosaic.CROPS
    assert f"{illuminate.LIGHT}/{illuminate.GAINS}" == mosaic.GAINS
    assert f"{illuminate.LIGHT}/{illuminate.SHADING}" == mosaic.SHADING
    assert f"{illuminate.LIGHT}/{illuminate.BLANK_PLANES}" == mosaic.BLANK_PLANES


def test_displacements_are_the_true_ones_wherever_the_volume_begins(tmp_path, faulty):
    read = _read(faulty.write(tmp_path))
    placed = read.tiles.state == "placed"
    true = faulty.moves_px - np.median(faulty.moves_px[placed], axis=0)
    # Offsets are off by 0.05 px each; and a median may be of other tiles by as much.
    np.testing.assert_allclose(read.tiles.displacement_px[placed], true[placed], atol=0.4)
    assert np.abs(np.median(read.tiles.displacement_px[placed], axis=0)).max() < 1e-12


def test_tiles_of_a_part_apart_lie_where_the_stage_puts_them(tmp_path, stitched):
    halves = {(2, 3): "no", (6, 7): "no"}
    read = _read(stitched(2, 4, rejected=halves).write(tmp_path))
    table = read_table(tmp_path / mosaic.TILES)
    assert read.tiles.by_stage.tolist() == [False, False, False, True] * 2
    # Some stages may call them placed, as pairs hold them together.
    table["state"][:] = "placed"
    write_table(tmp_path / mosaic.TILES, table)
    assert _read(tmp_path).tiles.by_stage.tolist() == [False, False, False, True] * 2


def test_edges_are_what_registration_found(tmp_path, faulty):
    edges = _read(faulty.write(tmp_path)).edges
    row = [tuple(pair) for pair in edges.ends.tolist()].index((7, 8))
    true = faulty.moves_px[8] - faulty.moves_px[7] + faulty.false_edges[7, 8]
    np.testing.assert_allclose(edges.correction_px[row], true, atol=0.2)
    assert edges.outlier[row]
    assert edges.misfit_px[row] == pytest.approx(np.hypot(6, 6), abs=0.5)
    assert np.isnan(edges.misfit_px[~edges.accepted]).all()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_cut_file_is_an_error_that_names_it(tmp_path, faulty, name):
    path = faulty.write(tmp_path) / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=path.name):
        _read(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=path.name):
        _read(tmp_path)


def test_a_cut_flat_field_is_an_error_but_none_is_none(tmp_path, faulty):
    path = faulty.write(tmp_path) / mosaic.SHADING
    assert _read(tmp_path).shading.dark == 101.5
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="shading"):
        _read(tmp_path)
    path.unlink()
    assert _read(tmp_path).shading is None


@pytest.mark.parametrize("name", [mosaic.SHADING, mosaic.CROPS])
def test_a_bundle_without_its_arrays_is_an_error(tmp_path, faulty, name):
    path = faulty.write(tmp_path) / name
    arrays = read_bundle(path)
    arrays.popitem()
    write_bundle(path, arrays)
    with pytest.raises(UserError, match="no array"):
        _read(tmp_path)


@pytest.mark.parametrize("name", [mosaic.EDGES, mosaic.GAINS, mosaic.BLANK_PLANES])
def test_files_of_another_run_are_an_error(tmp_path, faulty, stitched, name):
    larger = stitched(9, 9, missing={70: 1}).write(tmp_path / "larger")
    smaller = faulty.write(tmp_path / "smaller")
    (smaller / name).write_bytes((larger / name).read_bytes())
    with pytest.raises(UserError, match="different runs"):
        _read(smaller)


def test_crops_of_another_run_are_an_error(tmp_path, faulty):
    path = faulty.write(tmp_path) / mosaic.CROPS
    write_bundle(path, read_bundle(path) | {"edge": np.array([0, 5000], np.int32)})
    with pytest.raises(UserError, match="5000"):
        _read(tmp_path)
