"""Pieces of vascular beds: as many vessels, and as wide ones, however large the patch."""

from __future__ import annotations

import numpy as np
import pytest

from vasculome.training.vessel_beds import CUBE_UM, BedKind, VascularBed, piece_of, vascular_bed


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
