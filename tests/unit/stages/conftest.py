"""An acquisition that several files of tests localize or map; a file may have its own instead."""

import pytest
from tiny_ultrasound import N_FRAMES, SHAPE, ingested, run

from vasculome.simulate.phantoms import ultrasound_phantom


@pytest.fixture(scope="module")
def phantom():
    return ultrasound_phantom(seed=4, n_frames=N_FRAMES, shape=SHAPE, mean_bubbles=6.0)


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    """A folder in which the IQ is ingested and calibrated."""
    folder = ingested(phantom, tmp_path_factory.mktemp("ultrasound"))
    run(folder, "calibrate")
    return folder
