"""What a trained network makes of a tile of a volume; importing this imports torch."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.models.teacher import Teacher
from vasculome.models.vessel_tiles import Seen, scan_probability
from vasculome.models.window_sums import Take
from vasculome.stages.network_load import load_network
from vasculome.stages.segment_weights import Segmenter
from vasculome.storage.omezarr import Image
from vasculome.vessels.normalize import rescale

_GPU_PART = 0.9
"""Of a GPU's memory that workers take together; the rest is for what drives it."""


def tile_probability(
    source: Image, core: Box, segmenter: Segmenter, take: Take, *, low: float, high: float
) -> Seen:
    """Tell what the network says of the voxels of ``core``.

    Parameters
    ----------
    source
        The volume.
    core
        A tile of it.
    segmenter
        The network.
    take
        Is given the probabilities, plane by plane.
    low, high
        Intensities that become 0 and 1.

    Raises
    ------
    UserError
        The weights do not segment, or the memory of the GPU is used up.
    """
    torch.set_num_threads(segmenter.threads)
    network = _network(segmenter)

    def read(box: Box) -> NDArray[np.float32]:
        return rescale(source.read(box), low=low, high=high)

    try:
        return scan_probability(
            network,
            read,
            core,
            segmenter.plan,
            take,
            batch_size=_batch_size(segmenter),
            background_contrast=segmenter.background_contrast,
            planes_together=segmenter.planes_together,
            flips=segmenter.flips,
        )
    except FloatingPointError as error:
        raise UserError(
            str(error), where=segmenter.weights, fix="give other weights, or train them again"
        ) from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the memory of the GPU is used up: {str(error).splitlines()[0]}",
            where="config: microscopy.segment.network",
            fix="lower batch_size, or use fewer workers",
        ) from error


def _batch_size(segmenter: Segmenter) -> int:
    """Return how many windows go through the network at once: on a GPU, no more than fit."""
    if segmenter.device == "cpu":
        return segmenter.batch_size
    _, memory = torch.cuda.mem_get_info()
    fits = int(_GPU_PART * segmenter.share * memory / segmenter.window_bytes)
    return max(1, min(segmenter.batch_size, fits))


@functools.lru_cache(maxsize=1)
def _network(segmenter: Segmenter) -> nn.Module:
    network = load_network(
        segmenter.weights, sha256=segmenter.sha256, device=segmenter.device
    ).requires_grad_(False)
    if isinstance(network, Teacher) and not network.fine_tuned:
        raise UserError(
            "has only been shown images, never vessels",
            where=segmenter.weights,
            fix="give a teacher that was fine-tuned on labels",
        )
    if segmenter.device == "cpu":
        return network
    torch.cuda.set_per_process_memory_fraction(_GPU_PART * segmenter.share)
    torch.backends.cudnn.deterministic = True
    return network.to(memory_format=torch.channels_last_3d)
