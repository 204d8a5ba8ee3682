"""The memory that a network which segments takes, by the arguments that its card tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

_STUDENT_BYTES, _LOGIT_BYTES, _JOINED_BYTES = 34, 20, 16
"""Of a channel of a voxel of a student's finest level on a GPU, of a voxel of the image beside it,
and what is more of a channel where levels are concatenated: twice the channels, and a copy of them.
Measured were 34 a voxel with a stem of stride 2 (5/8 channels), and 158 without (5)."""

_TEACHER_BYTES = 60
"""Of a channel of a voxel of a teacher's finest level: measured."""


class StudentArguments(BaseModel):
    """See `vasculome.models.student.StudentDesign`."""

    widths: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=2)]
    stem_stride: Literal[1, 2]
    skip: Literal["add", "concatenate"] = "add"
    norm: Literal["group", "batch"]

    @property
    def stride(self) -> int:
        """Voxels that windows are multiples of."""
        return self.stem_stride * int(2 ** (len(self.widths) - 1))


class TeacherArguments(BaseModel):
    """See `vasculome.models.teacher.TeacherDesign`."""

    feature_size: Annotated[int, Field(gt=0)]


def student_bytes(student: StudentArguments) -> float:
    """Return the memory of a voxel in a student on a GPU, in bytes."""
    joined = _JOINED_BYTES if student.skip == "concatenate" else 0
    finest = student.widths[0] / student.stem_stride**3
    return (_STUDENT_BYTES + joined) * finest + _LOGIT_BYTES


def engine_bytes(student: StudentArguments, window: Sequence[int]) -> int:
    """Return the memory that `models.student_engine` takes for a window, as it takes it."""
    floats = math.prod(window)
    inner, step = student.stem_stride**3, student.stem_stride
    for channels in student.widths:
        padded = math.prod(n // step + 2 for n in window)
        joined = 2 if student.skip == "concatenate" else 1
        # What comes from below, what is joined to what comes up, inside, raw, answer; and an eighth
        # of what comes from the next level.
        floats += padded * (inner + channels * (joined + 3.125))
        inner, step = channels, 2 * step
    return math.ceil(4 * floats)


def teacher_bytes(teacher: TeacherArguments) -> float:
    """Return the memory of a voxel in a teacher, in bytes."""
    return _TEACHER_BYTES * teacher.feature_size
