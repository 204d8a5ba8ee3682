import numpy as np
import pytest

from vasculome.simulate.acquisition import Scanner, make_iq, simulate_acquisition
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import PointSpread, add_echoes
from vasculome.simulate.flow_field import FlowField, flow_field
from vasculome.simulate.phantoms import artery_and_vein, ultrasound_phantom
from vasculome.simulate.trees import VesselGraph

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


DEPTH_UM = 4000.0
SHAPES = {"vessels": (32, 40), "map": (32, 40), "vessels in 3-D": (16, 18, 20)}


def flow(kind: str) -> VesselGraph | FlowField:
    shape = SHAPES[kind]
    origin_um = (DEPTH_UM, *[0.0] * (len(shape) - 1))
    if kind == "map":
        density = np.zeros((64, 80))
        density[:, 20:30], density[:, 50:56] = 5.0, 3.0
        return flow_field(density, np.where(density > 0, 8.0, 0.0), pixel_um=(24.64, 24.64),
                          origin_um=origin_um)  # fmt: skip
    return artery_and_vein(
        np.multiply(shape, 49.28), rng=np.random.default_rng(0), origin_um=origin_um
    )


def simulated(
    kind: str,
    *,
    n_frames: int = 40,
    seed: int = 7,
    mean_bubbles: float = 9.0,
    block_frames: int = 40,
    threads: int = 1,
    **levels: float,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return all frames, and the columns of their truth."""
    shape = SHAPES[kind]
    seen_by = Scanner(
        shape=shape,
        spacing_um=(49.28,) * len(shape),
        origin_um=(DEPTH_UM, *[0.0] * (len(shape) - 1)),
        frame_rate_hz=1000.0,
        psf=PSF,
        seed=seed,
        **levels,
    )
    blocks = simulate_acquisition(
        flow(kind),
        seen_by,
        n_frames=n_frames,
        mean_bubbles=mean_bubbles,
        block_frames=block_frames,
        threads=threads,
    )
    frames, tables = zip(*blocks, strict=True)
    columns = [t.columns() for t in tables]
    return np.concatenate(frames), {k: np.concatenate([c[k] for c in columns]) for k in columns[0]}


@pytest.mark.parametrize("kind", SHAPES)
def test_an_acquisition_is_told_by_its_seed(kind: str) -> None:
    iq, truth = simulated(kind)
    assert iq.shape == (40, *SHAPES[kind])
    again, told = simulated(kind, n_frames=55, block_frames=7, threads=2)
    assert len(again) == 55
    assert np.array_equal(again[:40], iq)
    for name, column in truth.items():
        assert np.array_equal(told[name][: len(column)], column), name
    assert told["frame"][len(truth["frame"]) :].min() >= 40
    other, different = simulated(kind, seed=8)
    assert not np.any(other == iq)
    assert not np.array_equal(different["x_um"][:20], truth["x_um"][:20])


@pytest.mark.parametrize("kind", SHAPES)
def test_the_truth_tells_where_frames_are_bright(kind: str) -> None:
    iq, truth = simulated(
        kind, n_frames=300, mean_bubbles=2.0, clutter_db=-np.inf, noise_db=-np.inf
    )
    axes = "zx" if len(SHAPES[kind]) == 2 else "zyx"
    place = np.stack([truth[f"{axis}_um"] for axis in axes], axis=1)
    place = (place - [DEPTH_UM, *[0.0] * (len(axes) - 1)]) / 49.28
    lateral = (70 + 0.01 * (DEPTH_UM + 49.28 * place[:, :1])) / 49.28
    sigma = np.concatenate([np.full_like(lateral, 60 / 49.28)] + [lateral] * (len(axes) - 1), 1)
    pixel = np.rint(place).astype(int)
    inside = ((pixel >= 0) & (pixel < SHAPES[kind])).all(axis=1)
    alone = inside & (np.bincount(truth["frame"])[truth["frame"]] == 1)
    assert alone.sum() > 30
    grid = np.moveaxis(np.indices(iq.shape[1:]), 0, -1)
    for row in np.flatnonzero(alone)[::5]:
        away = (grid - place[row]) / sigma[row]
        expected = truth["amplitude"][row] * np.exp(-0.5 * (away**2).sum(axis=-1))
        seen = np.abs(iq[truth["frame"][row]])
        reached = (np.abs(away) <= 3).all(axis=-1)
        np.testing.assert_allclose(seen[reached], expected[reached], atol=1e-4)
        assert not seen[~reached].any()
