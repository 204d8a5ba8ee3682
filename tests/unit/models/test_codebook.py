"""The codebook: known nearest codes, gradients, dead codes, and how many are in use."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vasculome.models.codebook import (
    Codebook,
    codebook_loss,
    gumbel_softmax,
    gumbel_temperature,
    perplexity,
    squared_distances,
)


def _book(codes, **options):
    book = Codebook(*codes.shape, **options)
    with torch.no_grad():
        book.codes.copy_(codes)
        book.share.fill_(1 / len(codes))  # in use: none is dead
    return book


def test_in_evaluation_each_feature_becomes_the_nearest_code():
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [-3.0, -3.0]])
    near = torch.tensor([2, 0, 3, 1, 1, 2, 0, 3])
    x = codes[near] + 0.2 * torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    grid = x.reshape(2, 2, 2, 1, 2).movedim(-1, 1)  # (N, d, z, y, x)
    said = _book(codes).eval()(grid, learning=True)
    assert torch.equal(said.index.flatten(), near)
    assert torch.equal(said.features, codes[near].reshape(2, 2, 2, 1, 2).movedim(-1, 1))
    apart = np.mean((x.numpy() - codes[near].numpy()) ** 2)
    assert float(said.loss.detach()) == pytest.approx(1.25 * apart, rel=1e-5)
    assert float(said.perplexity) == pytest.approx(4)


@pytest.mark.parametrize(("scores", "power"), [("squared_distance", 2), ("distance", 1)])
def test_codes_are_drawn_by_their_distance_or_its_square(scores, power):
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    book = _book(codes, scores=scores)
    torch.manual_seed(0)
    x = torch.zeros(1, 2, 20, 30, 30, requires_grad=True)
    said = book(x, learning=True)
    found = np.bincount(said.index.flatten().numpy(), minlength=3) / 18000
    odds = np.exp(-(np.array([0.0, 1.0, 2.0]) ** power))
    assert np.allclose(found, odds / odds.sum(), atol=0.012)
    # On a code itself the distance has no slope: gradients are finite all the same.
    said.features.sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(book.codes.grad).all()
    near = book.eval()(0.3 + torch.zeros(1, 2, 1, 1, 1))
    assert int(near.index) == 0


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_relative_draws_are_those_of_a_mixture_of_gaussians_at_any_scale(scale):
    codes = scale * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    # 0.5 away from the nearest code: a variance of 0.125 for each of two channels.
    x = scale * torch.tensor([0.5, 0.0]).view(1, 2, 1, 1, 1).expand(1, 2, 20, 30, 30)
    torch.manual_seed(0)
    said = _book(codes)(x, learning=True)
    found = np.bincount(said.index.flatten().numpy(), minlength=3) / 18000
    odds = np.exp(-np.array([0.25, 0.25, 4.25]) / 0.25)
    assert np.allclose(found, odds / odds.sum(), atol=0.012)


def test_features_pass_as_they_are_until_codes_begin_as_some_of_them():
    torch.manual_seed(0)
    book = Codebook(8, 4)
    x = 30 + 0.1 * torch.randn(1, 4, 2, 2, 2)
    said = book(x, learning=True)
    assert torch.equal(said.features, x) and float(said.loss) == 0
    assert torch.equal(book.eval()(x).features, x)
    assert not book.begun and book.restarted == 0
    rows = x[0].flatten(1).T
    assert sorted(book.restart_dead(rows).tolist()) == list(range(8))
    assert book.begun and book.restarted == 8
    said = book.train()(x, learning=True)
    assert float(said.loss.detach()) == pytest.approx(0, abs=1e-2)
    torch.testing.assert_close(book.eval()(x).features, x)


def test_codes_that_begin_again_do_not_stand_for_the_features_they_begin_as():
    torch.manual_seed(0)
    book = Codebook(6, 2)
    with torch.no_grad():
        book.share.copy_(torch.tensor([0.5, 0.0, 0.25, 0.0, 0.2, 0.05]))
    x = 40 + torch.randn(1, 2, 2, 2, 2)
    said = book(x, learning=True)
    assert {1, 3}.isdisjoint(said.index.flatten().tolist())
    assert float(said.loss.detach()) > 100
    # From the next batch on they do, and are much nearer than all others.
    assert set(book(x, learning=True).index.flatten().tolist()) <= {1, 3}


def test_restarts_are_counted():
    book = Codebook(6, 2)
    with torch.no_grad():
        book.share.copy_(torch.tensor([0.5, 0.0, 0.25, 0.0, 0.2, 0.05]))
    book(torch.randn(1, 2, 4, 4, 4), learning=True)
    assert book.restarted == 2
    book(torch.randn(1, 2, 4, 4, 4))
    assert book.restarted == 2
    with pytest.raises(ValueError, match="scores must be one of"):
        Codebook(6, 2, scores="cosine")


def test_distances_are_those_of_all_pairs():
    rows, codes = torch.randn(7, 5), torch.randn(9, 5)
    expected = ((rows[:, None] - codes) ** 2).sum(2)
    assert torch.allclose(squared_distances(rows, codes), expected, atol=1e-5)


def test_draws_have_the_frequencies_of_softmax_and_the_gradients_of_the_soft_choice():
    scores = torch.tensor([[0.0, 1.0, 2.0]])
    generator = torch.Generator().manual_seed(1)
    many = gumbel_softmax(scores.expand(20000, 3), temperature=0.3, generator=generator)
    assert torch.all((many == 0) | (many == 1)) and torch.all(many.sum(1) == 1)
    assert torch.allclose(many.mean(0), torch.softmax(scores[0], 0), atol=0.012)
    # Hard forwards; backwards as softmax((scores + noise)/τ), with the same noise.
    own = scores.clone().requires_grad_()
    hard = gumbel_softmax(own, temperature=0.7, generator=torch.Generator().manual_seed(2))
    (hard * torch.tensor([3.0, 5.0, 7.0])).sum().backward()
    uniform = torch.rand(1, 3, generator=torch.Generator().manual_seed(2))
    other = scores.clone().requires_grad_()
    soft = torch.softmax((other - torch.log(-torch.log(uniform))) / 0.7, 1)
    (soft * torch.tensor([3.0, 5.0, 7.0])).sum().backward()
    assert torch.allclose(own.grad, other.grad, atol=1e-6)


def test_gradients_reach_features_and_codes_while_codes_are_learnt():
    book = _book(torch.randn(8, 4))
    x = torch.randn(1, 4, 3, 3, 3, requires_grad=True)
    book(x, learning=True, temperature=1.0).features.square().sum().backward()
    assert float(x.grad.abs().sum()) > 0 and float(book.codes.grad.abs().sum()) > 0


def test_afterwards_gradients_go_straight_past_the_codes():
    book = _book(torch.randn(8, 4))
    x = torch.randn(1, 4, 3, 3, 3, requires_grad=True)
    weight = torch.randn(1, 4, 3, 3, 3)
    said = book(x)
    (said.features * weight).sum().backward()
    assert torch.allclose(x.grad, weight)
    assert book.codes.grad is None
    assert torch.equal(said.features, book.eval()(x).features)


def test_the_loss_is_equation_9_and_each_part_moves_its_own():
    rows = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    chosen = torch.tensor([[0.0, 2.0], [0.0, 4.0]], requires_grad=True)
    loss = codebook_loss(rows, chosen, commitment=0.5)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.5 * (1 + 16) / 4)
    away = (rows - chosen).detach()
    assert torch.allclose(chosen.grad, -2 * away / 4)
    assert torch.allclose(rows.grad, 0.5 * 2 * away / 4)


def test_dead_codes_begin_again_from_features_the_same_for_a_seed():
    def revived(seed):
        book = Codebook(6, 2)
        with torch.no_grad():
            book.codes.copy_(torch.arange(12.0).reshape(6, 2))
            book.share.copy_(torch.tensor([0.5, 0.001, 0.25, 0.0, 0.2, 0.049]))
        rows = 100 + torch.arange(20.0).reshape(10, 2)
        count = book.restart_dead(rows, generator=torch.Generator().manual_seed(seed))
        return count, book.codes.detach(), book.share, rows

    which, codes, share, rows = revived(3)
    assert which.tolist() == [1, 3]
    assert torch.equal(codes[[0, 2, 4, 5]], torch.arange(12.0).reshape(6, 2)[[0, 2, 4, 5]])
    found = [int(torch.nonzero((rows == code).all(1))) for code in codes[[1, 3]]]
    assert len(set(found)) == 2
    assert torch.allclose(share[[1, 3]], torch.tensor(1 / 6))
    assert torch.equal(codes, revived(3)[1])
    assert any(not torch.equal(codes, revived(seed)[1]) for seed in range(4, 8))


def test_codes_that_nobody_needs_are_back_in_use_after_a_while():
    # All but one code begin far away from all features.
    torch.manual_seed(0)
    book = _book(torch.full((16, 2), 50.0) + torch.randn(16, 2))
    with torch.no_grad():
        book.codes[0] = 0
    optimizer = torch.optim.Adam(book.parameters(), lr=0.01)
    used = []
    for _ in range(400):
        said = book(3 * torch.randn(1, 2, 4, 4, 2), learning=True)
        used.append(float(said.perplexity))
        optimizer.zero_grad()
        said.loss.backward()
        optimizer.step()
    assert used[0] == pytest.approx(1)
    assert np.mean(used[-20:]) > 6


def test_perplexity_of_even_use_is_the_number_of_codes():
    assert float(perplexity(torch.full((512,), 3))) == pytest.approx(512, rel=1e-4)
    assert float(perplexity(torch.tensor([0, 9, 0]))) == pytest.approx(1)
    p = np.array([0.5, 0.25, 0.25])
    assert float(perplexity(torch.tensor([2, 1, 1]))) == pytest.approx(
        math.exp(-(p * np.log(p)).sum())
    )


def test_temperature_falls_from_1_to_a_tenth():
    assert gumbel_temperature(0) == 1
    assert gumbel_temperature(0.5) == pytest.approx(math.sqrt(0.1))
    assert gumbel_temperature(1) == pytest.approx(0.1) == gumbel_temperature(2)


def test_what_is_no_codebook_is_refused():
    with pytest.raises(ValueError, match="is none"):
        Codebook(1, 4)
    with pytest.raises(ValueError, match="width 3"):
        Codebook(4, 4)(torch.zeros(1, 3, 1, 1, 1))
    with pytest.raises(ValueError, match="temperature"):
        Codebook(4, 4)(torch.zeros(1, 4, 1, 1, 1), temperature=0)
