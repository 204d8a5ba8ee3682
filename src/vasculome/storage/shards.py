"""Files that appear complete or not at all; fences that keep out the writers of dead runs.

Every file of the project comes to its place through :func:`appearing` or :func:`put_in_place`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import tensorstore as ts

from vasculome.errors import UserError

ABSENT = ""
"""Checksum of a file that must not exist: a shard that holds nothing but the fill value, 0."""

TEMPORARY = ".tmp"
"""How the hidden files end that are not complete yet."""

_USER_FAULTS = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would pass the size limit",
    errno.EACCES: "writing is not permitted",
    errno.EPERM: "writing is not permitted",
    errno.EROFS: "the file system is read-only",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "is a folder, where a file is to be written",
    errno.ENAMETOOLONG: "the file name is too long",
}

_fences: dict[Path, str] = {}


def write_bytes_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` to ``path`` so that the file is durable and never seen half-written.

    Missing folders are made. An existing file is replaced.

    Raises
    ------
    UserError
        No space, no permission, or another run has taken over the store (see :func:`fenced`);
        what was at ``path`` is untouched and no temporary file is left.
    OSError
        Any other fault of the file system; worth a retry.
    """
    with appearing(path) as file:
        file.write(data)


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """Within, write a file that is at ``path`` afterwards, and not at all if something is raised.

    Raises as :func:`write_bytes_atomic`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        make_folder(path.parent)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            put_in_place(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise explained(error, path) from error


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a complete file to ``path``, whose folder the caller makes before and syncs after.

    Raises
    ------
    UserError
        Another run has taken over the store.
    OSError
        The file system refuses.
    """
    check_fences()
    temporary.replace(path)


def write_json_atomic(path: Path, content: Any) -> None:
    """Write ``content`` as readable JSON; raises as :func:`write_bytes_atomic`."""
    write_bytes_atomic(path, encode_json(content))


def encode_json(content: Any) -> bytes:
    """Return ``content`` as indented JSON; NaN and infinity raise ValueError."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def remove_file(path: Path) -> None:
    """Remove ``path`` if it exists; raises as :func:`write_bytes_atomic`."""
    try:
        check_fences()
        path.unlink(missing_ok=True)
    except OSError as error:
        raise explained(error, path) from error


def checksum(data: bytes | memoryview) -> str:
    """Return CRC-32C and length of ``data``, e.g. ``"1f2e3d4c-1048576"``.

    It guards against damage, not against forgery: 13 GB/s, where SHA-256 reaches 1.5 GB/s.
    """
    return f"{google_crc32c.value(bytes(data)):08x}-{len(data)}"


def file_checksum(path: Path) -> str:
    """Return :func:`checksum` of a file, or ``ABSENT`` where there is none; raises OSError."""
    value, length = 0, 0
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(1 << 20):
                value = google_crc32c.extend(value, block)
                length += len(block)
    except FileNotFoundError:
        return ABSENT
    return f"{value:08x}-{length}"


def recorded_size(recorded: str) -> int:
    """Return the length in bytes that a checksum tells."""
    return int(recorded.rpartition("-")[2])


@contextlib.contextmanager
def fenced(lease: Path, token: str) -> Iterator[None]:
    """Within, this process writes only as long as the file ``lease`` carries ``token``.

    It keeps the orphaned workers of a dead run from writing into a store that a later run holds.
    """
    previous = _fences.get(lease)
    _fences[lease] = token
    try:
        yield
    finally:
        if previous is None:
            _fences.pop(lease, None)
        else:
            _fences[lease] = previous


def check_fences() -> None:
    """Raise UserError where a lease that this process writes under has been lost."""
    for lease, token in list(_fences.items()):
        if read_token(lease) != token:
            raise UserError(
                "another run has taken over this store; this one must not write any more",
                where=lease,
                fix="let the other run finish, or end it and run again",
            )


def read_token(lease: Path) -> str | None:
    """Return the token that the file ``lease`` carries, or None where it carries none."""
    try:
        return str(json.loads(lease.read_bytes())["token"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def limit_threads(threads: int) -> None:
    """Set how many threads of this process encode and decode chunks."""
    os.environ["VASCULOME_CODEC_THREADS"] = str(threads)
    codec_context.cache_clear()


@functools.cache
def codec_context() -> ts.Context:
    """Return the tensorstore context of this process: its threads, and no cache of its own."""
    threads = int(os.environ.get("VASCULOME_CODEC_THREADS") or os.cpu_count() or 1)
    return ts.Context(
        {
            "data_copy_concurrency": {"limit": threads},
            "file_io_concurrency": {"limit": max(4, threads)},
            "cache_pool": {"total_bytes_limit": 0},
        }
    )


def make_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing above it, durably; raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut; raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explained(error: OSError, path: Path) -> Exception:
    """Return the UserError for what a user can mend; otherwise ``error`` itself."""
    fault = _USER_FAULTS.get(error.errno or 0)
    if fault is None:
        return error
    return UserError(
        f"cannot be written: {fault}", where=path, fix="free space or mend the rights, then rerun"
    )
