import numpy as np
import pytest

from vasculome.simulate.tissue import Tissue, autofluorescence, cells, inside_surface

SHAPE, SPACING = (40, 48, 52), (3.0, 2.0, 2.0)


def test_texture_has_the_mean_and_the_spread_that_are_told() -> None:
    tissue = Tissue(level=0.2, texture=0.3, grain_um=4.0)
    light = autofluorescence(SHAPE, spacing_um=SPACING, tissue=tissue, rng=np.random.default_rng(0))
    assert light.shape == SHAPE
    assert light.dtype == np.float32
    assert light.mean() == pytest.approx(0.2, rel=0.05)
    assert np.log(light).std() == pytest.approx(0.3, rel=0.15)


def test_cells_are_as_many_as_told_and_as_bright() -> None:
    tissue = Tissue(cells_per_mm3=1e6, cell_um=4.0, cell_light=1.5)
    light = cells(SHAPE, spacing_um=SPACING, tissue=tissue, rng=np.random.default_rng(1))
    # Light of a cell: its peak, lognormal of median 1.5, over (2π)^1.5 σ³.
    mm3 = np.prod(SHAPE) * np.prod(SPACING) * 1e-9
    one = 1.5 * np.exp(0.8**2 / 2) * (2 * np.pi) ** 1.5 * 4.0**3 / np.prod(SPACING)
    assert light.sum() == pytest.approx(1e6 * mm3 * one, rel=0.2)
    assert light.min() >= 0


def test_dark_cells_never_make_light_negative() -> None:
    tissue = Tissue(cells_per_mm3=5e5, cell_light=-1.0)
    light = autofluorescence(SHAPE, spacing_um=SPACING, tissue=tissue, rng=np.random.default_rng(0))
    assert light.min() == 0


def test_the_surface_cuts_the_patch_in_two() -> None:
    parts = []
    for seed in range(10):
        inside = inside_surface(
            SHAPE, spacing_um=SPACING, roughness_um=5.0, rng=np.random.default_rng(seed)
        )
        parts.append(inside.mean())
        # All but a thin sheet is wholly in or out.
        assert ((inside > 0) & (inside < 1)).mean() < 0.1
    assert min(parts) > 0.02
    assert max(parts) < 0.98
    assert np.mean(parts) == pytest.approx(0.5, abs=0.2)
