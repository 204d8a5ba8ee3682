from pathlib import Path

import numpy as np
import pytest

from vasculome.errors import UserError
from vasculome.readers.iq_metadata import AcquisitionMeta, parse_metadata, resolve_metadata

WHERE = Path("iq.mat")
FULL = {"frame_rate_hz": 1000.0, "wavelength_um": 98.56, "spacing_um": (49.28, 98.56)}


def _resolve(found, given, axes=2):
    return resolve_metadata(found, given, spatial_axes=axes, where=WHERE)


@pytest.mark.parametrize(("found", "given"), [(FULL, {}), ({}, FULL), (FULL, FULL)])
def test_either_source_is_enough(found, given):
    assert _resolve(found, given) == AcquisitionMeta(1000.0, 98.56, (49.28, 98.56))


def test_nothing_given_is_none():
    assert _resolve(FULL, dict.fromkeys(FULL)).frame_rate_hz == 1000.0


def test_within_one_percent_the_sample_sheet_counts():
    assert _resolve(FULL, {"frame_rate_hz": 1005}).frame_rate_hz == 1005.0


@pytest.mark.parametrize(
    "given", [{"frame_rate_hz": 1020}, {"wavelength_um": 90}, {"spacing_um": (49.28, 50)}]
)
def test_a_contradiction_is_told_with_both_values(given):
    (name,) = given
    with pytest.raises(UserError, match=f"{name} is .* by the sample sheet"):
        _resolve(FULL, given)


@pytest.mark.parametrize("name", list(FULL))
def test_what_is_missing_names_the_column(name):
    with pytest.raises(UserError, match=f"does not tell {name}") as error:
        _resolve({k: v for k, v in FULL.items() if k != name}, {})
    assert f"column {name}" in error.value.fix


def test_wavelength_is_speed_of_sound_over_frequency_whoever_gives_them():
    found = {k: v for k, v in FULL.items() if k != "wavelength_um"}
    found["center_frequency_hz"] = 15.625e6
    meta = _resolve(found, {"speed_of_sound_m_s": 1540})
    assert meta.wavelength_um == pytest.approx(98.56)


def test_wavelength_that_contradicts_frequency_and_speed():
    with pytest.raises(UserError, match="speed of sound over centre frequency"):
        _resolve(FULL, {"center_frequency_hz": 7.8e6, "speed_of_sound_m_s": 1540})


def test_spacing_has_a_value_for_each_axis():
    with pytest.raises(UserError, match="2 values for 3 axes"):
        _resolve(FULL, {}, axes=3)


@pytest.mark.parametrize("value", ["fast", [1.0, 2.0], 0, -5, np.nan, np.inf, [], b"x"])
def test_a_value_that_is_no_positive_number(value):
    with pytest.raises(UserError, match="frame_rate_hz is"):
        parse_metadata([{"frame_rate_hz": value}], where=WHERE)


def test_matlab_matrices_of_one_value_are_numbers():
    found = parse_metadata(
        [{"frame_rate_hz": np.array([[500.0]]), "spacing_um": np.array([[50.0, 60.0]])}],
        where=WHERE,
    )
    assert found == {"frame_rate_hz": (500.0,), "spacing_um": (50.0, 60.0)}


def test_places_that_contradict_each_other():
    with pytest.raises(UserError, match="another place"):
        parse_metadata([{"frame_rate_hz": 500}, {"frame_rate_hz": 600}], where=WHERE)
