import numpy as np
import pytest
from scipy.optimize import curve_fit

from vasculome.metrics.cramer_rao import position_bound_px
from vasculome.ultrasound.localize_fit import (
    common_width_px,
    gaussian_fit,
    gaussian_fit_common_width,
)
from vasculome.ultrasound.patches import localize_patches

WIDTHS = (0.9, 1.2)


def patches(count, *, widths=WIDTHS, half_width=2, noise=0.0, ground=0.1, seed=0):
    """One Gaussian a frame, within half a voxel of its middle; returns shifts and frames."""
    rng = np.random.default_rng(seed)
    shift = rng.uniform(-0.5, 0.5, (count, len(widths)))
    along = np.arange(-half_width, half_width + 1)
    frames = np.ones((count, *[1] * len(widths)))
    for axis, width in enumerate(widths):
        line = np.exp(-0.5 * ((along - shift[:, axis, None]) / width) ** 2)
        frames = frames * line.reshape(
            count, *(len(along) if a == axis else 1 for a in range(len(widths)))
        )
    frames = ground + frames + rng.normal(0, noise, frames.shape)
    middle = np.full((count, len(widths)), half_width)
    peaks = np.concatenate([np.arange(count)[:, None], middle], axis=1)
    return shift, frames.astype(np.float32), peaks


def shifts(table, half_width):
    return np.stack([table[a] for a in "zyx" if a in table], axis=1) - half_width


def test_the_fit_is_that_of_scipy():
    _, frames, peaks = patches(25, noise=0.05)
    table = gaussian_fit(frames, peaks, half_width=2)
    z, x = np.mgrid[-2:3, -2:3].reshape(2, -1)

    def spot(_, a, b, cz, cx, sz, sx):
        return b + a * np.exp(-0.5 * (((z - cz) / sz) ** 2 + ((x - cx) / sx) ** 2))

    expected = [
        curve_fit(spot, None, frame.ravel(), p0=(1, 0.1, 0, 0, 1, 1))[0][2:4] for frame in frames
    ]
    np.testing.assert_allclose(shifts(table, 2), expected, atol=2e-3)


@pytest.mark.parametrize("widths", [WIDTHS, (0.9, 1.2, 1.1)])
def test_the_fit_reaches_the_cramer_rao_bound(widths):
    # With white noise least squares is the maximum of the likelihood, which is efficient.
    noise = 0.02
    shift, frames, peaks = patches(3000, widths=widths, noise=noise)
    table = gaussian_fit_common_width(frames, peaks, half_width=2, widths_px=widths)
    bound = position_bound_px(
        shift, amplitude=1.0, widths_px=widths, half_width=2, noise=noise, known_ground=False
    )
    error = np.sqrt(np.mean((shifts(table, 2) - shift) ** 2, axis=0))
    np.testing.assert_allclose(error, np.sqrt(np.mean(bound**2, axis=0)), rtol=0.05)


@pytest.mark.parametrize("widths", [WIDTHS, (0.5, 0.6), (0.9, 1.2, 1.1)])
def test_the_common_width_is_that_of_the_spots(widths):
    _, frames, peaks = patches(3000, widths=widths, noise=0.02)
    seen = []
    localize_patches(
        lambda cut: seen.append(common_width_px(cut)) or np.zeros((len(cut), 3)),
        frames,
        peaks,
        half_width=2,
        first_frame=0,
    )
    found = seen[0][[0, 2] if len(widths) == 2 else [0, 1, 2]]
    np.testing.assert_allclose(found, widths, rtol=0.03)
    # Nothing to fit: half the reach of the patch and half a voxel.
    np.testing.assert_allclose(
        common_width_px(np.ones((3, 5, 1, 3), np.float32)), [1.25, 0.25, 0.75]
    )


def test_one_narrow_spot_is_still_placed():
    # Two thirds of its light fall on one voxel: the height has no bound, the place has.
    shift, frames, peaks = patches(400, widths=(0.42, 0.5), half_width=1, noise=0.01)
    table = gaussian_fit(frames, peaks, half_width=1)
    assert len(table["z"]) == 400
    assert np.sqrt(np.mean((shifts(table, 1) - shift) ** 2)) < 0.06
