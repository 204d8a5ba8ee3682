"""Sparse tensors: order, round trips, lookups, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.sparse import SparseTensor


@st.composite
def clouds(draw):
    dimension = draw(st.integers(1, 4))
    place = st.tuples(st.integers(0, 2), *[st.integers(0, 4)] * dimension)
    rows = draw(st.lists(place, unique=True, max_size=25))
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 1 + dimension)


@settings(max_examples=80, deadline=None)
@given(clouds(), st.integers(1, 3))
def test_points_come_back_from_dense_and_from_lookups(coordinates, stride):
    features = torch.arange(1.0, 1 + 2 * len(coordinates)).reshape(-1, 2)
    dimension = coordinates.shape[1] - 1
    grid = coordinates * torch.tensor([1] + [stride] * dimension)
    x = SparseTensor.from_points(grid, features, stride=stride, batch_size=3)
    assert x.coordinates.tolist() == sorted(grid.tolist())
    assert torch.equal(x.features[x.rows_of(grid)], features)
    beside = grid.clone()
    beside[:, -1] += 1000
    assert bool((x.rows_of(beside) == -1).all())
    dense = x.to_dense((5,) * dimension, fill=-1)
    sample, *place = coordinates.unbind(1)
    assert torch.equal(dense.movedim(1, -1)[(sample, *place)], features)
    assert int((dense != -1).sum()) == features.numel()
    again = SparseTensor.from_dense(x.to_dense((5,) * dimension), stride=stride)
    assert torch.equal(again.coordinates, x.coordinates)
    assert torch.equal(again.features, x.features)
    assert [len(sample) for sample in x.samples()] == [
        int((coordinates[:, 0] == k).sum()) for k in range(3)
    ]


def test_gradients_go_through_from_points_and_to_dense():
    coordinates = torch.tensor([[0, 3, 1], [0, 0, 2], [1, 1, 1]])
    features = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda f: SparseTensor.from_points(coordinates, f).to_dense(), (features,)
    )


def test_negative_coordinates_are_allowed_but_have_no_place_in_a_dense_tensor():
    x = SparseTensor.from_points(torch.tensor([[0, -4, 2], [0, 2, 2]]), torch.ones(2, 1), stride=2)
    assert x.rows_of(torch.tensor([[0, -4, 2]])).tolist() == [0]
    with pytest.raises(ValueError, match="do not fit"):
        x.to_dense()
    with pytest.raises(ValueError, match="do not fit"):
        SparseTensor.from_points(torch.tensor([[0, 4, 2]]), torch.ones(1, 1)).to_dense((4, 4))


@pytest.mark.parametrize(
    ("coordinates", "features", "options", "message"),
    [
        (torch.zeros(2, 3), torch.ones(2, 1), {}, "integers"),
        (torch.zeros(2, 6, dtype=torch.int32), torch.ones(2, 1), {}, "axes"),
        (torch.zeros(4, dtype=torch.int32), torch.ones(2, 1), {}, "axes"),
        (torch.tensor([[0, 1, 1]]), torch.ones(2, 1), {}, "features for 1 points"),
        (torch.tensor([[0, 1, 1]]), torch.ones(1, 1, dtype=torch.int64), {}, "floating"),
        (torch.tensor([[0, 1, 1], [0, 1, 1]]), torch.ones(2, 1), {}, "more than once"),
        (torch.tensor([[-1, 1, 1]]), torch.ones(1, 1), {}, "samples"),
        (torch.tensor([[2, 1, 1]]), torch.ones(1, 1), {"batch_size": 2}, "samples"),
        (torch.tensor([[0, 1, 2]]), torch.ones(1, 1), {"stride": (1, 4)}, "multiples of 4"),
        (torch.tensor([[0, 1, 2]]), torch.ones(1, 1), {"stride": (1, 2, 3)}, "stride"),
        (torch.tensor([[0, 1, 2**40]]), torch.ones(1, 1), {}, "32 bits"),
    ],
)
def test_points_that_make_no_tensor_are_refused(coordinates, features, options, message):
    with pytest.raises(ValueError, match=message):
        SparseTensor.from_points(coordinates, features, **options)


def test_dense_arrays_and_features_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="channels"):
        SparseTensor.from_dense(torch.ones(2, 2))
    with pytest.raises(ValueError, match="mask"):
        SparseTensor.from_dense(torch.ones(1, 1, 3, 3), mask=torch.ones(1, 3, 3))
    x = SparseTensor.from_dense(torch.ones(1, 1, 3, 3))
    with pytest.raises(ValueError, match="9 points"):
        x.with_features(torch.ones(8, 1))
    with pytest.raises(ValueError, match="samples of 2 axes"):
        SparseTensor.from_points(torch.tensor([[0, 1]]), torch.ones(1, 1), manager=x.manager)
