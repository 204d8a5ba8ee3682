import numpy as np
import pytest

from vasculome.simulate.noise import add_pala_noise, complex_noise


@pytest.mark.parametrize("shape", [(60, 70), (20, 22, 24)])
@pytest.mark.parametrize("sigma_px", [0.0, 1.5])
def test_noise_has_unit_power_everywhere_and_the_correlation_asked(
    shape: tuple[int, ...], sigma_px: float
) -> None:
    noise = np.stack([complex_noise(shape, seed=1, frame=i, sigma_px=sigma_px) for i in range(40)])
    power = np.abs(noise) ** 2
    assert power.mean() == pytest.approx(1, rel=0.02)
    edge = power[:, 0].mean()
    assert edge == pytest.approx(1, rel=0.12)
    assert abs(np.mean(noise**2)) < 0.02
    assert abs(np.vdot(noise[0], noise[1])) / noise[0].size < 0.1
    # A white one smoothed by a Gaussian correlates as a Gaussian that is √2 as wide.
    neighbour = np.vdot(noise[:, 1:], noise[:, :-1]).real / noise[:, 1:].size
    expected = np.exp(-1 / (4 * sigma_px**2)) if sigma_px else 0.0
    assert neighbour == pytest.approx(expected, abs=0.03)


def test_pala_noise_is_a_ground_and_smooth_noise_upon_it() -> None:
    noisy = add_pala_noise(np.zeros((60, 80, 90), np.float32), noise_db=-30, peak=2.0, seed=0)
    ground = 2.0 * 10 ** (-30 / 20)
    assert noisy.mean() == pytest.approx(ground, rel=0.02)
    # Smoothing by σ leaves 1/(2σ√π) of white noise's standard deviation in each dimension.
    before = 2.0 * 10 ** (-20 / 20) * 0.355
    assert noisy[:, 5:-5, 5:-5].std() == pytest.approx(
        before / (4 * np.pi * 1.5**2) ** 0.5, rel=0.05
    )


def test_pala_noise_is_the_same_in_blocks() -> None:
    image = np.random.default_rng(0).random((7, 20, 24), dtype=np.float32)
    whole = add_pala_noise(image, noise_db=-20, peak=1.0, seed=3)
    parts = [
        add_pala_noise(image[i : i + 3], noise_db=-20, peak=1.0, seed=3, first_frame=i)
        for i in range(0, 7, 3)
    ]
    assert np.array_equal(np.concatenate(parts), whole)
    other = add_pala_noise(image, noise_db=-20, peak=1.0, seed=4)
    assert not np.array_equal(other, whole)
