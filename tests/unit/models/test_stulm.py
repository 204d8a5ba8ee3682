"""Deep-stULM: one network, dense and sparse."""

from __future__ import annotations

import pytest
import torch

from vasculome.models.stulm import CHUNK_FRAMES, Stulm, StulmDesign
from vasculome.sparse import SparseTensor


def _sparse(dense: torch.Tensor, mask: torch.Tensor | None = None) -> SparseTensor:
    n_dims = dense.ndim - 3
    return SparseTensor.from_dense(dense, mask=mask, stride=(*(8,) * n_dims, 1))


def _pair(n_dims: int, **options: bool) -> tuple[Stulm, Stulm]:
    torch.manual_seed(0)
    dense = Stulm(StulmDesign(n_dims, engine="dense", **options))
    sparse = Stulm(StulmDesign(n_dims, **options))
    sparse.load_state_dict(dense.state_dict())
    return dense, sparse


@pytest.mark.parametrize(("n_dims", "published"), [(2, 1.05e6), (3, 3.1e6)])
def test_as_many_parameters_as_published(n_dims: int, published: float) -> None:
    network = Stulm(StulmDesign(n_dims))
    count = sum(p.numel() for p in network.parameters())
    assert count == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("shape", [(2, 2, 8, 4, 256), (1, 2, 4, 4, 8, 128)], ids=["2-D+T", "3-D+T"])
def test_where_every_site_is_there_sparse_is_dense(shape: tuple[int, ...]) -> None:
    dense, sparse = _pair(len(shape) - 3, intermediate_loss=True)
    movie = torch.randn(shape)
    expected = dense(movie).logits
    found = sparse(_sparse(movie)).logits
    assert len(expected) == len(found) == 4
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other.to_dense(), one, rtol=1e-4, atol=1e-4)


def test_gradients_of_dense_and_sparse_are_the_same() -> None:
    dense, sparse = _pair(2)
    dense.double(), sparse.double()
    movie = torch.randn(1, 2, 4, 8, 128, dtype=torch.float64)
    weight = torch.randn(1, 1, 32, 64, 1, dtype=torch.float64)
    (dense(movie).finest * weight).sum().backward()
    (sparse(_sparse(movie)).finest.to_dense() * weight).sum().backward()
    for one, other in zip(dense.parameters(), sparse.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-6, atol=1e-8)


def test_outputs_lie_where_the_strides_say() -> None:
    mask = torch.zeros(1, 8, 8, 512, dtype=torch.bool)
    mask[0, 5, 2, 300] = True
    movie = torch.randn(1, 2, 8, 8, 512)
    network = Stulm(StulmDesign(2, intermediate_loss=True)).eval()
    coarse, _, _, fine = network(_sparse(movie, mask)).logits
    assert coarse.stride == (8, 8, CHUNK_FRAMES)
    assert coarse.coordinates.tolist() == [[0, 40, 16, 256]]
    assert fine.stride == (1, 1, 1024)
    # One site of the input becomes all the fine pixels in it.
    assert len(fine) == 64
    assert fine.coordinates[:, 1].unique().tolist() == list(range(40, 48))
    assert fine.coordinates[:, 2].unique().tolist() == list(range(16, 24))


def test_pruning_leaves_out_what_its_classifiers_find_empty() -> None:
    torch.manual_seed(0)
    options = {"intermediate_loss": True}
    whole = Stulm(StulmDesign(2, **options)).eval()
    pruned = Stulm(StulmDesign(2, pruning=True, **options)).eval()
    pruned.load_state_dict(whole.state_dict())
    x = _sparse(torch.randn(2, 2, 8, 8, 128))
    first = pruned(x).logits[0]
    kept = int((torch.sigmoid(first.features[:, 0]) > 0.5).sum())
    assert 0 < kept < len(first)
    assert len(pruned(x).logits[1]) == 4 * kept
    assert len(pruned(x).finest) < len(whole(x).finest)


def test_where_nothing_passes_the_best_site_of_each_sample_stays() -> None:
    torch.manual_seed(0)
    network = Stulm(StulmDesign(2, intermediate_loss=True, pruning=True)).eval()
    with torch.no_grad():
        for classifier in network.classifiers:
            classifier.bias.fill_(-100.0)
        coarse, *_, fine = network(_sparse(torch.randn(2, 2, 4, 4, 128))).logits
    rows = [sample[:, 0].argmax() for sample in coarse.samples()]
    best = [coarse.coordinates[16 * i + row, 1:3].tolist() for i, row in enumerate(rows)]
    # The last level is not pruned again: the four pixels of the best one there.
    assert len(fine) == 2 * 4
    for sample, z_fine, x_fine, _ in fine.coordinates.tolist():
        z, x = best[sample]
        assert z <= z_fine < z + 8
        assert x <= x_fine < x + 8


def test_levels_are_computed_as_far_as_the_cascade_has_come() -> None:
    network = Stulm(StulmDesign(2, intermediate_loss=True))
    x = _sparse(torch.randn(1, 2, 4, 4, 128))
    for level in range(4):
        logits = network(x, stop_level=level).logits
        assert len(logits) == level + 1
        assert logits[-1].stride[0] == (8, 4, 2, 1)[level]


@pytest.mark.parametrize(
    "options", [{"pruning": True}, {"pruning": True, "intermediate_loss": True, "engine": "dense"}]
)
def test_what_cannot_be_pruned(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="pruning"):
        StulmDesign(2, **options)


def test_levels_without_classifiers_cannot_be_stopped_at() -> None:
    with pytest.raises(ValueError, match="intermediate"):
        Stulm(StulmDesign(2))(_sparse(torch.randn(1, 2, 4, 4, 128)), stop_level=0)
