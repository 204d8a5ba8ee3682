"""Weights of Deep-stULM that nobody trained, so that its answer is known.

Nothing but the real part of the correlation goes through the network, by the shortest way and to
the same pixel: all 64 or 512 fine pixels of a pixel get the same logit, ``SLOPE`` times the highest
value that the pixel has in the movie, less ``OFFSET``. What a pixel of which nothing is positive
gets is less than that of 0.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch

from vasculome.models.stulm import Stulm, StulmDesign
from vasculome.storage.weights import write_weights

SLOPE, OFFSET = 20.0, 12.0


def hand_made_stulm(n_dims=2, *, slope=SLOPE, **design):
    network = Stulm(StulmDesign(n_dims, **design))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.zero_()
            if _is_scale(network, name):
                parameter.fill_(1)
        for module in network.modules():
            if hasattr(module, "running_var"):
                module.running_var.fill_(1)
                # So that the square root of variance and eps is 1.
                module.running_var.sub_(module.eps)
        # The first 16 of the 32 channels that come up again are those of the input.
        _pass(network.tr1.reduce[0], channel=16)
        for finer in network.finer:
            finer.expand.kernel[:, 0, 0] = 1
        _pass(network.tr2.reduce[0])
        for unit in (network.out[0], *network.out[1]):
            _pass(unit[0], middle=True)
        last = network.out[2]
        last.kernel[0, 0] = slope
        last.bias[0, 0] = -OFFSET
    return network.eval()


def known_answer(correlation, *, slope=SLOPE):
    """Return the probability (fine axes) for a movie; where nothing is positive that of 0."""
    highest = np.maximum(correlation.real.max(axis=0), 0)
    for axis in range(highest.ndim):
        highest = np.repeat(highest, 8, axis=axis)
    return 1 / (1 + np.exp(OFFSET - slope * highest))


def write_hand_made_stulm(path, n_dims=2, *, network=None, card=None, **settings):
    """Write such weights with a card; return the path."""
    network = hand_made_stulm(n_dims, **settings) if network is None else network
    told = {
        "name": path.stem,
        "architecture": "stulm",
        "arguments": asdict(network.design),
        "data": {"n_frames": 512},
        "settings": {"sparsify": "threshold", "threshold": 0.4},
        "command": "none",
        "seed": 0,
        "metrics": {},
        "spacing_wavelengths": [0.25, 0.5],
    }
    write_weights(path, network.state_dict(), told | (card or {}))
    return path


def _is_scale(network, name):
    module, _, kind = name.rpartition(".")
    owner = network.get_submodule(module)
    return kind == "weight" and hasattr(owner, "running_var")


def _pass(convolution, *, channel=0, middle=False):
    kernel = convolution.kernel
    if middle:
        kernel[len(kernel) // 2, channel, 0] = 1
    else:
        kernel[channel, 0] = 1
