from dataclasses import replace

import numpy as np
import pytest

from vasculome.simulate.acquisition import Scanner, make_iq
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import PointSpread, add_echoes
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.simulate.speckle import Tissue, TissueMotion

LAMBDA = 98.56
PSF = PointSpread(
    wavelength_um=LAMBDA, axial_sigma_um=60.0, lateral_sigma_um=70.0, lateral_growth=0.01
)
NONE = BubbleTable(
    track=np.zeros(0, np.int64),
    frame=np.zeros(0, np.int64),
    position_um=np.zeros((0, 2)),
    velocity_mm_s=np.zeros((0, 2)),
    amplitude=np.zeros(0, np.float32),
)


def table(position_um: np.ndarray) -> BubbleTable:
    n = len(position_um)
    return BubbleTable(
        track=np.zeros(n, np.int64),
        frame=np.arange(n),
        position_um=position_um,
        velocity_mm_s=np.zeros_like(position_um),
        amplitude=np.full(n, 1.5, np.float32),
    )


@pytest.mark.parametrize("ndim", [2, 3])
def test_echoes_match_their_formula(ndim: int) -> None:
    shape, spacing, origin = (
        (40, 30, 36)[-ndim:],
        (20.0, 30.0, 40.0)[-ndim:],
        (7.0, -5.0, 3.0)[-ndim:],
    )
    position = np.array([310.0, 433.0, 705.0])[-ndim:]
    iq = np.zeros((1, *shape), np.complex64)
    add_echoes(
        iq, table(position[None]), first_frame=0, spacing_um=spacing, psf=PSF, origin_um=origin
    )
    away = np.moveaxis(np.indices(shape), 0, -1) * spacing + np.array(origin) - position
    sigma = np.full(ndim, 70.0 + 0.01 * position[0])
    sigma[0] = 60.0
    expected = 1.5 * np.exp(-0.5 * ((away / sigma) ** 2).sum(axis=-1))
    expected = expected * np.exp(4j * np.pi * away[..., 0] / LAMBDA)
    reach = (np.abs(away) <= 3 * sigma).all(axis=-1)
    np.testing.assert_allclose(iq[0][reach], expected[reach], atol=1e-5)
    assert np.abs(iq[0][~reach]).max() == 0


def test_axial_motion_turns_the_phase_as_doppler_does() -> None:
    depth = 500 + 5.0 * np.arange(20)
    iq = np.zeros((20, 30, 30), np.complex64)
    position = np.stack([depth, np.full(20, 600.0)], axis=1)
    add_echoes(iq, table(position), first_frame=0, spacing_um=(40.0, 40.0), psf=PSF)
    turn = np.angle(iq[1:, 13, 15] * np.conj(iq[:-1, 13, 15]))
    np.testing.assert_allclose(turn, -4 * np.pi * 5.0 / LAMBDA, atol=1e-4)


def test_bubbles_beyond_the_frame_or_the_block_are_passed_over() -> None:
    iq = np.zeros((2, 20, 20), np.complex64)
    outside = np.tile([[-1e4, 5.0]], (5, 1))
    add_echoes(iq, table(outside), first_frame=1, spacing_um=(40.0, 40.0), psf=PSF)
    assert not iq.any()


def make(block_frames: int, bubbles: BubbleTable = NONE, **levels: float) -> np.ndarray:
    return np.concatenate(
        list(
            make_iq(
                bubbles,
                shape=(32, 40),
                n_frames=50,
                spacing_um=(49.28, 49.28),
                frame_rate_hz=1000.0,
                psf=PSF,
                seed=7,
                block_frames=block_frames,
                **levels,
            )
        )
    )


def test_block_size_changes_no_byte() -> None:
    bubbles = table(np.random.default_rng(0).uniform(0, 1500, (50, 2)))
    whole = make(50, bubbles)
    assert whole.shape == (50, 32, 40)
    assert whole.dtype == np.complex64
    assert np.array_equal(make(7, bubbles), whole)


def scanner(seed: int = 7, **levels: float) -> Scanner:
    return Scanner(
        shape=(32, 40),
        spacing_um=(49.28, 49.28),
        frame_rate_hz=1000.0,
        psf=PSF,
        seed=seed,
        **levels,
    )


def test_any_frames_can_be_asked_for_and_threads_change_no_byte() -> None:
    bubbles = table(np.random.default_rng(0).uniform(0, 1500, (50, 2)))
    whole = make(50, bubbles)
    assert np.array_equal(scanner().frames(bubbles, 0, 50, threads=3), whole)
    assert np.array_equal(scanner().frames(bubbles, 31, 44), whole[31:44])
    other = scanner(seed=8).frames(bubbles, 0, 50)
    assert not np.any(other == whole)


@pytest.mark.parametrize("sigma_px", [0.0, 1.5])
def test_a_bubble_stands_above_noise_by_the_decibels_asked(sigma_px: float) -> None:
    position = np.tile([[16 * 49.28, 20 * 49.28]], (200, 1))
    frames = scanner(clutter_db=-np.inf, noise_db=-14.0, noise_sigma_px=sigma_px).frames(
        table(position), 0, 200
    )
    far = frames[:, :6, :6]
    peak = np.abs(frames[:, 16, 20].mean()) / 1.5  # the table's amplitude
    snr_db = 20 * np.log10(peak / np.sqrt(np.mean(np.abs(far) ** 2)))
    assert snr_db == pytest.approx(14.0, abs=0.4)


def test_levels_are_as_asked() -> None:
    noise = make(50, clutter_db=-np.inf, noise_db=-12.0)
    assert 20 * np.log10(np.sqrt(np.mean(np.abs(noise) ** 2))) == pytest.approx(-12, abs=0.1)
    assert abs(np.vdot(noise[0], noise[1])) < 0.1 * np.vdot(noise[0], noise[0]).real
    assert abs(np.mean(noise**2)) < 0.02 * np.mean(np.abs(noise) ** 2)
    clutter = make(50, clutter_db=25.0, noise_db=-np.inf)
    assert 20 * np.log10(np.sqrt(np.mean(np.abs(clutter) ** 2))) == pytest.approx(25, abs=0.5)


def test_clutter_has_low_rank_and_bubbles_survive_its_removal() -> None:
    phantom = ultrasound_phantom(0, n_frames=200, shape=(64, 64), mean_bubbles=10, noise_db=-40)
    iq = np.concatenate(list(phantom.blocks)).reshape(200, -1)
    pure = np.zeros((200, 64, 64), np.complex64)
    add_echoes(
        pure,
        phantom.bubbles,
        first_frame=0,
        spacing_um=phantom.spacing_um,
        psf=PointSpread.typical(phantom.wavelength_um),
    )
    pure = pure.reshape(200, -1)
    clutter = iq - pure
    energy = np.linalg.svd(clutter, compute_uv=False) ** 2
    assert energy[8:].sum() < 1e-5 * energy.sum()
    u, s, v = np.linalg.svd(iq, full_matrices=False)
    left = (u[:, 8:] * s[8:]) @ v[8:]
    match = abs(np.vdot(left, pure)) / np.linalg.norm(left) / np.linalg.norm(pure)
    assert match > 0.85


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


@pytest.mark.parametrize("shape", [(64, 64), (24, 24, 24)])
def test_phantom_tells_its_truth(shape: tuple[int, ...]) -> None:
    phantom = ultrasound_phantom(
        1, n_frames=60, shape=shape, mean_bubbles=20, clutter_db=-np.inf, noise_db=-np.inf
    )
    block = next(phantom.blocks)
    assert block.shape == (60, *shape)
    assert phantom.bubbles.ndim == len(shape)
    rows = phantom.bubbles.between(30, 31)
    brightest = rows.position_um[np.argmax(rows.amplitude)]
    pixel = tuple(np.rint(brightest / phantom.spacing_um[0]).astype(int))
    assert abs(block[(30, *pixel)]) > 0.5
    assert np.linalg.norm(phantom.bubbles.velocity_mm_s, axis=1).max() <= 40.0
