"""One run at a time on a store: a lease that dies with its process.

A lease is a small file beside the store. It is taken by creating it exclusively, kept alive by
its modification time, and taken over when its holder is provably gone. Workers of a dead run
that are still busy are kept out by its token (:func:`vasculome.storage.shards.fenced`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import psutil

from vasculome.errors import UserError
from vasculome.storage.shards import TEMPORARY, fenced, read_token

HEARTBEAT_S = 5.0
STALE_AFTER_S = 60.0
LEASE = ".lease.json"
_HALF_WRITTEN_S = 5.0

_held: dict[Path, Lease] = {}


def lease_path(store: Path) -> Path:
    """Return where the lease of ``store`` is."""
    store = Path(store).absolute()
    return store.with_name(f"{store.name}{LEASE}")


@dataclass(frozen=True)
class Holder:
    """Who holds a lease: the process ``pid`` of ``host``, started at ``started`` (Unix, s)."""

    host: str
    pid: int
    started: float
    token: str

    @classmethod
    def of_this_process(cls) -> Holder:
        """Return this process with a fresh token."""
        started = psutil.Process().create_time()
        return cls(socket.gethostname(), os.getpid(), started, secrets.token_hex(8))

    def is_here(self) -> bool:
        """Tell whether it is a process of this machine."""
        return self.host == socket.gethostname()

    def is_alive(self, *, silent_s: float) -> bool:
        """Tell whether the holder may still write, its last heartbeat ``silent_s`` ago."""
        if self.pid == 0:
            return False
        if not self.is_here():
            return silent_s < STALE_AFTER_S
        try:
            process = psutil.Process(self.pid)
            # Clock adjustments move start times by a little; a reused pid by far more.
            same: bool = abs(process.create_time() - self.started) < 2.0
            return same and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


def read_holders(folder: Path) -> Iterator[tuple[Path, Holder]]:
    """Yield every store anywhere below ``folder`` that a live process holds, and that process."""
    for store in stores_with(LEASE, below=folder):
        found = _read(lease_path(store))
        if found is not None and found[0].is_alive(silent_s=found[1]):
            yield store, found[0]


def stores_with(ending: str, *, below: Path) -> Iterator[Path]:
    """Yield every store anywhere below a folder that has a file ``<store><ending>`` beside it."""
    for parent, folders, files in os.walk(below):
        # Zarr stores may hold millions of files, and no stores.
        folders[:] = sorted(name for name in folders if not name.endswith(".zarr"))
        for name in sorted(files):
            if name.endswith(ending):
                yield Path(parent, name.removesuffix(ending))


class Lease:
    """Exclusive right to write into ``store``, as a context manager.

    Within one process leases nest: the inner one on the same store is the outer one.

    Raises
    ------
    UserError
        On entering: a live run holds the store; the message says which.
    """

    def __init__(self, store: Path) -> None:
        self.store = Path(store).absolute()
        self.path = lease_path(store)
        self.holder = Holder.of_this_process()
        self._stack = contextlib.ExitStack()
        self._end = threading.Event()
        self._depth = 0

    @property
    def token(self) -> str:
        """What fenced writers must find in the lease file."""
        return self.holder.token

    def __enter__(self) -> Lease:
        outer = _held.get(self.path)
        # A forked child does not hold what its parent holds.
        if outer is not None and outer.holder.pid == os.getpid():
            outer._depth += 1
            return outer
        self._take()
        self._remove_leftovers()
        _held[self.path] = self
        self._depth = 1
        self._stack.enter_context(fenced(self.path, self.token))
        beat = threading.Thread(target=self._beat, name=f"lease {self.store.name}", daemon=True)
        beat.start()
        self._stack.callback(beat.join)
        self._stack.callback(self._end.set)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease = _held[self.path]
        lease._depth -= 1
        if lease._depth == 0:
            lease._stack.close()
            del _held[lease.path]
            if read_token(lease.path) == lease.token:
                lease.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT_S):
            # A lost lease belongs to its new holder, whose heart this is not.
            if read_token(self.path) != self.token:
                return
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _take(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + 2 * _HALF_WRITTEN_S
        while not self._try_to_take():
            if time.monotonic() > deadline:
                raise UserError(
                    "other runs are starting on the same store", where=self.store, fix="run one"
                )
            time.sleep(0.02)

    def _try_to_take(self) -> bool:
        """Take the lease if it is free or stale; False asks for another try.

        The right to succeed a dead holder is a file named for its token, created exclusively,
        so that of any number of runs one wins; by renaming it the winner replaces the lease.
        Should it die before, the right to succeed it is named for its own token, and so on.
        """
        if _create_exclusively(self.path, self.holder):
            return True
        dead = _read(self.path)
        claims: list[Path] = []
        last = dead
        while last is not None:
            self._refuse_if_alive(*last)
            claims.append(self.path.with_name(f"{self.path.name}.after-{last[0].token}"))
            if _create_exclusively(claims[-1], self.holder):
                break
            last = _read(claims[-1])
        if dead is None or last is None:
            return False
        # A claim won after a rival has replaced the lease is void.
        now = _read(self.path)
        won = now is not None and now[0].token == dead[0].token
        if won:
            claims.pop().replace(self.path)
        for claim in claims:
            claim.unlink(missing_ok=True)
        return won

    def _refuse_if_alive(self, holder: Holder, silent_s: float) -> None:
        if holder.is_alive(silent_s=silent_s):
            raise UserError(
                f"process {holder.pid} on {holder.host} is working on this store",
                where=self.store,
                fix="wait for it to finish, or end it and run again",
            )

    def _remove_leftovers(self) -> None:
        """Remove the temporary files and folders of runs that were killed."""
        found = [
            *self.store.parent.glob(f".{self.store.name}.*{TEMPORARY}"),
            *self.store.rglob(f".*{TEMPORARY}"),
        ]
        for leftover in found:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _create_exclusively(path: Path, holder: Holder) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(
            f"cannot take the lease: {error.strerror}",
            where=path,
            fix="mend the rights or the space of the folder",
        ) from error
    with os.fdopen(handle, "w") as file:
        json.dump(asdict(holder), file)
        file.flush()
        os.fsync(file.fileno())
    return True


def _read(path: Path) -> tuple[Holder, float] | None:
    """Return the holder and its silence in seconds; None where the file is gone or unfinished."""
    try:
        status = path.stat()
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    silent_s = max(0.0, time.time() - status.st_mtime)
    try:
        fields = json.loads(content)
        holder = Holder(
            str(fields["host"]),
            int(fields["pid"]),
            float(fields["started"]),
            str(fields["token"]),
        )
    except (ValueError, KeyError, TypeError):
        if silent_s < _HALF_WRITTEN_S:
            return None
        # Left by a process that died while it wrote the file: nobody's, but to be told apart.
        holder = Holder("", 0, 0.0, f"unreadable-{status.st_mtime_ns}")
    return holder, silent_s
