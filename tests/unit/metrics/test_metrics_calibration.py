"""Calibration, on probabilities whose truth is drawn from known ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from vasculome.metrics.calibration import (
    calibrated,
    expected_calibration_error,
    fitted_temperature,
)


def test_the_error_by_hand() -> None:
    probability = np.array([0.1, 0.1, 0.1, 0.1, 0.8, 0.8])
    truth = np.array([False, False, False, True, True, True])
    # 4 of 6 say 0.1 where a quarter is true, 2 of 6 say 0.8 where all are.
    expected = 4 / 6 * 0.15 + 2 / 6 * 0.2
    assert expected_calibration_error(probability, truth, bins=5) == pytest.approx(expected)
    ends = np.array([0.0, 1.0])
    assert expected_calibration_error(ends, ends > 0.5) == 0
    assert expected_calibration_error(ends, ends < 0.5) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(-1, 2, (40, 50, 60))
    truth = rng.random(z.shape) < expit(z)
    said = expit(z * temperature).astype(np.float32)
    found = fitted_temperature(said, truth)
    assert found == pytest.approx(temperature, rel=0.02)
    # What float32 rounds to 1 cannot be told from 1 any more.
    np.testing.assert_allclose(calibrated(said, temperature), expit(z), atol=6e-3)
    assert expected_calibration_error(calibrated(said, found), truth) < 0.005
    if temperature != 1:
        assert expected_calibration_error(said, truth) > 0.03


def test_from_one_kind_of_voxels_nothing_is_told() -> None:
    said = np.linspace(0, 1, 8)
    assert fitted_temperature(said, np.zeros(8, np.bool_)) == 1
    assert fitted_temperature(said, np.ones(8, np.bool_)) == 1
    # Right of all and sure of it: as cold as it gets, and no warning.
    assert fitted_temperature(said, said > 0.5) == pytest.approx(0.05, rel=0.01)
