"""Pieces of vascular beds: as many vessels, and as wide ones, however large the patch."""

from __future__ import annotations

import numpy as np
import pytest

from vasculome.training.vessel_beds import (
    CUBE_UM,
    BedKind,
    VascularBed,
    joined,
    large_vessel,
    piece_of,
    vascular_bed,
)


@pytest.fixture(scope="module")
def bed() -> VascularBed:
    kind = BedKind(terminals=(4, 6), cell_um=(90.0, 100.0), without_capillaries=0.0)
    return vascular_bed(kind, seed=1, split=0, number=0)


def _length_um(piece: VascularBed, stop_um: np.ndarray) -> float:
    """Length of the vessels whose middle lies in the box."""
    ends = piece.graph.positions_um[piece.graph.edges]
    inside = ((piece.middle_um > 0) & (piece.middle_um < stop_um)).all(axis=1)
    return float(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)[inside].sum())


@pytest.mark.parametrize("patch_voxels", [64, 128])
@pytest.mark.parametrize("magnify", [0.6, 1.0])
def test_radii_stay_whatever_the_patch(bed, patch_voxels, magnify) -> None:
    stop = np.full(3, patch_voxels * 4.0)
    rng = np.random.default_rng(0)
    piece = piece_of(bed, start_um=np.zeros(3), stop_um=stop, magnify=magnify, rng=rng)
    grown = np.unique(bed.graph.radius_um * magnify)
    assert np.isin(piece.graph.radius_um, grown).all()
    # As dense as the bed, of which a piece may show a thick or a thin part.
    ends = bed.graph.positions_um[bed.graph.edges]
    dense = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).sum() / CUBE_UM**3 / magnify**2
    assert _length_um(piece, stop) / stop.prod() == pytest.approx(dense, rel=0.3)
    # Nowhere is a part of the box empty.
    for axis in range(3):
        found, _ = np.histogram(piece.middle_um[:, axis], bins=4, range=(0, stop[axis]))
        assert found.min() > 0.1 * found.mean()


def test_vessels_go_on_from_a_cube_into_its_mirror_image(bed) -> None:
    stop = np.full(3, 2 * CUBE_UM)
    rng = np.random.default_rng(0)
    piece = piece_of(bed, start_um=np.zeros(3), stop_um=stop, magnify=1.0, rng=rng)
    middles = np.round(piece.middle_um, 3)
    mirrored = np.round(2 * CUBE_UM - middles, 3)
    for axis in range(3):
        other = middles.copy()
        other[:, axis] = mirrored[:, axis]
        assert {tuple(row) for row in other} == {tuple(row) for row in middles}
    assert len(np.unique(piece.vessel)) == len(np.unique(bed.vessel))


@pytest.mark.parametrize("radius_um", [10.0, 40.0, 100.0])
def test_a_large_vessel_goes_through_the_box_and_on(radius_um) -> None:
    start, stop = np.array([-5.0, 0.0, 0.0]), np.array([100.0, 64.0, 64.0])
    inside = np.stack(np.meshgrid(*map(np.arange, start, stop, [6.0] * 3)), axis=-1).reshape(-1, 3)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        vessel = large_vessel(start_um=start, stop_um=stop, radius_um=radius_um, rng=rng)
        np.testing.assert_array_equal(vessel.graph.radius_um, radius_um)
        np.testing.assert_array_equal(vessel.vessel, 0)
        line = vessel.graph.positions_um[vessel.graph.edges]
        np.testing.assert_array_equal(line.mean(axis=1), vessel.middle_um)
        apart = np.linalg.norm(inside[:, None] - line.reshape(-1, 3)[None], axis=2)
        assert apart.min() < radius_um
        # The ends of what reaches into the box do not: nowhere does it stop inside.
        nodes, times = np.unique(vessel.graph.edges, return_counts=True)
        ends = vessel.graph.positions_um[nodes[times == 1]]
        beyond = np.maximum(start - ends, ends - stop).max(axis=1)
        assert len(ends) >= 2 and (beyond > radius_um / 2).all()
        steps = np.diff(line[:, 0], axis=0)
        turns = np.linalg.norm(np.diff(steps, axis=0), axis=1) / (steps[:-1] ** 2).sum(axis=1)
        assert turns.max(initial=0) < 1 / (3.5 * radius_um)


def test_a_large_vessel_is_met_near_its_middle_and_near_its_wall() -> None:
    start, stop = np.zeros(3), np.full(3, 1e-3)
    depths = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        vessel = large_vessel(start_um=start, stop_um=stop, radius_um=50.0, rng=rng)
        ends = vessel.graph.positions_um[vessel.graph.edges]
        a, way = ends[:, 0], ends[:, 1] - ends[:, 0]
        at = np.clip(-(a * way).sum(axis=1) / (way**2).sum(axis=1), 0, 1)
        depths.append(np.linalg.norm(a + at[:, None] * way, axis=1).min() / 50)
    parts, _ = np.histogram(depths, bins=4, range=(0, 1.01))
    assert parts.sum() == 300 and parts.min() > 45


def test_large_vessels_bend_to_all_sides() -> None:
    start, stop = np.zeros(3), np.full(3, 100.0)
    bends = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        vessel = large_vessel(start_um=start, stop_um=stop, radius_um=20.0, rng=rng)
        steps = np.diff(vessel.graph.positions_um, axis=0)
        bend = np.diff(steps, axis=0).mean(axis=0)
        bends.append(bend / np.linalg.norm(bend))
    # Of such vectors that point anywhere the mean has a standard deviation of 1/30 along each axis.
    assert np.abs(np.mean(bends, axis=0)).max() < 0.12
    assert np.abs(np.mean(np.sign(bends), axis=0)).max() < 0.25


def test_joined_beds_keep_all_vessels_apart(bed) -> None:
    start, stop = np.zeros(3), np.full(3, CUBE_UM)
    other = large_vessel(start_um=start, stop_um=stop, radius_um=20.0, rng=np.random.default_rng(0))
    both = joined(bed, other)
    n = len(bed.vessel)
    np.testing.assert_array_equal(both.vessel[:n], bed.vessel)
    assert set(both.vessel[n:]) == {bed.vessel.max() + 1}
    for name in ("length_um", "radius_um", "flow_um3_s"):
        expected = np.concatenate([getattr(bed.graph, name), getattr(other.graph, name)])
        np.testing.assert_array_equal(getattr(both.graph, name), expected)
    ends = both.graph.positions_um[both.graph.edges]
    np.testing.assert_allclose(ends.mean(axis=1), both.middle_um)
