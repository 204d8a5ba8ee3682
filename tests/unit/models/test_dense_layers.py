"""Dense layers with the kernels of the sparse ones."""

from __future__ import annotations

import pytest
import torch

from vasculome.models import dense_layers
from vasculome.sparse import SparseTensor, layers


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
def test_convolution_is_the_sparse_one_where_every_site_is_there(dimension: int) -> None:
    torch.manual_seed(0)
    size = tuple([3, 1, 5, 3][:dimension])
    dense = dense_layers.Convolution(2, 3, kernel_size=size, bias=True, dimension=dimension)
    sparse = layers.Convolution(2, 3, kernel_size=size, bias=True, dimension=dimension)
    sparse.load_state_dict(dense.state_dict())
    x = torch.randn(2, 2, *[4, 5, 3, 6][:dimension])
    torch.testing.assert_close(dense(x), sparse(SparseTensor.from_dense(x)).to_dense())


def test_four_axes_by_the_sum_that_defines_it() -> None:
    torch.manual_seed(0)
    layer = dense_layers.Convolution(1, 1, kernel_size=3, dimension=4)
    x = torch.zeros(1, 1, 3, 3, 3, 3)
    x[0, 0, 1, 1, 1, 1] = 1
    # Cross-correlation of a point shows the kernel turned round; axis 0 runs fastest over it.
    kernel = layer.kernel.detach()[:, 0, 0].view(3, 3, 3, 3).permute(3, 2, 1, 0)
    torch.testing.assert_close(layer(x).detach()[0, 0], kernel.flip(0, 1, 2, 3))


@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_transposed_convolution_is_the_sparse_one(dimension: int) -> None:
    torch.manual_seed(0)
    size = (*(2,) * (dimension - 1), 1)
    options = {"kernel_size": size, "stride": size, "dimension": dimension}
    dense = dense_layers.ConvolutionTranspose(2, 3, **options)
    sparse = layers.ConvolutionTranspose(2, 3, **options)
    sparse.load_state_dict(dense.state_dict())
    x = torch.randn(2, 2, *[2, 3, 2, 4][:dimension])
    points = SparseTensor.from_dense(x, stride=size)
    torch.testing.assert_close(dense(x), sparse(points).to_dense())


def test_pooling_takes_the_largest_of_each_block() -> None:
    x = torch.arange(24.0).view(1, 1, 4, 6)
    layer = dense_layers.MaxPooling(kernel_size=(2, 3), stride=(2, 3), dimension=2)
    assert layer(x)[0, 0].tolist() == [[8.0, 11.0], [20.0, 23.0]]
    layer = dense_layers.MaxPooling(kernel_size=(2, 8), stride=(2, 8), dimension=2)
    assert layer(x)[0, 0].tolist() == [[11.0], [23.0]]


def test_batch_norm_is_torchs() -> None:
    torch.manual_seed(0)
    x = 3 * torch.randn(2, 4, 3, 5, 6) + 1
    expected = torch.nn.BatchNorm3d(4)(x)
    torch.testing.assert_close(dense_layers.BatchNorm(4)(x), expected)


def test_what_the_dense_layers_do_not_do() -> None:
    with pytest.raises(ValueError, match="centre"):
        dense_layers.Convolution(1, 1, kernel_size=2, dimension=2)
    with pytest.raises(ValueError, match="stride"):
        dense_layers.ConvolutionTranspose(1, 1, kernel_size=3, stride=2, dimension=2)
    with pytest.raises(ValueError, match="blocks"):
        dense_layers.MaxPooling(kernel_size=3, stride=2, dimension=2)
    layer = dense_layers.MaxPooling(kernel_size=2, stride=2, dimension=2)
    with pytest.raises(ValueError, match="multiple"):
        layer(torch.zeros(1, 1, 3, 4))
