import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance
from scipy import ndimage

from vasculome.metrics.surface import hausdorff95


def as_monai(mask, reference, spacing=None):
    one, other = (torch.from_numpy(m[None, None].astype(np.float32)) for m in (mask, reference))
    found = compute_hausdorff_distance(
        one, other, include_background=True, percentile=95, spacing=spacing
    )
    return float(found)


@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(9, 10, 11), (20, 5, 7), (24, 30)]),
    fill=st.floats(0.02, 0.9),
    sigma=st.sampled_from([0.0, 1.5]),
)
@settings(max_examples=30, deadline=None)
def test_it_is_that_of_monai(seed, shape, fill, sigma):
    noise = np.random.default_rng(seed).random((2, *shape))
    noise = ndimage.gaussian_filter(noise, [0] + [sigma] * len(shape))
    mask, reference = noise > np.quantile(noise, 1 - fill)
    if not mask.any() or not reference.any():
        return
    assert hausdorff95(mask, reference) == pytest.approx(as_monai(mask, reference), rel=1e-5)
    spacing = (3.0, 1.6, 1.7)[-len(shape) :]
    expected = as_monai(mask, reference, spacing)
    assert hausdorff95(mask, reference, spacing=spacing) == pytest.approx(expected, rel=1e-5)


def test_a_shifted_plate_is_off_by_its_shift():
    mask, reference = np.zeros((2, 20, 20, 20), bool)
    mask[4], reference[11] = True, True
    assert hausdorff95(mask, reference) == 7
    assert hausdorff95(mask, reference, spacing=(3.0, 1.0, 1.0)) == 21
    assert hausdorff95(mask, mask) == 0


def test_empty_masks_have_defined_values():
    empty, mask = np.zeros((2, 4, 5, 8), bool)
    mask[1, 2, 3] = True
    assert hausdorff95(empty, empty) == 0
    assert hausdorff95(mask, empty) == hausdorff95(empty, mask) == pytest.approx(74**0.5)
    assert hausdorff95(mask, empty, spacing=(2.0, 1.0, 1.0)) == pytest.approx(101**0.5)


def test_wrong_shapes_and_spacings_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        hausdorff95(np.ones((2, 2), bool), np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="does not fit"):
        hausdorff95(np.ones((2, 2), bool), np.ones((2, 2), bool), spacing=(1.0, 1.0, 1.0))
