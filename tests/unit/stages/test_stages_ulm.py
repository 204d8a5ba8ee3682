"""The choices of the ultrasound chain, by the stages themselves, against simulated truth."""

import math
import typing

import numpy as np
import pytest

from vasculome.config import LocalizeConfig, RunConfig, Sample
from vasculome.geometry import Box
from vasculome.metrics.localization import match, score_localization
from vasculome.metrics.resolution import fourier_correlation
from vasculome.metrics.tracking import score_links
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.stages import job, ulm_quality
from vasculome.stages.job import Job
from vasculome.storage.arrays import open_array
from vasculome.storage.bundles import read_bundle
from vasculome.storage.omezarr import open_image
from vasculome.storage.tables import part_path, read_parts, write_table
from vasculome.ultrasound.columns import positions
from vasculome.ultrasound.localize import LOCALIZERS
from vasculome.ultrasound.render import accumulate, empty_sums

N_FRAMES, BLOCK = 240, 80
BASE = {"clutter": {"block_frames": BLOCK}, "track": {"min_length_frames": 5}}


@pytest.fixture(scope="module")
def phantom():
    return ultrasound_phantom(seed=4, n_frames=N_FRAMES, shape=(56, 60), mean_bubbles=6.0)


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    """A folder in which the IQ is ingested."""
    folder = tmp_path_factory.mktemp("ulm")
    np.save(folder / "iq.npy", np.concatenate(list(phantom.blocks)))
    run(folder, "ingest_iq", "calibrate")
    return folder


def job_of(folder, stage, ultrasound=None):
    parts = {name: {**BASE.get(name, {}), **part} for name, part in (ultrasound or {}).items()}
    config = RunConfig(
        results=str(folder / "results"),
        compute={"scheduler": "inline"},
        ultrasound={**BASE, **parts},
    )
    sample = Sample(
        sample="mouse",
        modality="ultrasound",
        path=str(folder / "iq.npy"),
        format="iq",
        spacing_um=(49.28, 49.28),
        axes="tzx",
        frame_rate_hz=1000.0,
        wavelength_um=98.56,
    )
    return Job(stage, config, sample)


def run(folder, *stages, **ultrasound):
    """Run stages; return the folder of the sample and the summary of the last one."""
    for stage in stages:
        done = job_of(folder, stage, ultrasound)
        job.execute(done)
    return done.folder, done.manifest(stages[-1])["summary"]


def files_of(store):
    return {path.name: path.read_bytes() for path in sorted(store.glob("*"))}


def scores(sample_folder, phantom):
    found = read_parts(sample_folder / "detections")
    return score_localization(
        found["frame"],
        positions(found) / phantom.wavelength_um,
        phantom.bubbles.frame,
        phantom.bubbles.position_um / phantom.wavelength_um,
        pair_distance=1 / 2,
        true_positive_distance=1 / 4,
    )


def test_the_configuration_knows_every_localizer():
    known = typing.get_args(LocalizeConfig.model_fields["localizer"].annotation)
    assert known == tuple(LOCALIZERS)


@pytest.mark.parametrize("localizer", LOCALIZERS)
def test_every_localizer_finds_the_bubbles(folder, phantom, localizer):
    reach = 2 if localizer == "correlation_centroid" else 1
    chosen = {"localizer": localizer, "half_width_px": reach}
    found = scores(run(folder, "localize", localize=chosen)[0], phantom)
    assert found.rmse < 0.18
    assert found.recall > 0.68
    assert found.precision > 0.72


@pytest.mark.parametrize(
    ("gate", "column", "largest"),
    [({"max_maxima": 1}, "maxima", 1), ({"max_shift_px": 0.25}, "shift_px", 0.25)],
    ids=["max_maxima", "max_shift_px"],
)
def test_gates_leave_out_what_does_not_pass(folder, gate, column, largest):
    wide = {"half_width_px": 2}
    everything = read_parts(run(folder, "localize", localize=wide)[0] / "detections")
    passed = read_parts(run(folder, "localize", localize=wide | gate)[0] / "detections")
    assert 0 < len(passed["frame"]) < len(everything["frame"])
    assert everything[column].max() > largest
    np.testing.assert_array_equal(passed["x_um"], everything["x_um"][everything[column] <= largest])


# Tracks

TRACKERS = {
    "default": {},
    "fusion": {"weights": {"amplitude": 1.0, "correlation": 1.0}},
    "kalman": {"kalman": {"position_error_um": 12.0, "speed_change_mm_s": 2.0}},
    "gaussian": {"smoothing": "gaussian", "smooth_sigma_frames": 1.0},
}


@pytest.fixture(scope="module")
def tracked(folder):
    """Tracks by each way of tracking."""
    localize = {"image_half_width_px": 2}
    run(folder, "localize", localize=localize)
    made = {}
    for name, track in TRACKERS.items():
        sample_folder, _ = run(folder, "track", localize=localize, track=track)
        made[name] = read_parts(sample_folder / "tracks")
    images = [
        read_bundle(path)["patch"] for path in sorted(sample_folder.glob("detections/*.images.npz"))
    ]
    return made, np.concatenate(images), read_parts(sample_folder / "detections")


@pytest.mark.parametrize("way", TRACKERS)
def test_every_way_of_tracking_follows_the_bubbles(tracked, phantom, way):
    tracks, truth = tracked[0][way], phantom.bubbles
    i, j = match(
        tracks["frame"], positions(tracks), truth.frame, truth.position_um, pair_distance=49.28
    )
    bubble = np.full(len(tracks["frame"]), -1)
    bubble[i] = truth.track[j]
    links = score_links(
        tracks["track"],
        tracks["frame"],
        bubble,
        true_bubble=truth.track,
        true_frame=truth.frame,
    )
    assert links.precision > 0.85
    assert links.recall > 0.5


def test_each_way_of_tracking_is_one_of_its_own(tracked):
    tables = [tuple(table["x_um"]) for table in tracked[0].values()]
    assert len(set(tables)) == len(TRACKERS)


def test_images_are_those_of_the_detections(tracked):
    _, images, found = tracked
    assert images.shape == (len(found["frame"]), 25)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
    # A bubble is brightest in the middle of its image.
    assert (images.argmax(axis=1) == 12).mean() > 0.85


def test_correlation_without_images_is_refused():
    with pytest.raises(ValueError, match=r"needs localize\.image_half_width_px"):
        RunConfig(ultrasound={"track": {"weights": {"correlation": 0.2}}})


# Quality


@pytest.fixture(scope="module")
def judged(folder):
    """The folder of the sample with maps and their quality, and the summaries of both."""
    run(folder, "localize", "track")
    _, maps = run(folder, "ulm_maps")
    sample_folder, quality = run(folder, "ulm_quality")
    return sample_folder, maps, quality


def test_what_is_filled_is_what_the_map_shows(judged):
    sample_folder, maps, quality = judged
    assert quality["filled_percent"] == maps["saturation_percent"]
    assert quality["judged_percent"] == 100
    curves = read_bundle(sample_folder / ulm_quality.QUALITY / ulm_quality.CURVES)
    assert (np.diff(curves["filled"]) >= 0).all()
    np.testing.assert_allclose(curves["time_s"], [0.08, 0.16, 0.24])


def test_resolution_is_that_of_stretches_of_time_by_turns(judged):
    sample_folder, _, quality = judged
    density = open_image(sample_folder / "maps/density.ome.zarr").spec
    tracks = read_parts(sample_folder / "tracks")
    halves = []
    begins = {t: f for f, t in reversed(list(zip(tracks["frame"], tracks["track"], strict=True)))}
    # Of three blocks of 80 frames, two stretches are made.
    late = np.array([begins[t] >= 120 for t in tracks["track"]])
    for half_of_time in (~late, late):
        sums = empty_sums(Box.of_shape(density.shape))
        half = {name: column[half_of_time] for name, column in tracks.items()}
        accumulate(
            sums,
            half,
            box=Box.of_shape(density.shape),
            pixel_um=density.spacing_um,
            origin_um=density.origin_um,
        )
        halves.append(sums["count"])
    truth = fourier_correlation(*halves, spacing_um=density.spacing_um)
    curves = read_bundle(sample_folder / ulm_quality.QUALITY / ulm_quality.CURVES)
    np.testing.assert_allclose(curves["correlation"], truth.correlation)
    np.testing.assert_allclose(curves["threshold"], truth.threshold())
    # Of so few tracks the halves may have nothing in common: then no length is told.
    told = math.inf if quality["resolution_um"] is None else quality["resolution_um"]
    assert told == pytest.approx(truth.resolution_um(), abs=1e-3)


def test_fragments_of_one_bubble_show_no_resolution(judged, tmp_path):
    """Bubbles at rest at places of their own, each seen in many tracks: nothing is seen twice."""
    rng = np.random.default_rng(0)
    n_bubbles, n_tracks, n_points = 200, 6, 5
    place = rng.uniform(200, 2600, (n_bubbles, 1, 1, 2))
    begin = rng.integers(0, 8, n_bubbles)[:, None, None] * 120
    frame = begin + 10 * np.arange(n_tracks)[:, None] + np.arange(n_points)
    drift = 5.0 * (np.arange(n_tracks * n_points).reshape(n_tracks, n_points) - 15)
    path = np.broadcast_to(place, (n_bubbles, n_tracks, n_points, 2)).copy()
    path[..., 0] += drift
    track = np.repeat(np.arange(n_bubbles * n_tracks), n_points)
    columns = {"z_um": path[..., 0].ravel(), "x_um": path[..., 1].ravel()}
    still = {"vz_mm_s": np.zeros(len(track)), "vx_mm_s": np.ones(len(track))}
    write_table(
        part_path(tmp_path, 0), {"track": track, "frame": frame.ravel(), **columns, **still}
    )
    spec = open_image(judged[0] / "maps/density.ome.zarr").spec
    halves, _ = ulm_quality._fill(tmp_path, Box.of_shape(spec.shape), spec, stretch_frames=120)
    found = fourier_correlation(*halves, spacing_um=spec.spacing_um).resolution_um()
    assert found > 500


def test_the_middle_of_a_large_map_is_judged(folder, judged, monkeypatch):
    monkeypatch.setattr(ulm_quality, "_MAX_PIXELS", 20_000)
    (judged[0] / "manifests/ulm_quality.json").unlink()
    (judged[0] / "quality/curves.npz").unlink()
    _, quality = run(folder, "ulm_quality")
    assert quality["judged_percent"] == pytest.approx(100 * 20_000 / (280 * 300), rel=0.02)
    assert quality["gridding_index_db"] is not None


def test_localizations_at_the_middles_of_voxels_show_as_gridding(folder, judged, tmp_path):
    _, plain = run(folder, "ulm_quality")
    iq = open_array(judged[0] / "iq.zarr")
    found = read_parts(judged[0] / "detections")
    spacing = np.array(iq.attributes["spacing_um"])
    snapped = np.round(positions(found) / spacing) * spacing
    write_table(
        part_path(tmp_path, 0),
        {"frame": found["frame"], "z_um": snapped[:, 0], "x_um": snapped[:, 1]},
    )
    assert ulm_quality._gridding_db(iq, tmp_path) > plain["gridding_index_db"] + 7


def test_the_error_of_speed_is_known_where_several_bubbles_passed(judged):
    maps = {}
    for name in ("density", "speed", "speed_error"):
        image = open_image(judged[0] / f"maps/{name}.ome.zarr")
        maps[name] = image.read(Box.of_shape(image.spec.shape))
    several = maps["density"] > 1
    assert several.any()
    np.testing.assert_array_equal(np.isfinite(maps["speed_error"]), several)
    error = maps["speed_error"][several]
    assert (error >= 0).all()
    assert 0 < np.median(error) < np.median(maps["speed"][several])
