"""The sheet of users' volumes: what identifies it, and what each row is for; reads no voxels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.config import PatchTrainingConfig, TrainingVolume, parse_volumes
from vasculome.errors import UserError
from vasculome.readers.files import fingerprint, unreadable

_HELD_OUT = 5
"""Volumes of which one is held out for validation where no folds are asked for."""


def read_sheet(sheet: Path) -> tuple[TrainingVolume, ...]:
    """Return the rows of a sheet of volumes; raises UserError for what is wrong with it."""
    try:
        text = sheet.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        fix = "save it as tab-separated text in UTF-8"
        raise UserError("is no text in UTF-8", where=sheet, fix=fix) from error
    except OSError as error:
        raise unreadable(sheet, error) from error
    return parse_volumes(text, where=str(sheet))


def sheet_identity(sheet: Path) -> str:
    """Return what identifies the rows and their files; training tells of those it cannot read."""
    try:
        rows = read_sheet(sheet)
        files = [Path(name) for row in rows for name in (row.image, row.label) if name is not None]
        return fingerprint(files, detail="\n".join(row.model_dump_json() for row in rows))
    except UserError:
        return "cannot be read"


@dataclass(frozen=True)
class Roles:
    """What each row of a sheet is for.

    Attributes
    ----------
    held_out
        Image and label, validated on.
    labelled, unlabelled
        Images that are learnt from, with labels and without.
    vessels, backgrounds
        What patches are rendered with: labels without an image, and images without vessels.
    """

    held_out: tuple[TrainingVolume, ...] = ()
    labelled: tuple[TrainingVolume, ...] = ()
    unlabelled: tuple[TrainingVolume, ...] = ()
    vessels: tuple[TrainingVolume, ...] = ()
    backgrounds: tuple[TrainingVolume, ...] = ()


def roles_of(settings: PatchTrainingConfig) -> Roles:
    """Return what the rows of the sheet are for; all empty without a sheet.

    What patches are rendered with is left out where none are, and the label of a volume that is
    held out is no geometry to learn from.

    Raises
    ------
    UserError
        As `read_sheet` and `held_out_rows`.
    """
    if settings.volumes is None:
        return Roles()
    rows = read_sheet(Path(settings.volumes))
    held_out = held_out_rows(rows, fold=settings.fold, where=settings.volumes)
    tested = _resolved(row.label for row in held_out)
    labelled = tuple(row for row in rows if row.labelled and row not in held_out)
    images = [row for row in rows if row.image is not None and row.label is None]
    renders = _renders(settings, labelled)
    return Roles(
        held_out,
        labelled,
        tuple(row for row in images if not row.background),
        tuple(
            row
            for row in rows
            if renders and row.image is None and not _resolved([row.label]) & tested
        ),
        tuple(row for row in images if renders and row.background),
    )


def label_learnt(settings: PatchTrainingConfig, roles: Roles) -> str | None:
    """Return what masks of rendered vessels mark that are learnt from, None if none are."""
    return settings.label if _renders(settings, roles.labelled) else None


def _renders(settings: PatchTrainingConfig, labelled: Collection[TrainingVolume]) -> bool:
    """Return whether patches are rendered as well: without labels all are."""
    return settings.rendered > 0 or not labelled


def volumes_card(settings: PatchTrainingConfig) -> dict[str, Any]:
    """Return what a card tells of a sheet and its files; raises as `roles_of`."""
    roles = roles_of(settings)
    assert settings.volumes is not None
    rows = {
        field.name: [
            row.model_dump(mode="json", exclude_none=True, exclude={"background", "fold"})
            for row in getattr(roles, field.name)
        ]
        for field in fields(roles)
    }
    learnt = {"learnt_from": sorted(map(str, files_learnt(roles)))}
    return (
        {"sheet": settings.volumes, "digest": sheet_identity(Path(settings.volumes))}
        | rows
        | learnt
    )


def files_learnt(roles: Roles) -> set[Path]:
    """Return the files whose vessels are learnt from."""
    images = [row.image for row in (*roles.labelled, *roles.unlabelled)]
    return _resolved([*images, *(row.label for row in roles.vessels)])


def files_tested(roles: Roles) -> set[Path]:
    """Return the files that are validated on."""
    return _resolved(name for row in roles.held_out for name in (row.image, row.label))


def _resolved(names: Iterable[str | None]) -> set[Path]:
    return {Path(name).resolve() for name in names if name is not None}


def held_out_rows(
    rows: Sequence[TrainingVolume], *, fold: tuple[int, int] | None, where: str
) -> tuple[TrainingVolume, ...]:
    """Return the volumes that a fold holds out for validation; none where none has a label.

    Who asks does not matter, so that a student is tested on what its teacher has not seen either.
    Images of one label, such as two stains, show the same vessels: they are held out together.

    Parameters
    ----------
    rows
        Of the sheet.
    fold
        Which fold, of how many; None: one volume of five, or of as many as there are.
    where
        The sheet, for errors.

    Raises
    ------
    UserError
        There are too few volumes with labels for the folds, or the sheet's own are others.
    """
    labelled = [row for row in rows if row.labelled]
    if not labelled and fold is None:
        return ()
    if not labelled:
        what = "has no volumes with labels, and so no folds"
        raise UserError(what, where=where, fix="leave folds out, or add labels")
    number = 0 if fold is None else fold[0]
    folds = _folds(labelled, fold, where=where)
    return tuple(row for row, own in zip(labelled, folds, strict=True) if own == number)


def folds_of(n_volumes: int, *, n_folds: int) -> NDArray[np.int64]:
    """Return the fold in which each volume is held out, int64 (n_volumes,), drawn by chance.

    The sizes of folds differ by one at the most.

    Raises
    ------
    ValueError
        There are fewer than two folds, or more than volumes.
    """
    if not 2 <= n_folds <= n_volumes:
        raise ValueError(f"{n_volumes} volumes cannot make {n_folds} folds")
    return np.random.default_rng(n_folds).permutation(np.arange(n_volumes) % n_folds)


def _folds(
    labelled: Sequence[TrainingVolume], fold: tuple[int, int] | None, *, where: str
) -> list[int]:
    """Return in which fold each volume is held out: those of one label in the same."""
    labels = [Path(str(volume.label)).resolve() for volume in labelled]
    groups = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    if len(groups) < 2:
        raise UserError(
            f"has {len(groups)} volumes with image and label where two are needed: one to learn "
            "from and one to validate on" + "; images of one label are one" * (len(labels) > 1),
            where=where,
            fix="add one, or cut a volume and its label in two files",
        )
    if labelled[0].fold is None:
        count = min(_HELD_OUT, len(groups)) if fold is None else fold[1]
        if count > len(groups):
            raise UserError(
                f"has {len(groups)} volumes with labels, too few for {count} folds"
                + "; images of one label are one" * (len(labels) > len(groups)),
                where=where,
                fix="ask for fewer folds, or cut volumes into more files",
            )
        drawn = folds_of(len(groups), n_folds=count)
        return [int(drawn[groups[label]]) for label in labels]
    given = [int(volume.fold or 0) for volume in labelled]
    number, count = fold or (0, 1 + max(given))
    if number not in given or set(given) == {number} or max(given) >= count:
        raise UserError(
            f"fold {number} of {count} cannot be held out: volumes are in the folds "
            f"{', '.join(map(str, sorted(set(given))))}",
            where=where,
            fix=f"number the folds from 0 to {count - 1} in column fold",
        )
    return given
