"""Weights that nobody trained, for as long as none ship."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from vasculome.models.student import Student, StudentDesign
from vasculome.storage.weights import write_weights


def write_random_student(path: Path) -> Path:
    torch.manual_seed(0)
    network = Student(StudentDesign())
    card = {
        "name": "random",
        "architecture": "student",
        "arguments": asdict(network.design),
        "metrics": {"threshold": 0.5},
    }
    write_weights(path, network.state_dict(), card)
    return path
