import numpy as np
import pytest

from vasculome.errors import UserError
from vasculome.ultrasound.detect import find_peaks
from vasculome.ultrasound.localize import gaussian_fit
from vasculome.ultrasound.psf import estimate_psf, given_psf


def echo(shape, position, *, turn, width, grow=0.0):
    """A bubble's echo with a carrier along z that turns by ``turn`` a voxel, wider with depth."""
    result = np.ones(())
    for axis, (n, p) in enumerate(zip(shape, position, strict=True)):
        away = np.arange(n) - p
        line = np.exp(-0.5 * (away / (width + (grow * position[0] if axis else 0))) ** 2)
        result = np.multiply.outer(result, line * np.exp(1j * turn * away) if axis == 0 else line)
    return result


def acquisition(shape, *, turn, n_frames=60, grow=0.0, noise=0.02, seed=0):
    rng = np.random.default_rng(seed)
    iq = rng.normal(0, noise / np.sqrt(2), (n_frames, *shape, 2)).view(np.complex128)[..., 0]
    for t in range(n_frames):
        for _ in range(2):
            position = [rng.uniform(0, n) for n in shape]
            phase = rng.uniform(0.5, 1.5) * np.exp(2j * np.pi * rng.random())
            iq[t] += phase * echo(shape, position, turn=turn, width=1.0, grow=grow)
    return iq.astype(np.complex64)


def estimate(iq, **options):
    magnitude = np.abs(iq)
    detections = gaussian_fit(magnitude, find_peaks(magnitude, threshold=0.3))
    return estimate_psf(iq, detections, half_width=3, **options)


def likeness(a, b):
    return abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("turn", [0.0, 0.7, 2.9])
def test_the_echo_of_a_bubble_comes_back(turn):
    found = estimate(acquisition((48, 40), turn=turn))
    true = echo((7, 7), (3, 3), turn=turn, width=1.0)
    assert found.echoes.shape == (1, 7, 7) and found.echoes.dtype == np.complex64
    assert likeness(found.echoes[0], true) > 0.999
    # Not turned either: real and positive in the middle.
    assert np.angle(found.echoes[0, 3, 3]) == pytest.approx(0, abs=1e-4)
    # Sharper than an average of patches that are aligned to whole voxels only.
    profile = np.abs(found.echoes[0, 3]) / np.abs(found.echoes[0, 3, 3])
    np.testing.assert_allclose(profile, np.abs(true[3]), atol=0.02)


def test_in_three_dimensions():
    found = estimate(acquisition((28, 26, 24), turn=1.1, n_frames=60))
    assert likeness(found.echoes[0], echo((7, 7, 7), (3, 3, 3), turn=1.1, width=1.0)) > 0.998


def test_by_depth():
    iq = acquisition((60, 40), turn=0.5, n_frames=150, grow=0.012)
    found = estimate(iq, bands=3)
    assert (np.diff(found.depth_px) > 10).all()
    for depth, one in zip(found.depth_px, found.echoes, strict=True):
        width = 1.0 + 0.012 * depth
        true = echo((7, 7), (3, 3), turn=0.5, width=1.0)[:, 3:4] * np.exp(
            -0.5 * (np.arange(-3, 4) / width) ** 2
        )
        assert likeness(one, true) > 0.998
    rows = found.at_depths(60)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=(1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(rows[0], found.echoes[0], atol=1e-6)
    np.testing.assert_allclose(rows[59], found.echoes[2], atol=1e-6)
    between = rows[round((found.depth_px[0] + found.depth_px[1]) / 2)]
    assert min(likeness(between, found.echoes[i]) for i in (0, 1)) > likeness(*found.echoes[:2])


def test_bubbles_near_another_do_not_count():
    # Every bubble has a brighter companion three voxels beside it.
    iq = np.zeros((40, 40, 40), np.complex64)
    for t in range(40):
        z, x = np.random.default_rng(t).uniform(14, 24, 2)
        iq[t] = echo((40, 40), (z, x), turn=0.3, width=0.8)
        iq[t] += 1.2 * echo((40, 40), (z, x + 3.5), turn=0.3, width=0.8)
    with pytest.raises(UserError, match="only 0 isolated bubbles"):
        estimate(iq)


def test_too_few_bubbles():
    iq = acquisition((60, 40), turn=0.5, n_frames=8)
    with pytest.raises(UserError, match=r"only \d+ isolated bubbles.* fullest of 3 depth bands"):
        estimate(iq, bands=3)
    with pytest.raises(ValueError, match="bands"):
        estimate(iq, bands=0)


def test_given():
    kernel = 3j * np.exp(-0.5 * np.add.outer(np.arange(-2, 3) ** 2, np.arange(-3, 4) ** 2))
    psf = given_psf(kernel)
    assert np.linalg.norm(psf.echoes) == pytest.approx(1) and psf.echoes[0, 2, 3].real > 0
    assert psf.echoes[0, 2, 3].imag == pytest.approx(0, abs=1e-7)
    np.testing.assert_array_equal(psf.at_depths(9), np.repeat(psf.echoes, 9, axis=0))
    two = given_psf(np.stack([kernel, kernel.conj()]), depth_px=[3, 9])
    assert two.echoes.shape == (2, 5, 7)
    for wrong, options in (
        (kernel[:4], {}),
        (kernel[0], {}),
        (np.zeros((5, 5)), {}),
        (np.full((5, 5), np.nan), {}),
        (np.stack([kernel, kernel]), {"depth_px": [9, 3]}),
        (np.stack([kernel, kernel]), {"depth_px": [3]}),
    ):
        with pytest.raises(UserError, match="my PSF"):
            given_psf(wrong, where="my PSF", **options)
