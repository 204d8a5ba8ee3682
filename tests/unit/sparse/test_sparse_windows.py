"""Convolution and pooling against the dense ones of torch, with every point there and with few."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vasculome.sparse import SparseTensor, layers


def dense_kernel(kernel: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """(volume, in, out), axis 0 fastest, as torch has it: (out, in, *axes)."""
    by_axis = kernel.reshape(*sizes[::-1], *kernel.shape[1:])
    dimension = len(sizes)
    return by_axis.permute(dimension + 1, dimension, *reversed(range(dimension)))


def dense_convolution(dense, kernel, sizes, stride, dilation):
    """A dense convolution in any number of axes, the first of 4 as a sum over its offsets."""
    begin = [-(size // 2) if size % 2 else 0 for size in sizes]
    pads = []
    for first, size, d in zip(begin, sizes, dilation, strict=True):
        pads.append((-first * d, (first + size - 1) * d))
    padded = functional.pad(dense, [p for pair in reversed(pads) for p in pair])
    weight = dense_kernel(kernel, sizes)
    if len(sizes) < 4:
        function = {2: functional.conv2d, 3: functional.conv3d}[len(sizes)]
        return function(padded, weight, stride=stride, dilation=dilation)
    frames = []
    for start in range(0, dense.shape[2], stride[0]):
        parts = [
            functional.conv3d(
                padded[:, :, start + i * dilation[0]],
                weight[:, :, i],
                stride=stride[1:],
                dilation=dilation[1:],
            )
            for i in range(sizes[0])
        ]
        frames.append(sum(parts))
    return torch.stack(frames, dim=2)


def at_points(dense: torch.Tensor, y: SparseTensor) -> torch.Tensor:
    steps = torch.tensor((1, *y.stride))
    sample, *place = (y.coordinates // steps).long().unbind(1)
    return dense.movedim(1, -1)[(sample, *place)]


CONVOLUTIONS = [
    (2, 3, 1, 1),
    (2, (5, 2), (1, 3), 1),
    (2, 3, (2, 1), 2),
    (3, 3, 1, 1),
    (3, (3, 1, 4), (2, 1, 2), 1),
    (3, 2, 2, 1),
    (4, 3, 1, 1),
    (4, (3, 2, 1, 3), (1, 2, 1, 3), (1, 1, 1, 2)),
]


@pytest.mark.parametrize("occupancy", [1.0, 0.2])
@pytest.mark.parametrize(("dimension", "size", "stride", "dilation"), CONVOLUTIONS)
def test_convolution_is_the_dense_one_at_the_points(
    dense_input, dimension, size, stride, dilation, occupancy
):
    dense, mask = dense_input(dimension, occupancy=occupancy)
    layer = layers.Convolution(
        3, 4, kernel_size=size, stride=stride, dilation=dilation, bias=True, dimension=dimension
    ).double()
    truth = dense.clone().requires_grad_()
    kernel = layer.kernel.detach().clone().requires_grad_()
    expected = dense_convolution(truth, kernel, layer.kernel_size, layer.stride, layer.dilation)
    ours = dense.clone().requires_grad_()
    y = layer(SparseTensor.from_dense(ours, mask=mask))
    torch.testing.assert_close(y.features, at_points(expected, y) + layer.bias)
    if occupancy == 1:
        torch.testing.assert_close(
            y.to_dense(), expected + layer.bias.view(1, -1, *[1] * dimension)
        )
    weights = torch.randn_like(y.features)
    (y.features * weights).sum().backward()
    (at_points(expected, y) * weights).sum().backward()
    where = mask[:, None].expand_as(dense)
    torch.testing.assert_close(ours.grad[where], truth.grad[where])
    torch.testing.assert_close(layer.kernel.grad, kernel.grad)


@pytest.mark.parametrize("occupancy", [1.0, 0.2])
@pytest.mark.parametrize(
    ("dimension", "size", "stride", "dilation"),
    [
        (2, 2, 2, 1),
        (2, 3, 1, 1),
        (2, (3, 2), (2, 1), (1, 3)),
        (3, (2, 2, 1), (2, 2, 1), 1),
        (3, 3, 2, 1),
        (3, 3, 1, 2),
        (3, 4, 2, 1),
    ],
)
def test_transposed_convolution_is_the_dense_one(
    dense_input, dimension, size, stride, dilation, occupancy
):
    dense, mask = dense_input(dimension, occupancy=occupancy)
    layer = layers.ConvolutionTranspose(
        3, 4, kernel_size=size, stride=stride, dilation=dilation, dimension=dimension
    ).double()
    x = SparseTensor.from_dense(dense, mask=mask, stride=layer.stride)
    function = {2: functional.conv_transpose2d, 3: functional.conv_transpose3d}[dimension]
    weight = dense_kernel(layer.kernel, layer.kernel_size).transpose(0, 1)
    steps = {"stride": layer.stride, "dilation": layer.dilation}
    expected = function(dense, weight, **steps)
    # torch starts every kernel at the point: what an odd one adds before point 0 is cut off.
    begin = [
        size // 2 * d if size % 2 else 0
        for size, d in zip(layer.kernel_size, layer.dilation, strict=True)
    ]
    y = layer(x)
    reached = y.coordinates[:, 1:] + torch.tensor(begin)
    torch.testing.assert_close(
        y.features, expected.movedim(1, -1)[(y.coordinates[:, 0].long(), *reached.long().T)]
    )
    ones = function(mask[:, None].double(), torch.ones_like(weight[:1, :1]), **steps)
    assert len(y) == int((ones > 0.5).sum())

    some = y.coordinates[::3]
    onto = SparseTensor.from_points(
        some, torch.zeros(len(some), 1, dtype=torch.float64), manager=x.manager
    )
    there = layer(x, onto)
    assert there.key == onto.key
    torch.testing.assert_close(there.features, y.features[::3])


def test_transposed_convolution_in_4_axes_is_the_gradient_of_the_convolution(dense_input):
    dense, mask = dense_input(4, occupancy=0.2)
    fine = SparseTensor.from_dense(dense, mask=mask)
    options = {"kernel_size": (3, 2, 3, 2), "stride": (2, 2, 1, 1), "dimension": 4}
    down = layers.Convolution(3, 4, **options).double()
    up = layers.ConvolutionTranspose(4, 3, **options).double()
    up.kernel.data = down.kernel.data.transpose(1, 2).contiguous()
    leaf = fine.features.clone().requires_grad_()
    coarse = down(fine.with_features(leaf))
    weights = torch.randn_like(coarse.features)
    (gradient,) = torch.autograd.grad((coarse.features * weights).sum(), leaf)
    there = up(coarse.with_features(weights), fine)
    torch.testing.assert_close(there.features, gradient)


@pytest.mark.parametrize(
    ("dimension", "size", "stride"),
    [(2, 2, 2), (2, 3, 3), (2, 3, 2), (2, 3, 1), (3, (2, 1, 4), (2, 1, 4)), (3, 3, 1)],
)
def test_pooling_at_full_occupancy_is_the_dense_one(dense_input, dimension, size, stride):
    dense, mask = dense_input(dimension, occupancy=1.0)
    options = {"kernel_size": size, "stride": stride, "dimension": dimension}
    largest = layers.MaxPooling(**options)
    blocks = largest.kernel_size == largest.stride
    pads, limits = [], []
    for length, k, s in zip(dense.shape[2:], largest.kernel_size, largest.stride, strict=True):
        before = k // 2 if k % 2 and not blocks else 0
        pads.append((before, k))
        limits.append(-(-length // s))
    flat = [p for pair in reversed(pads) for p in pair]
    crop = (slice(None), slice(None), *(slice(0, n) for n in limits))
    pools = {2: functional.max_pool2d, 3: functional.max_pool3d}
    means = {2: functional.avg_pool2d, 3: functional.avg_pool3d}
    x = SparseTensor.from_dense(dense, mask=mask)
    padded = functional.pad(dense, flat, value=-torch.inf)
    expected = pools[dimension](padded, largest.kernel_size, largest.stride)[crop]
    torch.testing.assert_close(largest(x).to_dense(), expected)
    sums = means[dimension](
        functional.pad(dense, flat), largest.kernel_size, largest.stride, divisor_override=1
    )[crop]
    counts = means[dimension](
        functional.pad(torch.ones_like(dense), flat),
        largest.kernel_size,
        largest.stride,
        divisor_override=1,
    )[crop]
    torch.testing.assert_close(layers.SumPooling(**options)(x).to_dense(), sums)
    torch.testing.assert_close(layers.AvgPooling(**options)(x).to_dense(), sums / counts)


@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_pooling_of_few_points_takes_those_in_each_block(dense_input, dimension):
    dense, mask = dense_input(dimension, occupancy=0.3)
    x = SparseTensor.from_dense(dense, mask=mask)
    blocks: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for (sample, *place), value in zip(x.coordinates.tolist(), x.features, strict=True):
        blocks.setdefault((sample, *(c // 2 * 2 for c in place)), []).append(value)
    expected = [torch.stack(blocks[place]) for place in sorted(blocks)]
    options = {"kernel_size": 2, "stride": 2, "dimension": dimension}
    y = layers.MaxPooling(**options)(x)
    assert list(map(tuple, y.coordinates.tolist())) == sorted(blocks)
    assert torch.equal(y.features, torch.stack([part.amax(0) for part in expected]))
    torch.testing.assert_close(
        layers.AvgPooling(**options)(x).features, torch.stack([p.mean(0) for p in expected])
    )


def test_of_equal_values_the_first_offset_has_the_gradient_of_the_maximum():
    coordinates = torch.tensor([[0, 0, 1], [0, 1, 0], [0, 2, 2]])
    features = torch.ones(3, 1, requires_grad=True)
    pool = layers.MaxPooling(kernel_size=2, stride=2, dimension=2)
    pool(SparseTensor.from_points(coordinates, features)).features.sum().backward()
    # Offset 1 is (1, 0), offset 2 is (0, 1): axis 0 runs fastest.
    assert features.grad[:, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
def test_all_offsets_of_a_full_grid_are_used(dimension):
    dense = torch.ones((1, 1, *(3,) * dimension))
    layer = layers.Convolution(1, 1, kernel_size=3, dimension=dimension)
    layer.kernel.data = torch.arange(3.0**dimension).reshape(-1, 1, 1)
    centre = layer(SparseTensor.from_dense(dense)).to_dense()[(0, 0, *(1,) * dimension)]
    assert centre.item() == sum(range(3**dimension))
