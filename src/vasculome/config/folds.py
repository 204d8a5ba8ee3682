"""Cross-validation: an entry of ``models`` with ``folds`` stands for one network a fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vasculome.errors import UserError


def fold_name(name: str, fold: int) -> str:
    """Return the name of the network of one fold."""
    return f"{name}-fold-{fold}"


def with_folds(models: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return the entries of ``models``, those with ``folds: n`` as n entries with ``fold: [k, n]``.

    A teacher that is trained by folds teaches, in each, the student of the same fold: another one
    has seen what the student is tested on.

    Raises
    ------
    UserError
        An entry has both ``fold`` and ``folds``, or its teacher has other folds or other volumes.
    """
    result: dict[str, Any] = {}
    for name, entry in models.items():
        count = _folds(entry)
        teacher = entry.get("teacher") if isinstance(entry, Mapping) else None
        taught = _folds(models.get(teacher)) if isinstance(teacher, str) else None
        volumes = models[teacher].get("volumes") if isinstance(teacher, str) and taught else None
        if taught and (count != taught or entry.get("volumes") != volumes):
            raise UserError(
                f"teacher {teacher} is trained in {taught} folds of {volumes}",
                where=f"{where}: models.{name}",
                fix=f"give {name} the same folds and volumes",
            )
        if count is None:
            result[name] = entry
            continue
        if entry.get("fold") is not None:
            raise UserError(
                "has both fold and folds",
                where=f"{where}: models.{name}",
                fix="folds: 5 for five networks, fold: [0, 5] for the first alone",
            )
        for fold in range(count):
            one = {key: value for key, value in entry.items() if key != "folds"}
            one["fold"] = [fold, count]
            if taught:
                one["teacher"] = fold_name(str(teacher), fold)
            result[fold_name(name, fold)] = one
    return result


def _folds(entry: object) -> int | None:
    """Return how many folds an entry asks for; what is no number is left to validation."""
    count = entry.get("folds") if isinstance(entry, Mapping) and entry.get("volumes") else None
    return count if type(count) is int and count > 1 else None
