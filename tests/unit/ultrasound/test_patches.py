import itertools

import numpy as np
import pytest

from vasculome.ultrasound.patches import localize_patches


def count_by_hand(patch):
    """Maxima of a patch: no neighbour is higher, and no earlier one as high."""
    count = 0
    for here in np.ndindex(patch.shape):
        around = itertools.product(
            *(range(max(k - 1, 0), min(k + 2, n)) for k, n in zip(here, patch.shape, strict=True))
        )
        count += all(
            patch[there] < patch[here] or (patch[there] == patch[here] and there >= here)
            for there in around
        )
    return count


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("half_width", [1, 2])
def test_maxima_are_counted_where_values_are_equal_too(ndim, half_width):
    size = 2 * half_width + 1
    frames = np.random.default_rng(7).integers(1, 6, (60,) + (size,) * ndim).astype(np.float32)
    peaks = np.full((60, 1 + ndim), half_width)
    peaks[:, 0] = np.arange(60)
    table = localize_patches(
        lambda patches: np.zeros((len(patches), 3)),
        frames,
        peaks,
        half_width=half_width,
        first_frame=0,
    )
    assert table["maxima"].tolist() == [count_by_hand(frame) for frame in frames]
    assert table["maxima"].max() > 1
