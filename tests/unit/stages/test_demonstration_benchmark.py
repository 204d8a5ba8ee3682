"""The demonstration's benchmark: masks are laid on the truth, and measured there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from vasculome.geometry import Box
from vasculome.storage.omezarr import ImageSpec, create_image

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import demonstration

WHOLE = gaussian_filter(np.random.default_rng(0).normal(size=(30, 50, 60)), 2.0) > 0.1


@pytest.mark.parametrize("start", [(0, 0, 0), (3, 0, 5), (4, 10, 1)])
def test_what_was_cut_out_is_laid_where_it_was(start):
    mask = WHOLE[tuple(slice(a, a + 24) for a in start)]
    assert demonstration.best_shift(mask, WHOLE) == start
    # The truth may begin later than the mask, too.
    assert demonstration.best_shift(WHOLE, mask) == tuple(-a for a in start)
    for pair in ((mask, WHOLE, start), (WHOLE, mask, tuple(-a for a in start))):
        found, truth = demonstration.common(*pair)
        assert found.shape == mask.shape and np.array_equal(found, truth)


def test_wide_masks_find_all_length_and_add_none():
    truth = np.zeros((20, 20, 40), bool)
    truth[8:11, 8:11, 2:38] = True
    half = truth & (np.arange(40) < 20)
    found = demonstration.measures(binary_dilation(truth), truth)
    assert found["length_found"] == 1 and found["cldice"] > 0.9 > found["dice"]
    found = demonstration.measures(half, truth)
    assert found["length_true"] == 1 and found["length_found"] == pytest.approx(0.5, abs=0.05)


def test_the_last_line_tells_of_each_run(tmp_path, monkeypatch, capsys):
    spec = ImageSpec(
        shape=(24, 40, 50),
        dtype="uint8",
        axes="zyx",
        spacing_um=(4.0, 2.0, 2.0),
        chunk=(8, 20, 50),
        shard=(24, 40, 50),
        reduce="max",
        name="mask",
    )
    image = create_image(tmp_path / "a/lightsheet/mask.ome.zarr", spec)
    image.write(Box.of_shape(spec.shape), WHOLE[2:26, 5:45, 4:54].astype(np.uint8))
    np.save(tmp_path / "truth.npy", WHOLE)
    given = ["demonstration.py", str(tmp_path / "a"), "--truth", str(tmp_path / "truth.npy")]
    monkeypatch.setattr(sys, "argv", given)
    demonstration.main()
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert (row["run"], row["shift"]) == (given[1], [2, 5, 4])
    assert row["dice"] == row["cldice"] == row["length_found"] == 1
