"""Cross-validation: an entry of ``models`` with ``folds`` stands for one network a fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vasculome.errors import UserError


def fold_name(name: str, fold: int) -> str:
    """Return the name of the network of one fold."""
    return f"{name}-fold-{fold}"


def folded(models: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of the networks of each entry that is trained in all its folds.

    Parameters
    ----------
    models
        Settings by name, as `with_folds` makes them.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, settings in models.items():
        fold = getattr(settings, "fold", None)
        if fold is None or fold[0] != 0 or not name.endswith(fold_name("", 0)):
            continue
        entry = name.removesuffix(fold_name("", 0))
        names = tuple(fold_name(entry, number) for number in range(fold[1]))
        if all(getattr(models.get(other), "fold", None) for other in names):
            found[entry] = names
    return found


def with_folds(models: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return the entries of ``models``, those with ``folds: n`` as n entries with ``fold: [k, n]``.

    A teacher that is trained by folds teaches, in each, the student of the same fold: another one
    has seen what the student is tested on.

    Raises
    ------
    UserError
        An entry has both ``fold`` and ``folds``, its teacher learns from the same volumes in other
        folds, or a name stands for two networks.
    """
    result: dict[str, Any] = {}
    for name, entry in models.items():
        for one_name, one in _of_each_fold(name, entry, models, where=where).items():
            if one_name in result:
                raise UserError(
                    "is the name of two networks: an entry, and a fold of another one",
                    where=f"{where}: models.{one_name}",
                    fix="rename one of the two",
                )
            result[one_name] = one
    for name, entry in result.items():
        _check_teacher(name, entry, result, where=where)
    return result


def _of_each_fold(
    name: str, entry: Any, models: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    """Return the entries that one stands for."""
    count, teacher = _folds(entry), _teacher(entry)
    taught = _folds(models.get(teacher))
    if taught and (count != taught or entry.get("volumes") != models[teacher].get("volumes")):
        raise UserError(
            f"teacher {teacher} is trained in {taught} folds of {models[teacher].get('volumes')}",
            where=f"{where}: models.{name}",
            fix=f"give {name} the same folds and volumes",
        )
    if count is None:
        return {name: entry}
    if entry.get("fold") is not None:
        raise UserError(
            "has both fold and folds",
            where=f"{where}: models.{name}",
            fix="folds: 5 for five networks, fold: [0, 5] for the first alone",
        )
    whole = {key: value for key, value in entry.items() if key != "folds"}
    return {
        fold_name(name, fold): whole
        | {"fold": [fold, count]}
        | ({"teacher": fold_name(teacher, fold)} if taught else {})
        for fold in range(count)
    }


def _check_teacher(name: str, entry: Any, models: Mapping[str, Any], *, where: str) -> None:
    """Refuse a teacher that may have learnt from what its student is tested on."""
    teacher = models.get(_teacher(entry))
    if not isinstance(teacher, Mapping) or not entry.get("volumes"):
        return
    if teacher.get("volumes") != entry.get("volumes"):
        return
    own, its = _fold(entry), _fold(teacher)
    if own != its:
        raise UserError(
            f"teacher {entry['teacher']} learns from the volumes that {name} is tested on: "
            f"{_held_out(own)} for {name}, {_held_out(its)} for its teacher",
            where=f"{where}: models.{name}",
            fix="give both the same fold, or the same folds",
        )


def _teacher(entry: object) -> str:
    """Return the name that an entry gives its teacher, empty if it has none."""
    teacher = entry.get("teacher") if isinstance(entry, Mapping) else None
    return teacher if isinstance(teacher, str) else ""


def _fold(entry: Mapping[str, Any]) -> list[Any] | None:
    fold = entry.get("fold")
    return list(fold) if isinstance(fold, list | tuple) else None


def _held_out(fold: list[Any] | None) -> str:
    return "a fifth is held out" if fold is None else f"fold {fold} is held out"


def _folds(entry: object) -> int | None:
    """Return how many folds an entry asks for; what is no number is left to validation."""
    count = entry.get("folds") if isinstance(entry, Mapping) and entry.get("volumes") else None
    return count if type(count) is int and count > 1 else None
