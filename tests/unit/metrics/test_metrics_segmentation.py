import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_iou
from scipy import ndimage
from skimage.morphology import skeletonize

from vasculome.metrics import segmentation

ALL = [segmentation.dice, segmentation.jaccard, segmentation.cldice, segmentation.accuracy]


@given(seed=st.integers(0, 10_000), fill=st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None)
def test_counts_agree_with_the_confusion_table(seed, fill):
    rng = np.random.default_rng(seed)
    mask, reference = rng.random((2, 6, 7, 8)) < fill
    table = np.histogram2d(mask.ravel(), reference.ravel(), bins=2, range=[[0, 1], [0, 1]])[0]
    (tn, fn), (fp, tp) = table
    assert segmentation.dice(mask, reference) == pytest.approx(tp / (tp + (fp + fn) / 2))
    assert segmentation.jaccard(mask, reference) == pytest.approx(tp / (tp + fp + fn))
    assert segmentation.accuracy(mask, reference) == pytest.approx((tp + tn) / mask.size)


def blobs(shape, seed, fill):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.2)
    return noise > np.quantile(noise, 1 - fill)


def degenerate(shape):
    """Yield masks that are hardly one: nothing, everything, a voxel, a line, a plane."""
    yield np.zeros(shape, bool)
    yield np.ones(shape, bool)
    for along in range(len(shape)):
        part = np.zeros(shape, bool)
        part[(slice(None),) * along + (2,) * (len(shape) - along)] = True
        yield part


def pairs_of_masks():
    for shape in ((14, 15, 16), (30, 31), (9, 1, 12)):
        masks = [blobs(shape, 1, 0.3), blobs(shape, 2, 0.15)]
        masks += degenerate(shape) if min(shape) > 2 else []
        yield from itertools.product(masks, repeat=2)


def plain_cldice(mask, reference):
    """Return clDice from lists of voxels (Shit et al. 2021, equations 1 and 2)."""
    voxels = [set(map(tuple, np.argwhere(one).tolist())) for one in (mask, reference)]
    lines = [set(map(tuple, np.argwhere(skeletonize(one)).tolist())) for one in (mask, reference)]
    if not voxels[0] or not voxels[1]:
        return 1.0 if voxels[0] == voxels[1] else 0.0
    lines = [line or all_of_it for line, all_of_it in zip(lines, voxels, strict=True)]
    precision = sum(v in voxels[1] for v in lines[0]) / len(lines[0])
    sensitivity = sum(v in voxels[0] for v in lines[1]) / len(lines[1])
    if precision == sensitivity == 0:
        return 0.0
    return 2 / (1 / precision + 1 / sensitivity) if precision and sensitivity else 0.0


def test_measures_agree_with_monai_and_a_plain_program():
    for mask, reference in pairs_of_masks():
        one, other = (torch.from_numpy(m)[None, None] for m in (mask, reference))
        dice = compute_dice(one, other, ignore_empty=False).item()
        assert segmentation.dice(mask, reference) == pytest.approx(dice, abs=1e-6)
        if mask.any() or reference.any():  # of two empty masks MONAI's has no value
            iou = compute_iou(one, other, ignore_empty=False).item()
            assert segmentation.jaccard(mask, reference) == pytest.approx(iou, abs=1e-6)
        expected = plain_cldice(mask, reference)
        assert segmentation.cldice(mask, reference) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ALL)
def test_a_mask_agrees_fully_with_itself_and_an_empty_one_with_an_empty_one(metric):
    mask = np.zeros((9, 9, 9), bool)
    assert metric(mask, mask) == 1
    mask[2:5, 3:6, 1:8] = True
    assert metric(mask, mask) == 1


@pytest.mark.parametrize("metric", ALL[:3])
def test_an_empty_mask_does_not_agree_with_one_that_is_not(metric):
    empty, mask = np.zeros((2, 5, 5, 5), bool)
    mask[2, 2, 1:4] = True
    assert metric(empty, mask) == 0
    assert metric(mask, empty) == 0
    other = np.roll(mask, 2, axis=0)
    assert metric(other, mask) == 0


def test_cldice_counts_centrelines_not_widths():
    thick = np.zeros((11, 40), bool)
    thick[3:8] = True
    thin = np.zeros_like(thick)
    thin[5] = True
    assert segmentation.cldice(thin, thick) == pytest.approx(1, abs=0.05)
    assert segmentation.dice(thin, thick) == pytest.approx(1 / 3)


def test_cldice_by_hand_with_given_skeletons():
    mask, reference = np.zeros((2, 3, 20), bool)
    mask[1, :10] = reference[1, :16] = True
    reference[0, 10:] = True
    found = segmentation.cldice(mask, reference, mask_skeleton=mask, reference_skeleton=reference)
    precision, sensitivity = 1.0, 10 / 26
    assert found == pytest.approx(2 * precision * sensitivity / (precision + sensitivity))


def test_a_blob_that_thinning_erases_stands_for_itself():
    blob = np.zeros((6, 6, 6), bool)
    blob[2:4, 2:4, 2:4] = True
    away = np.roll(blob, 2, axis=0)
    nothing = np.zeros_like(blob)
    skeletons = {"mask_skeleton": nothing, "reference_skeleton": nothing}
    assert segmentation.cldice(blob, blob, **skeletons) == 1
    assert segmentation.cldice(blob, away, **skeletons) == 0


def test_shapes_must_match():
    with pytest.raises(ValueError, match="shapes differ"):
        segmentation.dice(np.zeros((2, 2), bool), np.zeros((2, 3), bool))
