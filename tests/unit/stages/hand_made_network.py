"""Weights that nobody trained: a network set by hand so that it finds bubbles, after a fashion.

Its first layer copies the magnitude of the correlation at a site and at the neighbours along each
axis, the residual block adds nothing, and the last layer makes a logit of the site's own magnitude
and offsets of the differences of its neighbours.
"""

from __future__ import annotations

from dataclasses import asdict

import torch

from vasculome.models.bubble_net import BubbleNet, BubbleNetDesign
from vasculome.storage.weights import write_weights

_MAGNITUDE = 2
"""Of the correlation, among what the network is given."""


def hand_made(n_dims=2, *, threshold=0.2, slope=0.7):
    n = 1 + 2 * n_dims
    network = BubbleNet(BubbleNetDesign(n_dims, channels=(n,), threshold=threshold))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.weight.fill_(1)
        kernel = network.into[0].kernel
        middle = (3 ** (n_dims + 1) - 1) // 2
        kernel[middle, _MAGNITUDE, 0] = 1
        out = network.out.linear
        out.weight[0, 0], out.bias[0] = 20, -13
        for axis in range(n_dims):
            ahead, behind = 1 + 2 * axis, 2 + 2 * axis
            kernel[middle + 3**axis, _MAGNITUDE, ahead] = 1
            kernel[middle - 3**axis, _MAGNITUDE, behind] = 1
            out.weight[1 + axis, ahead], out.weight[1 + axis, behind] = slope, -slope
    return network.eval()


def write_hand_made(path, n_dims=2, *, network=None, card=None, **settings):
    """Write such weights with a card; return the path."""
    network = hand_made(n_dims, **settings) if network is None else network
    told = {
        "name": path.stem,
        "architecture": "bubble_net",
        "arguments": asdict(network.design),
        "data": "none: set by hand",
        "command": "none",
        "seed": 0,
        "metrics": {},
        "spacing_wavelengths": [0.25, 0.6],
    }
    write_weights(path, network.state_dict(), told | (card or {}))
    return path
