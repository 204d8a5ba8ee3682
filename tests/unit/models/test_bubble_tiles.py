"""The network that keeps every bubble, piece by piece, against all at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vasculome.models import bubble_tiles
from vasculome.models.bubble_net import (
    BubbleNet,
    BubbleNetDesign,
    detections,
    said_both_ways,
    sites_of,
)
from vasculome.models.bubble_tiles import SiteList, TooManySitesError, likely_sites


def _network(n_dims: int) -> BubbleNet:
    torch.manual_seed(0)
    network = BubbleNet(BubbleNetDesign(n_dims, channels=(4, 6)))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    with torch.no_grad():
        # Bubbles are to be found all over, sure ones and doubtful ones.
        network.out.linear.bias[0] = 0
        network.out.linear.weight *= 3
    return network.eval()


def _movie(shape, seed=0):
    rng = np.random.default_rng(seed)
    iq = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    return iq, (iq * rng.uniform(0, 0.4, shape)).astype(np.complex64)


def _listed(iq, correlation, mask) -> SiteList:
    places = np.roll(np.argwhere(mask), -1, axis=1)
    return SiteList(places, correlation[mask], iq[mask])


@pytest.mark.parametrize(
    ("shape", "most"),
    [((90, 40, 8), 6000), ((64, 12, 100), 9000), ((70, 3, 5, 36), 9000)],
    ids=["2-D, long", "2-D, wide", "3-D"],
)
def test_pieces_find_what_the_whole_finds(monkeypatch, shape, most):
    network = _network(len(shape) - 1)
    iq, correlation = _movie(shape)
    mask = np.random.default_rng(1).random(shape) < 0.6
    sizes = []
    forward = BubbleNet.forward
    monkeypatch.setattr(
        BubbleNet, "forward", lambda self, x: (sizes.append(len(x)), forward(self, x))[1]
    )
    found = likely_sites(network, _listed(iq, correlation, mask), most_sites=most)
    assert len(sizes) >= 4 and max(sizes) <= most
    with torch.no_grad():
        whole = said_both_ways(network, sites_of([iq], [correlation], [mask]))
    a, b = (detections(said, min_probability=0.3) for said in (found, whole))
    assert len(b["frame"]) > 100
    assert np.array_equal(a["frame"], b["frame"])
    for name in ("probability", "position_px", "sigma_px"):
        np.testing.assert_allclose(a[name], b[name], atol=1e-5)


def test_every_likely_site_comes_once(monkeypatch):
    monkeypatch.setattr(bubble_tiles, "FAINT", -1.0)
    network = _network(2)
    iq, correlation = _movie((60, 30, 20))
    mask = np.random.default_rng(1).random(iq.shape) < 0.5
    sites = _listed(iq, correlation, mask)
    found = likely_sites(network, sites, most_sites=9000)
    rows = found.coordinates[:, 1:].numpy()
    assert len(rows) == mask.sum()
    assert {tuple(row) for row in rows} == {tuple(row) for row in sites.coordinates}


def test_a_movie_without_sites_has_no_bubbles():
    empty = SiteList(
        np.zeros((0, 3), np.int32), np.zeros(0, np.complex64), np.zeros(0, np.complex64)
    )
    found = likely_sites(_network(2), empty, most_sites=10)
    assert len(found.logit) == 0
    assert detections(found, min_probability=0.5)["position_px"].shape == (0, 2)


def test_sites_that_lie_too_densely_are_refused():
    iq, correlation = _movie((40, 40, 40))
    sites = _listed(iq, correlation, np.ones(iq.shape, np.bool_))
    with pytest.raises(TooManySitesError, match="more than 500"):
        likely_sites(_network(2), sites, most_sites=500)
