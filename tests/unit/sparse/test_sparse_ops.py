"""Sums over kernel maps: gradients, batches, layouts."""

from __future__ import annotations

import pytest
import torch

from vasculome.sparse import SparseTensor, layers, ops


@pytest.mark.parametrize("mirrored", [True, False])
def test_gradients_are_those_of_finite_differences(dense_input, mirrored):
    dense, mask = dense_input(3, occupancy=0.15, channels=2)
    x = SparseTensor.from_dense(dense[:, :, :4, :4], mask=mask[:, :4, :4])
    target = x.key if mirrored else x.manager.strided(x.key, (2, 1, 2))
    kernel_map = x.manager.kernel_map(
        x.key, target, kernel_size=(3, 3, 3 if mirrored else 2), dilation=(1, 1, 1)
    )
    features = x.features.clone().requires_grad_()
    kernel = torch.randn(kernel_map.volume, 2, 3, dtype=torch.float64, requires_grad=True)
    check = torch.autograd.gradcheck
    assert check(lambda f, k: ops.convolve(f, k, kernel_map), (features, kernel))
    for pool in (ops.pool_max, ops.pool_mean, ops.pool_sum):
        assert check(lambda f, p=pool: p(f, kernel_map), (features,))
    back = kernel_map.exchanged()
    coarse = torch.randn(back.n_in, 2, dtype=torch.float64, requires_grad=True)
    assert check(lambda f, k: ops.convolve(f, k, back), (coarse, kernel))


@pytest.mark.parametrize("limit", [64, 1000, 10**7])
def test_results_do_not_depend_on_the_size_of_batches(dense_input, limit, monkeypatch):
    dense, mask = dense_input(3, occupancy=0.4)
    x = SparseTensor.from_dense(dense, mask=mask)
    layer = layers.Convolution(3, 4, kernel_size=3, dimension=3).double()
    expected = layer(x).features
    pooled = layers.MaxPooling(kernel_size=3, dimension=3)(x).features
    monkeypatch.setattr(ops, "CPU_BATCH_BYTES", limit)
    torch.testing.assert_close(layer(x).features, expected)
    assert torch.equal(layers.MaxPooling(kernel_size=3, dimension=3)(x).features, pooled)


@pytest.mark.parametrize(("inner", "outer"), [(1, 16), (16, 1)])
def test_products_are_made_of_few_rows_at_a_time(dense_input, inner, outer, monkeypatch):
    dense, mask = dense_input(3, occupancy=0.8, channels=inner)
    x = SparseTensor.from_dense(dense, mask=mask)
    layer = layers.Convolution(inner, outer, kernel_size=3, dimension=3).double()
    add, sizes = ops._add_rows, []

    def noted(result, rows, values, parts):
        sizes.append(values.numel())
        add(result, rows, values, parts)

    monkeypatch.setattr(ops, "_add_rows", noted)
    limit = 1600
    assert len(x) * max(inner, outer) > 3 * limit
    monkeypatch.setattr(ops, "CPU_BATCH_BYTES", 8 * limit)
    layer(x.with_features(x.features.requires_grad_())).features.sum().backward()
    assert 0 < max(sizes) <= limit


def test_layouts_of_features_and_weights_do_not_matter(dense_input):
    dense, mask = dense_input(2, occupancy=0.5)
    x = SparseTensor.from_dense(dense, mask=mask)
    kernel_map = x.manager.kernel_map(x.key, x.key, kernel_size=(3, 3), dilation=(1, 1))
    features = x.features.clone()
    kernel = torch.randn(9, 3, 4, dtype=torch.float64)
    weights = torch.randn(len(x), 4, dtype=torch.float64)

    def gradients(features, kernel, weights):
        features, kernel = features.detach().requires_grad_(), kernel.detach().requires_grad_()
        y = ops.convolve(features, kernel, kernel_map)
        pooled = [pool(features, kernel_map) for pool in (ops.pool_max, ops.pool_mean)]
        loss = (y * weights).sum() + sum((p * weights[:, :3]).sum() for p in pooled)
        return [y, *pooled, *torch.autograd.grad(loss, (features, kernel))]

    expected = gradients(features, kernel, weights)
    columns = features.T.contiguous().T
    swapped = kernel.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    found = gradients(columns, swapped, weights.T.contiguous().T)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_without_gradients_nothing_is_kept_for_them(dense_input):
    dense, mask = dense_input(2, occupancy=0.5)
    x = SparseTensor.from_dense(dense, mask=mask)
    layer = layers.Convolution(3, 2, kernel_size=3, dimension=2).double()
    expected = layer(x).features
    with torch.no_grad():
        y = layer(x)
    assert torch.equal(y.features, expected)
    assert y.features.grad_fn is None


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_numbers_of_16_bits_are_summed_too(dense_input, precision):
    dense, mask = dense_input(2, occupancy=0.5)
    x = SparseTensor.from_dense(dense, mask=mask)
    layer = layers.Convolution(3, 2, kernel_size=3, dimension=2).double()
    pool = layers.SumPooling(kernel_size=3, dimension=2)
    expected = pool(layer(x)).features
    short = x.with_features(x.features.to(precision).requires_grad_())
    found = pool(layer.to(precision)(short)).features
    assert found.dtype == precision
    # 3 · 9 products, added up nine at a time: some ten roundings of the largest sum.
    limit = 10 * torch.finfo(precision).eps * float(expected.detach().abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=limit)
    found.sum().backward()
    assert short.features.grad.dtype == precision
