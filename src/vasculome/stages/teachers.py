"""Whether a network can teach a student; asked before anything runs, so without torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasculome.config import PatchTrainingConfig, RunConfig, StudentConfig, TeacherConfig
from vasculome.config.segment_models import WITH_CODES, WITH_MASKS
from vasculome.errors import UserError
from vasculome.stages.network_card import weights_path
from vasculome.stages.volume_files import volumes_bytes
from vasculome.stages.volume_sheet import files_learnt, files_tested, label_learnt, roles_of
from vasculome.storage.weights import check_weights


@dataclass(frozen=True)
class _Teacher:
    """What of a teacher its student must know.

    Attributes
    ----------
    name
        Of the entry, or the path of its weights.
    codes_width
        Channels of its codes.
    has_codes
        Whether they were learnt.
    learnt_from
        Files of users' volumes.
    label
        What masks of rendered vessels marked that it has learnt, or None.
    """

    name: str
    codes_width: int | None
    has_codes: bool
    learnt_from: Collection[Path]
    label: str | None


def check_segmenters(config: RunConfig) -> None:
    """Raise UserError for volumes and teachers that cannot be, before anything runs."""
    for name, settings in config.models.items():
        where = f"config: models.{name}"
        if isinstance(settings, PatchTrainingConfig):
            volumes_bytes(roles_of(settings))  # It opens all files.
        if not isinstance(settings, StudentConfig) or settings.teacher is None:
            continue
        entry = config.models.get(settings.teacher)
        if entry is None:
            path = weights_path(settings.teacher, "teacher")
            check_teachers_card(settings, path, check_weights(path), where=where)
        elif isinstance(entry, TeacherConfig):
            roles = roles_of(entry)
            teacher = _Teacher(
                settings.teacher,
                entry.student_width,
                entry.pretrain_steps > 0,
                files_learnt(roles),
                label_learnt(entry, roles),
            )
            _check(settings, teacher, where=where)
        else:
            raise UserError(
                f"{settings.teacher} is a {entry.network}, not a teacher",
                where=f"{where}.teacher",
                fix="name an entry of models with network: teacher",
            )


def check_teachers_card(
    settings: StudentConfig, path: Path, card: dict[str, Any], *, where: str
) -> None:
    """Raise UserError if the weights at ``path``, with this card, cannot teach a student."""
    if card["architecture"] != "teacher":
        raise UserError(
            f"are weights of a network {card['architecture']}, not of a teacher",
            where=path,
            fix=f"give {where}.teacher others",
        )
    learnt = card.get("data", {}).get("volumes", {}).get("learnt_from", ())
    teacher = _Teacher(
        str(path),
        card["arguments"].get("student_width"),
        card.get("settings", {}).get("pretrain_steps") != 0,
        {Path(name) for name in learnt},
        card.get("data", {}).get("label"),
    )
    _check(settings, teacher, where=where)


def _check(settings: StudentConfig, teacher: _Teacher, *, where: str) -> None:
    if settings.method in WITH_CODES and not teacher.has_codes:
        raise UserError(
            f"method {settings.method} learns codes, and those of {teacher.name} are random: it "
            "has no pretrain_steps",
            where=where,
            fix="train the teacher with pretrain_steps, or choose another method",
        )
    if settings.method in WITH_CODES and teacher.codes_width not in {None, settings.widths[-1]}:
        raise UserError(
            f"codes have {teacher.codes_width} channels, the student's deepest level "
            f"{settings.widths[-1]}",
            where=teacher.name,
            fix=f"set the last of {where}.widths, or train a teacher with another student_width",
        )
    roles = roles_of(settings)
    label = label_learnt(settings, roles)
    if settings.method in WITH_MASKS and label and teacher.label and label != teacher.label:
        raise UserError(
            f"teacher {teacher.name} has learnt masks that are {teacher.label}, the student's are "
            f"{label}",
            where=where,
            fix=f"set label: {teacher.label}, or train a teacher with label: {label}",
        )
    seen = files_tested(roles) & set(teacher.learnt_from)
    if seen:
        raise UserError(
            f"teacher {teacher.name} has learnt from {min(seen)}, which the student is tested on",
            where=where,
            fix="train both with the same volumes and folds",
        )
