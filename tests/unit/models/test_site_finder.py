"""The network that finds the sites of sparse ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vasculome.models.site_finder import SiteFinder, SiteFinderDesign


@pytest.mark.parametrize("shape", [(2, 2, 6, 5, 8), (1, 2, 4, 3, 5, 4)], ids=["2-D", "3-D"])
def test_every_pixel_of_every_frame_has_a_logit(shape: tuple[int, ...]) -> None:
    network = SiteFinder(SiteFinderDesign(len(shape) - 3))
    assert network(torch.randn(shape)).shape == (shape[0], *shape[2:])


def test_frames_lie_on_straight_lines_between_those_of_the_half() -> None:
    network = SiteFinder(SiteFinderDesign(2)).eval()
    half = torch.tensor([1.0, 3.0, -1.0]).view(1, 1, 1, 1, 3)
    network.layers = torch.nn.Identity()
    said = network(half)[0, 0, 0].numpy()
    # Frame k of the half lies at 2 k + ½ of the whole.
    assert np.allclose(said, np.interp(np.arange(6), [0.5, 2.5, 4.5], [1, 3, -1]))


def test_it_is_the_same_wherever_a_bubble_is() -> None:
    torch.manual_seed(0)
    network = SiteFinder(SiteFinderDesign(2)).eval()
    movie = torch.zeros(1, 2, 24, 24, 16)
    movie[:, :, 10, 10, 8] = 1
    moved = torch.roll(movie, (3, 2, 2), dims=(2, 3, 4))
    said, expected = network(moved), torch.roll(network(movie), (3, 2, 2), dims=(1, 2, 3))
    inside = (slice(None), slice(8, -6), slice(8, -6), slice(6, -6))
    torch.testing.assert_close(said[inside], expected[inside])
