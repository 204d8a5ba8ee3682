import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import (
    binary_dilation,
    binary_erosion,
    distance_transform_edt,
    gaussian_filter,
    label,
)

from vasculome.metrics.segmentation import dice
from vasculome.simulate.microscope import Microscope
from vasculome.simulate.optics import PointSpread
from vasculome.simulate.staining import Staining
from vasculome.simulate.tissue import Tissue
from vasculome.simulate.trees import VesselGraph
from vasculome.training import vessel_patches
from vasculome.training.vessel_beds import CUBE_UM, BedKind, VascularBed, piece_of, vascular_bed
from vasculome.training.vessel_looks import LargeVessel, draw_look
from vasculome.training.vessel_patches import make_patch
from vasculome.training.vessel_scenes import VesselScene, broad, light_sheet, two_photon
from vasculome.training.vessel_sources import LabelVolume, Sources, background_of

SMALL = replace(
    broad(), shape=(24, 24, 24), beds=BedKind(cell_um=(90.0, 120.0), without_capillaries=0.0)
)

PLAIN = replace(
    SMALL,
    spacing_um=(1.5, 1.5),
    anisotropy=(2.0, 2.0),
    texture=(0.0, 0.0),
    cellular=0.0,
    surface=0.0,
    striped=0.0,
    smoothed=0.0,
    tilt=(0.0, 0.0),
    attenuation_um=(1e9, 1e9),
    from_labels=0.0,
    on_planes=0.0,
    bits=(16,),
    read_noise=(0.0, 0.0),
    exposure=(0.02, 0.02),
)


def test_the_same_arguments_give_the_same_bytes() -> None:
    first = make_patch(SMALL, split="train", index=5, seed=1)
    make_patch(SMALL, split="train", index=70, seed=1)
    vascular_bed.cache_clear()
    again = make_patch(SMALL, split="train", index=5, seed=1)
    for name in ("image", "mask", "raw"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.spacing_um == again.spacing_um


def test_patches_are_what_networks_take() -> None:
    for kind in (light_sheet(), two_photon(), broad()):
        scene = replace(kind, shape=(24, 24, 24), beds=SMALL.beds)
        for index in range(3):
            patch = make_patch(scene, split="train", index=index, seed=0)
            assert patch.image.shape == patch.mask.shape == patch.raw.shape == (24, 24, 24)
            assert patch.image.dtype == np.float32
            assert patch.mask.dtype == np.bool_
            assert patch.image.min() >= 0
            assert patch.image.max() == 1
            assert patch.raw.max() < 2**patch.bits
            assert patch.spacing_um[0] >= patch.spacing_um[1] == patch.spacing_um[2]
            assert patch.spacing_um[1] >= 1.0
            assert patch.spacing_um[0] <= max(5.0, patch.spacing_um[1])


def test_splits_seeds_and_numbers_show_different_vessels() -> None:
    kind = SMALL.beds
    beds = [
        vascular_bed(kind, seed=seed, split=split, number=number).graph.positions_um
        for seed, split, number in itertools.product((0, 1), (0, 1, 2), (0, 1))
    ]
    for one, other in itertools.combinations(beds, 2):
        assert not np.isin(one[:, 0], other[:, 0]).any()


def test_brightest_and_darkest_follow_the_normalization() -> None:
    scene = replace(SMALL, upper_percent=(95.0, 95.0), upper=(1.0, 1.0), lower=(0.0, 0.0))
    patch = make_patch(scene, split="train", index=3, seed=0)
    low, high = patch.raw.min(), np.percentile(patch.raw, 95, method="inverted_cdf")
    expected = np.clip((patch.raw.astype(float) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(patch.image, expected, atol=1e-5)
    darker = make_patch(replace(scene, lower=(1.0, 1.0)), split="train", index=3, seed=0)
    np.testing.assert_allclose(darker.image, 0.5 + 0.5 * expected, atol=1e-5)
    brighter = make_patch(replace(scene, upper=(2.0, 2.0)), split="train", index=3, seed=0)
    whole = np.clip((patch.raw.astype(float) - low) / (2 * (high - low)), 0, 1)
    np.testing.assert_allclose(brighter.image, whole, atol=1e-5)


def test_tissue_has_the_statistics_of_photons() -> None:
    scene = replace(PLAIN, background=(0.3, 0.3), halo=(0.0, 0.0), rings=(0.0, 0.0))
    rng = np.random.default_rng([0, 0, 2, 3])
    scope = draw_look(scene, rng).scope
    patch = make_patch(scene, split="train", index=2, seed=0)
    far = distance_transform_edt(~patch.mask, sampling=patch.spacing_um) > 20
    assert far.sum() > 500
    photons = (patch.raw[far].astype(float) - scope.offset) / scope.gain
    # Poisson: variance equals the mean, up to the rounding to grey levels.
    rounding = 1 / 12 / scope.gain**2
    assert photons.var() == pytest.approx(photons.mean() + rounding, rel=0.15)


def look_of(scene: VesselScene, **changes: object):
    return replace(draw_look(scene, np.random.default_rng(0)), **changes)


def one_rod(radius_um: float) -> VascularBed:
    ends = np.array([[CUBE_UM / 2, CUBE_UM / 2, x] for x in np.arange(0, CUBE_UM + 1, 4.0)])
    edges = np.stack([np.arange(len(ends) - 1), np.arange(1, len(ends))], axis=1)
    graph = VesselGraph(ends, edges, np.full(len(edges), radius_um), np.ones(len(edges)))
    return VascularBed(graph, np.zeros(len(edges), int), ends[edges].mean(axis=1))


@pytest.mark.parametrize("radius_um", [0.7, 2.2, 5.2, 9.3])
def test_the_mask_ends_where_the_light_falls_to_half(
    radius_um: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = replace(PLAIN, shape=(40, 40, 40))
    look = look_of(
        scene,
        spacing_um=(1.0, 1.0, 1.0),
        magnify=1.0,
        spread=PointSpread((4.0, 1.5, 1.5)),
        staining=Staining(),
        tissue=Tissue(level=0.0, texture=0.0),
        scope=Microscope(
            photons=1e5,
            gain=0.5,
            offset=0,
            read_noise=0,
            stripes=0,
            uneven_illumination=0,
            attenuation_um=np.inf,
        ),
    )
    monkeypatch.setattr(vessel_patches, "draw_look", lambda *_: look)
    monkeypatch.setattr(vessel_patches, "vascular_bed", lambda *_, **__: one_rod(radius_um))

    def straight(bed, *, start_um, stop_um, magnify, rng):
        middle = (start_um + stop_um) / 2 - [CUBE_UM / 2] * 3
        moved = replace(bed.graph, positions_um=bed.graph.positions_um + middle)
        return VascularBed(moved, bed.vessel, bed.middle_um + middle)

    monkeypatch.setattr(vessel_patches, "piece_of", straight)
    patch = make_patch(scene, split="train", index=0, seed=0)
    raw = patch.raw[:, :, 20].astype(float)
    seen = raw > raw.max() / 2
    mask = patch.mask[:, :, 20]
    # Along z (which the blur dominates) and y, to a voxel at each side.
    for axis in (0, 1):
        assert abs(int(seen.any(axis).sum()) - int(mask.any(axis).sum())) <= 2
    overlap = 2 * (seen & mask).sum() / (seen.sum() + mask.sum())
    assert overlap > 0.85
    lumen = make_patch(replace(scene, label="lumen"), split="train", index=0, seed=0).mask[:, :, 20]
    assert lumen.sum() == pytest.approx(np.pi * max(radius_um, 0.87) ** 2, rel=0.15, abs=1.5)
    painted = make_patch(replace(scene, label="painted"), split="train", index=0, seed=0)
    bright = patch.raw > 0.4 * np.median(patch.raw[patch.mask])
    assert dice(painted.mask, bright) > 0.97
    assert painted.mask.sum() > patch.mask.sum()
    brushed = make_patch(replace(scene, label="brushed"), split="train", index=0, seed=0)
    smooth = gaussian_filter(patch.raw.astype(float), 1.5, mode="nearest")
    bright = smooth > 0.75 * np.median(smooth[patch.mask])
    assert dice(brushed.mask, bright) > 0.97


def test_thin_vessels_do_not_break_between_voxels() -> None:
    rng = np.random.default_rng(0)
    look = look_of(PLAIN, spacing_um=(5.0, 1.0, 1.0), spread=PointSpread((0.0, 0.0, 0.0)))
    for _ in range(20):
        line = rng.uniform([0, 0, 0], [110, 23, 23]) + np.linspace(-1, 1, 200)[:, None] * (
            rng.normal(size=3) * [60, 12, 12]
        )
        edges = np.stack([np.arange(199), np.arange(1, 200)], axis=1)
        graph = VesselGraph(line, edges, np.full(199, 0.3), np.ones(199))
        piece = VascularBed(graph, np.zeros(199, int), line[:-1])
        mask = vessel_patches._marked(PLAIN, look, piece)
        assert label(mask, np.ones((3, 3, 3)))[1] <= 1


def test_a_piece_fills_its_box_and_holds_all_that_reaches_in() -> None:
    bed = vascular_bed(SMALL.beds, seed=0, split=0, number=0)
    rng = np.random.default_rng(0)
    start, stop = np.array([-5.0] * 3), np.array([95.0, 60.0, 60.0])
    piece = piece_of(bed, start_um=start, stop_um=stop, magnify=1.5, rng=rng)
    assert 0 < len(piece.graph.edges) < len(bed.graph.edges)
    ends = piece.graph.positions_um[piece.graph.edges]
    reach = piece.graph.radius_um[:, None]
    assert (ends.max(axis=1) + reach > start).all()
    assert (ends.min(axis=1) - reach < stop).all()
    whole = piece_of(bed, start_um=start, stop_um=start + CUBE_UM, magnify=1.0, rng=rng)
    assert len(whole.graph.edges) > 0.97 * len(bed.graph.edges)
    # What would not fill the box is continued.
    huge = piece_of(bed, start_um=start, stop_um=start + 800.0, magnify=1.0, rng=rng)
    assert np.ptp(huge.graph.positions_um, axis=0).min() > 700


WITH_LARGE = replace(
    PLAIN,
    spacing_um=(2.0, 2.0),
    anisotropy=(1.0, 1.0),
    large_vessels=1.0,
    large_um=(60.0, 60.0),
    with_hollow=0.0,
    with_gaps=0.0,
    patchiness=(0.0, 0.0),
    spread=(0.0, 0.0),
    photons=(1e4, 1e4),
    background=(0.1, 0.1),
    upper_percent=(95.0, 95.0),
    upper=(1.0, 1.0),
    lower=(0.0, 0.0),
)


@pytest.mark.parametrize("kind", ["seen", "painted", "brushed", "lumen"])
def test_large_vessels_are_solid_in_picture_and_mask(kind: str) -> None:
    scene = replace(WITH_LARGE, label=kind)
    filled = []
    for index in range(8):
        patch = make_patch(scene, split="train", index=index, seed=0)
        without = make_patch(replace(scene, large_vessels=0.0), split="train", index=index, seed=0)
        assert patch.spacing_um == without.spacing_um
        bright = binary_erosion(patch.raw > 0.7 * patch.raw.max(), iterations=2)
        assert patch.mask[bright].mean() > 0.99
        filled.append(patch.mask.mean())
        if patch.mask.mean() > 0.5:
            # As dark as the volume around is, even if the patch shows nothing of it.
            assert np.median(patch.image[patch.mask]) > 0.6
    assert max(filled) > 0.9 and np.mean(filled) > 0.3


@pytest.mark.parametrize("kind", ["painted", "brushed"])
def test_beside_a_large_vessel_all_others_are_painted_as_without_it(kind: str) -> None:
    scene = replace(WITH_LARGE, label=kind, large_um=(25.0, 25.0))
    both: list[np.ndarray] = []
    for index in range(8):
        seen, usual_seen, painted, usual = (
            make_patch(
                replace(scene, label=label, large_vessels=part), split="train", index=index, seed=0
            ).mask
            for label, part in (("seen", 1.0), ("seen", 0.0), (kind, 1.0), (kind, 0.0))
        )
        wide = seen & ~usual_seen
        around = binary_dilation(wide, iterations=6)
        both.append(np.stack([painted, usual])[:, ~around])
        # Itself to half of its light.
        inside = binary_erosion(wide | usual_seen, iterations=6, border_value=True) & wide
        assert painted[inside].all()
        beyond = ~binary_dilation(wide | usual, iterations=3)
        assert not painted[beyond].any()
    with_it, without_it = np.concatenate(both, axis=1)
    assert without_it.sum() > 1000
    assert dice(with_it, without_it) > 0.85


def test_a_hollow_large_vessel_is_filled_in_the_mask_and_dark_inside() -> None:
    scene = replace(WITH_LARGE, with_hollow=1.0, hollow=(1.0, 1.0), lumen=(0.1, 0.1))
    inside = []
    for radius_um, hollow in ((20.0, True), (100.0, False)):
        for index in range(6):
            here = replace(scene, label="lumen", large_um=(radius_um, radius_um))
            patch, usual = (
                make_patch(replace(here, large_vessels=n), split="train", index=index, seed=0)
                for n in (1.0, 0.0)
            )
            wide = patch.mask & ~usual.mask
            deep = distance_transform_edt(np.pad(wide, 1, mode="edge"))[1:-1, 1:-1, 1:-1] > 4
            if deep.sum() > 100:
                look = draw_look(here, np.random.default_rng([0, 0, index, 3]))
                light = patch.raw - look.scope.offset
                assert (np.median(light[deep]) < 0.5 * np.percentile(light, 99.9)) == hollow
                inside.append(hollow)
    assert inside.count(True) >= 2 and inside.count(False) >= 2


def test_large_vessels_stand_out_of_tissue_however_badly_they_are_stained() -> None:
    scene = replace(
        WITH_LARGE,
        background=(0.4, 0.4),
        spread=(0.8, 0.8),
        patchiness=(0.6, 0.6),
        with_gaps=1.0,
        large_um=(20.0, 20.0),
        label="lumen",
    )
    contrasts = []
    for index in range(12):
        patch = make_patch(scene, split="train", index=index, seed=0)
        usual = make_patch(replace(scene, large_vessels=0.0), split="train", index=index, seed=0)
        wide = binary_erosion(patch.mask & ~usual.mask, iterations=3)
        tissue = ~binary_dilation(patch.mask, iterations=3)
        if min(wide.sum(), tissue.sum()) > 100:
            look = draw_look(scene, np.random.default_rng([0, 0, index, 3]))
            light = patch.raw - look.scope.offset
            contrasts.append(np.percentile(light[wide], 5) / np.median(light[tissue]))
    assert len(contrasts) >= 6 and min(contrasts) > 1.2


def test_patches_of_users_labels_have_no_large_vessel() -> None:
    mask = np.zeros((40, 40, 200), np.bool_)
    mask[10:30, 10:30] = True
    sources = Sources((LabelVolume(mask, (2.0, 2.0, 2.0)),), ())
    scene = replace(WITH_LARGE, from_labels=1.0, magnify=(1.0, 1.0))
    for index in range(3):
        patch, usual = (
            make_patch(
                replace(scene, large_vessels=part),
                split="train",
                index=index,
                seed=0,
                sources=sources,
            )
            for part in (1.0, 0.0)
        )
        np.testing.assert_array_equal(patch.raw, usual.raw)
        np.testing.assert_array_equal(patch.image, usual.image)


def test_the_weight_of_a_large_vessel_tells_what_becomes_1(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = make_patch(replace(WITH_LARGE, large_vessels=0.0), split="train", index=1, seed=0)
    for weight in (0.0, 0.5, 1.0):
        large = LargeVessel(20.0, weight, 3)
        monkeypatch.setattr(vessel_patches, "draw_large_vessel", lambda *_, large=large: large)
        patch = make_patch(WITH_LARGE, split="train", index=1, seed=0)
        inside = (patch.image > 0) & (patch.image < 1)
        slope, offset = np.polyfit(patch.raw[inside].astype(float), patch.image[inside], 1)
        low = min(usual.raw.min(), patch.raw.min())
        highs = [np.percentile(raw, 95, method="inverted_cdf") for raw in (usual.raw, patch.raw)]
        assert highs[1] > 1.1 * float(highs[0])
        assert -offset / slope == pytest.approx(low, abs=1)
        assert (1 - offset) / slope == pytest.approx(
            highs[0] + weight * (highs[1] - highs[0]), rel=1e-3
        )


def test_labels_and_backgrounds_of_users_are_shown_split_apart() -> None:
    # A label whose vessels all lie in the part that is for training.
    mask = np.zeros((40, 40, 200), np.bool_)
    mask[10:30, 10:30, 0:130] = True
    image = np.full((30, 200, 40), 500, np.uint16)
    image[:, 150:] = 1500
    sources = Sources((LabelVolume(mask, (2.0, 2.0, 2.0)),), (background_of(image),))
    scene = replace(PLAIN, from_labels=1.0, on_planes=1.0, magnify=(1.0, 1.0))
    shown = {
        split: [
            make_patch(scene, split=split, index=i, seed=0, sources=sources).mask.mean()
            for i in range(4)
        ]
        for split in ("train", "validation", "test")
    }
    assert max(shown["train"]) > 0.1
    assert max(shown["validation"]) == max(shown["test"]) == 0
    without = [make_patch(scene, split="validation", index=i, seed=0).mask.any() for i in range(8)]
    assert any(without)


def test_a_dark_image_is_no_background() -> None:
    with pytest.raises(ValueError, match="dark"):
        background_of(np.zeros((4, 4, 4), np.uint16))


def test_capillaries_stand_out_in_every_kind_of_scene() -> None:
    for scene in (light_sheet(), two_photon(), broad()):
        for seed in range(200):
            look = draw_look(scene, np.random.default_rng(seed))
            radius = look.magnify * np.mean(scene.beds.capillary_um)
            thin = min(1, radius**2 / (2 * look.spread.sigma_um[0] * look.spread.sigma_um[1]))
            scope, level = look.scope, look.tissue.level
            noise = np.hypot(np.sqrt(level * scope.photons), scope.read_noise / scope.gain)
            assert (thin - level) * scope.photons / noise > 0.999 * scene.least_contrast
            assert scope.bits in scene.bits
            assert look.spread.sigma_um[0] <= scene.most_blur_um[0]
