"""What networks are given to learn from, and how they are scored."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from vasculome.models.bubble_net import BubbleNetDesign
from vasculome.models.site_finder import SiteFinder, SiteFinderDesign
from vasculome.models.stulm import Levels, Stulm, StulmDesign
from vasculome.sparse import SparseTensor
from vasculome.training.bubble_recipe import BubbleRecipe, batch_of
from vasculome.training.movies import make_movie, paper_2d, paper_3d, path_target
from vasculome.training.site_recipe import SiteRecipe, bubble_pixels, find_sites
from vasculome.training.stulm_recipe import Sparsify, StulmRecipe, dice_of_union, network_input

SCENE = replace(paper_2d(), shape_px=(16, 16), n_frames=128)


@pytest.fixture(scope="module")
def movie():
    return make_movie(SCENE, split="train", index=0, seed=0)


def _recipe(**options):
    return StulmRecipe(StulmDesign(2, intermediate_loss=True), SCENE, seed=0, **options)


class _Knowing(Stulm):
    """Says of every fine pixel, at every level, what is true."""

    def __init__(self, design, target):
        super().__init__(design)
        self.target = target  # (samples, chunks, *fine axes)

    def forward(self, x, *, stop_level=3):
        n_dims = self.design.n_dims
        found = Levels()
        for stride in (8, 4, 2, 1)[: stop_level + 1]:
            target = self.target if stride > 1 else self.target.any(1, keepdim=True)
            for axis in range(2, 2 + n_dims):
                target = target.unflatten(axis, (-1, stride)).any(axis + 1)
            logits = (40.0 * target.to(torch.float32) - 20).movedim(1, -1)[:, None]
            if self.design.engine != "dense":
                step = (*(stride,) * n_dims, 128 if stride > 1 else 1024)
                logits = SparseTensor.from_dense(
                    logits, mask=torch.ones_like(logits[:, 0], dtype=torch.bool), stride=step
                )
            found.logits.append(logits)
        return found


@pytest.mark.parametrize("engine", ["dense", "vasculome"])
@pytest.mark.parametrize("scene", [SCENE, replace(paper_3d(), shape_px=(8, 8, 8), n_frames=128)])
def test_the_truth_has_no_loss_and_a_dice_of_1(engine, scene):
    design = StulmDesign(scene.n_dims, engine=engine, intermediate_loss=True)
    recipe = StulmRecipe(design, scene, seed=0, batch_size=2, validation_movies=1)
    batch = recipe.batch(0)
    network = _Knowing(design, batch.target)
    assert float(recipe.loss(network, batch, 0).detach()) == pytest.approx(0, abs=1e-5)
    movie = make_movie(scene, split="validation", index=0, seed=0)
    target = torch.from_numpy(path_target(movie, factor=8, chunk_frames=128))[None]
    assert recipe.score(_Knowing(design, target)) == {"score": 1.0}
    blind = dice_of_union(
        _Knowing(design, torch.zeros_like(target)), [movie], sparsify=recipe.sparsify
    )
    assert blind == 0


def test_a_batch_is_the_same_whenever_it_is_asked_for():
    one, other = _recipe(batch_size=2), _recipe(batch_size=2)
    other.batch(5)
    first, second = one.batch(3), other.batch(3)
    assert torch.equal(first.movies.features, second.movies.features)
    assert torch.equal(first.target, second.target)
    assert not torch.equal(one.batch(4).target, second.target)


def test_movies_come_again_after_so_many():
    recipe = _recipe(batch_size=2, repeat_after=4)
    assert torch.equal(recipe.batch(0).target, recipe.batch(2).target)
    assert not torch.equal(recipe.batch(0).target, recipe.batch(1).target)


def test_wider_targets_hold_all_within_the_radius():
    plain, wide = _recipe(batch_size=1), _recipe(batch_size=1, dilated_steps=1, dilation_px=2)
    target, wider = plain.batch(0).target[0, 0].numpy(), wide.batch(0).target[0, 0].numpy()
    z, x = np.nonzero(target)
    grid = np.indices(target.shape)
    away = np.min([(grid[0] - a) ** 2 + (grid[1] - b) ** 2 for a, b in zip(z, x, strict=True)], 0)
    assert np.array_equal(wider, away <= 4)
    assert torch.equal(wide.batch(1).target, plain.batch(1).target)


def test_in_a_cascade_levels_join_one_after_the_other():
    recipe = _recipe(batch_size=1, cascade_steps=2)
    batch, network = recipe.batch(0), recipe.network()
    recipe.loss(network, batch, 1).backward()
    assert network.classifiers[0].kernel.grad is not None
    assert network.classifiers[1].kernel.grad is None
    recipe.loss(network, batch, 2).backward()
    assert network.classifiers[1].kernel.grad is not None
    assert network.out[0][0].kernel.grad is None
    recipe.loss(network, batch, 6).backward()
    assert network.out[0][0].kernel.grad is not None


def test_sparse_and_dense_networks_are_given_the_same_values(movie):
    mask = Sparsify("top_k", 500)
    sparse = network_input(StulmDesign(2), [movie, movie], mask)
    dense = network_input(StulmDesign(2, engine="dense"), [movie, movie], mask)
    assert sparse.stride == (8, 8, 1)
    assert len(sparse) == 1000
    assert torch.equal(sparse.to_dense(dense.shape[2:]), dense)


def test_which_sites_a_network_is_given(movie):
    power = np.abs(movie.correlation) ** 2
    assert np.array_equal(Sparsify("threshold", 0.2).mask(movie.correlation), power > 0.2)
    assert Sparsify("none").mask(movie.correlation).all()
    finder = SiteFinder(SiteFinderDesign(2)).eval()
    found = Sparsify("cnn", 0.4, finder).mask(movie.correlation)
    assert np.array_equal(found, find_sites(finder, movie.correlation, min_probability=0.4))
    for wrong in ({"method": "cnn"}, {"method": "top_k", "value": 5, "finder": finder}):
        with pytest.raises(ValueError, match="finder"):
            Sparsify(**wrong)


def test_the_truth_of_a_batch_is_in_pixels_and_frames(movie):
    other = make_movie(SCENE, split="train", index=1, seed=0)
    batch = batch_of([movie, other], threshold=0.2)
    rows = batch.truth.sample == 1
    assert torch.equal(batch.truth.frame[rows], torch.from_numpy(other.bubbles.frame))
    expected = other.bubbles.position_um / np.array(other.spacing_um)
    assert np.allclose(batch.truth.position_px[rows], expected, atol=1e-4)
    # Nearly every bubble has a site near it: without, it could not be learnt.
    pixel = batch.truth.position_px.round().long()
    sample, frame = batch.truth.sample[:, None], batch.truth.frame[:, None]
    seen = torch.zeros(len(pixel), dtype=torch.bool)
    for step in itertools.product((-1, 0, 1), repeat=2):
        at = torch.cat([sample, pixel + torch.tensor(step), frame], dim=1)
        seen |= batch.points.rows_of(at) >= 0
    assert seen.float().mean() > 0.85


def test_pixels_with_bubbles(movie):
    alone, around = (bubble_pixels(movie, around_px=n) for n in (0, 1))
    pixel = np.rint(movie.positions_px).astype(int)
    inside = ((pixel >= 0) & (pixel < 16)).all(1)
    assert alone[(movie.bubbles.frame[inside], *pixel[inside].T)].all()
    assert np.count_nonzero(alone) <= len(movie.bubbles)
    for t, z, x in np.argwhere(alone)[:50]:
        assert around[t, max(z - 1, 0) : z + 2, max(x - 1, 0) : x + 2].all()
    assert np.count_nonzero(around) <= 9 * np.count_nonzero(alone)


def test_an_odd_number_of_frames_has_sites_in_each(movie):
    finder = SiteFinder(SiteFinderDesign(2)).eval()
    assert find_sites(finder, movie.correlation[:7], min_probability=0.1).shape == (7, 16, 16)


@pytest.mark.parametrize("which", ["bubbles", "sites"])
def test_a_few_steps_make_the_loss_smaller(which):
    if which == "bubbles":
        scene = replace(SCENE, n_frames=16)
        recipe = BubbleRecipe(BubbleNetDesign(2, (4, 8)), scene, 0, batch_size=1)
    else:
        recipe = SiteRecipe(SiteFinderDesign(2, channels=4), SCENE, 0, around_px=1)
    torch.manual_seed(0)
    network = recipe.network()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    batch = recipe.batch(0)
    losses = []
    for step in range(15):
        optimizer.zero_grad()
        loss = recipe.loss(network, batch, step)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
