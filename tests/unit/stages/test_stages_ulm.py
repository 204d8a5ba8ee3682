"""The choices of the ultrasound chain, by the stages themselves, against simulated truth."""

import math
import tracemalloc
import types
import typing

import numpy as np
import pytest

from vasculome.config import LocalizeConfig, RunConfig, Sample
from vasculome.errors import UserError
from vasculome.geometry import Box, TileGrid
from vasculome.metrics.localization import match, score_localization
from vasculome.metrics.resolution import fourier_correlation
from vasculome.metrics.tracking import score_links
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.stages import job, ulm_maps, ulm_quality
from vasculome.stages.job import Job
from vasculome.storage import tables
from vasculome.storage.arrays import open_array
from vasculome.storage.bundles import read_bundle, write_bundle
from vasculome.storage.omezarr import open_image
from vasculome.storage.tables import part_path, read_parts, write_table
from vasculome.ultrasound.columns import positions
from vasculome.ultrasound.localize import LOCALIZERS
from vasculome.ultrasound.render import accumulate, empty_sums
from vasculome.ultrasound.smooth import track_bounds
from vasculome.ultrasound.track import LinkRule, advance, finish, start

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
    assert known == (*LOCALIZERS, "stulm")


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


# Long recordings

RESTING = LinkRule(frame_rate_hz=1000, max_speed_mm_s=60, max_gap_frames=1, max_length=50)


def resting_echoes(block, *, n_frames, n_echoes=4):
    """Track echoes that never move nor end; return the tracks and the most points carried."""
    state, parts, carried = start(2), [], 0
    place = 1000.0 * np.arange(n_echoes)
    for first in range(0, n_frames, block):
        frame = np.repeat(np.arange(first, min(first + block, n_frames)), n_echoes)
        across = np.tile(place, len(frame) // n_echoes)
        same = np.ones(len(frame), np.float32)
        found = {"frame": frame, "z_um": across, "x_um": across, "amplitude": same, "score": same}
        state, ended = advance(state, found, stop_frame=frame[-1] + 1, rule=RESTING)
        carried = max(carried, len(state["frame"]))
        parts.append(ended)
    parts.append(finish(state, rule=RESTING))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, carried


def test_echoes_that_rest_are_given_out_in_tracks_of_the_largest_length():
    tracks, carried = resting_echoes(20, n_frames=480)
    assert carried <= 4 * (50 + 1 + 1)
    bounds = track_bounds(tracks)
    first, last = tracks["frame"][bounds[:-1]], tracks["frame"][bounds[1:] - 1]
    assert sorted(first) == sorted(4 * list(range(0, 480, 50)))
    np.testing.assert_array_equal(last, np.minimum(first + 49, 479))
    # No detection is lost, and none is in two tracks.
    assert len({*zip(tracks["frame"], tracks["x_um"], strict=True)}) == len(tracks["frame"])
    assert len(tracks["frame"]) == 4 * 480


@pytest.mark.parametrize("block", [1, 7, 50, 51, 480])
def test_where_long_tracks_end_does_not_depend_on_the_blocks(block):
    whole, _ = resting_echoes(113, n_frames=480)
    cut, _ = resting_echoes(block, n_frames=480)
    for name, column in whole.items():
        assert column.tobytes() == cut[name].tobytes()


def test_the_bound_of_tracking_holds_the_open_tracks(folder):
    bounds = [
        job_of(folder, "track", {"track": {"max_length_frames": n}}).bound().bytes_per_worker
        for n in (20, 60, 5000)
    ]
    a_frame = bounds[1] - bounds[0]
    assert a_frame > 40 * 1000 * 430  # as measured in 3-D, of 1000 bubbles a frame
    # There are no more frames than these.
    assert bounds[2] == pytest.approx(bounds[0] * N_FRAMES / (BLOCK + 20 + 2))


def test_the_largest_length_of_tracks_is_kept_to(folder):
    run(folder, "localize")
    sample_folder, _ = run(folder, "track", track={"max_length_frames": 12})
    tracks = read_parts(sample_folder / "tracks")
    bounds = track_bounds(tracks)
    spans = tracks["frame"][bounds[1:] - 1] - tracks["frame"][bounds[:-1]] + 1
    assert spans.max() == 12


def test_a_largest_length_below_the_least_is_refused():
    with pytest.raises(ValueError, match="max_length_frames must not be less"):
        RunConfig(ultrasound={"track": {"min_length_frames": 30, "max_length_frames": 20}})


@pytest.mark.parametrize("n_blocks", [3, 60])
def test_power_is_the_mean_over_all_frames_in_bounded_memory(tmp_path, n_blocks):
    rng = np.random.default_rng(0)
    shape, frames = (32, 32, 32), rng.integers(50, 90, n_blocks)
    power = rng.random((n_blocks, *shape), np.float32)
    for number in range(n_blocks):
        path = part_path(tmp_path, number).with_suffix(ulm_maps.POWER_SUFFIX)
        write_bundle(path, {"power": power[number], "frames": frames[number]})
    written = []
    target = types.SimpleNamespace(write=lambda box, voxels: written.append(voxels) or {})
    (tile,) = TileGrid(Box.of_shape(shape), shape, (0, 0, 0))
    tracemalloc.start()
    ulm_maps._write_power(target, tile, folder=tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(written[0], np.average(power, axis=0, weights=frames), rtol=1e-6)
    assert peak < ulm_maps._PIXEL_BYTES * math.prod(shape)


def test_the_bound_of_maps_holds_the_power_of_large_frames(folder, monkeypatch):
    large = types.SimpleNamespace(shape=(10, 30_000, 30_000))
    monkeypatch.setattr(ulm_maps, "open_raw", lambda _: large)
    assert job_of(folder, "ulm_maps").bound().bytes_per_worker >= 33 * 30_000**2


def random_tracks(folder, corners, *, n_tracks=60, n_points=20):
    """Write a part of tracks around each corner; return all of them as one table."""
    rng = np.random.default_rng(0)
    parts = []
    for number, corner in enumerate(corners):
        steps = rng.normal(0, 20, (n_tracks, n_points, 2)).cumsum(axis=1)
        place = (corner + rng.uniform(0, 1000, (n_tracks, 1, 2)) + steps).reshape(-1, 2)
        track = np.repeat(np.arange(n_tracks), n_points) + number * n_tracks
        velocity = rng.normal(size=place.shape)
        part = {
            "track": track,
            "frame": np.tile(np.arange(n_points), n_tracks),
            "z_um": place[:, 0],
            "x_um": place[:, 1],
            "amplitude": np.ones(len(track), np.float32),
            "vz_mm_s": velocity[:, 0],
            "vx_mm_s": velocity[:, 1],
        }
        write_table(part_path(folder, number), part)
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("rows", [7, 50, 10**6])
def test_tiles_of_the_map_hold_the_same_bits_however_tracks_are_read(
    judged, tmp_path, monkeypatch, rows
):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", rows)
    everything = random_tracks(tmp_path, [(0, 0), (0, 1500), (900, 700)])
    spec = open_image(judged[0] / "maps/density.ome.zarr").spec
    whole = empty_sums(Box.of_shape(spec.shape))
    accumulate(
        whole,
        everything,
        box=Box.of_shape(spec.shape),
        pixel_um=spec.spacing_um,
        origin_um=spec.origin_um,
    )
    expected = ulm_maps.maps(whole)
    for tile in TileGrid(Box.of_shape(spec.shape), (100, 130), (0, 0)):
        drawn, _ = ulm_maps._render(tile, folder=tmp_path, spec=spec)
        for name, (key, _) in ulm_maps._maps_of(spec.axes).items():
            assert drawn[name].tobytes() == expected[key][tile.core.slices].tobytes()


def test_parts_beside_a_tile_are_not_read(judged, tmp_path):
    random_tracks(tmp_path, [(0, 0), (5000, 5000)])
    spec = open_image(judged[0] / "maps/density.ome.zarr").spec
    (tile,) = TileGrid(Box.of_shape(spec.shape), spec.shape, (0, 0))
    there = ulm_maps._render(tile, folder=tmp_path, spec=spec)
    beside = part_path(tmp_path, 1)
    data = beside.read_bytes()
    # All values are spoilt; what the file tells of itself is not.
    told = int.from_bytes(data[-8:-4], "little") + 8
    beside.write_bytes(b"PAR1" + bytes(len(data) - told - 4) + data[-told:])
    again = ulm_maps._render(tile, folder=tmp_path, spec=spec)
    assert there[1]["crossed"] == again[1]["crossed"] > 0
    with pytest.raises(UserError, match="cannot be read"):
        read_parts(tmp_path)


def test_a_group_of_rows_is_never_divided(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 30)
    lengths = [5, 70, 1, 29, 30, 30, 31, 4]
    everything = {"track": np.repeat(np.arange(8), lengths), "row": np.arange(200)}
    write_table(part_path(tmp_path, 0), everything)
    write_table(part_path(tmp_path, 1), {name: column[:0] for name, column in everything.items()})
    pieces = list(tables.iter_groups(tmp_path, ["track", "row"], group="track", within={}))
    np.testing.assert_array_equal(np.concatenate([p["row"] for p in pieces]), np.arange(200))
    tracks = [track for piece in pieces for track in np.unique(piece["track"])]
    assert tracks == list(range(8))
    assert max(len(piece["row"]) for piece in pieces) <= 30 + 70
