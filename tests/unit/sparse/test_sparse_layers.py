"""Layers of sparse networks, alone and one after the other."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vasculome.errors import UserError
from vasculome.sparse import SparseTensor, backend, layers
from vasculome.sparse.kernel_map import kernel_offsets


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
def test_bytes_are_the_same_again_whatever_the_order_of_points(dense_input, threads):
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_gives_what_the_cpu_gives_and_the_same_bytes_again(dense_input):
    dense, mask = dense_input(3, occupancy=0.3)
    answers = []
    for device in ("cpu", "cuda", "cuda"):
        model = network().double().to(device)
        y = run(SparseTensor.from_dense(dense.to(device), mask=mask.to(device)), model)
        y.features.square().sum().backward()
        gradients = [p.grad.cpu() for p in model.parameters()]
        answers.append([y.coordinates.cpu(), y.features.detach().cpu(), *gradients])
    for on_cpu, on_cuda, again in zip(*answers, strict=True):
        torch.testing.assert_close(on_cuda, on_cpu)
        assert torch.equal(on_cuda, again)


def test_samples_of_a_batch_do_not_see_each_other(dense_input):
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


def test_a_network_goes_on_when_everything_is_pruned_and_one_sample_is_empty(dense_input):
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


def test_instance_norm_is_that_of_torch_for_each_sample(dense_input):
    dense, mask = dense_input(2, occupancy=0.5)
    x = SparseTensor.from_dense(dense, mask=mask)
    y = layers.InstanceNorm(3).double()(x)
    for before, after in zip(x.samples(), y.samples(), strict=True):
        expected = functional.instance_norm(before.T[None], eps=1e-8)[0].T
        torch.testing.assert_close(after, expected)


def test_pruning_keeps_points_and_passes_gradients_to_them(dense_input):
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


def test_union_adds_where_both_are_and_keeps_the_rest(dense_input):
    a_dense, a_mask = dense_input(3, occupancy=0.2, seed=1)
    b_dense, b_mask = dense_input(3, occupancy=0.2, seed=2)
    a_leaf = a_dense.clone().requires_grad_()
    a = SparseTensor.from_dense(a_leaf, mask=a_mask)
    b = SparseTensor.from_points(
        torch.nonzero(b_mask), b_dense.movedim(1, -1)[b_mask], manager=a.manager
    )
    y = layers.union(a, b)
    assert len(y) == int((a_mask | b_mask).sum())
    torch.testing.assert_close(y.to_dense(a_dense.shape[2:]), a_dense + b_dense)
    (y.features**2).sum().backward()
    where = a_mask[:, None].expand_as(a_dense)
    torch.testing.assert_close(a_leaf.grad[where], 2 * (a_dense + b_dense)[where])
    assert layers.union(a, a).key == a.key


def test_sums_products_and_concatenations_need_the_same_coordinates(dense_input):
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


def test_wrong_inputs_are_refused(dense_input):
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
