"""The inference benchmark: what a network computes and moves, and goals that cannot be measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks/inference_parts"))

import inference
from roofline import bounds, roofline, work

from vasculome.models.student import Student, StudentDesign


def test_work_of_a_convolution_is_counted():
    network, x = torch.nn.Conv3d(1, 3, 3, padding=1, bias=False), torch.rand(2, 1, 8, 8, 8)
    with torch.inference_mode():
        flops, moved = work(network, x)
    assert flops == 2 * 27 * 3
    assert moved == 4 * (1 + 3 + 81 / x.numel())


def test_looking_at_the_same_memory_moves_nothing():
    with torch.inference_mode():
        _, moved = work(lambda x: torch.relu(x.view(10, -1)), torch.rand(1000))
    assert moved == 8


def test_work_of_the_student_is_that_of_its_products():
    """0.11 billion of them for a window of 64³, as the paper has it."""
    with torch.inference_mode():
        flops, _ = work(Student(StudentDesign()).eval(), torch.rand(1, 1, 64, 64, 64))
    assert flops * 64**3 / 2 == pytest.approx(0.11e9, rel=0.01)


def test_a_roof_is_a_peak_over_the_work():
    roofs = bounds(800.0, 100.0, peak_flops=4e14, peak_bytes=4e12)
    assert roofs == {"roof_of_compute_mvoxels_per_s": 5e5, "roof_of_memory_mvoxels_per_s": 4e4}


def test_the_lower_roof_counts():
    """Of 1,000 windows a second; 162 operations and some 16 bytes a voxel."""
    network, x = torch.nn.Conv3d(1, 3, 3, padding=1, bias=False), torch.rand(2, 1, 8, 8, 8)
    peaks = {"peak_tflops": 162e-6, "peak_gb_per_s": 1.0}
    with torch.inference_mode():
        told = roofline(network, x, ms=1.0, peaks=peaks)
    assert told["mvoxels_per_s"] == pytest.approx(0.5, abs=0.05)
    assert told["roof_of_compute_mvoxels_per_s"] == 1.0 < told["roof_of_memory_mvoxels_per_s"]
    assert told["of_the_roof"] == pytest.approx(0.5, abs=0.05)


def rows(**blocks):
    for case in (inference.TISSUE, inference.HALF, inference.MANY):
        for method, seconds in ((inference.OURS, 1.0), (inference.THEIRS, 2.5)):
            more = {"difference": 1e-4} if method == inference.THEIRS else {"outside_network": 0.2}
            more |= {"memory_over_bound": 0.5}
            yield {"case": case, "method": method, "cores": 2, "seconds": seconds, **more}
    yield {"case": "a block", "teacher_ms": 20.0, "student_ms": 2.0, **blocks}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_goals_that_cannot_be_measured_are_told(device):
    on_gpu = {"mvoxels_per_s": 1500.0} if device == "cuda" else {}
    found = {
        goal["name"]: (goal["value"], goal["met"])
        for goal in inference.goals([*rows(**on_gpu)], cores=2, device=device)
    }
    assert len(found) == len(inference.GOALS)
    assert found["GPU: millions of voxels a second of the student"] == (
        (1500.0, True) if device == "cuda" else (None, None)
    )
    assert found["processor: voxels a second over MONAI's, three shards an axis"] == (
        (2.5, False) if device == "cpu" else (None, None)
    )
    assert found["share of time outside the network"] == (0.2, False)
    assert found["teacher's time for a block over the student's"] == (10.0, True)
