"""Echoes of probes: those that PyMUST simulates, at the bubble, on the two-way carrier."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import Psf, add_echoes
from vasculome.simulate.psf_pymust import simulate_echoes
from vasculome.training.point_spread import assumed_echo, point_spread
from vasculome.training.probes import DEPTHS, PROBES, echo_at
from vasculome.training.scenes import paper_2d, paper_3d

RIGHT = np.ones(2)
CASES = [(n_dims, depth) for n_dims, depths in DEPTHS.items() for depth in depths]


def image(psf: Psf, at_px: NDArray[np.float64], spacing_um: tuple[float, ...]) -> np.ndarray:
    """Return the echo of a bubble, in a field of 33 pixels along each axis."""
    iq = np.zeros((1, *(33 for _ in spacing_um)), np.complex64)
    bubble = BubbleTable(
        track=np.zeros(1, np.int64),
        frame=np.zeros(1, np.int64),
        position_um=at_px[None] * spacing_um,
        velocity_mm_s=np.zeros((1, len(spacing_um))),
        amplitude=np.ones(1, np.float32),
    )
    add_echoes(iq, bubble, first_frame=0, spacing_um=spacing_um, psf=psf)
    return iq[0]


@pytest.mark.parametrize(("n_dims", "depth"), CASES)
def test_an_echo_peaks_where_the_bubble_is_and_turns_with_depth(n_dims: int, depth: float) -> None:
    wavelength_um = 120.0
    spacing_um = (wavelength_um / 4,) * n_dims if n_dims == 2 else (wavelength_um / 2,) * 3
    psf = echo_at(depth, wavelength_um=wavelength_um, spacing_um=spacing_um)
    rng = np.random.default_rng(0)
    for _ in range(5):
        at = 16 + rng.uniform(-0.5, 0.5, n_dims)
        magnitude = np.abs(image(psf, at, spacing_um))
        middle = np.array(np.unravel_index(magnitude.argmax(), magnitude.shape))
        for axis in range(n_dims):
            low, top, high = (
                np.log(magnitude[tuple(middle + step * (np.arange(n_dims) == axis))])
                for step in (-1, 0, 1)
            )
            peak = middle[axis] + 0.5 * (low - high) / (low - 2 * top + high)
            assert peak == pytest.approx(at[axis], abs=0.1)
        assert magnitude.max() == pytest.approx(1, abs=0.35 if n_dims == 3 else 0.15)
    # A bubble that sinks by a sixteenth of a wavelength turns what a pixel shows back.
    step_px = wavelength_um / 16 / spacing_um[0] * (np.arange(n_dims) == 0)
    here = image(psf, np.full(n_dims, 16.0), spacing_um)[(16,) * n_dims]
    sunk = image(psf, 16 + step_px, spacing_um)[(16,) * n_dims]
    assert np.angle(here) == pytest.approx(0, abs=1e-3)
    # Waves that come back at an angle turn it less than straight ones.
    assert 0.85 < -np.angle(sunk) / (4 * np.pi / 16) < 1.0


@pytest.mark.parametrize(("n_dims", "depth"), [(2, 20.0), (2, 60.0), (3, 32.0)])
def test_echoes_are_those_of_pymust(n_dims: int, depth: float) -> None:
    pytest.importorskip("pymust")
    probe = PROBES[n_dims]
    spacing_um = (probe.wavelength_um / 2,) * n_dims
    psf = echo_at(depth, wavelength_um=probe.wavelength_um, spacing_um=spacing_um)
    at = 16 + np.array([0.3, -0.45, 0.2])[:n_dims]
    rows = [np.arange(13, 20), np.arange(10, 23), np.array([15, 16, 19])][:n_dims]
    seen = image(psf, at, spacing_um)[np.ix_(*rows)]
    offsets_um = [(row - a) * p for row, a, p in zip(rows, at, spacing_um, strict=True)]
    depth_um = depth * probe.wavelength_um
    (true,) = simulate_echoes(probe, depth_um=[depth_um], offsets_um=offsets_um)
    (peak,) = simulate_echoes(probe, depth_um=[depth_um], offsets_um=[np.zeros(1)] * n_dims)
    true /= peak.item()
    assert np.abs(seen - true).max() < 0.03
    assert np.linalg.norm(seen - true) < 0.06 * np.linalg.norm(true)


@pytest.mark.parametrize("scene", [paper_2d(), paper_3d()])
def test_the_echo_that_is_looked_for_is_what_a_bubble_in_a_voxel_shows(scene) -> None:
    spacing_um = tuple(scene.wavelength_um * scene.spacing[0] for _ in scene.shape_px)
    psf = point_spread(scene, spacing_um, np.random.default_rng(0))
    (sought,) = assumed_echo(psf, spacing_um, wrong=RIGHT).echoes
    reach = [n // 2 for n in sought.shape]
    seen = image(psf, np.full(scene.n_dims, 16.0), spacing_um)
    seen = seen[tuple(slice(16 - r, 16 + r + 1) for r in reach)]
    np.testing.assert_allclose(sought, seen / np.linalg.norm(seen), atol=1e-4)
    wide = np.abs(assumed_echo(psf, spacing_um, wrong=np.array([1.0, 1.5])).echoes[0])
    across = (*reach[:-1], slice(None))
    assert (wide[across] > wide.max() / 2).sum() > (
        abs(sought[across]) > abs(sought).max() / 2
    ).sum()


def test_the_scene_chooses_the_depth() -> None:
    scene = replace(paper_2d(), depth=(30.0, 65.0))
    spacing_um = (25.0, 25.0)
    rng = np.random.default_rng(0)
    seen = {point_spread(scene, spacing_um, rng).depth_um[0] for _ in range(20)}
    np.testing.assert_allclose(sorted(seen), [40 * 98.56, 60 * 98.56])
    with pytest.raises(ValueError, match="no echo is known"):
        point_spread(replace(scene, depth=(41.0, 59.0)), spacing_um, rng)
