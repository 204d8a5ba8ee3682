"""The network that maps vessels: what it says, which weights are good, how fields are cut.

The weights are set by hand (``hand_made_stulm``): what they say of a movie is a line of NumPy.
"""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from hand_made_network import write_hand_made
from hand_made_stulm import known_answer, write_hand_made_stulm
from tiny_ultrasound import N_FRAMES, SPACING_UM, WAVELENGTH_UM, job_of

from vasculome.config import SuperresolveConfig
from vasculome.errors import UserError
from vasculome.geometry import Box, TileGrid
from vasculome.models import stulm
from vasculome.models.stulm import StulmDesign
from vasculome.stages import vessel_grid, vessel_network, vessel_weights
from vasculome.stages.vessel_grid import movies_of
from vasculome.stages.vessel_weights import movie_bytes, vessel_finder_for
from vasculome.storage.weights import card_path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_hand_made_stulm(tmp_path_factory.mktemp("weights") / "hand.safetensors")


def finder_of(weights, **settings):
    """Return how the stage uses weights."""
    return vessel_finder_for(
        SuperresolveConfig(network=str(weights), **settings),
        spacing_um=SPACING_UM,
        wavelength_um=WAVELENGTH_UM,
    )


# What it is shown, and says


def random_movie(shape, *, seed=0, share=0.1):
    rng = np.random.default_rng(seed)
    movie = rng.uniform(-0.7, 0.7, shape) + 1j * rng.uniform(-0.7, 0.7, shape)
    return np.where(rng.random(shape) < share, movie, 0).astype(np.complex64)


def assert_known(found, movie):
    """Check an answer against the known one where something positive is."""
    there = np.repeat(np.repeat(movie.real.max(axis=0) > 0, 8, axis=0), 8, axis=1)
    known = known_answer(movie)
    assert found.shape == known.shape and there.mean() > 0.05
    np.testing.assert_allclose(found[there], known[there], atol=1e-5)
    assert (found[~there] <= known_answer(np.zeros((1, 1, 1)))[0, 0] + 1e-6).all()


# It takes multiples of 128 frames and of 4 pixels.
@pytest.mark.parametrize("shape", [(80, 10, 11), (128, 8, 12), (130, 5, 4)])
def test_a_dense_network_is_given_more_frames_and_pixels(tmp_path, shape):
    movie = random_movie(shape)
    path = write_hand_made_stulm(tmp_path / "w.safetensors", engine="dense")
    assert_known(vessel_network.movie_vessels(movie, finder_of(path)), movie)


def test_what_minkowski_engine_has_trained_runs_without_it(tmp_path):
    arguments = asdict(StulmDesign(2)) | {"engine": "minkowski"}
    path = write_hand_made_stulm(tmp_path / "w.safetensors", card={"arguments": arguments})
    movie = random_movie((80, 10, 11))
    assert_known(vessel_network.movie_vessels(movie, finder_of(path)), movie)


@pytest.mark.parametrize("limit", ["MOST_SITES", "MOST_FINE_SITES"])
def test_crowded_movies_are_seen_in_halves(weights, monkeypatch, limit):
    seen, lengths = vessel_network.vessel_probability, []

    def noted(network, correlation, mask):
        probability = seen(network, correlation, mask)
        lengths.append(len(correlation))
        return probability

    monkeypatch.setattr(vessel_network, "vessel_probability", noted)
    movie = random_movie((500, 10, 11))
    # Nothing is to be seen in the second half, and too much in the first.
    movie[256:] = 0
    quarters = movie[:128], movie[128:256]
    most = {
        "MOST_SITES": max(np.count_nonzero(quarter) for quarter in quarters),
        "MOST_FINE_SITES": max(64 * quarter.any(axis=0).sum() for quarter in quarters),
    }
    monkeypatch.setattr(vessel_network, limit, most[limit])
    assert_known(vessel_network.movie_vessels(movie, finder_of(weights)), movie)
    assert lengths == [128, 128]


@pytest.mark.parametrize("limit", ["MOST_SITES", "MOST_FINE_SITES"])
def test_movies_that_would_take_too_much_memory_are_refused(weights, monkeypatch, limit):
    monkeypatch.setattr(vessel_network, limit, 50)
    with pytest.raises(UserError, match=r"50 at the most, in 128 frames.*raise threshold"):
        vessel_network.movie_vessels(random_movie((130, 10, 11)), finder_of(weights))


def test_memory_is_foretold_by_the_patch_and_not_by_the_field(weights, tmp_path):
    finder = finder_of(weights)
    once = movie_bytes((80, 88, 88), finder)
    assert movie_bytes((128, 88, 88), finder) == once < movie_bytes((512, 88, 88), finder)
    # Of a volume there is a limit to what the network may be given.
    volume = movie_bytes((512, 64, 64, 64), finder)
    assert movie_bytes((512, 64, 64, 128), finder) - volume < 50 * 512 * 64**3
    shapes = [(N_FRAMES, 72, 60), (N_FRAMES, 720, 600)]
    needed = []
    for shape in shapes:
        path = tmp_path / f"{math.prod(shape)}"
        path.mkdir()
        np.lib.format.open_memmap(path / "iq.npy", "w+", np.complex64, shape)
        needed.append(
            job_of(path, "superresolve", {"superresolve": {"network": str(weights)}})
            .bound()
            .bytes_per_worker
        )
    filtering = 80 * 720 * 600 * (8 * 3 + 4) + 4 * 16 * 80**2
    assert needed[0] < needed[1] <= max(filtering, 2 * needed[0], 24 * 80 * 720 * 600 + 2**27)


# Weights


def missing(path):
    path.unlink()
    return r"hand\.safetensors: cannot be read"


def no_card(path):
    card_path(path).unlink()
    return r"hand\.json: cannot be read"


def tampered(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 64
    path.write_bytes(content)
    return "not the weights"


def of_another_kind(path):
    write_hand_made(path)
    return r"hand\.json: is no card of a network that maps vessels: architecture.*'bubble_net'"


def for_volumes(path):
    write_hand_made_stulm(path, n_dims=3)
    return "are weights for 3-D, and the sample is 2-D"


def for_other_pixels(path):
    write_hand_made_stulm(path, card={"spacing_wavelengths": [0.6, 0.9]})
    return "trained on pixels of 0.6 to 0.9 wavelengths"


def of_strongest_pixels(path):
    write_hand_made_stulm(path, card={"settings": {"sparsify": "top_k", "threshold": 0.1}})
    return r"chosen by top_k.*set ultrasound\.superresolve\.threshold"


def of_unknown_length(path):
    write_hand_made_stulm(path, card={"data": "none"})
    return r"hand\.json: is no card of a network that maps vessels: data"


@pytest.mark.parametrize(
    "damage",
    [
        missing, no_card, tampered, of_another_kind, for_volumes, for_other_pixels,
        of_strongest_pixels, of_unknown_length,
    ],
)  # fmt: skip
def test_bad_weights_are_told(tmp_path, damage):
    path = write_hand_made_stulm(tmp_path / "hand.safetensors")
    says = damage(path)
    chosen = SuperresolveConfig(network=str(path))
    # What identifies the stage is asked for first, and says nothing.
    assert vessel_weights.vessel_weights_digest(chosen, n_dims=2)
    with pytest.raises(UserError, match=says) as caught:
        finder_of(path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_threshold_may_be_given(tmp_path):
    path = write_hand_made_stulm(
        tmp_path / "w.safetensors", card={"settings": {"sparsify": "top_k", "threshold": 0.1}}
    )
    assert finder_of(path, threshold=0.36).threshold == 0.36
    write_hand_made_stulm(path, card={"settings": {"sparsify": "none", "threshold": 0.1}})
    assert finder_of(path).threshold == 0.0


def test_weights_that_do_not_ship_are_told(monkeypatch):
    monkeypatch.setattr(vessel_weights, "SHIPPED", {2: "nothing_2d"})
    with pytest.raises(UserError, match="no weights 'nothing_2d' come with vasculome"):
        finder_of("shipped")


# Patches and movies


def test_patches_see_a_border_that_is_cut_off_again():
    for fine in TileGrid(Box.of_shape((1600, 1200)), (512, 512), (0, 0)):
        seen, inside = vessel_grid.seen_for(fine.core, (200, 150))
        answer = np.stack(np.indices(tuple(8 * n for n in seen.shape))) // 8
        answer += np.array(seen.start)[:, None, None]
        kept = answer[(slice(None), *inside)]
        expected = np.stack(np.indices(fine.core.shape)) + np.array(fine.core.start)[:, None, None]
        np.testing.assert_array_equal(kept, expected // 8)
        assert all(start % 4 == 0 for start in seen.start)
        assert all(
            s == max(0, a // 8 - 12) for s, a in zip(seen.start, fine.core.start, strict=True)
        )
        assert all(
            s == min(n, b // 8 + 12)
            for s, b, n in zip(seen.stop, fine.core.stop, (200, 150), strict=True)
        )


@pytest.mark.parametrize(
    ("length", "n_frames", "lengths"),
    [
        (500, 512, [500, 500, 200]),
        (500, 128, [125] * 8 + [100, 100]),
        (600, 512, [300, 300, 300, 300]),
    ],
)
def test_movies_are_blocks_or_even_parts_of_them(length, n_frames, lengths):
    movies = list(movies_of(TileGrid(Box((0,), (1200,)), (length,), (0,)), n_frames))
    assert [end - first for first, end in movies] == lengths
    assert [first for first, _ in movies[1:]] == [end for _, end in movies[:-1]]


def test_constants_are_those_of_the_network():
    assert vessel_weights.UPSCALING == stulm.UPSCALING
    assert vessel_weights.CHUNK_FRAMES == stulm.CHUNK_FRAMES
