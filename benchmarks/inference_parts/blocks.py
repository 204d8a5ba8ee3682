"""Teacher against student for a block of 64³, on one thread: the default sizes of both."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

import torch
from torch import nn

from vasculome.models.student import Student, StudentDesign
from vasculome.models.teacher import SMALL, Teacher


def milliseconds(network: nn.Module, *, batch: int, turns: int) -> float:
    x = torch.rand(batch, 1, 64, 64, 64)
    spent = []
    for _ in range(turns + 1):
        begin = time.process_time()
        network(x)
        spent.append(time.process_time() - begin)
    return min(spent[1:]) / batch * 1e3


def main() -> None:
    turns = json.loads(sys.argv[1])["turns"]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.inference_mode():
        student = milliseconds(Student(StudentDesign()).eval(), batch=2, turns=turns)
        teacher = milliseconds(Teacher(SMALL).eval(), batch=2, turns=turns)
    print(
        json.dumps(
            {
                "student_ms": round(student, 1),
                "teacher_ms": round(teacher, 1),
                "teacher": asdict(SMALL),
            }
        )
    )


if __name__ == "__main__":
    main()
