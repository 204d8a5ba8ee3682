"""Sums over kernel maps, with their gradients: convolution and pooling.

Everything is gathered, multiplied and scattered offset by offset. Within one offset no row is
written twice and offsets follow each other in a fixed order, so the same input gives the same
bytes again, on CUDA too, as far as torch's own products and sums of a given number of threads do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from vasculome.sparse.kernel_map import Batch, KernelMap

# So many bytes of rows are gathered at a time: on a CPU what stays in its caches, on CUDA what
# keeps the device busy. Products and other temporaries come on top, two times the same at most.
CPU_BATCH_BYTES = 1 << 20
CUDA_BATCH_BYTES = 128 << 20

# Numba adds up these; it does not know floating point numbers of 16 bits.
COMPILED_TYPES = {torch.float32, torch.float64}


def convolve(features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    """Return Σ over offsets k of ``features[in]`` · ``kernel[k]``, added up by output row.

    Parameters
    ----------
    features
        (n_in, in channels).
    kernel
        (volume, in channels, out channels).
    kernel_map
        With ``exchanged()``, this is the transposed convolution.

    Returns
    -------
    (n_out, out channels).
    """
    _check_rows(features, kernel_map)
    if kernel.ndim != 3 or kernel.shape[:2] != (kernel_map.volume, features.shape[1]):
        raise ValueError(
            f"a kernel {tuple(kernel.shape)} does not fit {kernel_map.volume} offsets and "
            f"{features.shape[1]} channels"
        )
    result: Tensor = _Convolution.apply(features, kernel, kernel_map)
    return result


def pool_sum(features: Tensor, kernel_map: KernelMap) -> Tensor:
    """Return the sum (n_out, channels) of the input rows of each output row."""
    _check_rows(features, kernel_map)
    result: Tensor = _Sum.apply(features, kernel_map)
    return result


def pool_mean(features: Tensor, kernel_map: KernelMap) -> Tensor:
    """Return the mean of the input rows of each output row, 0 where there is none."""
    counts = kernel_map.counts().clamp_(min=1).to(features.dtype)
    return pool_sum(features, kernel_map) / counts[:, None]


def pool_max(features: Tensor, kernel_map: KernelMap) -> Tensor:
    """Return the largest of the input rows of each output row, 0 where there is none.

    Of equal values the one at the first offset has the gradient.
    """
    _check_rows(features, kernel_map)
    if kernel_map.volume >= torch.iinfo(torch.int16).max:
        raise ValueError(f"a pooling kernel of {kernel_map.volume} points is too large")
    result: Tensor = _Max.apply(features, kernel_map)
    return result


def _check_rows(features: Tensor, kernel_map: KernelMap) -> None:
    if len(features) != kernel_map.n_in:
        raise ValueError(f"{len(features)} rows of features for a map of {kernel_map.n_in}")


def _rows(features: Tensor, channels: int, kernel_map: KernelMap) -> int:
    limit = CUDA_BATCH_BYTES if features.is_cuda else CPU_BATCH_BYTES
    rows = limit // (channels * features.element_size())
    return max(1, min(rows, len(kernel_map.in_rows)))


def _add_rows(result: Tensor, rows: Tensor, values: Tensor, sizes: Sequence[int]) -> None:
    """Add to rows of ``result``, part after part of these sizes, which have no row twice."""
    if result.is_cpu and result.dtype in COMPILED_TYPES:
        # index_add_ sorts the rows first: it takes two to three times as long.
        _add_rows_cpu(result.numpy(), rows.numpy(), values.numpy())
        return
    for some, part in zip(rows.split(sizes), values.split(sizes), strict=True):
        result.index_add_(0, some, part)


@njit(cache=True, nogil=True)
def _add_rows_cpu(result: Any, rows: Any, values: Any) -> None:
    for place in range(rows.size):
        row = rows[place]
        for channel in range(values.shape[1]):
            result[row, channel] += values[place, channel]


def _add_products(
    result: Tensor,
    gathered: Tensor,
    rows: Tensor,
    weights: Sequence[Tensor],
    batch: Batch,
    room: Tensor,
) -> None:
    parts, products = gathered.split(batch.sizes), room[: len(rows)]
    for offset, part, product in zip(
        batch.offsets, parts, products.split(batch.sizes), strict=True
    ):
        torch.mm(part, weights[offset], out=product)
    _add_rows(result, rows, products, batch.sizes)


def _add_outer_products(result: Tensor, before: Tensor, after: Tensor, batch: Batch) -> None:
    befores, afters = before.split(batch.sizes), after.split(batch.sizes)
    for offset, one, other in zip(batch.offsets, befores, afters, strict=True):
        result[offset].addmm_(one.T, other)


def _room(like: Tensor, rows: int, channels: int) -> Tensor:
    """Return memory for the rows of every batch; to make it anew each time takes longer."""
    return like.new_empty(rows, channels)


def _gathered(features: Tensor, rows: Tensor, room: Tensor) -> Tensor:
    return torch.index_select(features, 0, rows, out=room[: len(rows)])


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.kernel_map = kernel_map
        weights = kernel.unbind()
        _, before, after = kernel.shape
        if kernel_map.identity is None:
            result = features.new_zeros(kernel_map.n_out, after)
        else:
            result = features @ weights[kernel_map.identity]
        rows = _rows(features, max(before, after), kernel_map)
        inputs, products = _room(features, rows, before), _room(features, rows, after)
        for batch in kernel_map.batches(rows):
            gathered = _gathered(features, batch.in_rows, inputs)
            _add_products(result, gathered, batch.out_rows, weights, batch, products)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, kernel = ctx.saved_tensors
        kernel_map: KernelMap = ctx.kernel_map
        gradient = gradient.contiguous()
        weights = kernel.transpose(1, 2).unbind()
        _, before, after = kernel.shape
        of_features = of_kernel = None
        identity = kernel_map.identity
        if ctx.needs_input_grad[0]:
            if identity is None:
                of_features = torch.zeros_like(features)
            else:
                of_features = gradient @ weights[identity]
        if ctx.needs_input_grad[1]:
            of_kernel = torch.zeros_like(kernel)
            if identity is not None:
                torch.mm(features.T, gradient, out=of_kernel[identity])
        rows = _rows(features, max(before, after), kernel_map)
        # What is gathered for the kernel's gradient has the shape of the products.
        outputs, inputs = _room(features, rows, after), _room(features, rows, before)
        for batch in kernel_map.batches(rows):
            gathered = _gathered(gradient, batch.out_rows, outputs)
            if of_features is not None:
                _add_products(of_features, gathered, batch.in_rows, weights, batch, inputs)
            if of_kernel is not None:
                others = _gathered(features, batch.in_rows, inputs)
                _add_outer_products(of_kernel, others, gathered, batch)
        return of_features, of_kernel, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.kernel_map = kernel_map
        return _sum(features, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _sum(gradient, ctx.kernel_map.exchanged()), None


def _sum(features: Tensor, kernel_map: KernelMap) -> Tensor:
    if kernel_map.identity is None:
        result = features.new_zeros(kernel_map.n_out, features.shape[1])
    else:
        result = features.clone(memory_format=torch.contiguous_format)
    for batch in kernel_map.batches(_rows(features, features.shape[1], kernel_map)):
        gathered = features.index_select(0, batch.in_rows)
        _add_rows(result, batch.out_rows, gathered, batch.sizes)
    return result


class _Max(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel_map: KernelMap) -> Tensor:
        none = torch.iinfo(torch.int16).max
        if kernel_map.identity is None:
            result = features.new_full((kernel_map.n_out, features.shape[1]), -torch.inf)
            winner = torch.full_like(result, none, dtype=torch.int16)
        else:
            result = features.clone(memory_format=torch.contiguous_format)
            winner = torch.full_like(result, kernel_map.identity, dtype=torch.int16)
        for batch in kernel_map.batches(_rows(features, 4 * features.shape[1], kernel_map)):
            gathered = features.index_select(0, batch.in_rows).split(batch.sizes)
            targets = batch.out_rows.split(batch.sizes)
            for offset, rows, value in zip(batch.offsets, targets, gathered, strict=True):
                best, chosen = result.index_select(0, rows), winner.index_select(0, rows)
                # A value that is not a number stays, as in dense pooling.
                better = (value > best) | ((value == best) & (chosen > offset)) | value.isnan()
                result.index_copy_(0, rows, torch.where(better, value, best))
                winner.index_copy_(0, rows, chosen.masked_fill_(better, offset))
        ctx.save_for_backward(winner)
        ctx.kernel_map = kernel_map
        return result.masked_fill_(winner == none, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (winner,) = ctx.saved_tensors
        kernel_map: KernelMap = ctx.kernel_map
        if kernel_map.identity is None:
            result = gradient.new_zeros(kernel_map.n_in, gradient.shape[1])
        else:
            result = gradient * (winner == kernel_map.identity)
        for batch in kernel_map.batches(_rows(gradient, 4 * gradient.shape[1], kernel_map)):
            sources, targets = batch.out_rows.split(batch.sizes), batch.in_rows.split(batch.sizes)
            for offset, rows, target in zip(batch.offsets, sources, targets, strict=True):
                won = winner.index_select(0, rows) == offset
                _add_rows(result, target, gradient.index_select(0, rows) * won, [len(target)])
        return result, None
