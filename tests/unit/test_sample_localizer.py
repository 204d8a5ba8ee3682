"""A localizer of its own for a row of the sample sheet: what it changes, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

from vasculome.config import Sample, config_of, parse_config, parse_samples
from vasculome.errors import UserError
from vasculome.stages.catalog import stages_of
from vasculome.stages.job import Job, load_run

ROW = {
    "sample": "u",
    "modality": "ultrasound",
    "path": "iq.npy",
    "format": "iq",
    "spacing_um": "50,50",
    "axes": "tzx",
    "frame_rate_hz": "1000",
    "wavelength_um": "100",
}


def _sheet(*rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, *([row.get(name, "") for name in columns] for row in rows)]
    return "\n".join("\t".join(line) for line in lines)


def _sample(**cells):
    (sample,) = parse_samples(_sheet(ROW | cells), where="s.tsv")
    return sample


def _config(**localize):
    return parse_config({"ultrasound": {"localize": localize}}, where="config")


def test_one_file_may_be_listed_twice_with_two_localizers():
    rows = ROW, {**ROW, "sample": "learned", "localizer": "stulm"}
    assert [s.localizer for s in parse_samples(_sheet(*rows), where="s.tsv")] == [None, "stulm"]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"localizer": "magic"}, "line 2: localizer: Input should be 'weighted_average'"),
        (
            {"modality": "microscopy", "format": "tiff_stack", "spacing_um": "5,2,2"}
            | dict.fromkeys(("axes", "frame_rate_hz", "wavelength_um"), "")
            | {"localizer": "stulm"},
            "line 2: localizer is for ultrasound samples; leave it empty",
        ),
    ],
)
def test_bad_cells_are_named(cells, says):
    with pytest.raises(UserError) as caught:
        _sample(**cells)
    message = str(caught.value)
    assert says in message and "\n" not in message


def test_it_takes_the_place_of_the_configured_one_and_of_nothing_else():
    config = _config(localizer="gaussian_fit", half_width_px=2, stulm={"min_probability": 0.7})
    assert config_of(config, _sample()) is config
    own = config_of(config, _sample(localizer="stulm"))
    expected = config.model_dump()
    expected["ultrasound"]["localize"]["localizer"] = "stulm"
    assert own.model_dump() == expected
    assert Job("track", config, _sample(localizer="stulm")).config == own


def test_settings_that_do_not_go_with_it_are_refused_before_anything_runs(tmp_path):
    sheet = tmp_path / "samples.tsv"
    sheet.write_text(_sheet(ROW, {**ROW, "sample": "learned", "localizer": "stulm"}))
    content = {"samples": str(sheet), "results": str(tmp_path / "results")}
    load_run(content)
    content["ultrasound"] = {"localize": {"max_maxima": 2}}
    with pytest.raises(UserError, match="max_maxima and max_shift_px must be null") as caught:
        load_run(content)
    assert str(caught.value).startswith("config: ultrasound.localize, for sample learned: ")


@pytest.mark.parametrize("localizer", ["radial_symmetry", "stulm"])
def test_it_counts_for_each_stage_as_if_it_were_configured(tmp_path, localizer):
    np.save(tmp_path / "iq.npy", np.zeros((4, 8, 8), np.complex64))
    plain = Sample.model_validate({**ROW, "path": str(tmp_path / "iq.npy")})
    own = plain.model_copy(update={"localizer": localizer})
    default, configured = _config(), _config(localizer=localizer)
    changed = set()
    for stage in stages_of(plain):
        identity = Job(stage, default, own).identity()
        assert identity == Job(stage, configured, plain).identity()
        if identity != Job(stage, default, plain).identity():
            changed.add(stage)
    # The echo is learnt from what the conventional localizer finds, whatever comes after.
    assert changed == {"localize"} | ({"calibrate"} if localizer != "stulm" else set())
