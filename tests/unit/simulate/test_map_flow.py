from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vasculome.simulate.flow_field import flow_field
from vasculome.simulate.map_flow import flow_on_map

PIXEL_UM = 5.0


def ring(size: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return density and speed of a closed ring vessel, and each pixel's offset from its centre."""
    offset = np.moveaxis(np.indices((size, size)), 0, -1) - (size - 1) / 2
    across = np.linalg.norm(offset, axis=-1) - size / 3
    density = 40 * np.exp(-((across / 3) ** 2))
    density[density < 0.5] = 0
    return density, np.where(density > 0, 8.0, 0.0), offset


def test_direction_follows_a_ring_with_one_sign() -> None:
    density, speed, offset = ring()
    field = flow_field(density, speed, pixel_um=(PIXEL_UM, PIXEL_UM))
    core = density > 10
    around = np.stack([offset[..., 1], -offset[..., 0]], axis=-1)
    around /= np.linalg.norm(around, axis=-1, keepdims=True)
    agreement = (around * field.direction).sum(axis=-1)[core]
    assert np.abs(agreement).min() > 0.97
    assert np.abs(np.sign(agreement).sum()) == core.sum()
    np.testing.assert_allclose(field.speed_mm_s[core], 8.0, rtol=0.02)


def test_bubbles_circle_at_the_maps_speed_and_density() -> None:
    density, speed, _ = ring()
    field = flow_field(density, speed, pixel_um=(PIXEL_UM, PIXEL_UM))
    bubbles = flow_on_map(
        field,
        n_frames=3000,
        frame_rate_hz=1000.0,
        mean_bubbles=40,
        rng=np.random.default_rng(0),
    )
    assert len(bubbles) / 3000 == pytest.approx(40, rel=0.12)
    order = np.lexsort((bubbles.frame, bubbles.track))
    same = np.diff(bubbles.track[order]) == 0
    moved = np.linalg.norm(np.diff(bubbles.position_um[order], axis=0)[same], axis=1)
    np.testing.assert_allclose(np.median(moved), 8.0, rtol=0.02)
    seen = np.zeros(density.shape)
    pixel = np.rint(bubbles.position_um / PIXEL_UM).astype(int)
    np.add.at(seen, tuple(pixel.T), 1)
    correlation = np.corrcoef(
        gaussian_filter(seen, 2).ravel(), gaussian_filter(density, 2).ravel()
    )[0, 1]
    assert correlation > 0.95


def test_density_holds_where_it_changes_along_the_flow() -> None:
    profile = np.where(np.abs(np.arange(81) - 40) < 4, 1.0, 0.0)
    along = 5 + 40 * np.linspace(0, 1, 300)
    density = along[:, None] * profile
    speed = np.where(density > 0, 10.0, 0.0)
    field = flow_field(density, speed, pixel_um=(PIXEL_UM, PIXEL_UM))
    bubbles = flow_on_map(
        field,
        n_frames=6000,
        frame_rate_hz=1000.0,
        mean_bubbles=60,
        rng=np.random.default_rng(0),
    )
    seen, _ = np.histogram(bubbles.position_um[:, 0] / PIXEL_UM, bins=5, range=(30, 270))
    expected = density[30:270].sum(axis=1).reshape(5, -1).sum(axis=1)
    np.testing.assert_allclose(seen / seen.sum(), expected / expected.sum(), atol=0.03)


@pytest.mark.parametrize(("axis", "sign"), [(0, 1), (1, -1)])
def test_a_vessel_across_the_map_is_evenly_filled_from_border_to_border(
    axis: int, sign: int
) -> None:
    density = np.zeros((80, 80))
    density[:, 30:38] = 6.0
    density = np.moveaxis(density, 0, axis)
    field = flow_field(density, np.where(density > 0, 9.0, 0.0), pixel_um=(20.0, 20.0))
    field = replace(field, direction=sign * np.abs(field.direction))
    bubbles = flow_on_map(
        field, n_frames=4000, frame_rate_hz=200.0, mean_bubbles=60, rng=np.random.default_rng(0)
    )
    late = bubbles.between(400, 4000)
    assert (np.sign(late.velocity_mm_s[:, axis]) == sign).all()
    seen, _ = np.histogram(late.position_um[:, axis], bins=8, range=(-10, 1590))
    np.testing.assert_allclose(seen / seen.mean(), 1, atol=0.06)
    assert len(late) / 3600 == pytest.approx(60, rel=0.05)


def test_a_3d_vessel_is_followed_too() -> None:
    z, y, _ = np.indices((30, 24, 60))
    density = 30 * np.exp(-(((z - 15) ** 2 + (y - 12) ** 2) / 9.0))
    density[density < 0.5] = 0
    speed = np.where(density > 0, 5.0, 0.0)
    field = flow_field(density, speed, pixel_um=(10.0, 10.0, 10.0))
    bubbles = flow_on_map(
        field, n_frames=300, frame_rate_hz=500.0, mean_bubbles=20, rng=np.random.default_rng(0)
    )
    heading = bubbles.velocity_mm_s / np.linalg.norm(bubbles.velocity_mm_s, axis=1, keepdims=True)
    assert np.abs(heading[:, 2]).min() > 0.98
    assert np.abs(np.sign(heading[:, 2]).sum()) == len(bubbles)


def test_a_map_lies_where_its_origin_is() -> None:
    density, speed, _ = ring(60)
    here, there = (
        flow_on_map(
            flow_field(density, speed, pixel_um=(PIXEL_UM, PIXEL_UM), origin_um=origin_um),
            n_frames=50,
            frame_rate_hz=1000.0,
            mean_bubbles=10,
            rng=np.random.default_rng(0),
        )
        for origin_um in (None, (4000.0, -300.0))
    )
    assert np.array_equal(there.position_um, here.position_um + np.array([4000.0, -300.0]))
    assert np.array_equal(there.velocity_mm_s, here.velocity_mm_s)


def test_maps_must_make_sense() -> None:
    density, speed, _ = ring(60)
    with pytest.raises(ValueError, match="differ in shape"):
        flow_field(density, speed[1:], pixel_um=(5.0, 5.0))
    with pytest.raises(ValueError, match="negative"):
        flow_field(density, -speed, pixel_um=(5.0, 5.0))
    with pytest.raises(ValueError, match="no pixel"):
        flow_field(0 * density, speed, pixel_um=(5.0, 5.0))
