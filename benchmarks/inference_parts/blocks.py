"""Teacher against student for a block of 64³, on one device: the default sizes of both.

On one thread of a processor both by torch, and the student by the engine that the stage has; on a
GPU in half precision, with the roofline beside it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import torch
from roofline import roofline
from student_on import half_precision, milliseconds, placed, windows_on
from torch import nn

from vasculome.models.student import Student, StudentDesign
from vasculome.models.student_engine import StudentEngine
from vasculome.models.teacher import SMALL, Teacher

BATCH = {"cpu": (2, 2), "cuda": (32, 8)}
"""Windows at once, of student and teacher."""


def block_ms(network: nn.Module, *, device: str, batch: int, turns: int) -> float:
    network, x = placed(network, device), windows_on(device, batch)
    return milliseconds(lambda: network(x), device=device, turns=turns) / batch


def main() -> None:
    task = json.loads(sys.argv[1])
    device, turns = task["device"], task["turns"]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = Student(StudentDesign()).eval()
    of_student, of_teacher = BATCH[device]
    with torch.inference_mode(), half_precision(device):
        answer: dict[str, Any] = {}
        if device == "cpu":
            engine, x = StudentEngine(student), windows_on("cpu", 1)[0, 0].numpy()
            alone = milliseconds(lambda: engine(x), device="cpu", turns=turns)
            answer["engine_ms"] = round(alone, 1)
        spent = block_ms(student, device=device, batch=of_student, turns=turns)
        if device == "cuda":
            answer |= roofline(student, windows_on(device, of_student), ms=spent, peaks=task)
        teacher = block_ms(Teacher(SMALL), device=device, batch=of_teacher, turns=turns)
    answer |= {
        "device": torch.cuda.get_device_name() if device == "cuda" else "one core",
        "student_ms": round(spent, 3),
        "teacher_ms": round(teacher, 3),
        "teacher": asdict(SMALL),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
