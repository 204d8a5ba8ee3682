from dataclasses import replace

import numpy as np

from vasculome.simulate.echoes import PointSpread
from vasculome.simulate.speckle import Tissue, TissueMotion

LAMBDA = 98.56
PSF = PointSpread(
    wavelength_um=LAMBDA, axial_sigma_um=60.0, lateral_sigma_um=70.0, lateral_growth=0.01
)


def test_tissue_phase_follows_its_displacement() -> None:
    motion = TissueMotion(decorrelation_s=1e9)
    tissue = Tissue(
        (32, 40),
        spacing_um=(49.28, 49.28),
        psf=PSF,
        frame_rate_hz=1000.0,
        motion=motion,
        rng=np.random.default_rng(0),
    )
    one, two = tissue.frame(10).astype(complex), tissue.frame(14).astype(complex)
    moved = tissue.displacement_um(14) - tissue.displacement_um(10)
    assert 0 < np.abs(moved).max() < 2.0
    np.testing.assert_allclose(
        np.angle(two / one), np.broadcast_to(-4 * np.pi * moved / LAMBDA, one.shape), atol=1e-4
    )
    other = Tissue(
        (32, 40),
        spacing_um=(49.28, 49.28),
        psf=PSF,
        frame_rate_hz=1000.0,
        motion=replace(motion, decorrelation_s=0.02),
        rng=np.random.default_rng(0),
    )
    similarity = abs(np.vdot(other.frame(0), other.frame(31)))
    assert similarity < 0.35 * np.vdot(other.frame(0), other.frame(0)).real
