import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vasculome.metrics.cramer_rao import position_bound_px, smoothed_noise_covariance


def spot(unknown, widths, half_width):
    """Amplitude, position and ground → voxels."""
    d = len(widths)
    grid = np.meshgrid(*[np.arange(-half_width, half_width + 1)] * d, indexing="ij")
    away = sum(((g - c) / w) ** 2 for g, c, w in zip(grid, unknown[1 : 1 + d], widths, strict=True))
    return (unknown[0] * np.exp(-0.5 * away) + unknown[1 + d]).ravel()


@pytest.mark.parametrize("widths", [(0.8, 1.1), (0.9, 1.0, 1.3)])
@pytest.mark.parametrize("known_ground", [True, False])
@pytest.mark.parametrize("coloured", [False, True])
def test_against_numerical_fisher_information(widths, known_ground, coloured):
    d, half_width, step = len(widths), 2, 1e-5
    rng = np.random.default_rng(0)
    shift = rng.uniform(-0.5, 0.5, d)
    truth = np.array([1.7, *shift, 0.2])
    free = range(d + 1 if known_ground else d + 2)
    m = (2 * half_width + 1) ** d
    noise = 0.1
    covariance = noise**2 * np.eye(m)
    if coloured:
        root = rng.normal(size=(m, m)) / np.sqrt(m)
        covariance = noise = covariance + 0.02 * root @ root.T
    inverse = np.linalg.inv(covariance)

    def log_likelihood(unknown, voxels):
        residual = voxels - spot(unknown, widths, half_width)
        return -0.5 * residual @ inverse @ residual

    # The expected curvature of the likelihood is its curvature on voxels without noise.
    clean = spot(truth, widths, half_width)
    information = np.empty((len(free), len(free)))
    for a in free:
        for b in free:
            total = 0.0
            for sign_a in (-1, 1):
                for sign_b in (-1, 1):
                    moved = truth.copy()
                    moved[a] += sign_a * step
                    moved[b] += sign_b * step
                    total += sign_a * sign_b * log_likelihood(moved, clean)
            information[a, b] = -total / (4 * step**2)
    expected = np.sqrt(np.diag(np.linalg.inv(information)))[1 : 1 + d]
    bound = position_bound_px(
        shift[None],
        amplitude=1.7,
        widths_px=widths,
        half_width=half_width,
        noise=noise,
        known_ground=known_ground,
    )
    np.testing.assert_allclose(bound[0], expected, rtol=1e-3)


def test_closed_form_of_a_wide_patch():
    # Σ (dm/dc)² of a well sampled Gaussian is A² π s_x s_z / (2 s²): the textbook's bound.
    bound = position_bound_px(
        np.array([[0.2, -0.3]]), amplitude=2.0, widths_px=(1.5, 2.0), half_width=12, noise=0.1
    )
    area = np.pi * 1.5 * 2.0
    expected = [0.1 / 2 * np.sqrt(2 * s**2 / area) for s in (1.5, 2.0)]
    np.testing.assert_allclose(bound[0], expected, rtol=1e-3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_covariance_of_smoothed_noise(ndim):
    rng = np.random.default_rng(0)
    white = rng.normal(0, 2.0, (40, *[40] * (ndim - 1), 40)[:ndim] if ndim == 3 else (900, 900))
    smooth = gaussian_filter(white, 1.0, radius=2, mode="wrap")
    patches = np.lib.stride_tricks.sliding_window_view(smooth, (3,) * ndim)
    samples = patches.reshape(-1, 3**ndim)
    expected = samples.T @ samples / len(samples)
    found = smoothed_noise_covariance(1, ndim, noise=2.0, sigma_px=1.0, radius_px=2)
    np.testing.assert_allclose(found, expected, atol=0.04 * expected[0, 0])
    # Beyond twice the filter's reach nothing correlates.
    wide = smoothed_noise_covariance(3, 1, noise=1.0, sigma_px=1.0, radius_px=2)
    assert wide[0, 4] > 0 and wide[0, 5] == wide[0, 6] == 0


def test_cramer_rao_refusals():
    with pytest.raises(ValueError, match="widths"):
        position_bound_px(np.zeros((1, 2)), amplitude=1, widths_px=(1,), half_width=1, noise=1.0)
    with pytest.raises(ValueError, match="covariance"):
        position_bound_px(
            np.zeros((1, 2)), amplitude=1, widths_px=(1, 1), half_width=1, noise=np.eye(4)
        )
