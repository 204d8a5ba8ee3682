"""Whether what the ledgers tell of is still there: a check of every file, bit by bit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vasculome.errors import UserError
from vasculome.storage.lease import stores_with
from vasculome.storage.ledger import LEDGER, TileResult, ledger_path, load, tile_order
from vasculome.storage.metadata import METADATA
from vasculome.storage.shards import ABSENT, file_checksum, recorded_size


@dataclass(frozen=True)
class Damage:
    """A file that is not as recorded; ``tile`` is empty for metadata and for a ledger."""

    tile: str
    file: Path
    fault: str


def verify_all(path: Path) -> dict[Path, list[Damage]]:
    """Return what :func:`verify` finds in ``path``, by store, for every store that tells of it.

    A ledger may tell of files outside its store: that of ``maps`` of all the images in it, that
    of a skeleton of the table of its points.

    Parameters
    ----------
    path
        A store, which is checked with its files elsewhere; a folder of stores; or a folder or
        file in a store.

    Raises
    ------
    UserError
        Where no ledger tells of ``path``, or a file cannot be read.
    """
    path = _plain(path)
    around = [
        file.with_name(file.name.removesuffix(LEDGER))
        for folder in path.parents
        for file in sorted(folder.glob(f"*{LEDGER}"))
    ]
    whole = [*(store for store in around if store == path), *stores_with(LEDGER, below=path)]
    parts = [store for store in around if store != path and _tells_of(store, path)]
    found = {store: verify(store) for store in whole}
    found |= {store: verify(store, within=path) for store in parts}
    if not found:
        raise UserError(
            "no ledger tells of it" if path.exists() else "does not exist",
            where=path,
            fix="give the path of a store that vasculome has written, or of a folder of stores",
        )
    return found


def verify(store: Path, *, within: Path | None = None) -> list[Damage]:
    """Compare the files of ``store`` with their recorded checksums.

    Parameters
    ----------
    store
        What the ledger stands beside.
    within
        Check only files in this folder, or this file.

    Returns
    -------
    list of Damage
        Files that are missing, cut, changed, or exist where none should, in tile order; before
        them damaged lines of the ledger, and missing or unreadable Zarr metadata.

    Raises
    ------
    UserError
        Where the store has no ledger, or a file cannot be read.
    """
    store = _plain(store)
    within = store.parent if within is None else _plain(within)
    if not ledger_path(store).exists():
        raise UserError(
            "has no ledger to be verified by",
            where=ledger_path(store),
            fix="give the path of a store that vasculome has written",
        )
    _, done, sound = load(ledger_path(store))
    damages = [] if sound else [Damage("", ledger_path(store), "has damaged lines")]
    damages += [
        Damage("", file, fault)
        for file in sorted(_metadata_of(store, done))
        if file.is_relative_to(within) and (fault := _metadata_fault(file))
    ]
    for tile_id in sorted(done, key=tile_order):
        for file, recorded in _files_of(store, done[tile_id]):
            if file.is_relative_to(within) and (fault := _fault(file, recorded)):
                damages.append(Damage(tile_id, file, fault))
    return damages


def _fault(path: Path, recorded: str) -> str | None:
    try:
        found = file_checksum(path)
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}", where=path, fix="mend the disk or the rights"
        ) from error
    if found == recorded:
        return None
    if found == ABSENT:
        return "is missing"
    if recorded == ABSENT:
        return "exists where none was written"
    if recorded_size(found) < recorded_size(recorded):
        return f"is cut to {recorded_size(found)} of {recorded_size(recorded)} bytes"
    return "has changed"


def _plain(path: Path) -> Path:
    """Return an absolute path without ``..``, symbolic links left as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (Path.absolute keeps "..")


def _tells_of(store: Path, path: Path) -> bool:
    _, done, _ = load(ledger_path(store))
    files = (file for result in done.values() for file, _ in _files_of(store, result))
    return any(file.is_relative_to(path) for file in files)


def _files_of(store: Path, result: TileResult) -> Iterator[tuple[Path, str]]:
    for name, recorded in result.files.items():
        yield _plain(store / name), recorded


def _metadata_of(store: Path, done: Mapping[str, TileResult]) -> set[Path]:
    """Return the metadata files without which the shards of ``store`` cannot be read."""
    # A shard is <image>/<level>/c/<indices>, or <array>/c/<indices>.
    parts = {Path(name).parts for result in done.values() for name in result.files}
    arrays = {store.joinpath(*names[: names.index("c")]) for names in parts if "c" in names}
    images = {array.parent for array in arrays if array.parent.name.endswith(".zarr")}
    return {folder / METADATA for folder in arrays | images}


def _metadata_fault(file: Path) -> str | None:
    try:
        json.loads(file.read_bytes())
    except FileNotFoundError:
        return "its metadata is missing"
    except ValueError:
        return "its metadata is no JSON"
    return None
