import numpy as np
import pytest
from scipy.interpolate import RectBivariateSpline
from scipy.optimize import minimize
from skimage.feature import match_template

from vasculome.ultrasound.detect import find_peaks
from vasculome.ultrasound.localize_correlate import correlation_centroid
from vasculome.ultrasound.localize_interpolate import (
    interpolation_cubic,
    interpolation_lanczos,
    interpolation_spline,
)


@pytest.mark.parametrize("localizer", [interpolation_cubic, interpolation_spline])
@pytest.mark.parametrize("vertex", [(0.0, 0.0), (0.31, -0.47), (-0.5, 0.08)])
def test_parabolas_are_reproduced(localizer, vertex):
    # Keys' kernel with a = -1/2 and the not-a-knot spline are both exact for quadratics.
    z, x = np.mgrid[-2:3, -2:3].astype(float)
    frame = (20 - (z - vertex[0]) ** 2 - 1.5 * (x - vertex[1]) ** 2)[None]
    table = localizer(frame, np.array([[0, 2, 2]]), half_width=2)
    assert table["z"][0] - 2 == pytest.approx(vertex[0], abs=1e-4)
    assert table["x"][0] - 2 == pytest.approx(vertex[1], abs=1e-4)


def test_spline_maximum_against_scipy(draw_spots):
    rng = np.random.default_rng(0)
    frames = np.abs(draw_spots([rng.uniform(6, 9, (1, 2)) for _ in range(20)], (16, 16), noise=0.1))
    peaks = find_peaks(frames, threshold=0.5, half_width=2)
    table = interpolation_spline(frames, peaks, half_width=2)
    assert len(table["z"]) >= 18
    for t, z, x in zip(table["frame"], table["z"], table["x"], strict=True):
        _, pz, px = peaks[peaks[:, 0] == t][0]
        spline = RectBivariateSpline(
            np.arange(-2, 3), np.arange(-2, 3), frames[t, pz - 2 : pz + 3, px - 2 : px + 3]
        )
        best = minimize(lambda p, s=spline: -s(*p)[0, 0], (z - pz, x - px), method="Nelder-Mead")
        np.testing.assert_allclose((z - pz, x - px), best.x, atol=0.02)


def test_lanczos_against_its_formula():
    z, x = np.mgrid[-3:4, -3:4].astype(float)
    frame = np.exp(-0.5 * ((z - 0.3) ** 2 + (x + 0.2) ** 2))
    fine = np.linspace(-1, 1, 201)
    # The patch mirrored beyond its edge, and the kernel summed voxel by voxel.
    tall = np.pad(frame, 4, mode="symmetric")
    taps = np.arange(-7, 8)
    away = fine[:, None] - taps
    weight = np.where(np.abs(away) < 3, np.sinc(away) * np.sinc(away / 3), 0)
    weight /= weight.sum(axis=1, keepdims=True)
    image = weight @ tall @ weight.T
    best = np.unravel_index(image.argmax(), image.shape)
    table = interpolation_lanczos(frame[None], np.array([[0, 3, 3]]), half_width=3)
    assert table["z"][0] - 3 == pytest.approx(fine[best[0]], abs=0.01)
    assert table["x"][0] - 3 == pytest.approx(fine[best[1]], abs=0.01)


def test_no_maximum_inside_is_no_spot():
    frame = np.broadcast_to(np.arange(7.0), (1, 7, 7))
    for localizer in (interpolation_cubic, interpolation_lanczos, interpolation_spline):
        assert len(localizer(frame, np.array([[0, 3, 3]]), half_width=2)["z"]) == 0


def test_correlation_against_skimage(draw_spots):
    rng = np.random.default_rng(2)
    frames = np.abs(
        draw_spots([rng.uniform(9, 12, (1, 2)) for _ in range(40)], (22, 22), noise=0.01)
    )
    peaks = find_peaks(frames, threshold=0.5)
    table = correlation_centroid(frames, peaks, half_width=2)
    sigma = 3 / np.sqrt(8 * np.log(2))
    offset = np.arange(-2, 3)
    spot = np.exp(-0.5 * np.add.outer(offset**2, offset**2) / sigma**2)
    for (t, pz, px), z, x in zip(peaks, table["z"], table["x"], strict=True):
        rho = match_template(frames[t], spot, pad_input=True)[pz - 2 : pz + 3, px - 2 : px + 3]
        weight = np.maximum(rho, 0) ** 2
        assert z - pz == pytest.approx((weight.sum(1) @ offset) / weight.sum(), abs=0.01)
        assert x - px == pytest.approx((weight.sum(0) @ offset) / weight.sum(), abs=0.01)


def test_correlation_near_the_edge():
    # The spot's patch just fits; what the correlation reads beyond the frame repeats its edge.
    z, x = np.mgrid[:16, :16]
    frame = np.exp(-0.5 * ((z - 2.2) ** 2 + (x - 7.7) ** 2))[None]
    table = correlation_centroid(frame, np.array([[0, 2, 8]]), half_width=2)
    assert table["z"][0] == pytest.approx(2.2, abs=0.15)
    assert table["x"][0] == pytest.approx(7.7, abs=0.05)
