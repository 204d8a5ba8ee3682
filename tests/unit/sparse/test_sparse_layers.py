"""Sparse layers against dense ones of torch, with every point there and with few."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional

from vasculome.errors import UserError
from vasculome.sparse import SparseTensor, backend, layers, ops
from vasculome.sparse.kernel_map import kernel_offsets

SHAPES = {2: (9, 8), 3: (6, 7, 5), 4: (5, 4, 4, 6)}


def dense_input(dimension: int, *, occupancy: float, channels: int = 3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shape = SHAPES[dimension]
    dense = torch.randn((2, channels, *shape), generator=generator, dtype=torch.float64)
    mask = torch.rand((2, *shape), generator=generator) < occupancy
    return dense * mask[:, None], mask


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
def test_convolution_is_the_dense_one_at_the_points(dimension, size, stride, dilation, occupancy):
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
def test_transposed_convolution_is_the_dense_one(dimension, size, stride, dilation, occupancy):
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


def test_transposed_convolution_in_4_axes_is_the_gradient_of_the_convolution():
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
def test_pooling_at_full_occupancy_is_the_dense_one(dimension, size, stride):
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
def test_pooling_of_few_points_takes_those_in_each_block(dimension):
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


@pytest.mark.parametrize("mirrored", [True, False])
def test_gradients_are_those_of_finite_differences(mirrored):
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
def test_results_do_not_depend_on_the_size_of_batches(limit, monkeypatch):
    dense, mask = dense_input(3, occupancy=0.4)
    x = SparseTensor.from_dense(dense, mask=mask)
    layer = layers.Convolution(3, 4, kernel_size=3, dimension=3).double()
    expected = layer(x).features
    pooled = layers.MaxPooling(kernel_size=3, dimension=3)(x).features
    monkeypatch.setattr(ops, "CPU_BATCH_BYTES", limit)
    torch.testing.assert_close(layer(x).features, expected)
    assert torch.equal(layers.MaxPooling(kernel_size=3, dimension=3)(x).features, pooled)


@pytest.mark.parametrize(("inner", "outer"), [(1, 16), (16, 1)])
def test_products_are_made_of_few_rows_at_a_time(inner, outer, monkeypatch):
    dense, mask = dense_input(3, occupancy=0.8, channels=inner)
    x = SparseTensor.from_dense(dense, mask=mask)
    layer = layers.Convolution(inner, outer, kernel_size=3, dimension=3).double()
    add, sizes = ops._add_rows, []

    def noted(result, rows, values):
        sizes.append(values.numel())
        add(result, rows, values)

    monkeypatch.setattr(ops, "_add_rows", noted)
    limit = 1600
    assert len(x) * max(inner, outer) > 3 * limit
    monkeypatch.setattr(ops, "CPU_BATCH_BYTES", 8 * limit)
    layer(x.with_features(x.features.requires_grad_())).features.sum().backward()
    assert 0 < max(sizes) <= limit


def test_layouts_of_features_and_weights_do_not_matter():
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


def test_without_gradients_nothing_is_kept_for_them():
    dense, mask = dense_input(2, occupancy=0.5)
    x = SparseTensor.from_dense(dense, mask=mask)
    layer = layers.Convolution(3, 2, kernel_size=3, dimension=2).double()
    expected = layer(x).features
    with torch.no_grad():
        y = layer(x)
    assert torch.equal(y.features, expected)
    assert y.features.grad_fn is None


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.ModuleList(
        [
            layers.Convolution(3, 8, kernel_size=3, dimension=3),
            layers.BatchNorm(8),
            layers.Pointwise(torch.nn.ELU()),
            layers.MaxPooling(kernel_size=(2, 2, 1), stride=(2, 2, 1), dimension=3),
            layers.Convolution(8, 8, kernel_size=(1, 1, 3), stride=(1, 1, 2), dimension=3),
            layers.InstanceNorm(8),
            layers.ConvolutionTranspose(8, 4, kernel_size=2, stride=(2, 2, 1), dimension=3),
            layers.Linear(4, 2),
        ]
    )


def run(x: SparseTensor, model: torch.nn.Module) -> SparseTensor:
    for layer in model:
        x = layer(x)
    return x


@pytest.mark.parametrize("threads", [1, 2])
def test_bytes_are_the_same_again_whatever_the_order_of_points(threads):
    dense, mask = dense_input(3, occupancy=0.3)
    coordinates = torch.nonzero(mask)
    features = dense.movedim(1, -1)[mask].float()
    model = network()
    answers = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for _ in range(3):
            order = torch.randperm(len(coordinates))
            model.zero_grad()
            y = run(SparseTensor.from_points(coordinates[order], features[order]), model)
            y.features.square().sum().backward()
            answers.append([y.coordinates, y.features, *(p.grad for p in model.parameters())])
    finally:
        torch.set_num_threads(before)
    for other in answers[1:]:
        assert all(torch.equal(a, b) for a, b in zip(answers[0], other, strict=True))


def test_samples_of_a_batch_do_not_see_each_other():
    dense, mask = dense_input(3, occupancy=0.3)
    model = network().eval()
    both = run(SparseTensor.from_dense(dense.float(), mask=mask), model).to_dense((6, 8, 6))
    for sample in (0, 1):
        one = slice(sample, sample + 1)
        alone = run(SparseTensor.from_dense(dense[one].float(), mask=mask[one]), model)
        torch.testing.assert_close(alone.to_dense((6, 8, 6)), both[one])


def test_a_network_takes_a_batch_without_points():
    x = SparseTensor.from_points(
        torch.zeros((0, 4), dtype=torch.int32), torch.zeros((0, 3)), batch_size=2
    )
    y = run(x, network())
    assert y.features.shape == (0, 2)
    assert y.to_dense((2, 2, 2)).shape == (2, 2, 2, 2, 2)
    y.features.sum().backward()
    pooled = layers.AvgPooling(kernel_size=3, dimension=3)(x)
    assert len(pooled) == 0
    nothing = SparseTensor.from_dense(torch.zeros(0, 3, 4, 4, 4))
    assert run(nothing, network()).features.shape == (0, 2)


def test_a_network_goes_on_when_everything_is_pruned_and_one_sample_is_empty():
    dense, mask = dense_input(3, occupancy=0.3)
    mask[1] = False
    x = SparseTensor.from_dense(dense.float(), mask=mask)
    down = layers.Convolution(3, 3, kernel_size=2, stride=2, dimension=3)
    up = layers.ConvolutionTranspose(3, 3, kernel_size=2, stride=2, dimension=3)
    assert [len(sample) for sample in run(x, network()).samples()][1] == 0
    coarse = down(x)
    none = layers.Pruning()(coarse, torch.zeros(len(coarse), dtype=torch.bool))
    assert len(up(none)) == len(down(layers.union(none, none))) == 0
    back = up(none, x)
    assert torch.equal(back.features, torch.zeros(len(x), 3))
    assert torch.equal(layers.union(none, coarse).features, coarse.features)
    back.features.sum().backward()
    assert not up.kernel.grad.any()


def test_one_point_in_training_is_normalized_by_the_running_statistics():
    x = SparseTensor.from_points(torch.tensor([[0, 1, 1]]), torch.tensor([[2.0, -1.0]]))
    norm = layers.BatchNorm(2, eps=0.0)
    assert torch.equal(norm(x).features, x.features)
    assert norm.bn.training


def test_instance_norm_is_that_of_torch_for_each_sample():
    dense, mask = dense_input(2, occupancy=0.5)
    x = SparseTensor.from_dense(dense, mask=mask)
    y = layers.InstanceNorm(3).double()(x)
    for before, after in zip(x.samples(), y.samples(), strict=True):
        expected = functional.instance_norm(before.T[None], eps=1e-8)[0].T
        torch.testing.assert_close(after, expected)


def test_pruning_keeps_points_and_passes_gradients_to_them():
    dense, mask = dense_input(2, occupancy=0.5)
    leaf = dense.clone().requires_grad_()
    x = SparseTensor.from_dense(leaf, mask=mask)
    keep = x.features[:, 0] > 0
    y = layers.Pruning()(x, keep)
    assert torch.equal(y.coordinates, x.coordinates[keep])
    y.features.sum().backward()
    assert int((leaf.grad != 0).any(1).sum()) == int(keep.sum())
    again = layers.Convolution(3, 2, kernel_size=3, dimension=2).double()(y)
    assert again.key == y.key


def test_union_adds_where_both_are_and_keeps_the_rest():
    a_dense, a_mask = dense_input(3, occupancy=0.2, seed=1)
    b_dense, b_mask = dense_input(3, occupancy=0.2, seed=2)
    a_leaf = a_dense.clone().requires_grad_()
    a = SparseTensor.from_dense(a_leaf, mask=a_mask)
    b = SparseTensor.from_points(
        torch.nonzero(b_mask), b_dense.movedim(1, -1)[b_mask], manager=a.manager
    )
    y = layers.union(a, b)
    assert len(y) == int((a_mask | b_mask).sum())
    torch.testing.assert_close(y.to_dense(SHAPES[3]), a_dense + b_dense)
    (y.features**2).sum().backward()
    where = a_mask[:, None].expand_as(a_dense)
    torch.testing.assert_close(a_leaf.grad[where], 2 * (a_dense + b_dense)[where])
    assert layers.union(a, a).key == a.key


def test_sums_products_and_concatenations_need_the_same_coordinates():
    dense, mask = dense_input(2, occupancy=0.5)
    x = SparseTensor.from_dense(dense, mask=mask)
    y = x.with_features(x.features[:, :1])
    assert torch.equal((x + x).features, 2 * x.features)
    assert torch.equal((x * y - 1).features, x.features * y.features - 1)
    assert torch.equal(layers.cat(x, y).features, torch.cat([x.features, y.features], 1))
    other = SparseTensor.from_dense(dense, mask=mask)
    for function in (lambda: x + other, lambda: layers.cat(x, other)):
        with pytest.raises(ValueError, match="different coordinates"):
            function()
    with pytest.raises(ValueError, match="manager"):
        layers.union(x, other)


def test_offsets_run_along_axis_0_first():
    found = kernel_offsets((3, 2), (1, 4), centred=True)
    assert found == [(-1, 0), (0, 0), (1, 0), (-1, 4), (0, 4), (1, 4)]
    assert kernel_offsets((3, 2), (1, 4), centred=False)[:3] == [(0, 0), (1, 0), (2, 0)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Convolution(1, 1, kernel_size=(3, 3), dimension=3), "kernel_size"),
        (lambda: layers.Convolution(1, 1, kernel_size=3, stride=0, dimension=2), "stride"),
        (lambda: layers.MaxPooling(kernel_size=2, dilation=(1, -1), dimension=2), "dilation"),
    ],
)
def test_wrong_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_inputs_are_refused():
    dense, mask = dense_input(2, occupancy=0.5)
    x = SparseTensor.from_dense(dense, mask=mask)
    for layer, message in [
        (layers.Convolution(3, 2, kernel_size=3, dimension=3), "axes"),
        (layers.Convolution(5, 2, kernel_size=3, dimension=2), "channels"),
        (layers.ConvolutionTranspose(3, 2, kernel_size=2, stride=2, dimension=2), "refined"),
    ]:
        with pytest.raises(ValueError, match=message):
            layer.double()(x)
    pool = layers.MaxPooling(kernel_size=2, stride=2, dimension=2)
    with pytest.raises(ValueError, match="stride"):
        pool(x, x)
    with pytest.raises(ValueError, match="manager"):
        pool(x, pool(SparseTensor.from_dense(dense, mask=mask)))
    with pytest.raises(ValueError, match="bool"):
        layers.Pruning()(x, x.features[:, 0])
    with pytest.raises(ValueError, match="nothing"):
        layers.cat()


def test_engines_are_known_by_name():
    assert backend() is layers
    with pytest.raises(UserError, match="no sparse engine 'torchsparse'"):
        backend("torchsparse")


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
def test_all_offsets_of_a_full_grid_are_used(dimension):
    dense = torch.ones((1, 1, *(3,) * dimension))
    layer = layers.Convolution(1, 1, kernel_size=3, dimension=dimension)
    layer.kernel.data = torch.arange(3.0**dimension).reshape(-1, 1, 1)
    centre = layer(SparseTensor.from_dense(dense)).to_dense()[(0, 0, *(1,) * dimension)]
    assert centre.item() == sum(range(3**dimension))
    assert len(list(product(range(3), repeat=dimension))) == layer.volume
