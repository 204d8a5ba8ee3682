"""What is done: a journal beside each store that a rerun trusts.

A ledger is JSON lines in ``<store>.ledger.jsonl``: a header with the digest of everything that
the outputs depend on, then one line a durable tile with the checksums of its files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vasculome.errors import UserError
from vasculome.storage.lease import Lease, lease_path
from vasculome.storage.shards import (
    ABSENT,
    check_fences,
    recorded_size,
    remove_file,
    write_bytes_atomic,
)

__all__ = [
    "Lease",
    "Ledger",
    "TileResult",
    "lease_path",
    "ledger_path",
    "load",
    "missing_file",
    "remove_ledger",
    "tile_order",
    "void_tiles",
]

log = logging.getLogger(__name__)

LEDGER = ".ledger.jsonl"


@dataclass(frozen=True)
class TileResult:
    """What a tile leaves behind.

    Attributes
    ----------
    files
        Checksum of every file written, by its path relative to the store; ``""`` for a file
        that must not exist.
    record
        Plain JSON values for the stage; must not hold times or anything else that differs
        between runs, since content digests include it.
    """

    files: dict[str, str] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


def ledger_path(store: Path) -> Path:
    """Return where the ledger of ``store`` is."""
    store = Path(store).absolute()
    return store.with_name(f"{store.name}{LEDGER}")


def tile_order(tile_id: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sort key that counts numbers in a tile id as numbers."""
    parts = re.split(r"(\d+)", tile_id)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)


class Ledger:
    """The journal of ``store``, for one writer that holds the store's lease.

    Opening it repairs a line torn by a crash. Entries under another ``digest`` are void: they
    are dropped, and the files they name removed, so that no later reader takes an old part for
    a new one.

    Attributes
    ----------
    done
        Result of every tile that is durable, by tile id.
    """

    def __init__(self, store: Path, digest: str) -> None:
        self.store = Path(store).absolute()
        self.path = ledger_path(store)
        self.digest = digest
        found, self.done, sound = load(self.path)
        if found != digest:
            for result in self.done.values():
                for name in result.files:
                    remove_file(self.store / name)
            self.done = {}
        if found != digest or not sound:
            self._rewrite()

    def record(self, tile_id: str, result: TileResult) -> None:
        """Append an entry durably; the tile's files must be durable before."""
        self._append(_entry(tile_id, result))
        self.done[tile_id] = result

    def void(self, tile_ids: Iterable[str]) -> None:
        """Remove entries, so that the next run redoes these tiles."""
        void = [tile_id for tile_id in tile_ids if tile_id in self.done]
        for tile_id in void:
            del self.done[tile_id]
        if void:
            self._append({"void": void})

    def proves(self, tile_id: str) -> bool:
        """Tell whether a tile is done: recorded, and its files there in their recorded length.

        A tile whose files are gone or cut is made void.
        """
        result = self.done.get(tile_id)
        if result is None:
            return False
        if all(_has_length(self.store / name, c) for name, c in result.files.items()):
            return True
        log.warning("%s: files of tile %s are gone or cut", self.store.name, tile_id)
        self.void([tile_id])
        return False

    def content(self) -> str:
        """Return a digest of all entries, whatever the order in which they were made."""
        digest = hashlib.sha256()
        for tile_id in sorted(self.done, key=tile_order):
            digest.update(_line(_entry(tile_id, self.done[tile_id])))
        return digest.hexdigest()

    def settle(self) -> None:
        """Rewrite the file in tile order, so that finished runs leave the same bytes."""
        if self.path.read_bytes() != self._settled():
            self._rewrite()

    def _settled(self) -> bytes:
        ordered = sorted(self.done, key=tile_order)
        lines = [_line({"digest": self.digest})]
        lines += [_line(_entry(tile_id, self.done[tile_id])) for tile_id in ordered]
        return b"".join(lines)

    def _rewrite(self) -> None:
        write_bytes_atomic(self.path, self._settled())

    def _append(self, entry: dict[str, Any]) -> None:
        check_fences()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            line = memoryview(_line(entry))
            while line:
                line = line[os.write(handle, line) :]
            os.fsync(handle)
        except OSError as error:
            raise UserError(
                f"cannot be written: {error.strerror}",
                where=self.path,
                fix="free space or mend the rights, then rerun",
            ) from error
        finally:
            os.close(handle)


def void_tiles(store: Path, tile_ids: Iterable[str]) -> None:
    """Remove the entries of damaged tiles from the ledger of a store that no run holds.

    Raises
    ------
    UserError
        Where a live run holds the store.
    """
    with Lease(store):
        digest, _, _ = load(ledger_path(store))
        if digest is not None:
            Ledger(store, digest).void(tile_ids)


def missing_file(store: Path) -> Path | None:
    """Return a file of ``store`` that is gone or has another length than its ledger tells.

    Files are not read: `vasculome.storage.verify.verify` does that.
    """
    _, done, _ = load(ledger_path(store))
    for result in done.values():
        for name, recorded in result.files.items():
            if not _has_length(Path(store) / name, recorded):
                return Path(store) / name
    return None


def remove_ledger(store: Path) -> None:
    """Forget everything about ``store``, before it is made anew."""
    remove_file(ledger_path(store))


def load(path: Path) -> tuple[str | None, dict[str, TileResult], bool]:
    """Return digest, entries, and whether every line was whole; digest None where it has none."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None, {}, False
    sound = lines.pop() == b""
    done: dict[str, TileResult] = {}
    digest: str | None = None
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
            if number == 0:
                digest = str(entry["digest"])
            elif "void" in entry:
                for tile_id in entry["void"]:
                    done.pop(tile_id, None)
            else:
                done[entry["tile"]] = TileResult(dict(entry["files"]), dict(entry["record"]))
        except (ValueError, KeyError, TypeError):
            sound = False
            if number == 0:
                return None, {}, False
            log.warning("%s, line %d: damaged, its tile will be redone", path, number + 1)
    return digest, done, sound


def _entry(tile_id: str, result: TileResult) -> dict[str, Any]:
    return {"tile": tile_id, "files": result.files, "record": result.record}


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _has_length(path: Path, recorded: str) -> bool:
    try:
        length = path.stat().st_size
    except FileNotFoundError:
        return recorded == ABSENT
    return recorded != ABSENT and length == recorded_size(recorded)
