import pytest

from vasculome.config import RunConfig
from vasculome.report.words import flatten_keys, heading, number, words


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("median_radius_um", "median radius (µm)"),
        ("length_density_mm_mm3", "length density (mm/mm³)"),
        ("median_speed_mm_s", "median speed (mm/s)"),
        ("min_object_um3", "min object (µm³)"),
        ("frame_rate_hz", "frame rate (Hz)"),
        ("vessel_fraction_percent", "vessel fraction (%)"),
        ("detections_per_frame", "detections per frame"),
        ("tracks", "tracks"),
        ("s", "s"),
    ],
)
def test_units_come_out_of_keys(key, text):
    assert heading(key) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (3.14159, "3.142"),
        (0.0, "0"),
        (12345.6, "12,346"),
        (1.5e-5, "1.500e-05"),
        (2.5e12, "2.500e+12"),
    ],
)
def test_numbers_keep_four_digits(value, text):
    assert number(value) == text


def test_values_of_all_kinds_have_words():
    assert words(None) == "–"
    assert words(True) == "yes"
    assert words([1596, 1601]) == "1596, 1601"
    assert words({"a": 1, "b": [2.0, 4.0]}) == "a: 1, b: 2, 4"
    assert words("two\n lines") == "two lines"


def test_every_key_of_a_configuration_gets_a_row():
    flat = flatten_keys(RunConfig().model_dump(mode="json"))
    defaults = RunConfig()
    assert flat["ultrasound.track.max_speed_mm_s"] == defaults.ultrasound.track.max_speed_mm_s
    assert flat["microscopy.segment.scales_um"] == list(defaults.microscopy.segment.scales_um)
