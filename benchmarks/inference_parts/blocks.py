"""Teacher against student for a block of 64³, on one thread: the default sizes of both.

Both by torch, and the student by the engine that the stage has.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from vasculome.models.student import Student, StudentDesign
from vasculome.models.student_engine import StudentEngine
from vasculome.models.teacher import SMALL, Teacher


def milliseconds(network: Callable[[torch.Tensor], Any], *, batch: int, turns: int) -> float:
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
        engine = StudentEngine(Student(StudentDesign()).eval())
        alone = milliseconds(lambda x: engine(x[0, 0].numpy()), batch=1, turns=turns)
        teacher = milliseconds(Teacher(SMALL).eval(), batch=2, turns=turns)
    print(
        json.dumps(
            {
                "student_ms": round(student, 1),
                "engine_ms": round(alone, 1),
                "teacher_ms": round(teacher, 1),
                "teacher": asdict(SMALL),
            }
        )
    )


if __name__ == "__main__":
    main()
