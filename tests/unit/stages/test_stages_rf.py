"""RF of points at exact times of flight becomes IQ with the points where they are."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
import yaml

from vasculome.config import BeamformConfig, RunConfig, Sample
from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.readers.rf import open_rf
from vasculome.stages import ingest_iq, job
from vasculome.stages.job import Job
from vasculome.storage.arrays import open_array

SPEED_UM_S = 1540e6
CENTER_HZ, SAMPLING_HZ, START_S = 5e6, 20e6, 4e-6
ANGLES_DEG = (-6.0, 0.0, 6.0)
SEQUENCE = {
    "sampling_frequency_hz": SAMPLING_HZ,
    "center_frequency_hz": CENTER_HZ,
    "bandwidth_hz": 6e6,
    "speed_of_sound_m_s": SPEED_UM_S / 1e6,
    "start_time_s": START_S,
    "time_zero": "origin",
    "element_width_um": 180.0,
}
LINE_UM = (np.arange(32) - 15.5) * 200.0
LINEAR = {
    **SEQUENCE,
    "axes": "taes",
    "n_elements": 32,
    "pitch_um": 200.0,
    "angles_deg": list(ANGLES_DEG),
}
MATRIX = {
    **SEQUENCE,
    "axes": "taes",
    "n_elements": [8, 8],
    "pitch_um": [400.0, 400.0],
    "fastest_axis": "x",
    "angles_deg": [[0.0, 0.0], [5.0, 0.0]],
}


def echoes(points_um, elements_um, directions, n_samples):
    """Return RF (t, transmits, elements, samples) of one point in each frame."""
    there = points_um @ directions.T
    back = np.linalg.norm(points_um[:, None] - elements_um, axis=2)
    delay = (there[:, :, None] + back[:, None]) / SPEED_UM_S
    late = START_S + np.arange(n_samples) / SAMPLING_HZ - delay[..., None]
    return np.exp(-2 * (late * 3.5e6) ** 2) * np.cos(2 * np.pi * CENTER_HZ * late)


def plane_rf(points_um, n_samples=330):
    angles = np.deg2rad(ANGLES_DEG)
    elements = np.stack([np.zeros(32), LINE_UM], axis=1)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return echoes(points_um, elements, directions, n_samples)


def made(folder, rf, told, *, beamform=None, **columns):
    """Write raw files, run `ingest_iq`; return its job and the IQ."""
    job_ = prepared(folder, rf, told, beamform=beamform, **columns)
    job.check_sample(job_.config, job_.sample)
    job.execute(job_)
    return job_, open_array(job_.folder / ingest_iq.IQ)


def prepared(folder, rf, told, *, beamform=None, **columns):
    folder.mkdir(exist_ok=True)
    np.save(folder / "rf.npy", np.round(2000 * rf).astype(np.int16))
    (folder / "sequence.yaml").write_text(yaml.safe_dump(told))
    row = {
        "sample": "rat",
        "modality": "ultrasound",
        "path": str(folder / "rf.npy"),
        "format": "rf",
        "sequence": str(folder / "sequence.yaml"),
        "spacing_um": (77.0, 77.0),
        "frame_rate_hz": 500.0,
    }
    config = RunConfig(
        results=str(folder / "results"),
        compute={"scheduler": "inline"},
        ultrasound={"beamform": beamform or {}, "clutter": {"block_frames": 40}},
    )
    return Job("ingest_iq", config, Sample(**(row | columns)))


def brightest_um(iq):
    """Return where each frame is brightest, to a part of a voxel."""
    frames = np.abs(iq.read(Box.of_shape(iq.shape)))
    spacing, origin = (np.array(iq.attributes[key]) for key in ("spacing_um", "origin_um"))
    found = []
    for frame in frames:
        peak = np.array(np.unravel_index(frame.argmax(), frame.shape))
        shift = np.zeros(frame.ndim)
        for axis, k in enumerate(peak):
            # The top of the parabola through the brightest voxel and its neighbours.
            low, middle, high = np.take(
                frame[(*peak[:axis], slice(None), *peak[axis + 1 :])], [k - 1, k, k + 1]
            )
            shift[axis] = (low - high) / (2 * (low - 2 * middle + high))
        found.append(origin + spacing * (peak + shift))
    return np.array(found)


@pytest.fixture(scope="module")
def points_um():
    rng = np.random.default_rng(5)
    return np.stack([rng.uniform(5000, 11000, 40), rng.uniform(-1500, 1500, 40)], axis=1)


def test_points_are_where_they_are_in_the_animal(tmp_path, points_um):
    job_, iq = made(tmp_path, plane_rf(points_um), LINEAR, pose_mm=(1.5, -20.0))
    # Half a voxel of 77 µm; the wavelength is 308 µm, and the point spread of this probe wider.
    np.testing.assert_allclose(brightest_um(iq) - (1500, -20000), points_um, atol=40)
    assert iq.attributes["wavelength_um"] == pytest.approx(308.0)
    assert iq.attributes["frame_rate_hz"] == 500.0
    summary = job_.manifest("ingest_iq")["summary"]
    assert (summary["transmits"], summary["elements"]) == (3, 32)
    # As deep as was recorded by all three: from the first to the last sample, there and back.
    deepest_um = (START_S + 329 / SAMPLING_HZ) * SPEED_UM_S / 2
    assert summary["first_depth_um"] == pytest.approx(START_S * SPEED_UM_S / 2, abs=20)
    assert deepest_um - 100 < summary["last_depth_um"] < deepest_um + 20


def test_a_grid_may_be_chosen(tmp_path, points_um):
    chosen = {"depth_um": [4000, 12000], "lateral_um": [-1800, 1700], "f_number": 1.2}
    _, iq = made(tmp_path, plane_rf(points_um), LINEAR, beamform=chosen, spacing_um=(80.0, 100.0))
    assert iq.shape == (40, 101, 36)
    assert iq.attributes["origin_um"] == [4000, -1800]
    np.testing.assert_allclose(brightest_um(iq), points_um, atol=50)


@pytest.mark.parametrize(
    "chosen",
    [
        {"window": "hann"},
        {"interpolation": "cubic", "decimation": 2},
    ],
    ids=str,
)
def test_every_way_of_beamforming_shows_the_points(tmp_path, points_um, chosen):
    _, iq = made(tmp_path, plane_rf(points_um), LINEAR, beamform={"f_number": 1.0} | chosen)
    np.testing.assert_allclose(brightest_um(iq), points_um, atol=50)


def test_a_matrix_array_makes_volumes(tmp_path):
    rng = np.random.default_rng(2)
    points = np.stack([rng.uniform(6000, 9000, 40), *rng.uniform(-900, 900, (2, 40))], axis=1)
    line = (np.arange(8) - 3.5) * 400.0
    elements = np.stack([a.ravel() for a in np.meshgrid([0.0], line, line, indexing="ij")], axis=1)
    tilt = np.deg2rad(5.0)
    directions = np.array([[1, 0, 0], [np.cos(tilt), 0, np.sin(tilt)]])
    _, iq = made(
        tmp_path,
        echoes(points, elements, directions, 250),
        MATRIX,
        beamform={"depth_um": [5000, 10000], "f_number": 0.0},
        spacing_um=(100.0, 200.0, 200.0),
    )
    assert iq.shape == (40, 51, 15, 15)
    np.testing.assert_allclose(brightest_um(iq), points, atol=100)


def test_blocks_and_batches_leave_no_trace(tmp_path, points_um, monkeypatch):
    rf = plane_rf(points_um)
    _, whole = made(tmp_path / "whole", rf, LINEAR)
    monkeypatch.setattr(ingest_iq, "_SHARD_BYTES", 1e6)
    monkeypatch.setattr("vasculome.stages.rf_images._BATCH_BYTES", 3e6)
    _, parts = made(tmp_path / "parts", rf, LINEAR)
    assert parts.shard[0] < 10 < whole.shard[0]
    box = Box.of_shape(whole.shape)
    np.testing.assert_array_equal(parts.read(box), whole.read(box))


def test_how_images_are_made_is_part_of_the_identity_of_rf_alone(tmp_path, points_um):
    rf = plane_rf(points_um[:1])
    as_is = prepared(tmp_path, rf, LINEAR)
    changed = prepared(tmp_path, rf, LINEAR, beamform={"window": "hann"})
    assert as_is.identity() != changed.identity()
    np.save(tmp_path / "iq.npy", np.ones((20, 9, 9), np.complex64))
    row = {
        "sample": "mouse",
        "modality": "ultrasound",
        "path": str(tmp_path / "iq.npy"),
        "format": "iq",
        "axes": "tzx",
        "spacing_um": (50.0, 50.0),
        "frame_rate_hz": 500.0,
        "wavelength_um": 100.0,
    }
    iq = [Job("ingest_iq", job_.config, Sample(**row)).identity() for job_ in (as_is, changed)]
    assert iq[0] == iq[1]


@pytest.mark.parametrize(
    ("sequence", "beamform", "columns", "says"),
    [
        ({"element_width_um": None}, {}, {}, "does not tell element_width_um"),
        ({}, {"depth_um": [4000, 20000]}, {}, "not all recorded, which are from 30"),
        ({"start_time_s": 9e-3}, {}, {"spacing_um": (1e6, 77.0)}, "not all recorded"),
        ({}, {"decimation": 3}, {}, "decimation by 3 leaves 6.66667e"),
        ({}, {"decimation": 2}, {}, "linear interpolation of a band of 6e+06 Hz needs 1.8e+07"),
        ({"sampling_frequency_hz": 10e6}, {}, {}, "meets its mirror image"),
        ({"bandwidth_hz": 11e6}, {}, {}, "a bandwidth of at most 1e+07 Hz"),
        ({}, {}, {"spacing_um": (77.0, 77.0, 77.0)}, "images with 2 axes, but spacing_um has 3"),
        ({}, {}, {"wavelength_um": 100.0}, "wavelength_um is 100, but 308"),
        ({}, {}, {"frame_rate_hz": None}, "does not tell frame_rate_hz"),
        ({}, {}, {"sequence": None}, "does not tell probe and sequence"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    tmp_path, points_um, sequence, beamform, columns, says
):
    told = {k: v for k, v in (LINEAR | sequence).items() if v is not None}
    wrong = prepared(tmp_path, plane_rf(points_um[:1]), told, beamform=beamform, **columns)
    with pytest.raises(UserError) as caught:
        job.check_sample(wrong.config, wrong.sample)
    assert says in str(caught.value)


def of_images(folder, told, rf=None, **how):
    """Return the images that `ingest_iq` would write, before they are made."""
    rf = np.zeros((1, 3, 32, 330)) if rf is None else rf
    return ingest_iq.open_raw(prepared(folder, rf, told, **how))


def test_undersampled_rf_is_taken_where_the_band_stays_clear(tmp_path):
    told = {**LINEAR, "sampling_frequency_hz": 20e6 / 3, "bandwidth_hz": 0.75e6}
    of_images(tmp_path, told).check()


def image_error(folder, rf, told, **beamform):
    """Return by how much images of decimated RF miss those of all samples, relative."""
    chosen = {"interpolation": "cubic", "f_number": 1.0}
    expected = of_images(folder, told, rf, beamform=chosen).read(0, len(rf))
    found = of_images(folder, told, rf, beamform=chosen | beamform)
    return found, np.linalg.norm(found.read(0, len(rf)) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("interpolation", "bandwidth_hz", "is_taken"),
    [("linear", 6e6, False), ("linear", 3.3e6, True), ("cubic", 6e6, True)],
)
def test_decimation_is_refused_where_it_harms_images(
    tmp_path, points_um, interpolation, bandwidth_hz, is_taken
):
    told = {**LINEAR, "bandwidth_hz": bandwidth_hz}
    found, error = image_error(
        tmp_path, plane_rf(points_um[:6]), told, decimation=2, interpolation=interpolation
    )
    if is_taken:
        found.check()
        assert error < 0.03
    else:
        with pytest.raises(UserError, match="interpolation: cubic"):
            found.check()
        assert error > 0.03


def focused(focus_um):
    """Return a sequence whose single transmit has a focus, by its delays."""
    path_um = np.hypot(focus_um[0], LINE_UM - focus_um[1])
    delays = (path_um.max() - path_um) / SPEED_UM_S
    told = {k: v for k, v in LINEAR.items() if k not in ("angles_deg", "time_zero")}
    return told | {"transmit_delays_s": [delays.tolist()]}


def test_waves_with_a_focus_are_refused_where_images_reach_behind_it(tmp_path):
    rf = np.zeros((1, 1, 32, 330))
    for focus_um in ([8000.0, 0.0], [6000.0, 2000.0]):
        raw = of_images(tmp_path, focused(focus_um), rf)
        with pytest.raises(UserError, match=r"transmit 0 of .* has a focus above"):
            raw.check()
        of_images(tmp_path, focused(focus_um), rf, beamform={"depth_um": [3500, 4500]}).check()
    of_images(tmp_path, focused([40000.0, 0.0]), rf).check()
    of_images(tmp_path, focused([8000.0, 0.0]) | {"transmit_delays_s": [[0.0] * 32]}, rf).check()


def test_auto_f_number_of_baseband_data_is_that_of_their_pulse(tmp_path):
    rf = of_images(tmp_path, LINEAR)
    of = rf.raw.sequence
    for bandwidth_hz in (6e6, None):
        sequence = dataclasses.replace(of, is_baseband=True, bandwidth_hz=bandwidth_hz)
        mixed = dataclasses.replace(rf, raw=dataclasses.replace(rf.raw, sequence=sequence))
        if bandwidth_hz is not None:
            assert mixed.f_number == rf.f_number
        else:
            with pytest.raises(UserError, match="the bandwidth of the pulse"):
                mixed.check()
            dataclasses.replace(mixed, chosen=BeamformConfig(f_number=1.0)).check()


def test_the_depths_that_were_recorded_take_no_memory(tmp_path):
    told = {k: v for k, v in MATRIX.items() if k not in ("angles_deg", "time_zero")}
    told |= {"start_time_s": 0.0, "transmit_delays_s": np.zeros((2, 64)).tolist()}
    raw = of_images(tmp_path, told, np.zeros((1, 2, 64, 30000)), spacing_um=(5.0, 400.0, 400.0))
    tracemalloc.start()
    depths = raw.grid_um[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * depths.nbytes
    # The four inner elements are half a pitch away from the axis both ways.
    deepest_um = 29999 / SAMPLING_HZ * SPEED_UM_S / 2
    assert depths[0] == 0
    assert depths[-1] == pytest.approx(deepest_um, abs=5)


def test_sums_too_large_for_single_precision_are_said(tmp_path):
    raw = of_images(tmp_path, LINEAR)
    np.save(tmp_path / "rf.npy", np.full((1, 3, 32, 330), 1e38, np.float32))
    told_by = tmp_path / "sequence.yaml"
    raw = dataclasses.replace(raw, raw=open_rf(tmp_path / "rf.npy", sequence_file=told_by))
    with pytest.raises(UserError, match=r"not finite .*scale the RF down"):
        raw.read(0, 1)
