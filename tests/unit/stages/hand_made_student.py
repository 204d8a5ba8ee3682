"""Weights that nobody trained: a student that takes what is bright for a vessel."""

from __future__ import annotations

from dataclasses import asdict

import torch

from vasculome.models.student import Student, StudentDesign
from vasculome.storage.weights import write_weights

TINY = StudentDesign(widths=(2, 3), stem_stride=1, norm="batch")
"""Windows are multiples of 2, and 12 voxels to each side bear on one."""


def bright_student(design=TINY, *, level=0.5, slope=20.0, seed=0):
    """Return a student whose answer is mostly the image's brightness, and a little of the rest."""
    torch.manual_seed(seed)
    network = Student(design)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.1)
        for block in (network.down[0], network.up[-1]):
            # What goes past the convolutions is the image itself.
            if isinstance(block.past, torch.nn.Conv3d):
                block.past.weight.zero_()
                block.past.weight[0, 0] = 1
        network.head.weight.zero_()
        network.head.weight[0, 0] = slope
        network.head.bias.fill_(-slope * level)
    return network.eval()


def write_student(path, *, network=None, card=None, **settings):
    """Write such weights with a card; return the path."""
    network = bright_student(**settings) if network is None else network
    told = {
        "name": path.stem,
        "architecture": "student",
        "arguments": asdict(network.design),
        "metrics": {"threshold": 0.5},
        "data": {"spacing_um": [1.0, 3.0], "most_spacing_um": 5.0},
    }
    write_weights(path, network.state_dict(), told | (card or {}))
    return path
