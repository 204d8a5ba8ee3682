"""Segmenters on a real light-sheet volume against its manual label."""

import pytest
import tifffile

from vasculome.config import Sample, parse_config
from vasculome.metrics.segmentation import cldice, dice
from vasculome.stages.catalog import stages_of
from vasculome.stages.job import Job, execute

# What VpbSD takes; it truncates vessels where they fill more than 5 % of the volume.
PAPER_PERCENTILE = {"normalize": {"upper_percent": 95.0}}
STUDENT = {"segment": {"segmenter": "student"}}
SEEN = {"segment": {"segmenter": "student_seen"}}


# The default settings were chosen on this very volume: that these floors hold says that the chain
# still does what it did, not how well it does on another brain. No student has learnt from it, but
# what kind of masks `student` makes was chosen by its label, which is wider than `student_seen` has
# learnt to paint.
@pytest.mark.parametrize(
    ("microscopy", "dice_floor", "cldice_floor"),
    [
        ({}, 0.90, 0.97),
        (PAPER_PERCENTILE, 0.64, 0.70),
        (STUDENT, 0.80, 0.95),
        (SEEN, 0.50, 0.77),
    ],
    ids=["defaults", "95th-percentile", "student", "student_seen"],
)
def test_mask_agrees_with_the_manual_label(
    data, read_level, tmp_path, microscopy, dice_floor, cldice_floor
):
    folder = data / "microscopy/vesselexpress"
    label = tifffile.imread(folder / "ve_bin.tif") > 0
    config = parse_config(
        {
            "results": str(tmp_path),
            "compute": {"scheduler": "inline"},
            "storage": {"chunk_zyx": [32, 32, 32], "shard_zyx": [64, 64, 64]},
            "microscopy": microscopy,
        },
        where="test",
    )
    sample = Sample(
        sample="vessels",
        modality="microscopy",
        path=str(folder / "ve_raw.tif"),
        format="tiff_stack",
        spacing_um=(2.0, 2.0, 2.0),
    )
    stages = stages_of(sample)
    for stage in stages[: stages.index("mask") + 1]:
        execute(Job(stage, config, sample))
    mask = read_level(tmp_path / "vessels/mask.ome.zarr") > 0
    overlap, centreline = dice(mask, label), cldice(mask, label)
    print(f"DSC {overlap:.4f}, clDice {centreline:.4f}, {mask.mean():.4f} of {label.mean():.4f}")
    assert overlap > dice_floor
    assert centreline > cldice_floor
