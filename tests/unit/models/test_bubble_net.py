"""The network that keeps every bubble."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vasculome.models.bubble_net import (
    BubbleNet,
    BubbleNetDesign,
    Sites,
    detections,
    said_both_ways,
    sites_of,
)


def _movie(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64) / 4


def _network(n_dims: int = 2) -> BubbleNet:
    torch.manual_seed(0)
    network = BubbleNet(BubbleNetDesign(n_dims))
    # Other statistics than those of a new network, as after training.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def test_sites_are_the_movies_values_where_the_mask_says() -> None:
    correlations = [_movie((3, 4, 5), seed) for seed in (0, 1)]
    movies = [_movie((3, 4, 5), seed) for seed in (2, 3)]
    masks = [abs(correlation) > 0.3 for correlation in correlations]
    points = sites_of(movies, correlations, masks)
    assert len(points) == sum(int(mask.sum()) for mask in masks)
    for (sample, z, x, t), values in zip(
        points.coordinates.tolist(), points.features.tolist(), strict=True
    ):
        value = correlations[sample][t, z, x]
        assert values[:3] == pytest.approx([value.real, value.imag, abs(value)], rel=1e-5)
        signal = movies[sample][t, z, x]
        size = np.log1p(abs(signal) / np.median(abs(movies[sample][masks[sample]])))
        expected = size * np.exp(1j * np.angle(signal))
        assert values[3:] == pytest.approx([expected.real, expected.imag, size], rel=1e-5)


def test_a_louder_movie_is_the_same_to_the_network() -> None:
    movie = _movie((3, 6, 5))
    mask = abs(movie) > 0.2
    one, other = (sites_of([m], [movie], [mask]) for m in (movie, 1000 * movie))
    torch.testing.assert_close(one.features, other.features)


def test_a_movie_of_zeros_has_features_of_zero() -> None:
    nothing = np.zeros((2, 3, 4), np.complex64)
    points = sites_of([nothing], [nothing], [np.ones(nothing.shape, np.bool_)])
    assert not points.features.any()


@pytest.mark.parametrize("shape", [(8, 12, 10), (4, 6, 5, 4)], ids=["2-D", "3-D"])
def test_every_site_puts_its_bubble_near_itself(shape: tuple[int, ...]) -> None:
    movie = _movie(shape)
    network = _network(len(shape) - 1)
    points = sites_of([movie], [movie], [abs(movie) > 0.2])
    said = network(points)
    assert torch.equal(said.coordinates, points.coordinates)
    assert said.logit.shape == (len(points),)
    offset = said.position_px - points.coordinates[:, 1:-1]
    assert offset.abs().max() <= 1.5
    assert (said.sigma_px > 0).all()


def test_an_input_changes_no_output_beyond_reach() -> None:
    network = _network()
    reach = network.reach()
    movie = _movie((3, 4, 2 * reach + 40))
    mask = np.ones(movie.shape, np.bool_)
    signal = movie.copy()
    before = network(sites_of([signal], [movie], [mask]))
    at = reach + 20
    movie[1, 2, at] += 0.5
    after = network(sites_of([signal], [movie], [mask]))
    changed = (before.logit != after.logit) & (before.logit - after.logit).abs().gt(1e-7)
    away = (before.coordinates[:, 2] - at).abs()[changed]
    assert 5 < away.max() <= reach


@pytest.mark.parametrize("shape", [(8, 12, 16), (4, 6, 8, 12)], ids=["2-D", "3-D"])
def test_both_ways_a_mirror_image_is_told_as_mirrored(shape: tuple[int, ...]) -> None:
    network = _network(len(shape) - 1)
    movie = _movie(shape)
    across = tuple(range(2, len(shape)))
    turned = np.flip(movie, across)
    with torch.no_grad():
        here, there = (
            _on_grid(said_both_ways(network, sites_of([m], [m], [np.ones(shape, bool)])), shape)
            for m in (movie, turned)
        )
        plain = _on_grid(network(sites_of([movie], [movie], [np.ones(shape, bool)])), shape)
    back = np.flip(there, across)
    back[..., 2:-1] = np.array(shape[2:]) - 1 - back[..., 2:-1]
    np.testing.assert_allclose(here, back, atol=1e-4)
    # And it is something else than what is said one way.
    assert np.abs(here - plain)[..., 2:-1].max() > 0.01


def _on_grid(said: Sites, shape: tuple[int, ...]) -> np.ndarray:
    """Return logit, place and first standard deviation at each pixel, (t, z, [y,] x, D + 2)."""
    values = np.empty((*shape, len(shape) + 1))
    at = said.coordinates.numpy()
    where = (at[:, -1], *at[:, 1:-1].T)
    values[where] = np.column_stack([said.logit, said.position_px, said.sigma_px[:, 0]])
    return values


def test_both_ways_no_site_is_no_fault() -> None:
    nothing = np.zeros((2, 4, 4), np.complex64)
    points = sites_of([nothing], [nothing], [np.zeros(nothing.shape, np.bool_)])
    with torch.no_grad():
        assert len(said_both_ways(_network(), points).logit) == 0


def _said(rows: list[tuple[int, int, int, int, float, float, float]]) -> Sites:
    table = np.array(rows)
    probability = torch.from_numpy(table[:, 4])
    return Sites(
        torch.from_numpy(table[:, :4].astype(np.int64)),
        torch.logit(probability),
        torch.from_numpy(table[:, 5:7]),
        torch.full((len(table), 2), 0.1),
    )


def test_neighbours_that_say_the_same_bubble_are_one() -> None:
    found = detections(
        _said(
            [
                # sample, z, x, frame, probability, position
                (0, 4, 4, 0, 0.6, 4.4, 4.0),
                (0, 5, 4, 0, 0.3, 4.7, 4.0),  # the same bubble, between two pixels
                (0, 3, 4, 2, 0.4, 4.3, 4.0),
                (0, 5, 4, 2, 0.3, 4.5, 4.0),  # two pixels away, yet the same bubble
                (0, 6, 4, 2, 0.4, 4.6, 4.0),  # three pixels away from the first: of another
                (0, 6, 4, 0, 0.7, 6.1, 4.0),  # another, next to it
                (0, 4, 4, 1, 0.4, 4.4, 4.0),  # too faint alone
                (1, 4, 4, 0, 0.8, 4.0, 4.2),
            ]
        ),
        min_probability=0.5,
    )
    assert found["sample"].tolist() == [0, 0, 0, 1]
    assert found["frame"].tolist() == [0, 0, 2, 0]
    assert found["probability"] == pytest.approx([0.9, 0.7, 0.7, 0.8])
    first, shared = (0.6 * 4.4 + 0.3 * 4.7) / 0.9, (0.4 * 4.3 + 0.3 * 4.5) / 0.7
    assert found["position_px"] == pytest.approx(
        np.array([[first, 4.0], [6.1, 4.0], [shared, 4.0], [4.0, 4.2]])
    )


def test_two_close_bubbles_that_sites_put_apart_stay_two() -> None:
    found = detections(
        _said([(0, 4, 4, 0, 0.9, 3.5, 4.0), (0, 5, 4, 0, 0.9, 5.2, 4.0)]), min_probability=0.5
    )
    assert len(found["frame"]) == 2


def test_no_site_no_bubble() -> None:
    empty = Sites(
        torch.zeros((0, 4), dtype=torch.int64),
        torch.zeros(0),
        torch.zeros((0, 2)),
        torch.zeros((0, 2)),
    )
    found = detections(empty, min_probability=0.5)
    assert found["frame"].size == 0
    assert found["position_px"].shape == (0, 2)
