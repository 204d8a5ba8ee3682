"""Deep-stULM on movies: what it is given of a correlation movie, and the probability it tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vasculome.models.stulm import UPSCALING, Stulm, StulmDesign
from vasculome.sparse import SparseTensor, backend


def stulm_input(
    design: StulmDesign,
    correlations: Sequence[NDArray[np.complexfloating]],
    masks: Sequence[NDArray[np.bool_]],
) -> Any:
    """Return movies as the network of a design takes them.

    Parameters
    ----------
    design
        Of the network.
    correlations
        One movie each, complex, all of one shape (t, z, [y,] x).
    masks
        Pixels that the network is given of each: of a dense movie all others are set to 0.
    """
    if design.engine == "dense":
        kept = [np.where(k, c, 0) for c, k in zip(correlations, masks, strict=True)]
        dense = np.moveaxis(np.stack(kept), 1, -1)
        return torch.from_numpy(np.stack([dense.real, dense.imag], axis=1).astype(np.float32))
    coordinates, features = [], []
    for sample, (movie, mask) in enumerate(zip(correlations, masks, strict=True)):
        where = np.argwhere(mask)
        space = UPSCALING * where[:, 1:]
        label = np.full((len(where), 1), sample)
        coordinates.append(np.concatenate([label, space, where[:, :1]], axis=1))
        values = movie[mask]
        features.append(np.stack([values.real, values.imag], axis=1))
    stride = (UPSCALING,) * design.n_dims + (1,)
    return backend(design.engine).SparseTensor.from_points(
        torch.from_numpy(np.concatenate(coordinates)),
        torch.from_numpy(np.concatenate(features).astype(np.float32)),
        stride=stride,
        batch_size=len(correlations),
    )


def on_device(movies: Any, device: torch.device) -> Any:
    """Return the input of a network on a device."""
    if isinstance(movies, Tensor):
        return movies.to(device)
    if device.type == "cpu" or not isinstance(movies, SparseTensor):
        return movies
    return SparseTensor.from_points(
        movies.coordinates.to(device),
        movies.features.to(device),
        stride=movies.stride,
        batch_size=movies.batch_size,
    )


def vessel_probability(
    network: Stulm, correlation: NDArray[np.complexfloating], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the probability that a bubble went through each fine pixel, 8 a pixel along each axis.

    Where a sparse network computes nothing the probability is 0.

    Parameters
    ----------
    network
        In evaluation mode, on its device.
    correlation, mask
        A movie, as for :func:`stulm_input`.

    Returns
    -------
    float32 array (8 z, [8 y,] 8 x).
    """
    device = next(network.parameters()).device
    given = on_device(stulm_input(network.design, [correlation], [mask]), device)
    with torch.no_grad():
        logits = network(given).finest
        if isinstance(logits, Tensor):
            probability = torch.sigmoid(logits)[0, 0].amax(-1)
        else:
            probability = torch.zeros([UPSCALING * n for n in correlation.shape[1:]], device=device)
            where = logits.coordinates.long()[:, 1:-1].T
            probability[tuple(where)] = torch.sigmoid(logits.features[:, 0])
    found: NDArray[np.float32] = probability.cpu().numpy()
    return found
