import numpy as np
import pytest

from vasculome.simulate.acquisition import Scanner
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import add_echoes
from vasculome.simulate.psf_bank import PsfBank, Stamps

LAMBDA = 98.56
STEP = LAMBDA / 8
SIGMA = {"axial": 0.42 * LAMBDA, "lateral": 0.55 * LAMBDA}


def gaussian_bank(*, ndim: int = 2, widening: float = 0.0, half: int = 24) -> PsfBank:
    """Return Gaussian echoes on their carrier at two depths, the deeper one wider."""
    away = STEP * np.moveaxis(np.indices((2 * half + 1,) * ndim) - half, 0, -1)
    echoes = []
    for band in range(2):
        sigma = np.full(ndim, SIGMA["lateral"] * (1 + band * widening))
        sigma[0] = SIGMA["axial"]
        echo = np.exp(-0.5 * ((away / sigma) ** 2).sum(axis=-1))
        echoes.append(echo * np.exp(4j * np.pi * away[..., 0] / LAMBDA))
    return PsfBank(np.array([1000.0, 3000.0]), np.array(echoes, dtype=np.complex64), (STEP,) * ndim)


def one_a_frame(position_um: np.ndarray, amplitude: float = 1.0) -> BubbleTable:
    n = len(position_um)
    return BubbleTable(
        track=np.arange(n),
        frame=np.arange(n),
        position_um=position_um,
        velocity_mm_s=np.zeros_like(position_um),
        amplitude=np.full(n, amplitude, np.float32),
    )


def draw(
    stamps: Stamps, position_px: np.ndarray, shape: tuple[int, ...], depth_um: float = 0.0
) -> np.ndarray:
    origin = np.zeros(len(shape))
    origin[0] = depth_um
    iq = np.zeros((len(position_px), *shape), np.complex64)
    add_echoes(
        iq,
        one_a_frame(position_px * stamps.spacing_um + origin, 1.5),
        first_frame=0,
        spacing_um=stamps.spacing_um,
        psf=stamps,
        origin_um=origin,
    )
    return iq


@pytest.mark.parametrize("ndim", [2, 3])
def test_stamps_agree_with_the_formula_anywhere(ndim: int) -> None:
    spacing = (40.0, 45.0, 50.0)[:ndim]
    shape = (26, 24, 22)[:ndim]
    stamps = gaussian_bank(ndim=ndim).stamps(spacing)
    where = np.random.default_rng(0).uniform(9, 13, (40, ndim))
    drawn = draw(stamps, where, shape)
    grid = np.moveaxis(np.indices(shape), 0, -1)
    sigma = np.full(ndim, SIGMA["lateral"])
    sigma[0] = SIGMA["axial"]
    for image, centre in zip(drawn, where, strict=True):
        away = (grid - centre) * spacing
        expected = 1.5 * np.exp(-0.5 * ((away / sigma) ** 2).sum(axis=-1))
        expected = expected * np.exp(4j * np.pi * away[..., 0] / LAMBDA)
        reached = (np.abs(away) < 2.5 * LAMBDA).all(axis=-1)
        np.testing.assert_allclose(image[reached], expected[reached], atol=1.5 * 0.01)


@pytest.mark.parametrize("pixel", [0.25, 0.5])
def test_a_placed_echo_has_its_centroid_there_and_keeps_its_energy(pixel: float) -> None:
    stamps = gaussian_bank().stamps((pixel * LAMBDA,) * 2)
    where = np.random.default_rng(1).uniform(20, 24, (300, 2))
    energy = np.abs(draw(stamps, where, (44, 44))) ** 2
    total = energy.sum(axis=(1, 2))
    z, x = np.indices((44, 44))
    centroid = np.stack([(energy * axis).sum(axis=(1, 2)) / total for axis in (z, x)], axis=1)
    assert np.abs(centroid - where).max() < 0.01
    assert np.abs(total / total.mean() - 1).max() < 0.01
    # ∫ exp(−r²/σ²) = π σz σx: nothing is lost or gained on the way from the bank to the pixels.
    expected = 1.5**2 * np.pi * SIGMA["axial"] * SIGMA["lateral"] / (pixel * LAMBDA) ** 2
    assert total.mean() == pytest.approx(expected, rel=0.01)


def test_width_between_two_depths_is_between_theirs() -> None:
    stamps = gaussian_bank(widening=0.6).stamps((LAMBDA / 2,) * 2)

    def width(depth_um: float) -> float:
        image = np.abs(draw(stamps, np.array([[10.0, 20.0]]), (21, 41), depth_um - 5 * LAMBDA)[0])
        profile = image[10] ** 2
        x = np.arange(41) - 20
        return float((profile * x**2).sum() / profile.sum())

    shallow, middle, deep = (width(d) for d in (1000.0, 2000.0, 3000.0))
    assert shallow == pytest.approx((SIGMA["lateral"] / LAMBDA * 2) ** 2 / 2, rel=0.03)
    assert deep == pytest.approx(1.6**2 * shallow, rel=0.05)
    assert shallow < middle < deep
    assert width(100.0) == pytest.approx(shallow)
    assert width(9000.0) == pytest.approx(deep)


def test_depth_interpolation_is_linear_in_the_echoes() -> None:
    stamps = gaussian_bank(widening=0.6).stamps((LAMBDA / 2,) * 2)
    at = np.array([[10.0, 15.0]])
    shallow, quarter, deep = (
        draw(stamps, at, (21, 31), depth - 5 * LAMBDA) for depth in (1000.0, 1500.0, 3000.0)
    )
    np.testing.assert_allclose(quarter, 0.75 * shallow + 0.25 * deep, atol=1e-5)


def test_echoes_are_cut_at_the_edges_and_lost_beyond() -> None:
    stamps = gaussian_bank().stamps((LAMBDA / 2,) * 2)
    inside = draw(stamps, np.array([[15.0, 15.3]]), (40, 40))[0]
    cut = draw(stamps, np.array([[1.0, 1.3]]), (40, 40))[0]
    np.testing.assert_allclose(cut[:8, :8], inside[14:22, 14:22], atol=1e-6)
    for far in ([-20.0, 5.0], [5.0, 90.0], [70.0, 5.0]):
        assert not draw(stamps, np.array([far]), (40, 40)).any()


def test_speckle_of_a_bank_has_the_grain_of_its_echoes() -> None:
    stamps = gaussian_bank(widening=1.0).stamps((LAMBDA / 2,) * 2)

    def correlation(depth_um: float) -> np.ndarray:
        grain = stamps.speckle(
            (60, 300),
            spacing_um=stamps.spacing_um,
            origin_um=(depth_um, 0.0),
            rng=np.random.default_rng(0),
        )
        return np.vdot(grain[:, :-1], grain[:, 1:]).real / np.vdot(grain, grain).real

    # Filtered white noise correlates as the filter with itself: exp(−p²/4σ²) one pixel on.
    for depth_um, width in ((-5000.0, 1.0), (9000.0, 2.0)):
        expected = np.exp(-((LAMBDA / 2) ** 2) / (2 * width * SIGMA["lateral"]) ** 2)
        assert correlation(depth_um) == pytest.approx(expected, abs=0.03)


def test_a_scanner_takes_stamps_and_refuses_other_pixels() -> None:
    stamps = gaussian_bank().stamps((LAMBDA / 2,) * 2)
    settings = {"shape": (40, 44), "frame_rate_hz": 1000.0, "psf": stamps, "seed": 3}
    scanner = Scanner(spacing_um=stamps.spacing_um, **settings)
    nothing = one_a_frame(np.zeros((0, 2)))
    clutter = scanner.frames(nothing, 0, 4)
    assert 20 * np.log10(np.sqrt(np.mean(np.abs(clutter) ** 2))) == pytest.approx(30, abs=0.1)
    with pytest.raises(ValueError, match="stamps for pixels"):
        Scanner(spacing_um=(LAMBDA / 4,) * 2, **settings)


def test_banks_must_make_sense() -> None:
    good = gaussian_bank()
    with pytest.raises(ValueError, match="odd"):
        PsfBank(good.depth_um, good.echoes[:, 1:], good.step_um)
    with pytest.raises(ValueError, match="rise"):
        PsfBank(good.depth_um[::-1], good.echoes, good.step_um)
    with pytest.raises(ValueError, match="do not fit"):
        PsfBank(good.depth_um[:1], good.echoes, good.step_um)
    with pytest.raises(ValueError, match="less than a pixel"):
        good.stamps((1e4, 1e4))
    with pytest.raises(ValueError, match="2-D"):
        good.stamps((50.0, 50.0, 50.0))
