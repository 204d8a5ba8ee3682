"""Movies show bubbles where the truth says, in vessels of their split, the same at every call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vasculome.training.movies import (
    UlmMovie,
    UlmScene,
    broad_2d,
    broad_3d,
    make_movie,
    paper_2d,
    paper_3d,
    path_target,
)
from vasculome.training.probes import bank, echo_at
from vasculome.training.vasculature import CUBE_UM, cortex, enlarged

SHORT_2D = replace(paper_2d(5.0), n_frames=32, shape_px=(64, 64), from_probe=0.0)
SHORT_3D = replace(paper_3d(8.0, n_frames=8), from_probe=0.0)
PROBE_2D = replace(SHORT_2D, from_probe=1.0)
PROBE_3D = paper_3d(8.0, n_frames=8)


def _alone(movie: UlmMovie) -> list[int]:
    """Rows of bubbles 3 wavelengths from all others, and from where others may be unseen."""
    place, frame = movie.positions_px, movie.bubbles.frame
    apart = 3 * movie.wavelength_um / movie.spacing_um[0]
    inner = (place > apart) & (place < np.array(movie.correlation.shape[1:]) - 1 - apart)
    rows = []
    for row in np.flatnonzero(inner.all(axis=1)):
        others = np.flatnonzero(frame == frame[row])
        away = np.linalg.norm(place[others] - place[row], axis=1)
        if np.count_nonzero(away < apart) == 1:
            rows.append(int(row))
    return rows


@pytest.mark.parametrize(
    "scene", [SHORT_2D, SHORT_3D, PROBE_2D, PROBE_3D], ids=["2d", "3d", "probe-2d", "probe-3d"]
)
def test_correlation_is_centred_on_the_bubble(scene: UlmScene) -> None:
    errors = []
    for index in range(4):
        movie = make_movie(scene, split="train", index=32 * index, seed=0)
        reach = round(movie.wavelength_um / movie.spacing_um[0])
        for row in _alone(movie):
            pixel = np.round(movie.positions_px[row]).astype(int)
            around = tuple(slice(p - reach, p + reach + 1) for p in pixel)
            power = np.abs(movie.correlation[movie.bubbles.frame[row]][around]) ** 2
            power = np.where(power > 0.5 * power.max(), power, 0)
            grid = np.indices(power.shape).reshape(power.ndim, -1)
            centroid = grid @ power.ravel() / power.sum() + pixel - reach
            errors.append(np.abs(centroid - movie.positions_px[row]).max())
    assert len(errors) > 50
    assert np.median(errors) < 0.15
    assert np.mean(np.array(errors) < 0.3) > 0.95  # noise is loud over the smallest bubbles


def test_a_quiet_bubble_correlates_almost_fully() -> None:
    scene = replace(SHORT_2D, noise_db=(-60.0, -60.0))
    found = []
    for index in (0, 32, 64):
        movie = make_movie(scene, split="train", index=index, seed=0)
        for row in _alone(movie):
            pixel = tuple(np.round(movie.positions_px[row]).astype(int))
            found.append(abs(movie.correlation[(movie.bubbles.frame[row], *pixel)]))
    assert len(found) > 10
    assert np.quantile(found, 0.1) > 0.95


@pytest.mark.parametrize("scene", [SHORT_2D, SHORT_3D, broad_2d(), broad_3d(), PROBE_2D, PROBE_3D])
def test_what_a_movie_is(scene: UlmScene) -> None:
    movie = make_movie(scene, split="train", index=3, seed=5)
    shape = (scene.n_frames, *scene.shape_px)
    assert movie.iq.shape == movie.correlation.shape == shape
    assert movie.iq.dtype == movie.correlation.dtype == np.complex64
    assert np.abs(movie.correlation).max() <= 1 + 1e-6
    assert np.isfinite(movie.iq).all()
    place = movie.positions_px
    assert ((place >= -0.5) & (place < np.array(scene.shape_px) - 0.5)).all()
    assert (np.diff(movie.bubbles.frame) >= 0).all()
    low, high = np.array(scene.spacing) * scene.wavelength_um
    assert all(low <= spacing <= high for spacing in movie.spacing_um)
    assert scene.frame_rate_hz[0] <= movie.frame_rate_hz <= scene.frame_rate_hz[1]


def test_tracks_have_no_gap_and_move_as_fast_as_they_say() -> None:
    movie = make_movie(replace(paper_2d(20.0), n_frames=200), split="train", index=1, seed=0)
    table = movie.bubbles
    _, first = np.unique(table.track, return_index=True)
    assert (np.diff(first) > 0).all()  # numbered in order of appearance
    assert table.track[first].tolist() == list(range(len(first)))
    errors = []
    for track in range(len(first)):
        rows = np.flatnonzero(table.track == track)
        assert (np.diff(table.frame[rows]) == 1).all()
        moved = np.diff(table.position_um[rows], axis=0) * movie.frame_rate_hz * 1e-3
        said = (table.velocity_mm_s[rows][1:] + table.velocity_mm_s[rows][:-1]) / 2
        errors.append(np.linalg.norm(moved - said, axis=1))
    # Where a vessel bends or branches within the step they differ.
    assert np.median(np.concatenate(errors)) < 0.5
    # By Poiseuille twice the mean speed at the axis, and roots are not all of one width.
    assert np.linalg.norm(table.velocity_mm_s, axis=1).max() < 4 * 30


def test_as_many_bubbles_as_the_scene_says() -> None:
    scene = replace(paper_2d(20.0), n_frames=8)
    counts = [
        len(make_movie(scene, split="train", index=8 * i, seed=2).bubbles) / scene.n_frames
        for i in range(40)
    ]
    assert abs(np.mean(counts) - 20) < 2.5  # 3 standard errors


@pytest.mark.parametrize("from_probe", [0.0, 1.0])
def test_the_same_in_any_order_and_different_for_each_number(from_probe: float) -> None:
    scene = replace(broad_2d(), n_frames=8, from_probe=from_probe)
    numbers = [0, 1, 33]
    there = {i: make_movie(scene, split="train", index=i, seed=1) for i in numbers}
    cortex.cache_clear()
    bank.cache_clear()
    echo_at.cache_clear()
    back = {i: make_movie(scene, split="train", index=i, seed=1) for i in reversed(numbers)}
    for i in numbers:
        assert there[i].iq.tobytes() == back[i].iq.tobytes()
        assert there[i].correlation.tobytes() == back[i].correlation.tobytes()
        assert there[i].bubbles.position_um.tobytes() == back[i].bubbles.position_um.tobytes()
    others = [
        there[1],
        make_movie(scene, split="train", index=0, seed=2),
        make_movie(scene, split="test", index=0, seed=1),
    ]
    for other in others:
        assert not np.array_equal(there[0].iq, other.iq)


def test_splits_show_different_vessels_and_tests_one_network() -> None:
    scene = replace(paper_2d(20.0), n_frames=128)

    def seen(split: str, numbers: range) -> np.ndarray:
        movies = [make_movie(scene, split=split, index=i, seed=0) for i in numbers]  # type: ignore[arg-type]
        return np.any([path_target(m, factor=4, chunk_frames=128)[0] for m in movies], axis=0)

    def covered(these: np.ndarray, by: np.ndarray) -> float:
        return np.count_nonzero(these & by) / np.count_nonzero(these)

    new = seen("test", range(12, 14))
    known = covered(new, seen("test", range(12)))
    assert known > 0.85
    for split in ("validation", "train"):
        by_chance = seen(split, range(12) if split == "validation" else range(2))
        assert covered(new, by_chance) < known - 0.3


def test_paths_hold_every_position_and_only_what_lies_between() -> None:
    movie = make_movie(SHORT_3D, split="test", index=0, seed=0)
    target = path_target(movie, factor=8, chunk_frames=4)
    assert target.shape == (2, 256, 256, 256)
    fine = (movie.positions_px + 0.5) * 8
    chunk = movie.bubbles.frame // 4
    assert target[(chunk, *np.floor(fine).astype(int).T)].all()
    cells = np.argwhere(target)
    nearest = np.full(len(cells), np.inf)
    order = np.lexsort((movie.bubbles.frame, movie.bubbles.track))
    track, end = movie.bubbles.track[order], fine[order]
    for i in range(len(order)):
        a, b = end[i - 1 if i and track[i] == track[i - 1] else i], end[i]
        away = cells[:, 1:] + 0.5 - a
        along = np.clip(away @ (b - a) / max(((b - a) ** 2).sum(), 1e-12), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(away - along[:, None] * (b - a), axis=1))
    assert nearest.max() <= 3**0.5 / 2  # half the diagonal of a cell


def test_noise_is_as_loud_as_asked_and_looks_like_echoes_where_it_is_grainy() -> None:
    likeness = {}
    for part in (0.0, 1.0):
        scene = replace(
            SHORT_2D, bubbles=(1e-6, 1e-6), noise_db=(-20.0, -20.0), grainy=part, width=(1.2, 1.2)
        )
        movie = make_movie(scene, split="train", index=0, seed=0)
        assert len(movie.bubbles) == 0
        assert np.sqrt(np.mean(np.abs(movie.iq) ** 2)) == pytest.approx(0.1, rel=0.02)
        likeness[part] = np.mean(np.abs(movie.correlation) ** 2)
        # Frames have noise of their own.
        assert abs(np.vdot(movie.iq[0], movie.iq[1])) < 0.3 * np.vdot(movie.iq[0], movie.iq[0]).real
    assert likeness[1.0] > 3 * likeness[0.0]


def test_remains_of_tissue_stay_from_frame_to_frame() -> None:
    scene = replace(
        SHORT_2D,
        bubbles=(1e-6, 1e-6),
        noise_db=(-60.0, -60.0),
        cluttered=1.0,
        clutter_db=(-10.0, -10.0),
    )
    iq = make_movie(scene, split="train", index=0, seed=0).iq
    assert np.sqrt(np.mean(np.abs(iq) ** 2)) == pytest.approx(10**-0.5, rel=0.1)
    energy = np.vdot(iq[0], iq[0]).real
    assert abs(np.vdot(iq[0], iq[4])) > 0.9 * energy


def test_vessels_conserve_flow_and_none_is_a_short_cut() -> None:
    vessels = cortex(0, 0, 0)
    n = len(vessels.positions_um)
    into = np.bincount(vessels.edges[:, 1], vessels.flow_um3_s, n)
    out_of = np.bincount(vessels.edges[:, 0], vessels.flow_um3_s, n)
    between = (into > 0) & (out_of > 0)
    np.testing.assert_allclose(into[between], out_of[between], rtol=1e-3)
    assert vessels.mean_speed_mm_s.max() < 2.0  # about 1 at the arteries' roots
    assert not np.isin(vessels.positions_um, cortex(0, 1, 0).positions_um).any()


def test_a_piece_larger_than_the_cube_is_refused() -> None:
    with pytest.raises(ValueError, match="µm of cortex"):
        enlarged(
            cortex(0, 0, 0),
            box_um=np.full(3, 2.1 * CUBE_UM),
            start_um=np.zeros(3),
            scale=2.0,
            speed=1.0,
            rng=None,
        )
