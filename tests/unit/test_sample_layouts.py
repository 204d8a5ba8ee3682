"""Columns of the sample sheet that say how microscopy tiles are laid out."""

import inspect
from typing import get_args

import pytest

from vasculome.config import MICROSCOPY_FORMATS, Sample, parse_samples
from vasculome.errors import UserError
from vasculome.readers.acquisition import Layout, open_acquisition
from vasculome.readers.stage_positions import GridOrder

COLUMNS = ("sample", "modality", "path", "format", "spacing_um")
MOUSE = {"sample": "m", "modality": "microscopy", "path": "p", "spacing_um": "5,2,2"}


def _parse(**cells):
    row = {**MOUSE, **cells}
    sheet = "\t".join(row) + "\n" + "\t".join(row.values()) + "\n"
    return parse_samples(sheet, where="s.tsv")[0]


def test_cells_become_what_the_readers_take():
    sample = _parse(
        format="tiff_grid",
        grid="4 x 5",
        order="snake-columns",
        overlap_percent="10",
        stage_axes="y, -x",
        allow_missing_planes="yes",
        register_channel="1",
        pattern="tile*",
    )
    assert sample.grid == (4, 5)
    assert sample.overlap_percent == (10.0, 10.0)
    assert sample.stage_axes == ("y", "-x")
    assert sample.allow_missing_planes is True
    assert _parse(format="tiff_grid", overlap_percent="10,15").overlap_percent == (10, 15)


def test_empty_cells_mean_nothing():
    sample = _parse(format="ome_tiles", grid="", stage_axes="")
    assert sample.grid is None and sample.stage_axes is None
    assert sample.allow_missing_planes is None


def test_sheet_and_readers_know_the_same_words():
    assert set(get_args(Layout)) == set(MICROSCOPY_FORMATS)
    assert {*MICROSCOPY_FORMATS, "iq", "rf"} == set(
        get_args(Sample.model_fields["format"].annotation)
    )
    orders = get_args(get_args(Sample.model_fields["order"].annotation)[0])
    assert orders == get_args(GridOrder)
    options = set(inspect.signature(open_acquisition).parameters) - {"check"}
    assert options <= set(Sample.model_fields)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"grid": "4"}, "grid"),
        ({"grid": "4x0"}, "grid.1: Input should be greater than 0, got '0'"),
        ({"overlap_percent": "100"}, "less than 100"),
        ({"overlap_percent": "a"}, "overlap_percent"),
        ({"order": "snake"}, "'snake-rows' or 'snake-columns', got 'snake'"),
        ({"stage_axes": "y,z"}, "stage_axes"),
        ({"stage_axes": "y,-y"}, "stage_axes must name y and x once each"),
        ({"allow_missing_planes": "perhaps"}, "allow_missing_planes"),
        ({"register_channel": "-1"}, "register_channel"),
    ],
)
def test_bad_cells_are_named(cells, says):
    with pytest.raises(UserError, match="line 2") as error:
        _parse(format="tiff_grid", **cells)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_layout_columns_are_for_microscopy():
    with pytest.raises(UserError, match="grid, order is for microscopy samples"):
        _parse(
            modality="ultrasound",
            format="iq",
            spacing_um="49,49",
            axes="zxt",
            grid="2x2",
            order="raster-rows",
        )
