import json
import re

import numpy as np
import pytest

from vasculome.report.mosaic import read_mosaic
from vasculome.report.stitching_words import (
    MOST_NAMES,
    MOST_PAIRS,
    alerts,
    fault_table,
    pair_table,
    summary,
)

SPACING_UM = (4.0, 2.0, 2.0)


def _read(folder):
    return read_mosaic(folder, spacing_um=SPACING_UM)


@pytest.fixture
def read(tmp_path, faulty):
    return _read(faulty.write(tmp_path))


def _faults(mosaic):
    return {row[0]: row[1:] for row in fault_table(mosaic).rows}


def test_the_sentence_counts_what_was_done_wrong(read):
    text = summary(read)
    assert "30 tiles with 49 overlapping pairs" in text
    # Tiles 1 and 15 have 3 and 4 pairs, and 2 more were rejected.
    assert "9 rejected, 40 accepted; 2 of the latter are outliers" in text
    assert "1 placed by the stage, 2 dark, 1 misreported by the stage" in text
    assert "2 with missing planes (3 planes)" in text


def test_the_sentence_gives_the_residuals_in_both_units(read):
    used = read.edges.residual_px[read.edges.used]
    found = re.search(
        r"pairs used by z (\S+) px \((\S+) µm\), y (\S+) px \((\S+) µm\)", summary(read)
    )
    root = np.sqrt((used**2).mean(axis=0))
    z_px, z_um, y_px, y_um = (float(part) for part in found.groups())
    assert (z_px, z_um) == pytest.approx((root[0], 4 * root[0]), rel=0.01)
    assert (y_px, y_um) == pytest.approx((root[1], 2 * root[1]), rel=0.01)


def test_the_sentence_names_the_tile_that_moved_most(read, faulty):
    largest = np.linalg.norm(read.tiles.displacement_px[20] * SPACING_UM)
    assert f"at most by {largest:.3g} µm" in summary(read)
    assert summary(read).splitlines()[1].endswith(f": {faulty.name(20)}.")


def test_every_fault_is_named(read, faulty):
    faults = _faults(read)
    assert faults["placed by the stage"] == ("1", faulty.name(29))
    assert faults["dark: left out"] == ("2", f"{faulty.name(1)}, {faulty.name(15)}")
    count, which = faults["misreported by the stage"]
    assert count == "1"
    assert which.startswith(faulty.name(20))
    assert float(re.search(r"by (\S+) px", which)[1]) == pytest.approx(40, abs=3)
    assert faults["with missing planes"] == ("2", f"{faulty.name(2)} (2), {faulty.name(26)} (1)")
    assert faults["outlier pairs"] == ("2", f"{faulty.pair(7, 8)}, {faulty.pair(18, 24)}")
    count, which = faults["rejected pairs"]
    assert count == "9"
    # Those that no dark tile explains come first.
    assert which.startswith(f"{faulty.pair(23, 29)}, {faulty.pair(28, 29)}, ")
    assert which.count(faulty.name(15)) == 4


def test_planes_without_an_image_are_told_from_those_without_a_file(tmp_path, faulty):
    read = _read(faulty.write(tmp_path))
    read.blank_planes[7] = 3
    read.blank_planes[15] = 40
    faults = _faults(read)
    # Tile 15 is dark as a whole; planes 2 and 26 lack have no file.
    assert faults["with blank planes: one value throughout"] == ("1", f"{faulty.name(7)} (3)")


def test_long_lists_are_cut_and_counted(tmp_path, stitched):
    many = stitched(6, 6, missing=dict.fromkeys(range(14), 1))
    count, which = _faults(_read(many.write(tmp_path)))["with missing planes"]
    assert count == "14"
    assert which.count("tile_") == MOST_NAMES
    assert which.endswith(" and 4 more")


def test_a_sound_mosaic_has_no_faults_and_no_alerts(tmp_path, stitched):
    read = _read(stitched(2, 2).write(tmp_path))
    assert fault_table(read) is None
    assert alerts(read) == []


def test_alerts_name_the_tiles_placed_by_the_stage_and_the_dark_ones(read, faulty):
    adrift, dark = alerts(read)
    assert adrift.sentence == "1 of 30 tiles placed by the stage alone."
    assert faulty.name(29) in adrift.more
    assert "seams" in adrift.more
    assert dark.sentence == "2 of 30 tiles left out as dark."
    assert faulty.name(15) in dark.more


def test_light_that_could_not_be_found_is_told(tmp_path, stitched):
    folder = stitched(2, 2).write(tmp_path)
    summary_of_light = {"light_not_corrected": "no two tiles overlap"}
    path = folder / "manifests/illuminate.json"
    path.write_text(json.dumps({"stage": "illuminate", "summary": summary_of_light}))
    (alert,) = alerts(_read(folder))
    assert alert.sentence == "Light left as it is."
    assert "no two tiles overlap" in alert.more


def test_without_pairs_all_tiles_are_the_stages(tmp_path, stitched):
    read = _read(stitched(2, 3, neighbours=False).write(tmp_path))
    (alert,) = alerts(read)
    # The largest part is one tile then, which has its place by itself.
    assert "No overlap was registered" in alert.more
    assert "0 overlapping pairs" in summary(read)
    assert "No pair holds any tile in its place." in summary(read)
    assert pair_table(read).rows == []


def test_a_chain_of_tiles_says_that_residuals_mean_nothing(tmp_path, stitched):
    assert "close no loop" in summary(_read(stitched(1, 4).write(tmp_path / "chain")))
    assert "close no loop" not in summary(_read(stitched(2, 2).write(tmp_path / "square")))


def test_pairs_stand_worst_first(read, faulty):
    rows = pair_table(read).rows
    assert len(rows) == MOST_PAIRS
    verdicts = [row[-1].split(":")[0] for row in rows]
    assert verdicts == ["outlier"] * 2 + ["rejected"] * 9 + ["used"] * 14
    assert [row[0] for row in rows[:4]] == [
        faulty.pair(7, 8),
        faulty.pair(18, 24),
        faulty.pair(23, 29),
        faulty.pair(28, 29),
    ]
    residuals = [float(row[-3]) for row in rows[11:]]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[0] == pytest.approx(np.nanmax(read.edges.misfit_px[read.edges.used]), abs=0.01)


def test_the_numbers_of_a_pair_are_its_own(read, faulty):
    row = next(row for row in pair_table(read).rows if row[0] == faulty.pair(7, 8))
    found = faulty.moves_px[8] - faulty.moves_px[7] + faulty.false_edges[7, 8]
    np.testing.assert_allclose([float(cell) for cell in row[1:4]], found, atol=0.2)
    assert row[4:7] == ("0.90", "2.50", "0.10")
    assert float(row[8]) == pytest.approx(2 * float(row[7]), rel=0.02)


def test_what_was_not_measured_is_a_dash_and_the_reason_names_the_tile(read, faulty):
    row = next(row for row in pair_table(read).rows if row[0] == faulty.pair(1, 2))
    assert set(row[1:-1]) == {"–"}
    assert row[-1] == f"rejected: {faulty.name(1)} is blank in the overlap"


def test_many_rejected_pairs_leave_room_for_those_in_use(tmp_path, stitched):
    read = _read(stitched(5, 8, dark=tuple(range(0, 40, 3))).write(tmp_path))
    table = pair_table(read)
    verdicts = [row[-1].split(":")[0] for row in table.rows]
    assert verdicts == ["rejected"] * 15 + ["used"] * 10
    unused, used = int((~read.edges.used).sum()), int(read.edges.used.sum())
    assert f"15 of {unused} that were not used, 10 of {used} that were" in table.caption
