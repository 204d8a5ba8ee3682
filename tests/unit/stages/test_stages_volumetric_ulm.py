"""The ultrasound chain in 3-D, by the stages themselves, against simulated truth."""

import h5py
import numpy as np
import pytest

from vasculome.config import RunConfig, Sample
from vasculome.geometry import Box
from vasculome.metrics.localization import score_localization
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.stages import job
from vasculome.stages.catalog import stages_of
from vasculome.stages.job import Job
from vasculome.storage.omezarr import open_image
from vasculome.storage.tables import read_parts
from vasculome.ultrasound.columns import positions

SHAPE = (28, 24, 26)
N_FRAMES = 150


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """All stages on a small matrix-array acquisition in a MATLAB 7.3 file, and its truth."""
    folder = tmp_path_factory.mktemp("volumetric")
    phantom = ultrasound_phantom(
        seed=3, n_frames=N_FRAMES, shape=SHAPE, mean_bubbles=6.0, clutter_db=20.0
    )
    iq = np.concatenate(list(phantom.blocks))
    with h5py.File(folder / "iq.mat", "w") as file:
        # MATLAB shows z, y, x, t; HDF5 holds the axes in reverse.
        pair = np.empty(iq.shape, [("real", "f4"), ("imag", "f4")])
        pair["real"], pair["imag"] = iq.real, iq.imag
        file["IQ"] = pair.transpose(0, 3, 2, 1)
        file["frame_rate_hz"] = [[phantom.frame_rate_hz]]
    sample = Sample(
        sample="matrix",
        modality="ultrasound",
        path=str(folder / "iq.mat"),
        format="iq",
        spacing_um=phantom.spacing_um,
        axes="zyxt",
        wavelength_um=phantom.wavelength_um,
    )
    config = RunConfig(
        results=str(folder / "results"),
        compute={"scheduler": "inline"},
        ultrasound={
            "clutter": {"block_frames": 75, "keep_from": 8},
            "track": {"min_length_frames": 8},
        },
    )
    for stage in stages_of(sample):
        job.execute(Job(stage, config, sample))
    return Job("track", config, sample), phantom


def test_bubbles_are_found_where_they_are(chain):
    done, phantom = chain
    found = read_parts(done.folder / "detections")
    scores = score_localization(
        found["frame"],
        positions(found),
        phantom.bubbles.frame,
        phantom.bubbles.position_um,
        pair_distance=phantom.wavelength_um / 2,
    )
    assert scores.precision > 0.6
    assert scores.recall > 0.5
    assert scores.rmse < 0.25 * phantom.wavelength_um


def test_tracks_run_in_three_dimensions_across_blocks(chain):
    done, _ = chain
    tracks = read_parts(done.folder / "tracks")
    assert {"z_um", "y_um", "x_um", "vz_mm_s", "vy_mm_s", "vx_mm_s"} <= set(tracks)
    crossing = [
        track
        for track in np.unique(tracks["track"])
        if np.ptp(tracks["frame"][tracks["track"] == track] // 75)
    ]
    assert crossing, "no track continues from the first block into the second"


def test_maps_have_three_axes_and_hold_all_tracks(chain):
    done, _ = chain
    density = open_image(done.folder / "maps/density.ome.zarr")
    assert density.spec.axes == ("z", "y", "x")
    voxels = density.read(Box.of_shape(density.spec.shape))
    tracks = read_parts(done.folder / "tracks")
    place = (positions(tracks) - density.spec.origin_um) / density.spec.spacing_um
    index = np.floor(place + 0.5).astype(int)
    inside = np.all((index >= 0) & (index < voxels.shape), axis=1)
    assert inside.mean() > 0.95
    assert (voxels[tuple(index[inside].T)] >= 1).all()
    assert not (done.folder / "maps/direction.ome.zarr").exists()
